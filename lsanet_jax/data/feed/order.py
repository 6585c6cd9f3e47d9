"""Which samples, in which order: pure functions of the seed, which both feeds follow."""

import dataclasses
import functools
import math
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Int32

from lsanet_jax import keys


def epoch_order(
    seed: int, epoch: int, num_samples: int, batch_size: int
) -> Int32[np.ndarray, "steps batch"]:
    """The sample indices of one epoch, batch by batch: a pure function of its arguments.

    An epoch is ceil(num_samples / batch_size) full batches. The last one is completed with the
    first samples of the same permutation (as torch's DistributedSampler does), so that shapes are
    static and every sample is seen.
    """
    steps = -(-num_samples // batch_size)
    with jax.threefry_partitionable(True):  # The other setting draws other numbers.
        key = jax.random.fold_in(keys.stream(seed, "order"), epoch)
        permutation = np.asarray(jax.random.permutation(key, num_samples))
    return np.resize(permutation, (steps, batch_size)).astype(np.int32)


def balanced_order(
    seed: int, epoch: int, labels: Int32[np.ndarray, " n"], batch_size: int
) -> Int32[np.ndarray, "steps batch"]:
    """Like `epoch_order`, of as many batches, with each class as often as any other.

    If its part of the epoch does not divide evenly, the classes that have one more sample change
    from epoch to epoch. A class with fewer images than its part has them again and again, in the
    same order; of a larger one, each epoch has others. Classes without images are left out.

    Args:
        seed: of the run.
        epoch: counted from 1.
        labels: the class of each sample.
        batch_size: samples per step.
    """
    plain = epoch_order(seed, epoch, len(labels), batch_size)
    classes = np.unique(labels)
    parts = np.full(len(classes), plain.size // len(classes))
    parts[(np.arange(plain.size % len(classes)) + epoch) % len(classes)] += 1
    shuffled = plain.ravel()[: len(labels)]
    members = [shuffled[labels[shuffled] == k] for k in classes]
    drawn = np.concatenate([np.resize(m, n) for m, n in zip(members, parts, strict=True)])
    with jax.threefry_partitionable(True):
        key = jax.random.fold_in(jax.random.fold_in(keys.stream(seed, "order"), epoch), 1)
        places = np.asarray(jax.random.permutation(key, plain.size))
    return drawn[places].reshape(plain.shape).astype(np.int32)


def eval_batch_size(num_samples: int, most: int, num_devices: int) -> int:
    """Images per evaluation step, at most `most`, that fill the last batch of a split best.

    A multiple of 8 and of the devices, but for `most` itself; 64 or more where `most` allows, as
    other splits are evaluated in batches of this size too.
    """
    steps = -(-num_samples // most)
    unit = math.lcm(8, num_devices)
    size = -(-max(-(-num_samples // steps), 64) // unit) * unit
    return min(size, most)


def eval_batches(num_samples: int, batch_size: int) -> Int32[np.ndarray, "steps batch"]:
    """All sample indices in order; the last batch is padded with the last index.

    The caller drops what it computes beyond `num_samples`.
    """
    steps = -(-num_samples // batch_size)
    indices = np.arange(steps * batch_size, dtype=np.int32)
    return np.minimum(indices, num_samples - 1).reshape(steps, batch_size)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The batches of a whole run: dispatch i of all its epochs, and evaluation batches.

    A dispatch is what one call of the training step gets: up to `steps_per_dispatch` batches of one
    epoch. Epochs count from 1, steps and dispatches from 0.

    Attributes:
        seed: of the run.
        epochs: of the whole run.
        num_train: training samples.
        batch_size: samples per step, over all devices.
        eval_batch_size: samples per evaluation step, over all devices.
        steps_per_dispatch: steps in one call of the training step.
        balance: the class of each training sample, if all classes are to come equally often.
    """

    seed: int
    epochs: int
    num_train: int
    batch_size: int
    eval_batch_size: int
    steps_per_dispatch: int = 1
    balance: Int32[np.ndarray, " n"] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of each epoch."""
        return -(-self.num_train // self.batch_size)

    @property
    def dispatches_per_epoch(self) -> int:
        """Dispatches of each epoch; the last one may have fewer steps."""
        return -(-self.steps_per_epoch // self.steps_per_dispatch)

    def position(self, epoch: int, step: int = 0) -> int:
        """The dispatch that starts with a step of an epoch; inside one, the next is meant."""
        return (epoch - 1) * self.dispatches_per_epoch - (-step // self.steps_per_dispatch)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Int32[np.ndarray, "steps batch"]]:
        """The sample indices of an epoch's dispatches, from a step on."""
        for position in range(self.position(epoch, first), self.position(epoch + 1)):
            yield self.dispatch(position)

    def dispatch(self, position: int) -> Int32[np.ndarray, "steps batch"]:
        """The sample indices of a dispatch."""
        epoch, place = divmod(position, self.dispatches_per_epoch)
        first = place * self.steps_per_dispatch
        order = _order(self, epoch + 1)
        return order[first : first + self.steps_per_dispatch]

    def evaluation(self, num_samples: int) -> Int32[np.ndarray, "steps batch"]:
        """The sample indices of the evaluation batches of a split; see `eval_batches`."""
        return eval_batches(num_samples, self.eval_batch_size)


@functools.lru_cache(maxsize=2)  # Every worker, and every thread, meets an epoch many times.
def _order(plan: Plan, epoch: int) -> Int32[np.ndarray, "steps batch"]:
    if plan.balance is None:
        return epoch_order(plan.seed, epoch, plan.num_train, plan.batch_size)
    return balanced_order(plan.seed, epoch, plan.balance, plan.batch_size)
