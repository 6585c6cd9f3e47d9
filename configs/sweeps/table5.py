"""Table 5: LSANet on VGG, Wide ResNet, ResNeXt and DenseNet, on DermaMNIST.

lsanet sweep --sweep=table5 --workdir=sweeps/table5
54 runs, 18 with each of three seeds. With --scale=28px on 2 CPU cores, a run takes 10
minutes (ResNeXt-50) to 2.5 hours (VGG-19), and all take 3 days.
"""

from lsanet_jax.sweeps.paper import METHODS, model, paper_table, run_of
from lsanet_jax.sweeps.spec import Sweep


def get_sweep(scale):
    """Return the sweep: backbones x baseline and LSANet."""
    table = paper_table(5)
    runs = [
        run_of(
            row,
            name=f"{row['backbone']}-{row['method']}",
            shown={"Model": model(row["backbone"]), "Method": METHODS[row["method"]]},
            scale=scale,
            baseline=None if row["method"] == "baseline" else f"{row['backbone']}-baseline",
        )
        for row in table["rows"]
    ]
    return Sweep(name="table5", title=table["title"], runs=tuple(runs), scale=scale)
