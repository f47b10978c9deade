"""Batches as a function of (seed, stream, epoch, step), so that resuming needs no loader state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from tutelage.batch import Batch
from tutelage.data import DataError
from tutelage.data.augment import Augmentation, augment, normalise
from tutelage.data.device import onto
from tutelage.data.images import Labelled
from tutelage.data.seeding import generator
from tutelage.data.windows import Windows


@final
@dataclass(frozen=True, eq=False)
class Stream:
    """An endless supply of augmented batches from a subset of a data set."""

    data: Labelled
    """The data set."""
    subset: Tensor
    """Indices of the images to use, int64 (N,)."""
    batch_size: int
    """Images in a batch."""
    seed: int
    """Seed of the order and the augmentation."""
    name: str
    """Name of the stream; streams of different names are independent."""
    augmentation: Augmentation
    """The augmentation of the images."""
    device: torch.device
    """The device of the batches."""

    def __post_init__(self) -> None:
        if self.steps == 0:
            raise DataError(f"the {self.name} images are {len(self.subset)}: at least 2 are needed")

    @property
    def steps(self) -> int:
        """Number of batches that cover the subset once, without a last batch of one image."""
        full, rest = divmod(len(self.subset), self.batch_size)
        return full + (rest > 1)  # batch normalisation has no statistics of one image

    def batch(self, epoch: int, step: int) -> Batch:
        """Return one batch; steps from `steps` on use another permutation.

        Images are float32 (B, C, H, W) in channels-last memory, and the index is their position in
        the subset. If images are read from disk, the next batch is prepared in the meantime.
        """
        index = self._index(epoch, step)
        chosen = self.subset[index]
        pixels = onto(self.data.images.take(chosen, self._windows(epoch, step)), self.device)
        if (step + 1) % self.steps:
            following = self.subset[self._index(epoch, step + 1)]
            self.data.images.expect(following, self._windows(epoch, step + 1))
        random = generator(self.seed, f"{self.name}/augment", epoch, step)
        x = augment(pixels, self.augmentation, self.data.mean, self.data.std, random)
        y = self.data.images.labels[chosen]
        return Batch(x, onto(y, self.device), onto(index, self.device))

    def in_order(self, images: int | None = None) -> Iterator[Batch]:
        """Yield the first images (None: all) once, in order and not augmented.

        A last batch of a single image is left out, as in augmented batches.
        """
        subset = self.subset[:images]
        if len(subset) % self.batch_size == 1:
            subset = subset[:-1]
        return in_order(self.data, subset, self.batch_size, self.device)

    def _index(self, epoch: int, step: int) -> Tensor:
        """Positions in the subset of a batch's images, int64 (B,)."""
        turn, place = divmod(step, self.steps)
        permutation = order(self.seed, self.name, epoch, turn, len(self.subset))
        return permutation[place * self.batch_size :][: self.batch_size].clone()

    def _windows(self, epoch: int, step: int) -> Windows | None:
        """Windows of a batch's images, if the augmentation has them."""
        if not self.augmentation.rescale:
            return None
        random = generator(self.seed, f"{self.name}/windows", epoch, step)
        return Windows.draw(self.batch_size, self.augmentation.rescale, random)


@lru_cache(maxsize=8)
def order(seed: int, name: str, epoch: int, turn: int, count: int) -> Tensor:
    """Return a stream's permutation of range(count) for one turn of an epoch; do not change it."""
    return torch.from_numpy(generator(seed, f"{name}/order", epoch, turn).permutation(count))


def in_order(
    data: Labelled, subset: Tensor, batch_size: int, device: torch.device
) -> Iterator[Batch]:
    """Yield every image of a subset exactly once, in order and not augmented."""
    batches = torch.arange(len(subset)).split(batch_size)
    for index, following in zip(batches, (*batches[1:], None), strict=True):
        pixels = onto(data.images.take(subset[index]), device)
        if following is not None:
            data.images.expect(subset[following])
        x = normalise(pixels, data.mean, data.std)
        yield Batch(x, onto(data.images.labels[subset[index]], device), onto(index, device))
