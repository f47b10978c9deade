"""A sheet of samples: images of every class as they are, and as a search is fed with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.augment import Augmentation, augmentation
from tutelage.data.batches import Stream
from tutelage.data.given import Given, taken, using
from tutelage.data.images import Labelled
from tutelage.data.read import read

CLASSES: Final = 12
"""Classes that are shown at most."""
SAMPLES: Final = 4
"""Images of a class."""
SIDE: Final = 64
"""Least side of an image on the sheet, in pixels."""
MOST: Final = 128
"""Largest side of an image on the sheet, in pixels."""
GAP: Final = 4
TEXT: Final = 110
HEAD: Final = 20
FORMATS: Final = (".png", ".jpg", ".jpeg", ".webp")


def save_sheet(data: Data | Given | Any, out: Path | str, seed: int = 0) -> None:
    """Write a sheet: a row for each of the first classes, images as read beside images as fed.

    Args:
        data: The set, and its augmentation; or a name, a folder, or what the program holds, as in
            `tutelage.search`.
        out: The picture to write: .png, .jpg or .webp.
        seed: Of the order of the images and their augmentation.

    Raises:
        DataError: The set cannot be used, or the picture's format is not known.
    """
    if Path(out).suffix.lower() not in FORMATS:
        raise DataError(f"the picture {out} must end in {', '.join(FORMATS)}")
    settings, given = taken(data)
    with using(given):
        images = read(settings, "search")
        how = augmentation(images, settings)
        shown = torch.unique(images.images.labels)[:CLASSES].tolist()
        rows = [samples(images, how, label, seed) for label in shown]
    names = [images.classes[label] for label in shown]
    drawn(names, rows, images.images.shape[1:]).save(out)


def samples(data: Labelled, how: Augmentation, label: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return some images of a class as they are read, and as they are fed, uint8 (B, C, H, W)."""
    subset = (data.images.labels == label).nonzero()[:, 0]
    double = subset if len(subset) > 1 else subset.repeat(2)  # a stream has two images at least
    count = min(SAMPLES, len(double))
    stream = Stream(
        data=data,
        subset=double,
        batch_size=count,
        seed=seed,
        name=f"sheet/{label}",
        augmentation=how,
        device=torch.device("cpu"),
    )
    x, _, position = stream.batch(0, 0)
    mean, std = (torch.tensor(each)[:, None, None] for each in (data.mean, data.std))
    fed = (255 * (x * std + mean)).round().clamp(0, 255).to(torch.uint8)
    return data.images.take(double[position])[: len(subset)], fed[: len(subset)]


def drawn(
    names: list[str], rows: list[tuple[Tensor, Tensor]], sides: tuple[int, int]
) -> Image.Image:
    """Draw the sheet."""
    zoom = scale(max(sides))
    height, width = (max(1, round(zoom * side)) for side in sides)
    across = TEXT + 2 * SAMPLES * (width + GAP) + 4 * GAP
    sheet = Image.new("RGB", (across, HEAD + len(rows) * (height + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    second = TEXT + SAMPLES * (width + GAP) + 4 * GAP
    for left, text in ((TEXT, "as read"), (second, "as fed, augmented")):
        pen.text((left, GAP), text, "black", font)
    for row, (name, halves) in enumerate(zip(names, rows, strict=True)):
        top = HEAD + row * (height + GAP)
        legible = name.encode("latin-1", "replace").decode("latin-1")
        pen.text((GAP, top + height // 2 - 6), legible[:18], "black", font)
        for left, images in zip((TEXT, second), halves, strict=True):
            for place, pixels in enumerate(images):
                picture = Image.fromarray(colours(pixels))
                picture = picture.resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(picture, (left + place * (width + GAP), top))
    return sheet


def scale(side: int) -> float:
    """Return the factor that brings a side between the least and the largest; whole, if above 1."""
    return float(-(-SIDE // side)) if side < SIDE else min(1.0, MOST / side)


def colours(pixels: Tensor) -> npt.NDArray[np.uint8]:
    """Return an image (C, H, W), grey or RGB, as (H, W, 3)."""
    found: npt.NDArray[np.uint8] = pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return found
