"""Table 1: the methods of deep supervision on four ResNets and four datasets.

lsanet sweep --sweep=table1 --workdir=sweeps/table1
192 runs, 64 with each of three seeds. With --scale=28px on 2 CPU cores they take about 9
days, 7 of them for PathMNIST's 90,000 images; --filter='*-dermamnist' leaves 48 runs, half a day.
"""

from lsanet_jax.sweeps.paper import METHODS, model, paper_table, run_of
from lsanet_jax.sweeps.spec import Sweep


def get_sweep(scale):
    """Return the sweep: backbones x methods x datasets."""
    table = paper_table(1)
    runs = [
        run_of(
            row,
            name=f"{row['backbone']}-{row['method']}-{row['dataset']}",
            shown={"Model": model(row["backbone"]), "Method": METHODS[row["method"]]},
            scale=scale,
            baseline=None
            if row["method"] == "baseline"
            else f"{row['backbone']}-baseline-{row['dataset']}",
        )
        for row in table["rows"]
    ]
    return Sweep(name="table1", title=table["title"], runs=tuple(runs), scale=scale)
