"""Checks of what a reader needs."""

from pathlib import Path
from typing import Literal

from tutelage.config import Data
from tutelage.data import DataError

PartName = Literal["train", "test"]


def given_root(settings: Data) -> Path:
    """Return the folder of the data set's files.

    Raises:
        DataError: it is not set, or not a folder.
    """
    if settings.root is None:
        raise DataError(f"data set {settings.name} needs its folder: give --data-root DIR")
    if not settings.root.is_dir():
        raise DataError(f"--data-root {settings.root} is not a folder")
    return settings.root
