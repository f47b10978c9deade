"""Images to pseudo-label that are none of the test images, wherever these lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tutelage.data import DataError
from tutelage.data.images import Listing
from tutelage.data.remarks import say

Key = tuple[Any, ...]


def without(found: Listing, tested: Iterable[Any], name: str) -> Listing:
    """Leave out test images, and say how many there were; nothing is opened.

    Args:
        found: Images to pseudo-label: paths of files, or tuples that begin with the file.
        tested: Test images, as such, or paths of whole files of them.
        name: What was asked for, for the message.

    Raises:
        DataError: All of them are test images.
    """
    key = _keys()
    closed = set(map(key, tested))
    keys = map(key, found.paths) if closed else ()
    odd = {place for place, own in enumerate(keys) if own in closed or own[:1] in closed}
    if not odd:
        return found
    if len(odd) == len(found.paths):
        raise DataError(
            f"unlabelled = {name!r}: all its images are test images of the searched set, which a "
            "search does not open; give train, rest or another folder"
        )
    say(f"{name}: {len(odd):,} images are left out, which are test images of the searched set")
    kept = [place for place in range(len(found.paths)) if place not in odd]
    return found.at(torch.tensor(kept))


def _keys() -> Callable[[Any], Key]:
    """Return what tells an image from others, however its path is written."""
    real = lru_cache(maxsize=None)(os.path.realpath)

    def key(image: Any) -> Key:
        file, *place = (image,) if isinstance(image, str) else image
        folder, name = os.path.split(file)
        whole = os.path.realpath(file) if Path(file).is_symlink() else f"{real(folder)}/{name}"
        return (whole, *place)

    return key
