"""Pillow's images as arrays: upright, on white, of 8 bits, grey or RGB, resized.

What files of other kinds become: a photograph is turned as its EXIF data say, transparent pixels
show white, 16 bits are scaled to 8, a palette and CMYK become RGB, and of several frames the first
one counts.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from tutelage.data import DataError
from tutelage.data.windows import Box

Pixels = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]  # channels, height, width
Transpose = Image.Transpose

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
WHITE: Final = 2**16 - 1
"""The largest value of an image of 16 bits."""

ALPHA: Final = "alpha"
DEEP: Final = "deep"
FRAMES: Final = "frames"
TURNED: Final = "turned"
PALETTE: Final = "palette"
CMYK: Final = "cmyk"
LARGE: Final = "large"
KINDS: Final = {
    ALPHA: "an alpha channel, which is put on white",
    DEEP: "16 bits, of which 0 to --data.white (65,535 if not given) become 0 to 255",
    FRAMES: "several frames, of which the first is used",
    TURNED: "an orientation in their EXIF data, by which they are turned",
    PALETTE: "a palette, and become RGB",
    CMYK: "CMYK, and become RGB",
    LARGE: "more than 89 million pixels, which take memory and time to decode",
}
"""What an image may have that is converted, as it is said of several."""

_ORIENTATION: Final = 0x0112  # tag of EXIF
_TURNS: Final = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def from_bytes(content: bytes) -> Image.Image:
    """Open the image in the bytes of a file, without decoding it.

    Raises:
        DataError: They are of no format that Pillow knows.
    """
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise DataError(f"its {len(content):,} bytes are of no known format") from None


def kinds_of(image: Image.Image) -> list[str]:
    """List the keys of `KINDS` that hold for an image that is not decoded yet."""
    holds = {
        ALPHA: transparent(image),
        DEEP: image.mode.startswith("I"),
        FRAMES: getattr(image, "is_animated", False),
        TURNED: orientation(image) in _TURNS,
        PALETTE: image.mode in ("P", "PA"),
        CMYK: image.mode == "CMYK",
        LARGE: math.prod(image.size) > (Image.MAX_IMAGE_PIXELS or math.inf),
    }
    return [kind for kind, true in holds.items() if true]


def shape_of(image: Image.Image) -> Shape:
    """Return the channels, height and width of an upright image, from its header."""
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
    sides = image.size if orientation(image) in (5, 6, 7, 8) else image.size[::-1]
    return 1 if grey else 3, *sides


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image that is not decoded yet; 1, upright, without one.

    Pillow's own reading of damaged EXIF data warns, and decodes a PNG for data after its pixels.
    """
    exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}L", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, at)
            if tag == _ORIENTATION:
                return int(
                    struct.unpack_from(f"{order}{'L' if kind == 4 else 'H'}", exif, at + 8)[0]
                )
    except struct.error:  # damaged data beside a sound image
        pass
    return 1


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says."""
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def transparent(image: Image.Image) -> bool:
    """Tell whether pixels of an image may be transparent."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def converted(image: Image.Image, channels: int, white: int = WHITE) -> Image.Image:
    """Convert an image to 8 bits a channel, and to grey (1 channel) or RGB (3).

    Args:
        image: Of any mode.
        channels: 1 or 3.
        white: The value of 16 bits that becomes 255, as do higher ones.

    Raises:
        DataError: The image has more than 16 bits, or fractions.
    """
    if image.mode.startswith("I"):
        image = _scaled(image, white)
    elif image.mode.startswith("F"):
        raise DataError(f"it has mode {image.mode}, and images need 8 or 16 bits per channel")
    elif transparent(image):
        layer = image.convert("RGBA")
        image = Image.new("RGBA", image.size, "white")
        image.alpha_composite(layer)
        image = image.convert("RGB")
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _scaled(image: Image.Image, white: int) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > WHITE:
        raise DataError(
            f"it has values from {values.min():,} to {values.max():,}, and images need 16 bits at "
            "most"
        )
    scaled = np.rint(np.minimum(values, white) * (255 / white))
    return Image.fromarray(scaled.astype(np.uint8))


def fit(image: Image.Image, shape: Shape, box: Box | None = None, white: int = WHITE) -> Pixels:
    """Convert an upright image, or a box of it, to a shape, as (H, W, C).

    Without a box the shorter side is resized to the shape, and the longer side is cropped.

    Raises:
        DataError: As `converted`.
    """
    channels, height, width = shape
    image = converted(image, channels, white)
    if box is not None:
        image = image.resize((width, height), Image.Resampling.BILINEAR, box)
    elif image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def pictures(pixels: Tensor) -> list[Image.Image]:
    """Return uint8 (B, C, H, W) as Pillow's images."""
    arrays = pixels.permute(0, 2, 3, 1).numpy()
    grey = pixels.shape[1] == 1
    return [Image.fromarray(array[..., 0] if grey else array) for array in arrays]


def stack(arrays: Sequence[Pixels]) -> Tensor:
    """Stack arrays (H, W, C) to uint8 (B, C, H, W) in channels-last memory."""
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
