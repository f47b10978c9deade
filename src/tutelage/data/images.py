"""Labelled images: in memory as uint8, or decoded from their files on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutelage import shares
from tutelage.cpus import decoders
from tutelage.data import DataError
from tutelage.data.device import fits_on
from tutelage.data.digests import (
    FILES,
    PIXELS,
    Identity,
    Stat,
    digest_files,
    digest_pixels,
    stats,
)
from tutelage.data.pictures import (
    WHITE,
    Pixels,
    Shape,
    fit,
    kinds_of,
    pictures,
    stack,
    upright,
)
from tutelage.data.remarks import Noticed
from tutelage.data.seeding import generator
from tutelage.data.windows import Windows, central


class Source(NamedTuple):
    """How the images of a set are found and opened."""

    root: str = ""
    """Their folder; the names of images are paths below it."""
    opened: Callable[[Any], Image.Image] = Image.open
    """Opens the image of a path without decoding it."""
    stats: Callable[[Sequence[Any]], list[Stat]] = stats
    """Describes the files of paths."""
    by: str = FILES
    """What these descriptions tell of: FILES, or ITEMS."""


FILES_OF_IMAGES = Source()
"""Files, by whole paths."""


class Listing(NamedTuple):
    """The paths of the images of one part of a set."""

    paths: Sequence[Any]
    labels: Tensor
    classes: tuple[str, ...]
    source: Source = FILES_OF_IMAGES

    def at(self, index: Tensor) -> Listing:
        """Return the listing of some of the images, in the order of the index, int64 (n,)."""
        paths = [self.paths[place] for place in index.tolist()]
        return self._replace(paths=paths, labels=self.labels[index])


class Images(Protocol):
    """N images of one shape, with their labels."""

    @property
    def labels(self) -> Tensor:
        """Class of every image, int64 (N,); -1 if there are no labels."""

    @property
    def shape(self) -> Shape:
        """Channels, height and width of an image."""

    @property
    def device(self) -> torch.device:
        """Where `take` expects the index and returns the images."""

    @property
    def instant(self) -> bool:
        """Whether `take` returns without reading files."""

    def __len__(self) -> int:
        """Count the images, N."""

    def on(self, device: torch.device) -> Images:
        """Return the same images where batches for a device are fastest to take."""

    def take(self, index: Tensor, windows: Windows | None = None) -> Tensor:
        """Return the images at an index (B,), or windows of them, as uint8 (B, C, H, W)."""

    def expect(self, index: Tensor, windows: Windows | None = None) -> None:
        """Announce images that will be taken soon, so that they can be prepared."""

    def identity(self) -> Identity:
        """Return what tells these images from others."""


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """A part of a data set: images, class names, normalisation and usual augmentation."""

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

    def on(self, device: torch.device) -> Labelled:
        """Return the same set, its images where batches for a device are fastest to take."""
        images = self.images.on(device)
        return self if images is self.images else replace(self, images=images)

    def __post_init__(self) -> None:
        lowest, highest = (0, len(self.classes) - 1) if self.classes else (-1, -1)
        labels = self.images.labels.numpy()
        wrong = (labels < lowest) | (labels > highest)
        if wrong.any():
            at = wrong.argmax()
            raise DataError(
                f"{self.name}: image {at} has label {labels[at]}, "
                f"but labels go from {lowest} to {highest}"
            )


@final
@dataclass(frozen=True, eq=False)
class InMemory:
    """Images held as uint8 (N, C, H, W)."""

    pixels: Tensor
    labels: Tensor
    """On the CPU, wherever the pixels are."""
    names: Sequence[str] = ()
    """Paths of the images below their folder; empty: they have none."""
    instant = True
    _elsewhere: dict[torch.device, InMemory] = field(default_factory=dict, init=False, repr=False)

    @property
    def shape(self) -> Shape:
        """Channels, height and width of an image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """The device that holds the images."""
        return self.pixels.device

    def __len__(self) -> int:
        """Count the images."""
        return len(self.pixels)

    def on(self, device: torch.device) -> InMemory:
        """Return these images on a GPU if they fit there, one copy for all; else these ones."""
        if device.type == "cpu" or self.device == device:
            return self
        if device not in self._elsewhere:
            fits = fits_on(device, self.pixels.nbytes)
            here = replace(self, pixels=self.pixels.to(device)) if fits else self
            self._elsewhere[device] = here
        return self._elsewhere[device]

    def take(self, index: Tensor, windows: Windows | None = None) -> Tensor:
        """Return the images at an index (B,), or windows of them, as uint8 (B, C, H, W).

        Windows are resized by Pillow, and need the images on the CPU.
        """
        taken = self.pixels.index_select(0, index)
        if windows is None:
            return taken
        height, width = taken.shape[2:]
        boxes = [windows.box(position, width, height) for position in range(len(taken))]
        pairs = zip(pictures(taken), boxes, strict=True)
        return stack([fit(picture, self.shape, box) for picture, box in pairs])

    def expect(self, index: Tensor, windows: Windows | None = None) -> None:
        """Do nothing: all images are in memory."""

    def identity(self) -> Identity:
        """Return the digests of the pixels."""
        return Identity(PIXELS, self.names, digest_pixels(self.pixels))


