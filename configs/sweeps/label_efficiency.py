"""Label efficiency: methods on 1 % to all of the training labels, ResNet-18 on DermaMNIST.

lsanet sweep --sweep=label_efficiency --workdir=sweeps/label_efficiency
72 runs, 24 with each of three seeds. With --scale=28px a run takes 3 to 10 minutes on a CPU core.

The paper claims label efficiency but has no table of it; its numbers for all labels are those of
Table 1. The subsets are stratified. With one seed they are nested, and the same for each method.
Exit-ensemble distillation stands for the methods that came after the paper: it had the best
validation AUC of them. At 28 pixels fewer labels are seen in more epochs, at most 100, so that all
networks have time to learn.
"""

from lsanet_jax.sweeps.paper import METHODS, at_scale, paper_table
from lsanet_jax.sweeps.spec import Run, Sweep

PERCENT = (1, 5, 10, 25, 50, 100)
COMPARED = {
    **{method: METHODS[method] for method in ("baseline", "dsn", "lsanet")},
    "ensemble_distill": "Exit-ensemble distillation",
}


def get_sweep(scale):
    """Return the sweep: fractions of the training split x methods."""
    runs = [_run(percent, method, scale) for percent in PERCENT for method in COMPARED]
    return Sweep(name="label_efficiency", title="Label efficiency", runs=tuple(runs), scale=scale)


def _run(percent, method, scale):
    fields = at_scale(scale, "resnet18")
    if fields:
        fields["train.epochs"] = min(100, max(fields["train.epochs"], 1000 // percent))
    return Run(
        name=f"{percent}pct-{method}",
        config="resnet18",
        overrides={
            "data.name": "dermamnist",
            "model.objective": method,
            **fields,
            "data.train_fraction": percent / 100,
        },
        row={"Labels": f"{percent} %", "Method": COMPARED[method]},
        paper=_paper(method) if percent == 100 else None,
        baseline=None if method == "baseline" else f"{percent}pct-baseline",
    )


def _paper(method):
    """Return the paper's numbers of a method, if it has them."""
    wanted = ("resnet18", "dermamnist", method)
    for row in paper_table(1)["rows"]:
        if (row["backbone"], row["dataset"], row["method"]) == wanted:
            return {key: row[key] for key in ("dataset", "acc", "auc")}
    return None
