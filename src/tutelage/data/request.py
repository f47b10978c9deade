"""Checks of what a reader needs."""

from pathlib import Path
from typing import Literal

from tutelage.config import Data
from tutelage.data import DataError

PartName = Literal["train", "search", "rest", "test", "validation", "own test"]
"""A part of a data set.

`train`: the training images that are not held out; a retraining uses them. `search`: those of them
that `sample` chooses. `rest`: those that it leaves out, as many as `unlabelled_sample` says.
`test`: the test images, or the training images that `held_out` holds out; of a folder with test and
val parts the first, without a test part the second. Of files only: `validation`, the val part, and
`own test`, the test part alone.
"""


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
