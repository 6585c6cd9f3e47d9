"""Every method of deep supervision on one set of images: which one to take?

lsanet compare --workdir=sweeps/mine --config.data.path=my_images
33 runs of ResNet-18, 11 with each of three seeds. `lsanet compare --help` has more.
"""

from lsanet_jax.sweeps.paper import METHODS, NEWER_METHODS, at_scale
from lsanet_jax.sweeps.spec import Run, Sweep

PAPERS = ("baseline", "dsn", "dsn_ks", "dks", "lsanet")
COMPARED = {method: METHODS[method] for method in PAPERS} | NEWER_METHODS


def get_sweep(scale):
    """Return the sweep: the methods, each against the plain network."""
    runs = [
        Run(
            name=method,
            config="resnet18",
            overrides={"model.objective": method, **at_scale(scale, "resnet18")},
            row={"Method": title},
            baseline=None if method == "baseline" else "baseline",
        )
        for method, title in COMPARED.items()
    ]
    title = "Methods of deep supervision"
    return Sweep(name="compare", title=title, runs=tuple(runs), scale=scale)
