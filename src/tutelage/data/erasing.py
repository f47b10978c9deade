"""Random erasing: a rectangle of an image becomes noise.

Zhong, Zheng, Kang, Li & Yang: Random erasing data augmentation. AAAI 2020, arXiv:1708.04896, with
its areas and proportions. Every pixel of the rectangle gets noise of a normal distribution, as in
the papers of MBConv networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tutelage.data.device import Change, Parcel

Integers = npt.NDArray[np.int64]

AREA: Final = (0.02, 1 / 3)
"""Least and largest share of the image that is erased."""
PROPORTION: Final = (0.3, 1 / 0.3)
"""Least and largest height over width."""
ATTEMPTS: Final = 10
"""Most rectangles that are tried until one is smaller than the image."""


def erase(
    shape: tuple[int, int, int, int],
    probability: float,
    random: np.random.Generator,
    parcel: Parcel,
) -> Change:
    """Fill a rectangle of some normalised images (B, C, H, W) with normal noise, in place.

    Args:
        shape: of the images.
        probability: probability of a rectangle, for each image.
        random: the generator, of numpy, so that a CPU and a GPU do the same.
        parcel: takes the rectangles and the noise.
    """
    count, channels, height, width = shape
    top, left, tall, wide = rectangles(count, height, width, probability, random)
    noise = parcel.add(random.standard_normal(channels * int((tall * wide).sum()), np.float32))
    inside = box(shape, top, left, tall, wide, parcel)
    return lambda x: x.masked_scatter_(inside(), noise.tensor.to(x.dtype))


def box(
    shape: tuple[int, int, int, int],
    top: Integers,
    left: Integers,
    tall: Integers,
    wide: Integers,
    parcel: Parcel,
) -> Callable[[], Tensor]:
    """Return what makes, on the device, the mask (B, 1, H, W) of a rectangle in every image."""
    down = np.arange(shape[2]) - top[:, None]  # (B, H)
    across = np.arange(shape[3]) - left[:, None]  # (B, W)
    rows = parcel.add(((down >= 0) & (down < tall[:, None]))[:, None, :, None])
    columns = parcel.add(((across >= 0) & (across < wide[:, None]))[:, None, None, :])
    return lambda: rows.tensor & columns.tensor


def rectangles(
    count: int, height: int, width: int, probability: float, random: np.random.Generator
) -> Integers:
    """Sample top, left, height and width of rectangles, (4, B); 0 by 0 for no rectangle."""
    chance = random.random((3, count))
    area, shape = random.random((2, ATTEMPTS, count))
    low, high = np.log(PROPORTION)
    pixels = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
    proportion = np.exp(low + (high - low) * shape)
    tall = np.round(np.sqrt(pixels * proportion)).astype(np.int64)
    wide = np.round(np.sqrt(pixels / proportion)).astype(np.int64)
    fits = (tall < height) & (wide < width)
    first = fits.argmax(0), np.arange(count)
    chosen = (chance[0] < probability) & fits[first]
    tall, wide = np.where(chosen, tall[first], 0), np.where(chosen, wide[first], 0)
    top, left = (chance[1:] * [height - tall + 1, width - wide + 1]).astype(np.int64)
    return np.stack([top, left, tall, wide])
