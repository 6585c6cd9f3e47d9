r"""Few labels: LSANet as in the paper, pretrained on the unlabelled rest, and the recipe.

for seed in 0 1 2; do
    lsanet pretrain --config=pretrain --workdir=pretrained/seed$seed --config.seed=$seed \
        --config.data.path=ham10000_28.npz --config.data.train_fraction=0.1 \
        --config.data.unlabelled=rest --config.train.epochs=30
done
lsanet sweep --sweep=few_labels --workdir=sweeps/few_labels --scale=28px \
    --config.data.path=ham10000_28.npz
30 runs, 10 with each of three seeds, some minutes each on a CPU core.
"""

from lsanet_jax.sweeps.paper import at_scale
from lsanet_jax.sweeps.spec import Run, Sweep

PERCENT = (5, 10)
PRETRAINED = {"model.init_from": "pretrained/seed{seed}"}
ARMS = {
    "baseline": ("Baseline", "resnet18", {"model.objective": "baseline"}),
    "lsanet": ("LSANet", "resnet18", {}),
    "lsanet-pretrained": ("LSANet, pretrained", "resnet18", PRETRAINED),
    "recipe": ("Recipe", "few_labels", {}),
    "recipe-pretrained": ("Recipe, pretrained", "few_labels", PRETRAINED),
}


def get_sweep(scale):
    """Return the sweep: shares of the labels x ways to train, against LSANet from scratch."""
    shared = {
        "data.name": "npz",
        **at_scale(scale, "resnet18"),
        "train.epochs": 100,
    }
    runs = [
        Run(
            name=f"{percent}pct-{arm}",
            config=config,
            overrides={**shared, **overrides, "data.train_fraction": percent / 100},
            row={"Labels": f"{percent} %", "Training": title},
            baseline=None if arm == "lsanet" else f"{percent}pct-lsanet",
        )
        for percent in PERCENT
        for arm, (title, config, overrides) in ARMS.items()
    ]
    return Sweep(name="few_labels", title="Few labels", runs=tuple(runs), scale=scale)
