"""RandAugment: a few random operations of random strength on every image, in batches.

Cubuk, Zoph, Shlens & Le: RandAugment: practical automated data augmentation with a reduced search
space. CVPR workshops 2020, arXiv:1909.13719. Operations and strengths are those of the papers of
MBConv networks, written `rand-m9-mstd0.5` in their files: fifteen operations, each applied with
probability 1/2, with strengths sampled around a mean. For the same numbers every operation gives
the grey values of Pillow, exactly or, if it moves an image, within one.

Deviations: moved images are interpolated bilinearly; those files sample bilinear or bicubic.
Posterising keeps at least one bit; theirs gives a black image at a strength below 2.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.data.device import Change, Parcel, Sent
from tutelage.data.tones import TONES, Floats, Tone, brightness, color, contrast


@dataclass(frozen=True)
class RandAugment:
    """Number, strength and probability of the operations."""

    operations: int = 0
    """Operations sampled for every image; 0: none."""
    magnitude: float = 9.0
    """Mean strength, from 0 to 10."""
    std: float = 0.5
    """Standard deviation of the strength."""
    probability: float = 0.5
    """Probability that a sampled operation is applied."""


OFF = RandAugment()


def rand_augment(
    shape: tuple[int, int, int, int],
    how: RandAugment,
    fill: tuple[int, ...],
    random: np.random.Generator,
    parcel: Parcel,
) -> Change:
    """Change uint8 images (B, C, H, W), each by its own random operations.

    Args:
        shape: of the images.
        how: the settings.
        fill: grey value of every channel for pixels outside of a moved image.
        random: the generator, of numpy, so that a CPU and a GPU do the same.
        parcel: takes the numbers of the operations.
    """
    (count, _, height, width), names = shape, (*TONES, *MOVES)
    chance = random.random((how.operations, 3, count))
    deviation = random.standard_normal((how.operations, count))
    background = parcel.add(np.array(fill, np.uint8))
    turns: list[tuple[str, Sent, Sent]] = []
    for (drawn, run, side), normal in zip(chance, deviation, strict=True):
        which = np.where(run < how.probability, (drawn * len(names)).astype(np.int64), -1)
        strength = np.clip(how.magnitude + how.std * normal, 0, 10) / 10
        for place in np.unique(which[which >= 0]):
            images = (which == place).nonzero()[0]
            signed = np.where(side[images] < 0.5, -1, 1) * strength[images]
            numbers = argument(names[place], signed, height, width)
            turns.append((names[place], parcel.add(images), parcel.add(numbers)))

    def change(pixels: Tensor) -> Tensor:
        pixels = pixels.clone()
        for name, images, numbers in turns:
            chosen = pixels.index_select(0, images.tensor)
            changed = operate(chosen, name, numbers.tensor, background.tensor)
            pixels.index_copy_(0, images.tensor, changed)
        return pixels

    return change


def jitter(count: int, most: float, random: np.random.Generator, parcel: Parcel) -> Change:
    """Change brightness, contrast and saturation of uint8 images, in a random order for each.

    Args:
        count: the number of images, B.
        most: largest relative change; factors are sampled from max(0, 1 - most) to 1 + most.
        random: the generator, of numpy, so that a CPU and a GPU do the same.
        parcel: takes the numbers.
    """
    tones = (brightness, contrast, color)
    order = random.random((len(tones), count)).argsort(0)
    low = max(0, 1 - most)
    factors = low + (1 + most - low) * random.random((len(tones), count))
    turns: list[tuple[Tone, Sent, Sent]] = []
    for turn in order:
        for place in np.unique(turn):
            images = (turn == place).nonzero()[0]
            factor = factors[place, images].reshape(-1, 1, 1, 1)
            turns.append((tones[place], parcel.add(images), parcel.add(factor)))

    def change(pixels: Tensor) -> Tensor:
        pixels = pixels.clone()
        for tone, images, factor in turns:
            changed = tone(pixels.index_select(0, images.tensor), factor.tensor)
            pixels.index_copy_(0, images.tensor, changed)
        return pixels

    return change


def argument(name: str, strength: Floats, height: int, width: int) -> Floats:
    """Return the argument of an operation of every image: of `operate`, (B, ...).

    Args:
        name: one of TONES or MOVES.
        strength: from -1 to 1, (B,); operations without two directions ignore its sign.
        height: of the images, in pixels.
        width: of the images, in pixels.
    """
    if name in MOVES:
        return np.stack([MOVES[name](each, width, height) for each in strength.tolist()])
    return TONES[name][0](np.abs(strength)).reshape(-1, 1, 1, 1)


def operate(pixels: Tensor, name: str, numbers: Tensor, background: Tensor) -> Tensor:
    """Apply one operation to every image.

    Args:
        pixels: uint8 (B, C, H, W).
        name: one of TONES or MOVES.
        numbers: its `argument`, on the device.
        background: grey value of every channel for pixels outside of a moved image, uint8 (C,).
    """
    if name in MOVES:
        return move(pixels, numbers, background)
    return TONES[name][1](pixels, numbers)


# Positions --------------------------------------------------------------------------------------


def rotation(strength: float, width: int, height: int) -> Floats:
    """Rotate anticlockwise around the centre, by up to 30 degrees."""
    cosine, sine = np.cos(np.radians(30 * strength)), np.sin(np.radians(30 * strength))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.array([width / 2, height / 2])
    return np.column_stack([turn, centre - turn @ centre])


def shear_x(strength: float, width: int, height: int) -> Floats:
    """Shift each row farther than the one above it, by up to 0.3 pixels per row."""
    return np.array([[1, 0.3 * strength, 0], [0, 1, 0]])


def shear_y(strength: float, width: int, height: int) -> Floats:
    """Shift each column farther than the one before it, by up to 0.3 pixels per column."""
    return np.array([[1, 0, 0], [0.3 * strength, 1, 0]])


def translation_x(strength: float, width: int, height: int) -> Floats:
    """Move the image along its rows, by up to 0.45 of the width."""
    return np.array([[1, 0, 0.45 * strength * width], [0, 1, 0]])


def translation_y(strength: float, width: int, height: int) -> Floats:
    """Move the image along its columns, by up to 0.45 of the height."""
    return np.array([[1, 0, 0], [0, 1, 0.45 * strength * height]])


MOVES: dict[str, Callable[[float, int, int], Floats]] = {
    "rotate": rotation,
    "shear-x": shear_x,
    "shear-y": shear_y,
    "translate-x": translation_x,
    "translate-y": translation_y,
}
"""Operations that move images: the matrix (2, 3) from a position in the result to one in the image,
in columns and rows from the upper left corner, for a strength from -1 to 1, width and height."""


def move(pixels: Tensor, matrix: Tensor, background: Tensor) -> Tensor:
    """Move uint8 images (B, C, H, W) by matrices (B, 2, 3) as in MOVES, bilinearly."""
    height, width = pixels.shape[2:]
    across = torch.arange(width, dtype=torch.float64, device=pixels.device) + 0.5
    down = torch.arange(height, dtype=torch.float64, device=pixels.device)[:, None] + 0.5
    matrix = matrix[:, :, :, None, None]
    column, row = (
        matrix[:, axis, 0] * across + matrix[:, axis, 1] * down + matrix[:, axis, 2]
        for axis in (0, 1)
    )  # (B, H, W)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    grid = torch.stack((2 * column / width - 1, 2 * row / height - 1), dim=3).float()
    moved = F.grid_sample(
        pixels.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    # Pillow truncates decimals; a small addition avoids that rounding errors reduce a grey value.
    values = (moved + 1 / 4096).to(torch.uint8)
    return torch.where(inside.unsqueeze(1), values, background.view(1, -1, 1, 1))
