"""The Grain pipeline: stored images are read, decoded and sent while the devices compute.

Its batches are those of `resident.Resident`, in the same order. An element of Grain's is a whole
dispatch, and its place in the run says what is in it; so starting anywhere costs nothing.
"""

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int32, UInt8

from lsanet_jax.data.dataset import Dataset
from lsanet_jax.data.feed.order import Plan
from lsanet_jax.data.lazy import LazyImages
from lsanet_jax.errors import DataError, LSANetError
from lsanet_jax.runtime.cores import usable_cores

_MOST_WORKERS = 8
_AHEAD = 2  # Dispatches that each worker or thread holds ready.


class Streamed:
    """Feeds steps from images in memory or in files; a step gets its own batch only.

    Images in files are decoded by worker processes for training, and by threads for evaluation.
    """

    resident = False

    def __init__(self, dataset: Dataset, plan: Plan, mesh: Mesh, *, workers: int = -1):
        """Reads nothing yet; see `make_feed` for the arguments."""
        self._dataset = dataset
        self._plan = plan
        cores = usable_cores()
        self._workers = min(cores, _MOST_WORKERS) if workers < 0 else workers
        self._threads = cores
        self._batch = NamedSharding(mesh, PartitionSpec("data"))
        self._batches = NamedSharding(mesh, PartitionSpec(None, "data"))
        self._iterator: Any = None
        self._position: int | None = None

    def train(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array]]:
        """Images [n, B, h, w, c] and labels [n, B, ...] of an epoch's dispatches, from a step on.

        Raises:
            DataError: an image cannot be read, or a worker process died.
        """
        split, plan = self._dataset.train, self._plan
        source = _Dispatches(split.images, plan, self._own_columns(plan.batch_size))
        position, end = plan.position(epoch, first), plan.position(epoch + 1)
        if position != self._position:
            self.close()
            lazy = isinstance(split.images, LazyImages)  # Copying needs no second process.
            workers, threads = (self._workers, self._threads) if lazy else (0, 1)
            self._iterator = iter(_prefetched(source, position, workers, threads))
        for place in range(position, end):
            self._position = None  # Of an iterator that failed, nothing is known.
            images = _next(self._iterator)
            self._position = place + 1
            labels = split.labels[source.indices(place)]
            yield self._put(images, self._batches), self._put(labels, self._batches)

    def evaluate(self, key: str) -> Iterator[tuple[Array, Array]]:
        """Images [B, h, w, c] and labels [B, ...] of a split's evaluation batches.

        Raises:
            DataError: an image cannot be read.
        """
        split = self._dataset.split(key)
        batches = self._plan.evaluation(len(split))
        source = _Batches(split.images, batches[:, self._own_columns(self._plan.eval_batch_size)])
        iterator = iter(_prefetched(source, 0, 0, self._threads))
        for indices in source.batches:
            images = _next(iterator)
            yield self._put(images, self._batch), self._put(split.labels[indices], self._batch)

    def close(self) -> None:
        """Ends the worker processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = self._position = None
            gc.collect()  # Grain's iterators are cycles that hold on to shared memory.

    def _own_columns(self, batch_size: int) -> slice:
        """This process's share of a batch: the mesh has the devices of each process in a row."""
        share = batch_size // jax.process_count()
        return slice(jax.process_index() * share, (jax.process_index() + 1) * share)

    def _put(self, array: np.ndarray, sharding: NamedSharding) -> Array:
        return jax.make_array_from_process_local_data(sharding, array)


class _Dispatches:
    """The training images of a whole run; element i is the i-th dispatch."""

    def __init__(
        self, images: UInt8[np.ndarray, "n h w c"] | LazyImages, plan: Plan, columns: slice
    ):
        self._images = images
        self._plan = plan
        self._columns = columns

    def indices(self, position: int) -> Int32[np.ndarray, "steps batch"]:
        """Which images an element has."""
        return self._plan.dispatch(position)[:, self._columns]

    def __len__(self) -> int:
        return self._plan.position(self._plan.epochs + 1)

    def __getitem__(self, position: int) -> UInt8[np.ndarray, "steps batch h w c"]:
        return self._images[self.indices(position)]


class _Batches:
    """Elements are the images of given batches."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "n h w c"] | LazyImages,
        batches: Int32[np.ndarray, "steps batch"],
    ):
        self._images = images
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> UInt8[np.ndarray, "batch h w c"]:
        return self._images[self.batches[position]]


def _prefetched(source: Any, start: int, workers: int, threads: int) -> grain.IterDataset:
    """A source's elements from one on, read ahead by processes, or by threads of this one."""
    elements = grain.MapDataset.source(source)[start:]
    if not workers:
        return elements.to_iter_dataset(grain.ReadOptions(threads, threads * _AHEAD))
    if not flags.FLAGS.is_parsed():  # Grain looks at its own, also in programs that have none.
        flags.FLAGS.mark_as_parsed()
    inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_AHEAD)
    return elements.to_iter_dataset(inline).mp_prefetch(options, worker_init_fn=_start_worker)


def _start_worker(index: int, count: int) -> None:
    """Makes a worker leave the accelerators and Ctrl-C to the training process, and end with it."""
    del index, count
    jax.config.update("jax_platforms", "cpu")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None  # This runs in a worker.

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _next(iterator: Iterator[np.ndarray]) -> np.ndarray:
    try:
        return np.array(next(iterator))  # What comes from a worker lies in memory that it shares.
    except LSANetError:
        raise
    except Exception as error:  # Grain has no type of its own for a worker's death.
        raise DataError(
            f"reading images failed ({type(error).__name__}: {error}). If memory ran out, lower"
            " config.data.workers; config.data.workers=0 uses threads in place of processes."
        ) from error
