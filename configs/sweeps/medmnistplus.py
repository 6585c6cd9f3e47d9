"""MedMNIST+ at native sizes: does deep supervision gain on top of pretrained weights?

lsanet sweep --sweep=medmnistplus --workdir=sweeps/medmnistplus
48 runs, 16 with each of three seeds: DermaMNIST and RetinaMNIST at 28, 64, 128 and 224 pixels, the
baseline and LSANet on ImageNet weights. Meant for a GPU, and needs the extra `hub`; --filter takes
a part of it.
"""

from lsanet_jax.sweeps.paper import METHODS, at_scale
from lsanet_jax.sweeps.spec import Run, Sweep

DATASETS = ("dermamnist", "retinamnist")
SIZES = (28, 64, 128, 224)


def get_sweep(scale):
    """Return the sweep: datasets x sizes x methods."""
    runs = [
        Run(
            name=f"{dataset}-{size}-{method}",
            config="medmnistplus",
            overrides={
                **at_scale(scale, "resnet18"),
                "data.name": dataset,
                "data.size": size,
                "data.image_size": 224,
                "model.objective": method,
            },
            row={"Data": f"{dataset} {size}", "Method": METHODS[method]},
            baseline=None if method == "baseline" else f"{dataset}-{size}-baseline",
        )
        for dataset in DATASETS
        for size in SIZES
        for method in ("baseline", "lsanet")
    ]
    title = "Deep supervision on pretrained weights"
    return Sweep(name="medmnistplus", title=title, runs=tuple(runs), scale=scale)
