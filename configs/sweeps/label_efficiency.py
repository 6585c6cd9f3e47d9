"""Label efficiency: the methods on 1 % to all of the training labels, ResNet-18 on DermaMNIST.

lsanet sweep --sweep=label_efficiency --workdir=sweeps/label_efficiency
72 runs, 24 with each of three seeds. With --scale=28px on 2 CPU cores, a run takes seconds to 5
minutes, and all take 3.5 hours.

The paper claims label efficiency but has no table of it; its numbers for all labels are those of
Table 1. The subsets are stratified. With one seed they are nested, and the same for each method.
"""

from lsanet_jax.sweeps.paper import METHODS, paper_table, run_of
from lsanet_jax.sweeps.spec import Sweep

PERCENT = (1, 5, 10, 25, 50, 100)


def get_sweep(scale):
    """Return the sweep: fractions of the training split x methods."""
    rows = [
        row
        for row in paper_table(1)["rows"]
        if (row["backbone"], row["dataset"]) == ("resnet18", "dermamnist")
    ]
    runs = [
        run_of(
            row if percent == 100 else {k: v for k, v in row.items() if k not in ("acc", "auc")},
            name=f"{percent}pct-{row['method']}",
            shown={"Labels": f"{percent} %", "Method": METHODS[row["method"]]},
            scale=scale,
            baseline=None if row["method"] == "baseline" else f"{percent}pct-baseline",
            data__train_fraction=percent / 100,
        )
        for percent in PERCENT
        for row in rows
    ]
    return Sweep(name="label_efficiency", title="Label efficiency", runs=tuple(runs), scale=scale)
