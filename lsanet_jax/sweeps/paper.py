"""The paper's numbers, and the runs that reproduce them.

The numbers are in `paper.json`. Each row of a table names its backbone, dataset and method.
"""

import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from lsanet_jax.sweeps.spec import Run

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
NEWER_METHODS = {
    "dsn_halving": "DSN with halving weights",
    "dhm": "DHM",
    "ensemble_distill": "Exit-ensemble distillation",
    "byot": "BYOT",
    "selfcon": "SelfCon",
    "contrastive": "Contrastive deep supervision",
}
"""Those that the paper does not have."""


def paper_table(number: int) -> dict[str, Any]:
    """Return the `title` and the `rows` of one of the paper's tables, counted from 1."""
    text = importlib.resources.files("lsanet_jax").joinpath("paper.json").read_text()
    return json.loads(text)["tables"][str(number)]


def model(backbone: str) -> str:
    """Return the paper's name of a backbone: "ResNet-18" for "resnet18"."""
    family = backbone.rstrip("0123456789")
    return MODELS[family] + backbone.removeprefix(family)


def at_scale(scale: str, backbone: str) -> dict[str, Any]:
    """Return the overrides for a scale: at "28px" a run takes minutes on a CPU.

    At "paper" it takes hours on a GPU, and nothing is overridden.
    """
    if scale == "paper":
        return {}
    overrides: dict[str, Any] = {"data.image_size": 28, "train.epochs": 30}
    if backbone.startswith(("vgg", "densenet")):  # their other stem needs 32 and 29 pixels
        overrides["model.stem"] = "small"
    return overrides


def run_of(
    row: Mapping[str, Any],
    *,
    name: str,
    shown: Mapping[str, str],
    scale: str,
    baseline: str | None = None,
    **overrides: Any,
) -> Run:
    """Make the run that reproduces a row of one of the paper's tables.

    Args:
        row: a row of `paper_table`; without `acc`, the paper has no numbers for the run.
        name: of the run.
        shown: what the report's table shows of it on the left, by the column's title.
        scale: see `at_scale`.
        baseline: name of the run that it is compared with, if any.
        **overrides: values of config fields, with "__" for the dots of their names.
    """
    fields = {key.replace("__", "."): value for key, value in overrides.items()}
    return Run(
        name=name,
        config=row["backbone"],
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
