"""Random windows: crops of random area and proportions, resized to the network's input size.

Szegedy et al.: Going deeper with convolutions. CVPR 2015, arXiv:1409.4842, section 6; also called
RandomResizedCrop. The random numbers are sampled before an image is read. Its size is known only
then, so the reader computes the window from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

PROPORTION: Final = (3 / 4, 4 / 3)
"""Least and largest width over height."""
ATTEMPTS: Final = 10
"""Most windows that are tried until one is inside the image."""


@dataclass(frozen=True, eq=False)
class Windows:
    """A window for each of B images."""

    least: float
    """Smallest share of an image's area."""
    chance: npt.NDArray[np.float64]
    """Numbers from 0 to 1, (B, 2 ATTEMPTS + 2): areas and proportions to try, then the place."""

    @classmethod
    def draw(cls, count: int, least: float, random: np.random.Generator) -> Windows:
        """Sample the windows of `count` images."""
        return cls(least, random.random((count, 2 * ATTEMPTS + 2)))

    def box(self, position: int, width: int, height: int) -> Box:
        """Return the window of an image of this size."""
        *sizes, down, across = self.chance[position].tolist()
        low, high = math.log(PROPORTION[0]), math.log(PROPORTION[1])
        for area, shape in zip(sizes[:ATTEMPTS], sizes[ATTEMPTS:], strict=True):
            pixels = (self.least + (1 - self.least) * area) * width * height
            proportion = math.exp(low + (high - low) * shape)
            wide = round(math.sqrt(pixels * proportion))
            tall = round(math.sqrt(pixels / proportion))
            if 0 < wide <= width and 0 < tall <= height:
                left, top = int(across * (width - wide + 1)), int(down * (height - tall + 1))
                return left, top, left + wide, top + tall
        return fallback(width, height)


def fallback(width: int, height: int) -> Box:
    """Return the largest centred window whose proportions are allowed."""
    least, largest = PROPORTION
    wide = min(width, round(height * largest))
    tall = min(height, round(width / least))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall


def central(width: int, height: int, shape: tuple[int, int], share: float) -> Box:
    """Return the centred window of a shape's proportions with a share of the largest one's side.

    A share of 0.875 with 224 x 224 pixels equals a resize of the shorter side to 256 and a centre
    crop of 224.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        shape: height and width after resizing the window.
        share: share of the side of the largest such window.
    """
    scale = share * min(height / shape[0], width / shape[1])
    tall, wide = scale * shape[0], scale * shape[1]
    left, top = (width - wide) / 2, (height - tall) / 2
    return left, top, left + wide, top + tall
