"""Batches as a function of (seed, stream, epoch, step), so that resuming needs no loader state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from tutelage.batch import Batch
from tutelage.data import DataError
from tutelage.data.ahead import Ahead, Place, SideStream
from tutelage.data.augment import Augmentation, normalise, prepare
from tutelage.data.balance import balanced_order
from tutelage.data.device import Change, Parcel, onto
from tutelage.data.erasing import Integers
from tutelage.data.images import Images, Labelled
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
    balanced: bool = False
    """Whether classes are sampled equally often."""

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
        the subset. The next batch is prepared in the meantime: on a GPU it is made, on a side
        stream; images that are read from disk are decoded.
        """
        last = (step + 1) % self.steps == 0
        following = Place(epoch + 1, 0) if last else Place(epoch, step + 1)
        return self._ahead.batch(Place(epoch, step), following)

    def make(self, place: Place) -> Batch:
        """Make a batch; of a GPU nothing is waited for.

        All numbers of a batch are sampled on the host and copied together. Images that the device
        does not hold are a second copy.
        """
        images, (epoch, step) = self.data.images, place
        index = self._index(place)
        random = generator(self.seed, f"{self.name}/augment", epoch, step)
        shape, parcel = (len(index), *images.shape), Parcel()
        changes = prepare(self.augmentation, shape, self.data.mean, self.data.std, random, parcel)
        subset, labels = self._numbers
        chosen = Chosen(subset[index], labels[index], index)
        batch = _sent(images, chosen, self.device, parcel, self._windows(place))
        if (step + 1) % self.steps:
            following = Place(epoch, step + 1)
            expected = torch.from_numpy(subset[self._index(following)])
            images.expect(expected, self._windows(following))
        return _changed(batch, changes)

    @cached_property
    def _numbers(self) -> tuple[Integers, Integers]:
        """The subset and its labels, as arrays: selections of torch's would be operations."""
        subset = self.subset.numpy()
        return subset, self.data.images.labels.numpy()[subset]

    @cached_property
    def _balanced(self) -> Callable[[int, int], Integers]:
        """The order of a turn of an epoch, of which the last ones are kept."""
        return lru_cache(maxsize=2)(partial(balanced_order, self._numbers[1], self.seed, self.name))

    @cached_property
    def _ahead(self) -> Ahead:
        """What makes the next batch while the present step computes."""
        apart = self.device.type == "cuda" and torch.cuda.is_available()
        lane = SideStream(self.device) if apart and self.data.images.instant else None
        return Ahead(self.make, lane)

    def in_order(self, images: int | None = None) -> Iterator[Batch]:
        """Yield the first images (None: all) once, in order and not augmented.

        A last batch of a single image is left out, as in augmented batches.
        """
        subset = self.subset[:images]
        if len(subset) % self.batch_size == 1:
            subset = subset[:-1]
        return in_order(self.data, subset, self.batch_size, self.device)

    def _index(self, place: Place) -> Integers:
        """Positions in the subset of a batch's images, (B,)."""
        turn, place_in_turn = divmod(place.step, self.steps)
        if self.balanced:
            permutation = self._balanced(place.epoch, turn)
        else:
            permutation = order(self.seed, self.name, place.epoch, turn, len(self.subset))
        return permutation[place_in_turn * self.batch_size :][: self.batch_size].copy()

    def _windows(self, place: Place) -> Windows | None:
        """Windows of a batch's images, if the augmentation has them."""
        if not self.augmentation.rescale:
            return None
        random = generator(self.seed, f"{self.name}/windows", *place)
        return Windows.draw(self.batch_size, self.augmentation.rescale, random)


def held(data: Labelled, how: Augmentation, device: torch.device) -> Labelled:
    """Return the same set, its images on the device where batches are made of them there."""
    return data if how.rescale else data.on(device)  # windows are resized by Pillow, on the host


@lru_cache(maxsize=8)
def order(seed: int, name: str, epoch: int, turn: int, count: int) -> Integers:
    """Return a stream's permutation of range(count) for one turn of an epoch; do not change it."""
    return generator(seed, f"{name}/order", epoch, turn).permutation(count)


def in_order(
    data: Labelled, subset: Tensor, batch_size: int, device: torch.device
) -> Iterator[Batch]:
    """Yield every image of a subset exactly once, in order and not augmented."""
    images = data.images
    every = Chosen(subset.numpy(), images.labels.numpy()[subset.numpy()], np.arange(len(subset)))
    batches = [
        Chosen(*(numbers[start : start + batch_size] for numbers in every))
        for start in range(0, len(subset), batch_size)
    ]
    for chosen, following in zip(batches, (*batches[1:], None), strict=True):
        parcel = Parcel()
        change = normalise(images.shape[2], data.mean, data.std, parcel)
        batch = _sent(images, chosen, device, parcel)
        if following is not None:
            images.expect(torch.from_numpy(following.images))
        yield _changed(batch, [change])


class Chosen(NamedTuple):
    """The images of a batch, as numbers (B,)."""

    images: Integers
    """Places in the data set."""
    labels: Integers
    position: Integers
    """Places in the subset."""


def _sent(
    images: Images,
    chosen: Chosen,
    device: torch.device,
    parcel: Parcel,
    windows: Windows | None = None,
) -> Batch:
    """Send a parcel, and bring chosen images to the device, as uint8, with labels and positions."""
    labels, position = parcel.add(chosen.labels), parcel.add(chosen.position)
    there = parcel.add(chosen.images)
    parcel.send(device)
    held = images.device.type == device.type
    taken = images.take(there.tensor if held else torch.from_numpy(chosen.images), windows)
    return Batch(onto(taken, device), labels.tensor, position.tensor)


def _changed(batch: Batch, changes: Sequence[Change]) -> Batch:
    x = batch.x
    for change in changes:
        x = change(x)
    return batch._replace(x=x)
