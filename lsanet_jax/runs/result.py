"""The result of a run: what `result.json` holds, and its table."""

import math
from typing import NamedTuple

import ml_collections
import numpy as np

from lsanet_jax.data.dataset import Dataset
from lsanet_jax.runs.history import History


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
    """Return the contents of `result.json`; accuracies and AUCs in [0, 1].

    Args:
      config: of the run.
      dataset: of the run.
      chosen: the epoch to report.
      last: the last epoch.
      history: of the run.
    """
    score = lambda summary: {"acc": summary["acc"], "auc": summary["auc"]}
    classifiers = chosen.test["classifiers"]
    beta = [c["beta"] for c in classifiers if "beta" in c]
    rates = [rate for rate in history.rates if math.isfinite(rate)]
    return {
        "dataset": dataset.name,
        "task": dataset.task,
        "backbone": config.model.backbone,
        "objective": config.model.objective,
        "seed": config.seed,
        "selected": config.eval.select,
        "best_epoch": chosen.epoch,
        "val": score(chosen.val),
        "test": score(chosen.test),
        "last_epoch": {
            "epoch": last.epoch,
            "val": score(last.val),
            "test": score(last.test),
        },
        "classifiers": [{k: c[k] for k in ("stage", "acc", "auc")} for c in classifiers],
        "beta": beta or None,
        "images_per_second": float(np.median(rates)) if rates else None,
        "seconds": history.seconds,
        "skipped_steps": history.skipped,
    }


def print_table(result: dict) -> None:
    """Print the result of a run as a table, accuracies and AUCs in percent as in the paper."""
    rows = [("", "ACC %", "AUC %", "beta")]
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
        print(f"  {row[0]:<{width}}  {row[1]:>6}  {row[2]:>6}  {row[3]:>6}".rstrip())
    rate = result["images_per_second"]
    speed = f"{rate:.0f} images/s, " if rate else ""
    print(f"  {speed}{result['seconds']:.0f} s of training")


def percent(score: dict) -> tuple[str, str]:
    """ACC and AUC of a score in percent; a dash if one is undefined."""
    defined = lambda value: value is not None and math.isfinite(value)
    text = lambda value: f"{100 * value:.2f}" if defined(value) else "-"
    return text(score["acc"]), text(score["auc"])