@final
class OnDisk:
    """Images decoded from their files when they are taken, by a pool of threads.

    Pillow releases the interpreter lock while it decodes and resizes, so threads are enough.
    """

    instant = False
    device = torch.device("cpu")

    def __init__(
        self,
        paths: Sequence[Any],
        labels: Tensor,
        shape: Shape,
        *,
        source: Source = FILES_OF_IMAGES,
        centre: float = 1.0,
        white: int = WHITE,
    ) -> None:
        """Read nothing yet.

        Args:
            paths: paths of the images.
            labels: their classes, int64 (N,).
            shape: the shape after resizing.
            source: opens an image.
            centre: share of the side that a centre crop keeps, if there are no windows.
            white: the value of 16 bits that becomes 255.
        """
        self.labels = labels
        self.shape = shape
        self.noticed = Noticed(source.root)
        self._paths, self._source = paths, source
        self._centre, self._white = centre, white
        self._pool = ThreadPoolExecutor(decoders(), "decode")
        self._expected: dict[tuple[bytes, ...], list[Future[Pixels]]] = {}

    def __len__(self) -> int:
        """Count the images."""
        return len(self._paths)

    def on(self, device: torch.device) -> OnDisk:
        """Return the same images: the processor decodes them."""
        return self

    def take(self, index: Tensor, windows: Windows | None = None) -> Tensor:
        """Return the images at an index (B,), or windows of them, as uint8 (B, C, H, W).

        Of several processes, each decodes its share, and all get all.

        Raises:
            DataError: a file is not a readable image.
        """
        taken = self._take(index, windows)
        self.noticed.say()
        return taken

    def load(self) -> InMemory:
        """Decode every image once, into memory.

        Raises:
            DataError: a file is not a readable image.
        """
        pixels = torch.empty((len(self), *self.shape), dtype=torch.uint8)
        for index in torch.arange(len(self)).split(1024):
            pixels[index] = self._take(index)
        self.noticed.say(of=len(self))
        return InMemory(pixels, self.labels, self.names)

    @property
    def names(self) -> list[str]:
        """Paths of the images below their folder."""
        return [self._name(file) for file in self._source.stats(self._paths)]

    def _name(self, file: Stat) -> str:
        return file.name.removeprefix(self._source.root).lstrip("/")

    def identity(self) -> Identity:
        """Return the digests of the files' sizes and times, or of the items."""
        files = self._source.stats(self._paths)
        return Identity(self._source.by, [self._name(file) for file in files], digest_files(files))

    def _take(self, index: Tensor, windows: Windows | None = None) -> Tensor:
        decoding = self._expected.pop(_key(index, windows), None) or self._decode(index, windows)
        return shares.exchanged(stack([image.result() for image in decoding]), len(index))

    def expect(self, index: Tensor, windows: Windows | None = None) -> None:
        """Start to decode the images at an index."""
        self._expected[_key(index, windows)] = self._decode(index, windows)
        while len(self._expected) > 8:  # batches that were not taken: an epoch was cut short
            del self._expected[next(iter(self._expected))]

    def _decode(self, index: Tensor, windows: Windows | None) -> list[Future[Pixels]]:
        own = shares.of(len(index))
        every = list(enumerate(index.tolist()))
        return [
            self._pool.submit(self._read, i, position, windows)
            for position, i in (every if own is None else every[own.rows])
        ]

    def _read(self, place: int, position: int, windows: Windows | None) -> Pixels:
        """Read an image, by its place in the set and in the batch, as an array (H, W, C).

        Raises:
            DataError: the file is not a readable image.
        """
        path, box = self._paths[place], None
        try:
            with self._source.opened(path) as image:
                if kinds := kinds_of(image):
                    self.noticed.add(kinds, place, path)
                turned = upright(image)
                if windows is not None:
                    box = windows.box(position, *turned.size)
                elif self._centre < 1:
                    box = central(*turned.size, self.shape[1:], self._centre)
                return fit(turned, self.shape, box, self._white)
        except Exception as error:  # a broken file: Pillow's OSError, SyntaxError, IndexError...
            raise DataError(f"{path} is not a readable image: {error}") from error


