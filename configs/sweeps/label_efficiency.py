"""Label efficiency: methods on 1 % to all of the training labels, ResNet-18 on DermaMNIST.

lsanet sweep --sweep=label_efficiency --workdir=sweeps/label_efficiency
72 runs, 24 with each of three seeds. With --scale=28px a run takes 3 to 15 minutes on a CPU core.

The paper claims label efficiency but has no table of it; its numbers for all labels are those of
Table 1. The subsets are stratified. With one seed they are nested, and the same for each method.
Exit-ensemble distillation stands for the methods that came after the paper: it had the best
validation AUC of them. At 28 pixels fewer labels are seen in more epochs, at most 100, so that all
networks have time to learn.
"""

from lsanet_jax.sweeps.paper import METHODS, NEWER_METHODS, at_scale, paper_table, run_of
from lsanet_jax.sweeps.spec import Sweep

PERCENT = (1, 5, 10, 25, 50, 100)
COMPARED = ("baseline", "dsn", "lsanet", "ensemble_distill")


def get_sweep(scale):
    """Return the sweep: fractions of the training split x methods."""
    runs = [_run(percent, method, scale) for percent in PERCENT for method in COMPARED]
    return Sweep(name="label_efficiency", title="Label efficiency", runs=tuple(runs), scale=scale)


def _run(percent, method, scale):
    row = {"backbone": "resnet18", "dataset": "dermamnist", "method": method}
    if percent == 100:  # with the paper's numbers, if it has them
        row = next((r for r in paper_table(1)["rows"] if row.items() <= r.items()), row)
    fields = {"data__train_fraction": percent / 100}
    if epochs := at_scale(scale, "resnet18").get("train.epochs"):
        fields["train__epochs"] = min(100, max(epochs, 1000 // percent))
        # Epochs take seconds; to save each would double the time.
        fields["train__checkpoint_every_epochs"] = 10
    return run_of(
        row,
        name=f"{percent}pct-{method}",
        shown={"Labels": f"{percent} %", "Method": (METHODS | NEWER_METHODS)[method]},
        scale=scale,
        baseline=None if method == "baseline" else f"{percent}pct-baseline",
        **fields,
    )
