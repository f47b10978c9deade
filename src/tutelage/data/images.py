"""Labelled images: in memory as uint8, or decoded from their files on demand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tutelage.data import DataError
from tutelage.data.draws import draws

Pixels = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]  # channels, height, width


class Images(Protocol):
    """N images of one shape, with their labels."""

    @property
    def labels(self) -> Tensor:
        """Class of every image, int64 (N,); -1 where there are no labels."""

    @property
    def shape(self) -> Shape:
        """Channels, height and width of an image."""

    def __len__(self) -> int:
        """Count the images, N."""

    def take(self, index: Tensor) -> Tensor:
        """Return the images at an index (B,) as uint8 (B, C, H, W)."""

    def expect(self, index: Tensor) -> None:
        """Say which images will be taken soon, so that slow ones can be got ready."""


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """A part of a data set: images, class names, and the set's usual treatment."""

    name: str
    images: Images
    classes: tuple[str, ...]
    """Names of the classes; empty for unlabelled images."""
    mean: tuple[float, ...]
    """Mean of every channel over the training part, of pixels from 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of every channel over the training part."""
    crop: int
    """Padding of the random crop, in pixels."""
    flip: bool
    """Whether half of the images are flipped left to right."""

    def __post_init__(self) -> None:
        lowest, highest = (0, len(self.classes) - 1) if self.classes else (-1, -1)
        wrong = (self.images.labels < lowest) | (self.images.labels > highest)
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise DataError(
                f"{self.name}: image {at} has label {int(self.images.labels[at])}, "
                f"but labels go from {lowest} to {highest}"
            )


@final
@dataclass(frozen=True, eq=False)
class InMemory:
    """Images held as uint8 (N, C, H, W)."""

    pixels: Tensor
    labels: Tensor

    @property
    def shape(self) -> Shape:
        """Channels, height and width of an image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def __len__(self) -> int:
        """Count the images."""
        return len(self.pixels)

    def take(self, index: Tensor) -> Tensor:
        """Return the images at an index (B,) as uint8 (B, C, H, W)."""
        return self.pixels.index_select(0, index)

    def expect(self, index: Tensor) -> None:
        """Do nothing: everything is at hand."""


@final
class OnDisk:
    """Images decoded from their files when they are taken, by a pool of threads."""

    def __init__(self, paths: Sequence[str], labels: Tensor, shape: Shape) -> None:
        self.labels = labels
        self.shape = shape
        self._paths = paths
        self._pool = ThreadPoolExecutor(os.cpu_count(), "decode")
        self._expected: dict[tuple[int, ...], list[Future[Pixels]]] = {}

    def __len__(self) -> int:
        """Count the images."""
        return len(self._paths)

    def take(self, index: Tensor) -> Tensor:
        """Return the images at an index (B,) as uint8 (B, C, H, W).

        Raises:
            DataError: a file is not a readable image.
        """
        decoding = self._expected.pop(tuple(index.tolist()), None) or self._decode(index)
        return stack([image.result() for image in decoding])

    def expect(self, index: Tensor) -> None:
        """Begin to decode the images at an index."""
        self._expected[tuple(index.tolist())] = self._decode(index)
        while len(self._expected) > 8:  # batches that nobody took: an epoch was cut short
            del self._expected[next(iter(self._expected))]

    def _decode(self, index: Tensor) -> list[Future[Pixels]]:
        return [self._pool.submit(decode, self._paths[i], self.shape) for i in index.tolist()]


@final
@dataclass(frozen=True, eq=False)
class Unlabelled:
    """The images of another set, without their labels, brought to a shape as they are taken."""

    images: Images
    shape: Shape

    @cached_property
    def labels(self) -> Tensor:
        """Return -1 for every image."""
        return torch.full((len(self.images),), -1)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images)

    def take(self, index: Tensor) -> Tensor:
        """Return the images at an index (B,) as uint8 (B, C, H, W)."""
        taken = self.images.take(index)
        if self.images.shape == self.shape:
            return taken
        pictures = taken.permute(0, 2, 3, 1).numpy()
        grey = taken.shape[1] == 1
        return stack([fit(Image.fromarray(p[..., 0] if grey else p), self.shape) for p in pictures])

    def expect(self, index: Tensor) -> None:
        """Pass it on."""
        self.images.expect(index)


def stack(pictures: Sequence[Pixels]) -> Tensor:
    """Stack pictures (H, W, C) to uint8 (B, C, H, W) in channels-last memory."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def fit(image: Image.Image, shape: Shape) -> Pixels:
    """Bring a picture to a shape, as (H, W, C): grey or RGB, shorter side resized, centre cropped.

    Raises:
        DataError: the picture has more than 8 bits a channel.
    """
    channels, height, width = shape
    if image.mode[0] in "IF":
        raise DataError(f"it has mode {image.mode}, and images need 8 bits a channel")
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def decode(path: str, shape: Shape) -> Pixels:
    """Read a file as a picture (H, W, C).

    Raises:
        DataError: the file is not a readable image.
    """
    try:
        with Image.open(path) as image:
            return fit(image, shape)
    except Exception as error:  # on a broken file Pillow raises OSError, SyntaxError, IndexError...
        raise DataError(f"{path} is not a readable image: {error}") from error


def load(images: OnDisk) -> InMemory:
    """Decode every image once, into memory."""
    pixels = torch.empty((len(images), *images.shape), dtype=torch.uint8)
    for index in torch.arange(len(images)).split(1024):
        pixels[index] = images.take(index)
    return InMemory(pixels, images.labels)


def measure(images: Images, most: int = 10_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of every channel, of pixels from 0 to 1.

    Of a larger set, `most` images are measured, always the same ones.
    """
    index = torch.arange(len(images))
    if len(images) > most:
        chosen = draws(0, "measure").permutation(len(images))[:most]
        index = torch.from_numpy(np.sort(chosen))
    counts = torch.zeros(images.shape[0], 256, dtype=torch.int64)
    for part in index.split(256):
        taken = images.take(part)
        for channel, count in enumerate(counts):
            count += torch.bincount(taken[:, channel].flatten(), minlength=256)
    share = counts.double() / counts.sum(1, keepdim=True)
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ value
    # A set of blank images would have no deviation at all: one grey level is the least.
    std = (share @ value.square() - mean.square()).clamp_min(1 / 255**2).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())
