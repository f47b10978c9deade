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
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.data.device import onto

Floats = npt.NDArray[np.float64]


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
    pixels: Tensor, how: RandAugment, fill: tuple[int, ...], random: np.random.Generator
) -> Tensor:
    """Return uint8 images (B, C, H, W), each after its own random operations.

    Args:
        pixels: uint8 (B, C, H, W).
        how: the settings.
        fill: grey value of every channel for pixels outside of a moved image.
        random: the generator, of numpy, so that a CPU and a GPU do the same.
    """
    count, names = len(pixels), (*TONES, *MOVES)
    chance = random.random((how.operations, 3, count))
    deviation = random.standard_normal((how.operations, count))
    pixels = pixels.clone()
    for (drawn, run, side), normal in zip(chance, deviation, strict=True):
        which = np.where(run < how.probability, (drawn * len(names)).astype(np.int64), -1)
        strength = np.clip(how.magnitude + how.std * normal, 0, 10) / 10
        for place in np.unique(which[which >= 0]):
            images = (which == place).nonzero()[0]
            signed = np.where(side[images] < 0.5, -1, 1) * strength[images]
            index = onto(torch.from_numpy(images), pixels.device)
            pixels[index] = operate(pixels[index], names[place], signed, fill)
    return pixels


def jitter(pixels: Tensor, most: float, random: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation of uint8 images, in a random order for each.

    Args:
        pixels: uint8 (B, C, H, W).
        most: largest relative change; factors are sampled from max(0, 1 - most) to 1 + most.
        random: the generator, of numpy, so that a CPU and a GPU do the same.
    """
    count, tones = len(pixels), (brightness, contrast, color)
    order = random.random((len(tones), count)).argsort(0)
    low = max(0, 1 - most)
    factors = low + (1 + most - low) * random.random((len(tones), count))
    pixels = pixels.clone()
    for turn in order:
        for place in np.unique(turn):
            images = (turn == place).nonzero()[0]
            factor = onto(torch.from_numpy(factors[place, images]), pixels.device)
            index = onto(torch.from_numpy(images), pixels.device)
            pixels[index] = tones[place](pixels[index], factor.view(-1, 1, 1, 1))
    return pixels


def operate(pixels: Tensor, name: str, strength: Floats, fill: tuple[int, ...]) -> Tensor:
    """Apply one operation to every image.

    Args:
        pixels: uint8 (B, C, H, W).
        name: one of TONES or MOVES.
        strength: from -1 to 1, (B,); operations without two directions ignore its sign.
        fill: grey value of every channel for pixels outside of a moved image.
    """
    if name in MOVES:
        height, width = pixels.shape[2:]
        table = np.stack([MOVES[name](each, width, height) for each in strength.tolist()])
        return move(pixels, onto(torch.from_numpy(table), pixels.device), fill)
    amount, tone = TONES[name]
    amounts = torch.from_numpy(amount(np.abs(strength)))
    return tone(pixels, onto(amounts, pixels.device).view(-1, 1, 1, 1))


# Grey values ------------------------------------------------------------------------------------


def invert(pixels: Tensor, _: Tensor) -> Tensor:
    """Turn black into white."""
    return 255 - pixels


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of every grey value."""
    return pixels & (256 - 2 ** (8 - bits.int())).to(torch.uint8)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert values that are not below the threshold."""
    return torch.where(pixels < threshold.short(), pixels, 255 - pixels)


def solarize_add(pixels: Tensor, addition: Tensor) -> Tensor:
    """Lighten values below 128."""
    lighter = (pixels + addition.short()).clamp_max(255).to(torch.uint8)
    return torch.where(pixels < 128, lighter, pixels)


def auto_contrast(pixels: Tensor, _: Tensor) -> Tensor:
    """Stretch every channel from black to white."""
    rows = pixels.flatten(2)
    low, high = rows.amin(2, keepdim=True).double(), rows.amax(2, keepdim=True).double()
    scale = torch.full_like(low, 255) / (high - low).clamp_min(1)  # 255 / x: by a reciprocal
    grey = torch.arange(256, dtype=torch.float64, device=pixels.device)
    stretched = (grey * scale - low * scale).clamp(0, 255)
    return look_up(pixels, torch.where(high > low, stretched, grey))


def equalize(pixels: Tensor, _: Tensor) -> Tensor:
    """Give every channel a flat histogram."""
    rows = pixels.flatten(2).long()
    counts = rows.new_zeros(*rows.shape[:2], 256)
    counts.scatter_add_(2, rows, rows.new_ones(()).expand(rows.shape))
    brightest = counts.gather(2, rows.amax(2, keepdim=True))
    step = (rows.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    flat = (below + step // 2) // step.clamp_min(1)
    grey = torch.arange(256, device=pixels.device)
    return look_up(pixels, torch.where(step > 0, flat.clamp_max(255), grey))


def color(pixels: Tensor, factor: Tensor) -> Tensor:
    """Reduce colour, by a factor below 1, or increase it."""
    return blend(luminance(pixels), pixels, factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Reduce contrast around the image's mean, by a factor below 1, or increase it."""
    grey = luminance(pixels).long()
    size = grey.shape[2] * grey.shape[3]
    mean = (2 * grey.sum((1, 2, 3), keepdim=True) + size) // (2 * size)
    return blend(mean, pixels, factor)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Darken, by a factor below 1, or lighten."""
    return blend(torch.zeros_like(pixels), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Smooth all except the border, by a factor below 1, or sharpen."""
    grey = pixels.float()
    rows = grey[:, :, :-2] + grey[:, :, 1:-1] + grey[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * grey[:, :, 1:-1, 1:-1]
    smooth = pixels.clone()
    smooth[:, :, 1:-1, 1:-1] = (total / 13 + 0.5).to(torch.uint8)
    return blend(smooth, pixels, factor)


def luminance(pixels: Tensor) -> Tensor:
    """Return the grey image (B, 1, H, W) of colour or grey ones, by ITU-R 601-2."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.int().split(1, dim=1)
    return (red * 19595 + green * 38470 + blue * 7471 + 2**15 >> 16).to(torch.uint8)


def blend(low: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    """Interpolate from `low` at a factor of 0 to the pixels at 1; extrapolate beyond 1."""
    base = low.float()
    # Another order or precision would round some grey values differently.
    values = pixels.float().sub_(base).mul_(factor.float()).add_(base)
    return values.clamp_(0, 255).to(torch.uint8)


def look_up(pixels: Tensor, table: Tensor) -> Tensor:
    """Replace every grey value by the entry of its image and channel in a table (B, C, 256)."""
    count, channels, height, width = pixels.shape
    first = torch.arange(0, table.numel(), 256, dtype=torch.int32, device=pixels.device)
    at = (pixels + first.view(count, channels, 1, 1)).permute(0, 2, 3, 1)  # (B, H, W, C)
    found = table.to(torch.uint8).flatten().index_select(0, at.flatten())
    return found.view(count, height, width, channels).permute(0, 3, 1, 2)


def enhancement(strength: Floats) -> Floats:
    """Return a factor from 0.1 to 1.9."""
    return 0.1 + 1.8 * strength


Tone = Callable[[Tensor, Tensor], Tensor]
TONES: dict[str, tuple[Callable[[Floats], Floats], Tone]] = {
    "auto-contrast": (np.abs, auto_contrast),
    "equalize": (np.abs, equalize),
    "invert": (np.abs, invert),
    "posterize": (lambda strength: np.floor(4 * strength).clip(1), posterize),
    "solarize": (lambda strength: np.floor(256 * strength), solarize),
    "solarize-add": (lambda strength: np.floor(110 * strength), solarize_add),
    "color": (enhancement, color),
    "contrast": (enhancement, contrast),
    "brightness": (enhancement, brightness),
    "sharpness": (enhancement, sharpness),
}
"""Operations that change grey values: the argument for a strength from 0 to 1, the operation."""


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


def move(pixels: Tensor, matrix: Tensor, fill: tuple[int, ...]) -> Tensor:
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
    background = onto(torch.tensor(fill, dtype=torch.uint8), pixels.device).view(1, -1, 1, 1)
    return torch.where(inside.unsqueeze(1), values, background)
