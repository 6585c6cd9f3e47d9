"""From a folder of your own pictures to predictions.

    python examples/own_images.py                 draws tiny pictures first; half a minute on a CPU
    python examples/own_images.py my_images       my_images/CLASS/*.png

The settings below are for the tiny pictures. For real ones, `lsa.load_config("folder")` has the
paper's protocol.
"""

import csv
import pathlib
import sys
import tempfile

import numpy as np
from PIL import Image

import lsanet_jax as lsa


def draw_pictures(folder: pathlib.Path, per_class: int = 20) -> None:
    """Draw round and elongated blobs on a noisy ground, one folder per class."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    for name, stretch in (("round", 1.0), ("elongated", 2.5)):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            angle, (dx, dy) = rng.uniform(0, np.pi), rng.uniform(-0.2, 0.2, 2)
            along = (x - dx) * np.cos(angle) + (y - dy) * np.sin(angle)
            across = (y - dy) * np.cos(angle) - (x - dx) * np.sin(angle)
            blob = np.exp(-6 * ((along / stretch) ** 2 + (across * stretch) ** 2))
            pixels = np.clip(60 + 160 * blob + rng.normal(0, 10, x.shape), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:03}.png")


def main(folder: pathlib.Path, workdir: pathlib.Path) -> None:
    """Train on a folder, and write what the network says of its test split."""
    config = lsa.load_config("folder")
    config.data.path = str(folder)
    config.data.size = config.data.image_size = 28
    config.model.stem = "small"
    config.train.epochs = 2
    config.train.batch_size = 8

    # Draws the splits, stratified by class, and keeps them in the folder for the next run.
    data = lsa.load_data(config.data, config.seed)
    run = lsa.fit(config, data, workdir=workdir)
    print(f"test AUC at epoch {run.result['best_epoch']}: {run.result['test']['auc']:.3f}")

    # Any uint8 array [n, height, width, channels] will do; later, start from lsa.load_run(workdir).
    probabilities = run.predict(data.test.images)
    file = workdir / "predictions.csv"
    with open(file, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", *data.class_names])
        for name, row in zip(data.test.names, probabilities, strict=True):
            writer.writerow([name, *(f"{p:.4f}" for p in row)])
    print(f"wrote {file}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(pathlib.Path(sys.argv[1]), pathlib.Path("runs/own_images"))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            draw_pictures(pathlib.Path(temporary) / "pictures")
            main(pathlib.Path(temporary) / "pictures", pathlib.Path(temporary) / "run")