def _key(index: Tensor, windows: Windows | None) -> tuple[bytes, ...]:
    """Return the key of a batch: its images, how many are decoded here, and their windows."""
    images = index.numpy().tobytes() + str(shares.of(len(index))).encode()
    return (images,) if windows is None else (images, windows.chance.tobytes())


@final
@dataclass(frozen=True, eq=False)
class Unlabelled:
    """The images of another set, without labels, resized to a shape when they are taken."""

    images: Images
    shape: Shape

    @cached_property
    def labels(self) -> Tensor:
        """Return -1 for every image."""
        return torch.full((len(self.images),), -1)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images)

    @property
    def device(self) -> torch.device:
        """Where the other set has its images."""
        return self.images.device

    @property
    def instant(self) -> bool:
        """Whether the other set's are there without reading files."""
        return self.images.instant

    def on(self, device: torch.device) -> Unlabelled:
        """Return them on a GPU, unless Pillow resizes them."""
        resized = self.images.shape != self.shape
        return self if resized else replace(self, images=self.images.on(device))

    def take(self, index: Tensor, windows: Windows | None = None) -> Tensor:
        """Return the images at an index (B,), or windows of them, as uint8 (B, C, H, W)."""
        taken = self.images.take(index, windows)
        if self.images.shape == self.shape:
            return taken
        return stack([fit(picture, self.shape) for picture in pictures(taken)])

    def expect(self, index: Tensor, windows: Windows | None = None) -> None:
        """Announce them to the other set."""
        self.images.expect(index, windows)

    def identity(self) -> Identity:
        """Return what tells the other set's images from others."""
        return self.images.identity()


def measure(images: Images, most: int = 10_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of every channel, of pixels from 0 to 1.

    In a larger set, `most` images are measured, always the same ones.
    """
    index = torch.arange(len(images))
    if len(images) > most:
        chosen = generator(0, "measure").permutation(len(images))[:most]
        index = torch.from_numpy(np.sort(chosen))
    counts = torch.zeros(images.shape[0], 256, dtype=torch.int64)
    for part in index.split(256):
        taken = images.take(part)
        for channel, count in enumerate(counts):
            count += torch.bincount(taken[:, channel].flatten(), minlength=256)
    share = counts.double() / counts.sum(1, keepdim=True)
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ value
    # At least one grey level: a set of blank images would have no deviation.
    std = (share @ value.square() - mean.square()).clamp_min(1 / 255**2).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())
