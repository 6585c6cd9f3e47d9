"""What an epoch spends on its records: python -m benchmarks.digests --path=ham10000_28.npz.

Trains ResNet-18 at 28 pixels, batch 64, on an npz file, and tells how much of each epoch goes into
anything but its steps and the evaluation of the validation split (checkpoints, logs, digests), and
how much into the SHA-256 of the state and the record of the epoch alone; the first epoch, which
compiles, is left out. The steps wait meanwhile, so the share is what throughput loses.
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

WORK = ((train.Training, "train"), (train.Training, "validate"))
DIGESTS = ((manifest, "tensor_digests"), (workdir.Workdir, "write_digests"))


class Clock:
    """Adds up the time that is spent in functions."""

    def __init__(self, functions, stack: contextlib.ExitStack):
        """Patch (owner, name) of each function until the stack is closed."""
        self.seconds = 0.0
        for owner, name in functions:
            timed = self._timed(getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, timed))

    def _timed(self, function):
        def call(*args, **kwargs):
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return call


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

    moments = []  # at the end of each epoch's validation: the time, and what the clocks show
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        work, digests = Clock(WORK, stack), Clock(DIGESTS, stack)

        def end_of_epoch(epochs, *a, _add=history.History.add, **k):
            moments.append((time.perf_counter(), work.seconds, digests.seconds))
            return _add(epochs, *a, **k)

        stack.enter_context(mock.patch.object(history.History, "add", end_of_epoch))
        train.train_and_evaluate(config, folder)

    epochs = [[b - a for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(moments)]
    print(f"epoch {statistics.median(total for total, *_ in epochs):.2f} s, of which")
    report("neither steps nor evaluation", [(total - work, total) for total, work, _ in epochs])
    report("digests", [(digests, total) for total, _, digests in epochs])


def report(what: str, parts):
    seconds = statistics.median(part for part, _ in parts)
    shares = [100 * part / total for part, total in parts]
    median, least, most = statistics.median(shares), min(shares), max(shares)
    print(f"{what}: {seconds:.3f} s, {median:.2f} % ({least:.2f} to {most:.2f} %)")


if __name__ == "__main__":
    main()
