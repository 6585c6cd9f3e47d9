"""Finished runs of sweeps that nobody trained: files as training writes them, from NumPy."""

import json

import numpy as np

from lsanet_jax import metrics
from lsanet_jax.runs.workdir import Workdir
from lsanet_jax.runtime.files import json_text
from lsanet_jax.sweeps import spec as sweep

ENVIRONMENT = {
    "python": "3.11.7",
    "usable_cores": 2,
    "packages": {"jax": "0.10.2", "flax": "0.12.1"},
    "device": "cpu",
    "device_kind": "cpu",
    "device_count": 1,
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "modified": False,
}


def draw_labels(task, n=60, k=3, seed=0):
    rng = np.random.default_rng(seed)
    if task == "multi-label":
        return rng.integers(2, size=(n, k))
    return rng.integers(2 if task == "binary-class" else k, size=n)


def draw_probabilities(labels, task, *, k=3, skill=1.0, seed=0, stages=4):
    """[stages, n, k] in float32; deeper classifiers and more skill are better."""
    rng = np.random.default_rng([seed, round(1000 * skill)])
    if task == "multi-label":
        signs = 2 * labels - 1
        deeper = np.linspace(0.5, 1, stages)[:, None, None] * skill
        logits = deeper * signs + rng.normal(size=(stages, *labels.shape))
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    k = 2 if task == "binary-class" else k
    signal = np.linspace(0.5, 1, stages)[:, None, None] * skill * np.eye(k)[labels]
    e = np.exp(2 * signal + rng.normal(size=(stages, len(labels), k)))
    return (e / e.sum(axis=-1, keepdims=True)).astype(np.float32)


def finish(
    swept,
    workdir,
    name,
    seed,
    labels,
    probabilities,
    *,
    task="multi-class",
    dataset=None,
    class_names=None,
    epochs=5,
    predictions=True,
    fingerprint=None,
    names=(),
    groups=(),
):
    """Write a finished run, with one classifier for each of `probabilities`; returns its job."""
    (job,) = (j for j in sweep.jobs(swept, workdir) if (j.run.name, j.seed) == (name, seed))
    config = sweep.resolve(swept, job.run, seed)
    dataset = dataset or config.data.name
    k = probabilities.shape[-1]
    stages = list(range(4 - len(probabilities) + 1, 5))
    with_beta = config.model.objective in ("dsn_lsa", "lsanet")
    about = {
        "name": dataset,
        "task": task,
        "class_names": class_names or [f"class {i}" for i in range(k)],
        "image_shape": [config.data.image_size] * 2 + [3],
    }
    if fingerprint is not None:
        about["fingerprint"] = fingerprint
    with Workdir(job.workdir, config) as run:
        run.claim({"dataset": about, "environment": ENVIRONMENT})
    rng = np.random.default_rng(seed)
    with (job.workdir / "metrics.jsonl").open("w") as stream:
        for epoch in range(1, epochs + 1):
            grown = 1 - np.exp(-3 * epoch / epochs) + rng.normal(scale=0.01, size=len(stages))
            beta = np.array([0.15, 0.2, 0.3, 0.35])[-len(stages) :] + 0.02 * (grown - 0.9)
            train = {
                f"acc_stage{s}": 0.5 + 0.1 * i * g
                for i, (s, g) in enumerate(zip(stages, grown, strict=True))
            }
            if with_beta:
                train |= {f"beta_stage{s}": b for s, b in zip(stages, beta, strict=True)}
            classifiers = [
                {"stage": s, "acc": 0.5, "auc": 0.6 + 0.08 * i * g, "loss": 1.0}
                for i, (s, g) in enumerate(zip(stages, grown, strict=True))
            ]
            val = {"acc": 0.5, "auc": 0.7, "loss": 1.0, "classifiers": classifiers}
            stream.write(json_text({"epoch": epoch, "step": epoch, "train": train, "val": val}))
    score = lambda p: {
        "acc": metrics.accuracy(labels, p, task),
        "auc": metrics.auc(labels, p, task),
    }
    classifiers = [{"stage": s, **score(p)} for s, p in zip(stages, probabilities, strict=True)]
    own = score(probabilities[-1])
    result = {
        "dataset": dataset,
        "task": task,
        "seed": seed,
        "best_epoch": 3,
        "test": own,
        "last_epoch": {"epoch": epochs, "test": {k: 0.9 * v for k, v in own.items()}},
        "classifiers": classifiers,
        "beta": [0.25] * len(stages) if with_beta else None,
        "images_per_second": 100.0,
        "seconds": 90.0,
    }
    (job.workdir / "result.json").write_text(json_text(result))
    if predictions:
        beta = {"beta": np.full((len(labels), len(stages)), 0.25, np.float32)} if with_beta else {}
        of_files = {"names": names, "groups": groups}
        beta |= {key: np.array(values) for key, values in of_files.items() if len(values)}
        np.savez(
            job.workdir / "predictions.npz",
            labels=labels,
            probabilities=probabilities,
            epoch=3,
            **beta,
        )
    return job


def fail(swept, workdir, name, seed, error):
    """Write why a run failed."""
    (job,) = (j for j in sweep.jobs(swept, workdir) if (j.run.name, j.seed) == (name, seed))
    job.error.parent.mkdir(parents=True, exist_ok=True)
    job.error.write_text(json.dumps({"error": error, "attempts": 2}))
