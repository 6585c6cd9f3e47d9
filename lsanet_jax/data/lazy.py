"""Images that are read when they are asked for: sets that do not fit into memory."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from tqdm import tqdm

from lsanet_jax.runtime.cores import usable_cores

_CHUNK = 64  # Images read at a time.


class LazyImages:
    """Stands for an array of images; `images[indices]` reads these, as an array.

    Worker processes get copies, so what it is made of must be picklable.

    Attributes:
        shape: [n, h, w, c], as the array's would be; likewise `ndim`, `dtype` and `nbytes`.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        read: Callable[[Any], UInt8[np.ndarray, "h w c"]],
        items: Sequence[Any],
        image_shape: tuple[int, int, int],
    ):
        """Reads nothing yet.

        Args:
            read: makes an image of an item; it raises DataError if it cannot.
            items: one per image, such as a path.
            image_shape: [h, w, c] of every image.
        """
        self._read = read
        self._items = items
        self.shape = (len(items), *image_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the images once they are read."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        """Number of images."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> UInt8[np.ndarray, "... h w c"]:
        """Reads the images that NumPy would select along the first axis."""
        positions = np.arange(len(self))[index]
        images = np.empty((*positions.shape, *self.shape[1:]), np.uint8)
        for place, position in np.ndenumerate(positions):
            images[place] = self._read(self._items[int(position)])
        return images

    def select(self, kept: Bool[np.ndarray, " n"]) -> "LazyImages":
        """Only some of the images, still unread."""
        items = [self._items[position] for position in np.flatnonzero(kept).tolist()]
        return LazyImages(self._read, items, self.shape[1:])

    def chunks(self, title: str) -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        """All images in order, some at a time, read ahead by threads; with a progress bar."""
        import grain  # It takes a second.

        threads = usable_cores()
        parts = [slice(start, start + _CHUNK) for start in range(0, len(self), _CHUNK)]
        chunks = grain.MapDataset.source(parts).map(self.__getitem__)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        with tqdm(total=len(self), desc=title, unit=" images", disable=None) as bar:
            for chunk in chunks.to_iter_dataset(options):
                yield chunk
                bar.update(len(chunk))
