"""Table 3: feature-level and prediction-level supervision, ResNet-34 on DermaMNIST.

lsanet sweep --sweep=table3 --workdir=sweeps/table3
15 runs, 5 with each of three seeds; with --scale=28px about 10 minutes each on 2 CPU cores.
"""

from lsanet_jax.sweeps.paper import METHODS, paper_table, run_of
from lsanet_jax.sweeps.spec import Sweep


def get_sweep(scale):
    """Return the sweep: the five objectives."""
    table = paper_table(3)
    runs = [
        run_of(
            row,
            name=row["method"],
            shown={"Method": METHODS[row["method"]]},
            scale=scale,
            baseline=None if row["method"] == "baseline" else "baseline",
        )
        for row in table["rows"]
    ]
    return Sweep(name="table3", title=table["title"], runs=tuple(runs), scale=scale)
