"""What the sweeps share: the paper's numbers, and the scale for machines without a GPU."""

import json
import pathlib

import lsanet_jax
from lsanet_jax.sweeps.spec import Run

PAPER = pathlib.Path(lsanet_jax.__file__).with_name("paper.json")

MODELS = {
    "resnet": "ResNet-",
    "wrn": "WRN-",
    "resnext": "ResNeXt-",
    "vgg": "VGG-",
    "densenet": "DenseNet-",
}
METHODS = {
    "baseline": "Baseline",
    "dsn": "DSN",
    "dks": "DKS",
    "dsn_ks": "DSN+KS",
    "dsn_lsa": "DSN+LSA",
    "lsanet": "LSANet",
}


def paper_table(number: int) -> dict:
    """Title and rows of one of the paper's tables."""
    return json.loads(PAPER.read_text())["tables"][str(number)]


def model(backbone: str) -> str:
    """What the paper calls a backbone: "ResNet-18" for "resnet18"."""
    family = backbone.rstrip("0123456789")
    return MODELS[family] + backbone.removeprefix(family)


def at_scale(scale: str, backbone: str) -> dict:
    """Overrides for a scale: at "28px" each run takes minutes on a CPU, not hours on a GPU."""
    if scale == "paper":
        return {}
    overrides = {"data.image_size": 28, "train.epochs": 30}
    if backbone.startswith(("vgg", "densenet")):  # their other stem needs 32 and 29 pixels
        overrides["model.stem"] = "small"
    return overrides


def run_of(row: dict, *, name: str, shown: dict, scale: str, baseline=None, **overrides) -> Run:
    """The run of a row of the paper's; `overrides` has "__" for the dots of the fields' names."""
    fields = {key.replace("__", "."): value for key, value in overrides.items()}
    return Run(
        name=name,
        config=f"configs/{row['backbone']}.py",
        overrides={
            "data.name": row["dataset"],
            "model.objective": row["method"],
            **at_scale(scale, row["backbone"]),
            **fields,
        },
        row=shown,
        paper={key: row[key] for key in ("dataset", "acc", "auc")} if "acc" in row else None,
        baseline=baseline,
    )
