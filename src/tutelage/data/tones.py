"""Changes of grey values, as Pillow makes them: RandAugment's, and those of jitter.

Every function maps uint8 images (B, C, H, W) and one number for each, float64 (B, 1, 1, 1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


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
