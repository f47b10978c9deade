"""Augmentation of whole batches, on the device, with random numbers from numpy.

Order and semantics are the usual ones: torchvision's RandomCrop, RandomHorizontalFlip and
ColorJitter on raw pixels, RandAugment, normalisation, then the cutout of DARTS and random erasing.
The crop's padding is black, and cut-out pixels are 0 after normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.device import Change, Parcel
from tutelage.data.erasing import Integers, box, erase
from tutelage.data.images import Labelled
from tutelage.data.randaugment import OFF, RandAugment, jitter, rand_augment


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of training images; by default none."""

    crop: int = 0
    """Padding of the random crop, in pixels."""
    flip: bool = False
    """Whether half of the images are flipped left to right."""
    cutout: int = 0
    """Side of the square that is cut out, in pixels; 0: none."""
    rescale: float = 0.0
    """Smallest share of an image's area that a random window keeps; 0: no windows."""
    jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation; 0: none."""
    randaugment: RandAugment = OFF
    """Random operations on every image."""
    erasing: float = 0.0
    """Probability that a rectangle becomes noise."""


def augmentation(data: Labelled, settings: Data) -> Augmentation:
    """Return the data set's augmentation, as changed by the settings.

    Raises:
        DataError: the cutout would hide whole images.
    """
    side = min(data.images.shape[1:])
    if settings.cutout >= side:
        raise DataError(
            f"cutout = {settings.cutout}: would hide whole images of {data.name}, "
            f"whose side is {side} pixels; give a smaller number, or 0 for none"
        )
    own_crop = 0 if settings.rescale else data.crop  # a window moves the image already
    return Augmentation(
        crop=own_crop if settings.crop is None else settings.crop,
        flip=data.flip if settings.flip is None else settings.flip,
        cutout=settings.cutout,
        rescale=settings.rescale,
        jitter=settings.jitter,
    )


def prepare(
    how: Augmentation,
    shape: tuple[int, int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    random: np.random.Generator,
    parcel: Parcel,
) -> list[Change]:
    """Sample the changes of uint8 images (B, C, H, W); the last ones give float32, channels-last.

    The numbers of crop, flip and cutout are sampled even if these are off, so that switching one on
    or off does not change the random numbers of the others. All are sampled in numpy, so that a CPU
    and a GPU get the same batch, and before any change, so that they reach a GPU in one copy.
    """
    count, _, height, width = shape
    chance = random.random((5, count))
    scale = np.array([2 * how.crop + 1, 2 * how.crop + 1, 2, height, width])[:, None]
    top, left, mirrored, row, column = (chance * scale).astype(np.int64)
    changes: list[Change] = []
    if how.crop or how.flip:
        flipped = mirrored.astype(bool) & how.flip
        changes.append(crop_and_flip(shape, how.crop, top, left, flipped, parcel))
    if how.jitter:
        changes.append(jitter(count, how.jitter, random, parcel))
    if how.randaugment.operations:
        grey = tuple(round(255 * each) for each in mean)
        changes.append(rand_augment(shape, how.randaugment, grey, random, parcel))
    changes.append(normalise(width, mean, std, parcel))
    if how.cutout:
        changes.append(cut_out(shape, how.cutout, row, column, parcel))
    if how.erasing:
        changes.append(erase(shape, how.erasing, random, parcel))
    return changes


def crop_and_flip(
    shape: tuple[int, int, int, int],
    padding: int,
    top: Integers,
    left: Integers,
    mirrored: npt.NDArray[np.bool_],
    parcel: Parcel,
) -> Change:
    """Crop every image, padded with black, to its original size; mirror where `mirrored`.

    Args:
        shape: of the images, (B, C, H, W).
        padding: black pixels added on every side, P.
        top: first row of every window in the padded image, (B,), from 0 to 2 P.
        left: first column of every window, (B,).
        mirrored: (B,).
        parcel: takes the places of rows and columns.
    """
    count, channels, height, width = shape
    tall, wide = height + 2 * padding, width + 2 * padding
    along = np.arange(width)
    image = np.arange(count)[:, None] * tall
    rows = parcel.add((image + top[:, None] + np.arange(height))[:, :, None] * wide)  # (B, H, 1)
    columns = parcel.add(
        (left[:, None] + np.where(mirrored[:, None], width - 1 - along, along))[:, None]
    )  # (B, 1, W)

    def change(pixels: Tensor) -> Tensor:
        by_pixel = pixels.permute(0, 2, 3, 1)
        if padding:
            by_pixel = F.pad(by_pixel, (0, 0, *(padding,) * 4))
        # One row for each pixel: a single gather moves all channels, 4 times faster than indexing.
        at = (rows.tensor + columns.tensor).flatten()
        gathered = by_pixel.reshape(-1, channels).index_select(0, at)
        return gathered.view(count, height, width, channels).permute(0, 3, 1, 2)

    return change


def normalise(
    width: int, mean: tuple[float, ...], std: tuple[float, ...], parcel: Parcel
) -> Change:
    """Map uint8 (B, C, H, W) to (pixels / 255 - mean) / std, float32, channels-last."""
    statistics = np.array([1 / (255 * np.array(std)), np.array(mean) / std], np.float32)
    sent = parcel.add(np.tile(statistics, width))

    def change(pixels: Tensor) -> Tensor:
        count, channels, height, _ = pixels.shape
        scale, shift = sent.tensor
        x = pixels.to(torch.float32, memory_format=torch.channels_last)
        # By rows of pixels: broadcasting over three channels would not fill a vector register.
        x.permute(0, 2, 3, 1).view(count, height, width * channels).mul_(scale).sub_(shift)
        return x

    return change


def cut_out(
    shape: tuple[int, int, int, int], side: int, row: Integers, column: Integers, parcel: Parcel
) -> Change:
    """Set a square around (row, column) of every image to 0 in place, clipped at the borders.

    The square covers rows from row - side // 2 to row - side // 2 + side - 1 (DeVries and Taylor
    2017, as in DARTS, whose squares of an odd side are one pixel smaller).
    """
    size = np.full_like(row, side)
    hidden = box(shape, row - side // 2, column - side // 2, size, size, parcel)
    return lambda x: x.mul_(~hidden())
