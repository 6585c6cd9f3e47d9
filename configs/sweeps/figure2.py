"""Figure 2: training accuracy of ResNet-50's four classifiers, without and with deep supervision.

lsanet sweep --sweep=figure2 --workdir=sweeps/figure2
8 runs with one seed. "Without": the network is the baseline's, and the three auxiliary classifiers
are trained on its maps without changing it. With --scale=28px on 2 CPU cores, RetinaMNIST takes 4
to 8 minutes a run.
"""

from lsanet_jax.sweeps.paper import at_scale
from lsanet_jax.sweeps.spec import Run, Sweep

DATASETS = ("pathmnist", "dermamnist", "retinamnist", "bloodmnist")
TRAINING = {"probe": "without DSL", "dsn": "with DSL"}


def get_sweep(scale):
    """Return the sweep: two trainings on each of the paper's four datasets."""
    runs = [
        Run(
            name=f"{dataset}-{objective}",
            config="resnet50",
            overrides={
                "data.name": dataset,
                "model.objective": objective,
                **at_scale(scale, "resnet50"),
            },
            row={"Data": dataset, "Training": training},
        )
        for dataset in DATASETS
        for objective, training in TRAINING.items()
    ]
    title = "Training accuracy without and with DSL"
    return Sweep(name="figure2", title=title, runs=tuple(runs), scale=scale, seeds=(0,))
