"""The result of a run: what `result.json` holds, and its table."""

import math
import textwrap
from typing import NamedTuple

import ml_collections
import numpy as np

from lsanet_jax.data.dataset import Dataset
from lsanet_jax.runs.history import History

SCORES = ("acc", "balanced_acc", "auc")


class Scored(NamedTuple):
    """An epoch and its scores on both splits; see `metrics.summarize`."""

    epoch: int
    val: dict
    test: dict


def make_result(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    chosen: Scored,
    last: Scored,
    history: History,
) -> dict:
    """Return the contents of `result.json`; accuracies, AUCs and recalls in [0, 1].

    Args:
      config: of the run.
      dataset: of the run.
      chosen: the epoch to report.
      last: the last epoch.
      history: of the run.
    """
    # A run that began with an older version has no balanced accuracy of its earlier epochs.
    score = lambda summary: {k: summary[k] for k in SCORES if k in summary}
    classifiers = chosen.test["classifiers"]
    beta = [c["beta"] for c in classifiers if "beta" in c]
    rates = [rate for rate in history.rates if math.isfinite(rate)]
    return {
        "dataset": dataset.name,
        "task": dataset.task,
        "backbone": config.model.backbone,
        "objective": config.model.objective,
        "seed": config.seed,
        "selected": config.eval.select if history.best_epoch is not None else "last",
        "best_epoch": chosen.epoch,
        "val": score(chosen.val),
        "test": score(chosen.test),
        "recalls": dict(zip(dataset.class_names, chosen.test["recalls"], strict=True)),
        "last_epoch": {
            "epoch": last.epoch,
            "val": score(last.val),
            "test": score(last.test),
        },
        "classifiers": [{"stage": c["stage"]} | score(c) for c in classifiers],
        "beta": beta or None,
        "images_per_second": float(np.median(rates)) if rates else None,
        "seconds": history.seconds,
        "skipped_steps": history.skipped,
    }


def print_table(result: dict) -> None:
    """Print the result of a run as a table, accuracies and AUCs in percent as in the paper."""
    rows: list[tuple[str, ...]] = [("", "ACC %", "bal. %", "AUC %", "beta")]
    for i, classifier in enumerate(result["classifiers"]):
        own = i == len(result["classifiers"]) - 1
        name = f"classifier at stage {classifier['stage']}" + (
            " (the network's own)" if own else ""
        )
        beta = f"{result['beta'][i]:.3f}" if result["beta"] else "-"
        rows.append((name, *percent(classifier), beta))
    rows.append(("validation, same epoch", *percent(result["val"]), ""))
    last = result["last_epoch"]
    rows.append((f"last epoch ({last['epoch']}) instead", *percent(last["test"]), ""))
    width = max(len(row[0]) for row in rows)
    title = "{dataset}, {backbone}, {objective}, seed {seed}: test split, epoch {best_epoch}"
    print(f"\n{title.format(**result)} ({result['selected']})")
    for row in rows:
        print(f"  {row[0]:<{width}}  {'  '.join(f'{cell:>6}' for cell in row[1:])}".rstrip())
    if recalls := result.get("recalls"):
        found = ", ".join(f"{name} {_percent(recall)}" for name, recall in recalls.items())
        lines = textwrap.wrap(
            f"Recall of each class, %: {found}", 96, initial_indent="  ", subsequent_indent="    "
        )
        print("\n".join(lines))
    rate = result["images_per_second"]
    speed = f"{rate:.0f} images/s, " if rate else ""
    print(f"  {speed}{result['seconds']:.0f} s of training")


def percent(score: dict) -> tuple[str, ...]:
    """ACC, balanced ACC and AUC of a score in percent; a dash if one is undefined."""
    return tuple(_percent(score.get(name)) for name in SCORES)


def _percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.2f}"
