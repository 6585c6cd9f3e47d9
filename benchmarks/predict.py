"""What calibration and doubt cost in prediction: python -m benchmarks.predict [--images=10000].

Predicts images of 224 pixels from an npz file with an LSANet-ResNet-18, as the network's own
classifier says it (--raw), and calibrated, with decisions, prediction sets and doubt, which need
all classifiers and beta. Both commands run at the same time and take turns after each batch, so
that a machine that is slower for a while is slower for both; reading the run, compiling and
writing are in both.
"""

import argparse
import pathlib
import tempfile
import threading
import time

import jax
import numpy as np

from configs import quickstart
from lsanet_jax import predict, train
from lsanet_jax.runs.trained import TrainedModel


class Turns:
    """Of several threads one works at a time; each one's own time is counted.

    Attributes:
      seconds: worked so far, by the thread's name.
    """

    def __init__(self, names):
        self.seconds = dict.fromkeys(names, 0.0)
        self._waiting = list(names)  # The first has its turn.
        self._changed = threading.Condition()
        self._began = 0.0

    def __enter__(self):
        with self._changed:
            self._changed.wait_for(lambda: self._waiting[0] == threading.current_thread().name)
        self._began = time.perf_counter()

    def __exit__(self, *_):
        self._end(last=True)

    def next(self):
        """Let the other threads work until it is this one's turn again."""
        self._end(last=False)
        self.__enter__()

    def _end(self, *, last):
        name = threading.current_thread().name
        self.seconds[name] += time.perf_counter() - self._began
        with self._changed:
            self._waiting.pop(0)
            if not last:
                self._waiting.append(name)
            self._changed.notify_all()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()

    config = quickstart.get_config()
    config.data.size = config.data.image_size = args.size
    config.data.synthetic.update(num_train=64, num_val=64, num_test=64)
    config.train.update(epochs=1, batch_size=16)
    turns = Turns(["raw", "judged"])
    predictor = TrainedModel.predictor

    def in_turns(self, **options):
        run = predictor(self, **options)

        def one_batch(images):
            found = jax.block_until_ready(run(images))
            turns.next()
            return found

        return one_batch

    def command():
        with turns:
            name = threading.current_thread().name
            output = str(folder / f"{name}.csv")
            predict.predict_to_file(
                folder / "run", input=str(file), output=output, raw=name == "raw"
            )

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        file = folder / "images.npz"
        train.train_and_evaluate(config, folder / "run")
        shape = (args.images, args.size, args.size, 3)
        np.savez(file, test_images=np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        TrainedModel.predictor = in_turns
        threads = [threading.Thread(target=command, name=name) for name in turns.seconds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name, seconds in turns.seconds.items():
        print(f"{name:6} {seconds:7.1f} s, {args.images / seconds:.1f} images/s")
    print(f"judged / raw: {turns.seconds['judged'] / turns.seconds['raw']:.3f}")


if __name__ == "__main__":
    main()
