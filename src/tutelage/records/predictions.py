"""predictions.npz of a retraining: what its network says of every test image. Needs numpy alone."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tutelage.formats import LARGEST
from tutelage.records.typed import known_version

FILE: Final = "predictions.npz"
VERSION: Final = 1
ARRAYS: Final = {
    "probabilities": ("f", 2),
    "confidence": ("f", 1),
    "predicted": ("iu", 1),
    "labels": ("iu", 1),
    "worst": ("iu", 1),
    "pictures": ("u", 4),
}
"""Kinds of numbers, and dimensions."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N images of C classes, in the order of the test set."""

    classes: tuple[str, ...]
    """Names of the classes."""
    probabilities: npt.NDArray[np.float16]
    """Probability of every class (N, C), with 11 bits."""
    confidence: npt.NDArray[np.float32]
    """Probability of the predicted class (N,)."""
    predicted: npt.NDArray[np.int32]
    """The class with the highest logit (N,)."""
    labels: npt.NDArray[np.int32]
    """The class of every image (N,)."""
    worst: npt.NDArray[np.int64]
    """Places (K,) of wrong predictions, those with the highest confidence first."""
    pictures: npt.NDArray[np.uint8]
    """Those images, small (K, H, W, 1 or 3)."""
    names: tuple[str, ...]
    """Names of their files; empty where the set has none."""

    def to_bytes(self) -> bytes:
        """Return the content of the file; equal predictions have equal bytes."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        for name in ("classes", "names"):
            arrays[name] = np.array(getattr(self, name), np.str_)
        content = io.BytesIO()
        np.savez_compressed(content, version=np.array(VERSION), **arrays)
        return content.getvalue()

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read what `to_bytes` made.

        Raises:
            ValueError: The file is damaged, or a newer release wrote it.
        """
        found = _arrays(path)
        try:
            known_version({"version": int(found["version"])}, VERSION)
            _check(found)
        except KeyError as error:
            raise ValueError(f"it lacks {error}") from None
        for name in ("classes", "names"):
            found[name] = tuple(map(str, found[name]))
        return cls(**{each.name: found[each.name] for each in fields(cls)})


def _arrays(path: Path) -> dict[str, Any]:
    """Read the arrays of a file; raise ValueError where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise ValueError(f"it holds {size:,} bytes: at most {LARGEST:,}")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # for broken bytes zipfile and numpy raise almost any error
        raise ValueError(f"it cannot be read: {error}") from None


def _check(found: dict[str, Any]) -> None:
    """Raise ValueError where arrays are of other kinds or do not fit each other."""
    for name, (kinds, dimensions) in ARRAYS.items():
        if found[name].dtype.kind not in kinds or found[name].ndim != dimensions:
            raise ValueError(f"its {name} are of another kind")
    images, classes = found["probabilities"].shape
    sizes = {len(found[name]) for name in ("confidence", "predicted", "labels")}
    worst = len(found["worst"])
    fit = sizes == {images} and len(found["classes"]) == classes
    fit &= len(found["pictures"]) == worst and len(found["names"]) in (0, worst)
    for name, most in (("predicted", classes), ("labels", classes), ("worst", images)):
        fit &= bool(((found[name] >= 0) & (found[name] < most)).all())
    if not fit:
        raise ValueError("its entries do not fit each other")
