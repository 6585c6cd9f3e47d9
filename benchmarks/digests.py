"""What the digests of a run cost: python -m benchmarks.digests --path=ham10000_28.npz [--epochs=6].

Trains ResNet-18 at 28 pixels, batch 64, on an npz file, and tells how much of each epoch (training,
validation and what is saved) goes into the SHA-256 of the state and the record of the epoch; the first
epoch, which compiles, is left out. The steps wait meanwhile, so the share is what throughput loses.
"""

import argparse
import contextlib
import itertools
import statistics
import tempfile
import time
from unittest import mock

from configs import resnet18
from lsanet_jax import train
from lsanet_jax.runs import history, manifest, workdir


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", required=True, help="an npz file in MedMNIST's layout")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--objective", default="lsanet")
    args = parser.parse_args()

    config = resnet18.get_config()
    config.data.update(name="npz", path=args.path, image_size=28)
    config.model.objective = args.objective
    config.train.epochs = args.epochs

    spent, ends, lost = [0.0], [], []

    def timed(function):
        def call(*a, **k):
            started = time.perf_counter()
            try:
                return function(*a, **k)
            finally:
                spent[0] += time.perf_counter() - started

        return call

    def end_of_epoch(epochs, *a, _add=history.History.add, **k):
        ends.append(time.perf_counter())
        lost.append(spent[0])
        return _add(epochs, *a, **k)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for owner, name in ((manifest, "tensor_digests"), (workdir.Workdir, "write_digests")):
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        stack.enter_context(mock.patch.object(history.History, "add", end_of_epoch))
        train.train_and_evaluate(config, folder)

    # From the end of an epoch's validation to that of the next one.
    seconds = [b - a for a, b in itertools.pairwise(ends)]
    digests = [b - a for a, b in itertools.pairwise(lost)]
    shares = [100 * d / s for d, s in zip(digests, seconds, strict=True)]
    print(f"epoch {statistics.median(seconds):.2f} s, of which digests ", end="")
    print(
        f"{statistics.median(digests):.3f} s: {statistics.median(shares):.2f} % (medians of ",
        end="",
    )
    print(f"{len(shares)} epochs; {min(shares):.2f} to {max(shares):.2f} %)")


if __name__ == "__main__":
    main()
