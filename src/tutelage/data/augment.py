"""Augmentation of whole batches, on the device, with random numbers from numpy.

Order and semantics are the usual ones: torchvision's RandomCrop, RandomHorizontalFlip and
ColorJitter on raw pixels, RandAugment, normalisation, then the cutout of DARTS and random erasing.
The crop's padding is black, and cut-out pixels are 0 after normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.device import onto
from tutelage.data.erasing import erase
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


def augment(
    pixels: Tensor,
    how: Augmentation,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    random: np.random.Generator,
) -> Tensor:
    """Crop, flip, change, normalise and cut out uint8 (B, C, H, W); return float32, channels-last.

    The numbers of crop, flip and cutout are sampled even if these are off, so that switching one on
    or off does not change the random numbers of the others. All are sampled in numpy, so that a CPU
    and a GPU get the same batch.
    """
    count, _, height, width = pixels.shape
    chance = random.random((5, count))
    scale = np.array([2 * how.crop + 1, 2 * how.crop + 1, 2, height, width])[:, None]
    top, left, mirrored, row, column = onto(
        torch.from_numpy((chance * scale).astype(np.int64)), pixels.device
    )
    if how.crop or how.flip:
        pixels = crop_and_flip(pixels, how.crop, top, left, mirrored.bool() & how.flip)
    if how.jitter:
        pixels = jitter(pixels, how.jitter, random)
    if how.randaugment.operations:
        grey = tuple(round(255 * each) for each in mean)
        pixels = rand_augment(pixels, how.randaugment, grey, random)
    x = normalise(pixels, mean, std)
    if how.cutout:
        cut_out(x, how.cutout, row, column)
    return erase(x, how.erasing, random) if how.erasing else x


def crop_and_flip(
    pixels: Tensor, padding: int, top: Tensor, left: Tensor, mirrored: Tensor
) -> Tensor:
    """Crop every image, padded with black, to its original size; mirror where `mirrored`.

    Args:
        pixels: (B, C, H, W).
        padding: black pixels added on every side, P.
        top: first row of every window in the padded image, (B,), from 0 to 2 P.
        left: first column of every window, (B,).
        mirrored: bool (B,).
    """
    count, channels, height, width = pixels.shape
    along = torch.arange(width, device=pixels.device)
    rows = top[:, None] + torch.arange(height, device=pixels.device)  # (B, H)
    columns = left[:, None] + torch.where(mirrored[:, None], width - 1 - along, along)  # (B, W)
    padded = F.pad(pixels, (padding,) * 4)
    tall, wide = padded.shape[2:]
    image = torch.arange(count, device=pixels.device)[:, None, None]
    at = (image * tall + rows[:, :, None]) * wide + columns[:, None, :]  # (B, H, W)
    # One row for each pixel: a single gather moves all channels, 4 times faster than indexing.
    table = padded.permute(0, 2, 3, 1).reshape(-1, channels)
    gathered = table.index_select(0, at.flatten())
    return gathered.view(count, height, width, channels).permute(0, 3, 1, 2)


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (pixels / 255 - mean) / std, float32 (B, C, H, W), channels-last."""
    count, channels, height, width = pixels.shape
    statistics = np.array([1 / (255 * np.array(std)), np.array(mean) / std], np.float32)
    scale, shift = onto(torch.from_numpy(np.tile(statistics, width)), pixels.device)
    x = pixels.to(torch.float32, memory_format=torch.channels_last)
    # By rows of pixels: broadcasting over three channels would not fill a vector register.
    x.permute(0, 2, 3, 1).view(count, height, width * channels).mul_(scale).sub_(shift)
    return x


def cut_out(x: Tensor, side: int, row: Tensor, column: Tensor) -> Tensor:
    """Set a square around (row, column) of every image to 0 in place, clipped at the borders.

    The square covers rows from row - side // 2 to row - side // 2 + side - 1 (DeVries and Taylor
    2017, as in DARTS, whose squares of an odd side are one pixel smaller).
    """
    height, width = x.shape[2:]
    down = torch.arange(height, device=x.device) - (row[:, None] - side // 2)  # (B, H)
    across = torch.arange(width, device=x.device) - (column[:, None] - side // 2)  # (B, W)
    hidden_rows = (down >= 0) & (down < side)
    hidden_columns = (across >= 0) & (across < side)
    hidden = hidden_rows[:, None, :, None] & hidden_columns[:, None, None, :]
    return x.mul_(~hidden)
