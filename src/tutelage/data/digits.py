"""The hand-written digits that come with the package; embedded/NOTICE.md gives their source."""

from importlib import resources

import numpy as np
import torch

from tutelage.config import Data
from tutelage.data.images import InMemory, Labelled, measure
from tutelage.data.request import PartName
from tutelage.data.subsets import chosen_images, file_of

INK = 16  # the darkest value of the stored images


def read_digits(settings: Data, part: PartName) -> Labelled:
    """Read a part of 1,198 training and 599 test digits, uint8 (N, 1, 8, 8)."""
    measured: PartName = "search" if part == "search" else "train"
    mean, std = measure(chosen_images(stored("train"), settings, measured))
    images = chosen_images(stored(file_of(settings, part)), settings, part)
    classes = tuple("0123456789")
    return Labelled("digits", images, classes, mean, std, crop=1, flip=False)


def stored(part: PartName) -> InMemory:
    """Read one of the two embedded files."""
    path = resources.files("tutelage.data") / "embedded" / f"digits_{part}.npz"
    with path.open("rb") as file, np.load(file) as arrays:
        ink, labels = arrays["images"], arrays["labels"]
    pixels = np.rint(ink.astype(np.float64) * 255 / INK).astype(np.uint8)
    return InMemory(torch.from_numpy(pixels)[:, None], torch.from_numpy(labels.astype(np.int64)))
