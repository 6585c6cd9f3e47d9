"""What calibration and doubt cost in prediction: python -m benchmarks.predict [--images=10000].

Predicts images of 224 pixels from an npz file with an LSANet-ResNet-18, in turns as the network's
own classifier says it (--raw), and calibrated, with decisions, prediction sets and doubt, which
need all classifiers and beta. Compiling and reading the run are in both.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np

from configs import quickstart
from lsanet_jax import predict, train


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    config = quickstart.get_config()
    config.data.size = config.data.image_size = args.size
    config.data.synthetic.update(num_train=64, num_val=64, num_test=64)
    config.train.update(epochs=1, batch_size=16)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        train.train_and_evaluate(config, folder / "run")
        shape = (args.images, args.size, args.size, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        np.savez(folder / "images.npz", test_images=images)
        np.savez(folder / "few.npz", test_images=images[:64])
        del images
        times = {True: [], False: []}
        for i in range(args.rounds + 1):  # the first, of few images, fills caches
            for raw, taken in times.items():
                start = time.perf_counter()
                predict.predict_to_file(
                    folder / "run",
                    input=str(folder / ("images.npz" if i else "few.npz")),
                    output=str(folder / "predictions.csv"),
                    raw=raw,
                )
                taken.append(time.perf_counter() - start)
                print(f"round {i}: {'raw' if raw else 'judged'} {taken[-1]:.1f} s", flush=True)
    for raw, taken in times.items():
        seconds = statistics.median(taken[1:])
        print(
            f"{'raw' if raw else 'judged':6} {seconds:7.1f} s, {args.images / seconds:.1f} images/s"
        )
    ratios = [judged / raw for raw, judged in zip(times[True][1:], times[False][1:], strict=True)]
    print(f"judged / raw: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
