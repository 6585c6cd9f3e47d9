"""Cross-validation on your own images: baseline and LSANet in 5 folds, stratified and by group.

lsanet sweep --sweep=crossval --workdir=sweeps/mine --config.data.path=my_images
lsanet report --sweep=crossval --workdir=sweeps/mine
10 runs, each as long as `lsanet train --config=folder`. Each image is tested once. --folds=10 makes
more folds, --seeds=0,1,2 repeats all runs, and --config.FIELD=VALUE sets a field of all of them.
"""

from lsanet_jax.sweeps.paper import METHODS
from lsanet_jax.sweeps.spec import Run, Sweep


def get_sweep(scale):
    """Return the sweep: the methods, each in 5 folds."""
    small = {"data.size": 28, "data.image_size": 28, "model.stem": "small", "train.epochs": 30}
    runs = [
        Run(
            name=method,
            config="folder",
            overrides={"model.objective": method, **(small if scale == "28px" else {})},
            row={"Method": METHODS[method]},
            baseline=None if method == "baseline" else "baseline",
        )
        for method in ("baseline", "lsanet")
    ]
    return Sweep("crossval", "Cross-validation", tuple(runs), scale=scale, seeds=(0,), folds=5)
