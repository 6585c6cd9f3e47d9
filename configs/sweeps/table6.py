"""Table 6: LSANet with visual attention modules, ResNet-34 on DermaMNIST.

lsanet sweep --sweep=table6 --workdir=sweeps/table6
36 runs, 12 with each of three seeds; with --scale=28px about 10 minutes each on 2 CPU cores.
"""

from lsanet_jax.sweeps.paper import METHODS, paper_table, run_of
from lsanet_jax.sweeps.spec import Sweep

MODULES = {
    "none": "Original",
    "se": "+SE",
    "cbam": "+CBAM",
    "eca": "+ECA",
    "simam": "+SimAM",
    "srm": "+SRM",
}


def get_sweep(scale):
    """Return the sweep: attention modules x baseline and LSANet."""
    table = paper_table(6)
    runs = [
        run_of(
            row,
            name=f"{row['attention']}-{row['method']}",
            shown={
                "Attention Module": MODULES[row["attention"]],
                "Method": METHODS[row["method"]],
            },
            scale=scale,
            baseline=None if row["method"] == "baseline" else f"{row['attention']}-baseline",
            model__attention=row["attention"],
        )
        for row in table["rows"]
    ]
    return Sweep(name="table6", title=table["title"], runs=tuple(runs), scale=scale)
