"""Short digests of images, by which a run that resumes sees whether its data have changed.

Images in memory are compared by their pixels. Files that are decoded batch by batch are compared by
their sizes and times, because reading all of them would take minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

Numbers = npt.NDArray[np.uint32]
PIXELS: Final = "pixels"
FILES: Final = "files"
ITEMS: Final = "items"


class Stat(NamedTuple):
    """An image's file, or its place in a larger one."""

    name: str
    """Its path, with its place there."""
    size: int
    """Bytes."""
    time: int
    """When the file was last written, in nanoseconds; of an item the digest of its pixels."""


class Identity(NamedTuple):
    """What tells the N images of a set from others."""

    by: str
    """What `contents` are digests of: PIXELS; FILES for sizes and times; or ITEMS for the pixels of
    what Python gives, before they are resized."""
    names: Sequence[str]
    """Paths below the set's folder; empty for images without names."""
    contents: Numbers
    """A digest for each image, (N,)."""


def stats(paths: Sequence[str]) -> list[Stat]:
    """Describe files."""
    found = ((path, Path(path).stat()) for path in paths)
    return [Stat(path, stat.st_size, stat.st_mtime_ns) for path, stat in found]


def digest_pixels(pixels: Tensor) -> Numbers:
    """Return the digests of images, uint8 (N, C, H, W)."""
    arrays = pixels.cpu().numpy()
    if not arrays[:1].flags.c_contiguous:  # channels-last memory: a copy of a few images at a time
        return np.concatenate(
            [
                _digests(np.ascontiguousarray(arrays[start : start + 256]))
                for start in range(0, len(arrays), 256)
            ]
        )
    return _digests(arrays)


def digest_files(files: Iterable[Stat]) -> Numbers:
    """Return the digests of files' sizes and times."""
    return digest_texts(f"{file.size} {file.time}" for file in files)


def digest_texts(texts: Iterable[str]) -> Numbers:
    """Return the digests of texts, such as names of files."""
    return _digests([text.encode(errors="surrogateescape") for text in texts])


def _digests(contents: Iterable[Any]) -> Numbers:
    found = b"".join(blake2b(each, digest_size=4).digest() for each in contents)
    return np.frombuffer(found, "<u4").astype(np.uint32)
