"""Which training images a part has: all, those held out, a sample of each class, or its rest.

The choices have a fixed seed of their own, so that a search and its retraining agree, whatever
their seeds. They depend on the number and the labels of the training images, in the set's order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.images import InMemory, Listing
from tutelage.data.request import PartName
from tutelage.data.seeding import generator

SEED = 0


def chosen_images(images: InMemory, settings: Data, part: PartName) -> InMemory:
    """Return a part's images, from those of its file.

    Raises:
        DataError: as `places`.
    """
    index = places(images.labels, settings, part)
    if len(index) == len(images):
        return images
    return InMemory(images.pixels[index], images.labels[index])


def chosen_files(files: Listing, settings: Data, part: PartName) -> Listing:
    """Return the paths of a part's images, from those of its folder.

    Raises:
        DataError: as `places`.
    """
    index = places(files.labels, settings, part)
    return files if len(index) == len(files.paths) else files.at(index)


def file_of(settings: Data, part: PartName) -> PartName:
    """Return which part of the set's files holds the images of a part."""
    return "test" if part == "test" and not settings.held_out else "train"


def places(labels: Tensor, settings: Data, part: PartName) -> Tensor:
    """Return where a part's images are among those of its files, int64, ascending.

    Args:
        labels: of all images of the files, int64 (N,).
        settings: `held_out`, `sample` and `unlabelled_sample`.
        part: the part.

    Raises:
        DataError: all training images would be held out, or a class would have none in the sample.
    """
    if file_of(settings, part) == "test":
        return torch.arange(len(labels))
    held, left = hold_out(len(labels), settings.held_out)
    if part == "test":
        return held
    if part == "train":
        return left
    sample = in_sample(labels[left], settings.sample)
    if part == "search":
        return left[sample]
    return some(left[~sample], round(settings.unlabelled_sample * len(left)))


def hold_out(count: int, held_out: int, setting: str = "held_out") -> tuple[Tensor, Tensor]:
    """Divide range(count) into places held out, sampled uniformly, and the others, ascending.

    Choices of different settings are independent.

    Raises:
        DataError: none would be left.
    """
    if held_out >= count:
        raise DataError(
            f"{setting} = {held_out:,}: the training images are {count:,} in all, hold out fewer"
        )
    order = torch.from_numpy(generator(SEED, setting.replace("_", "-")).permutation(count))
    return order[:held_out].sort().values, order[held_out:].sort().values


def in_sample(labels: Tensor, share: float) -> Tensor:
    """Sample a share of every class; return whether each image is in the sample, bool (N,).

    The images of a smaller share are among those of a larger one.

    Raises:
        DataError: of some class, the share is no image.
    """
    if share == 1:
        return torch.ones(len(labels), dtype=torch.bool)
    _, counts = np.unique(labels.numpy(), return_counts=True)
    by_class = np.split(np.argsort(labels.numpy(), kind="stable"), counts.cumsum()[:-1])
    sample = np.zeros(len(labels), bool)
    for number, own in enumerate(by_class):
        size = round(share * len(own))
        if size == 0:
            raise DataError(
                f"sample = {share}: of a class with {len(own)} images that is none; "
                f"give at least {1 / len(own):.2g}"
            )
        sample[generator(SEED, "sample", number).permutation(own)[:size]] = True
    return torch.from_numpy(sample)


def some(index: Tensor, count: int) -> Tensor:
    """Sample so many of an index uniformly, or all if they are fewer; keep its order."""
    order = torch.from_numpy(generator(SEED, "rest").permutation(len(index)))
    return index[order[:count].sort().values]
