"""The images of a search: three streams, and the batches of a step from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from tutelage.batch import Batch
from tutelage.config import Run
from tutelage.data.augment import augmentation
from tutelage.data.batches import Stream, held
from tutelage.data.images import Labelled
from tutelage.data.read import read_unlabelled
from tutelage.data.splits import split


@dataclass(frozen=True, eq=False)
class Streams:
    """The three streams of a search."""

    train: Stream
    valid: Stream
    unlabelled: Stream

    def of(self, batch_size: int) -> Streams:
        """Return the same images in batches of another size."""
        every = (self.train, self.valid, self.unlabelled)
        return Streams(*(replace(stream, batch_size=batch_size) for stream in every))


@dataclass(frozen=True, eq=False)
class LazyBatches:
    """The batches of one step; each is made when a loss first reads it."""

    streams: Streams
    epoch: int
    step: int

    @cached_property
    def train(self) -> Batch:
        """Images that train weights."""
        return self.streams.train.batch(self.epoch, self.step)

    @cached_property
    def valid(self) -> Batch:
        """Images that train alphas."""
        return self.streams.valid.batch(self.epoch, self.step)

    @cached_property
    def unlabelled(self) -> Batch:
        """Images to pseudo-label."""
        return self.streams.unlabelled.batch(self.epoch, self.step)


def halves_of(settings: Run, train: Labelled) -> tuple[Tensor, Tensor]:
    """Divide the training images, by the run's seed, into those for weights and for alphas."""
    return split(len(train.images), settings.data.train_fraction, settings.seed)


def streams_of(
    settings: Run, train: Labelled, halves: tuple[Tensor, Tensor], device: torch.device
) -> Streams:
    """Make the three streams; `halves` are the images for weights and those for alphas."""
    first, second = halves
    unlabelled, third = read_unlabelled(settings.data, train, first)
    how = augmentation(train, settings.data)

    def stream(name: str, data: Labelled, subset: Tensor, balanced: bool) -> Stream:
        return Stream(
            data=held(data, how, device),
            subset=subset,
            batch_size=settings.batch_size,
            seed=settings.seed,
            name=name,
            augmentation=how,
            device=device,
            balanced=balanced,
        )

    balanced = settings.data.balanced

    return Streams(
        stream("train", train, first, balanced),
        stream("valid", train, second, balanced),
        stream("unlabelled", unlabelled, third, False),
    )
