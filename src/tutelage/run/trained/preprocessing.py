"""What an image needs before a network sees it, in words and numbers that other programs read."""

from __future__ import annotations

import json
from typing import Any

from tutelage.config import Data
from tutelage.run.networks.files import About, read_by


def preprocessing(details: About) -> dict[str, Any]:
    """Return the steps from an image file to the network's input.

    `resize`: the shorter side is resized bilinearly so that the centre crop of `height` x `width`
    is this share, `centre`, of the largest one. `white` is the value that becomes 255 in an image
    of 16 bits, as do higher ones.
    """
    channels, height, width = details.shape
    how = Data(**read_by(details))
    return {
        "layout": "NCHW",
        "colour": "grey" if channels == 1 else "rgb",
        "height": height,
        "width": width,
        "resize": "bilinear, then the centre",
        "centre": how.centre,
        "white": how.white,
        "scale": 1 / 255,
        "mean": list(details.mean),
        "std": list(details.std),
    }


def in_words(details: About) -> dict[str, str]:
    """Return class names and preprocessing as the texts of a file's metadata."""
    return {
        "classes": json.dumps(details.classes),
        "preprocessing": json.dumps(preprocessing(details)),
    }
