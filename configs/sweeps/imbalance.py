r"""Rare classes: what flips, adjusted logits and weights do to them, and what they cost.

lsanet sweep --sweep=imbalance --workdir=sweeps/imbalance --scale=28px \
    --config.data.path=ham10000_28.npz
30 runs, 10 with each of three seeds, a quarter of an hour each on a CPU core. The report's
balanced ACC is the mean recall of the classes; result.json of a run has each class's.
"""

from lsanet_jax.sweeps.paper import at_scale
from lsanet_jax.sweeps.spec import Run, Sweep

FLIPS = {"data.augment.hflip": True, "data.augment.vflip": True, "data.augment.rot90": True}
ARMS = {
    "baseline": ("Baseline", {"model.objective": "baseline"}),
    "lsanet": ("LSANet", {}),
    "flips": ("LSANet, flips", FLIPS),
    "adjusted": ("LSANet, flips, adjusted logits", {**FLIPS, "loss.logit_adjustment": 0.75}),
    "weighted": ("LSANet, flips, class weights", {**FLIPS, "loss.class_weights": "balanced"}),
    "effective": ("LSANet, flips, effective weights", {**FLIPS, "loss.class_weights": "effective"}),
    "sampled": ("LSANet, flips, balanced sampling", {**FLIPS, "data.sampling": "balanced"}),
    "baseline-flips": ("Baseline, flips", {**FLIPS, "model.objective": "baseline"}),
    "mu": ("LSANet, flips, weaker synergy", {**FLIPS, "loss.mu": 0.1}),
    "focal": ("LSANet, flips, focal", {**FLIPS, "loss.focal_gamma": 2.0}),
}


def get_sweep(scale):
    """Return the sweep: options for rare classes, each against LSANet without."""
    runs = [
        Run(
            name=arm,
            config="resnet18",
            overrides={
                "data.name": "npz",
                **at_scale(scale, "resnet18"),
                **overrides,
            },
            row={"Training": title},
            baseline=None if arm == "lsanet" else "lsanet",
        )
        for arm, (title, overrides) in ARMS.items()
    ]
    return Sweep(name="imbalance", title="Rare classes", runs=tuple(runs), scale=scale)
