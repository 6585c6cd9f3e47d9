"""Is attention to the single image worth it? ResNet-18 on DermaMNIST, and synergy that grows.

lsanet sweep --sweep=ablation --workdir=sweeps/ablation
33 runs, 11 with each of three seeds; with --scale=28px about 5 minutes each on 2 CPU cores.

For DSN+LSA and LSANet beta is computed for each image, or is the same for all: the mean of what
LSANet learned on HAM10000 at 28 pixels (`FROZEN`; another: --config.model.lsa.beta), a learned
constant, or 1 / L. The paper does not ask.
"""

from lsanet_jax.sweeps.paper import METHODS, at_scale
from lsanet_jax.sweeps.spec import Run, Sweep

FROZEN = (0.13, 0.35, 0.37, 0.15)
WARMUP_EPOCHS = 5.0
BETA = {"frozen": "its mean, frozen", "constant": "a learned constant", "uniform": "1 / L"}


def get_sweep(scale):
    """Return the sweep: the weights of the classifiers, and of synergy over time."""
    runs = []
    for objective in ("dsn_lsa", "lsanet"):
        runs.append(_run(scale, objective, objective, "of each image"))
        for kind, beta in BETA.items():
            fields = {"model.lsa.kind": kind, "model.lsa.beta": FROZEN}
            runs.append(_run(scale, f"{objective}-{kind}", objective, beta, objective, **fields))
    ramp = {"loss.mu_warmup_epochs": WARMUP_EPOCHS}
    runs.append(_run(scale, "lsanet-ramp", "lsanet", "of each image", "lsanet", ramp=True, **ramp))
    runs.append(_run(scale, "dsn_ks", "dsn_ks", "–"))
    runs.append(_run(scale, "dsn_ks-ramp", "dsn_ks", "–", "dsn_ks", ramp=True, **ramp))
    title = "Layer selective attention against constants, and growing synergy"
    return Sweep(name="ablation", title=title, runs=tuple(runs), scale=scale)


def _run(scale, name, objective, beta, baseline=None, *, ramp=False, **fields):
    mu = f"from 0 over {WARMUP_EPOCHS:g} epochs" if ramp else "constant"
    overrides = {"data.name": "dermamnist", "model.objective": objective}
    return Run(
        name=name,
        config="resnet18",
        overrides={**overrides, **at_scale(scale, "resnet18"), **fields},
        row={
            "Method": METHODS[objective],
            "beta": beta,
            "mu": "–" if objective == "dsn_lsa" else mu,
        },
        baseline=baseline,
    )
