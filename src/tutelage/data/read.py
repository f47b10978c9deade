"""Read a data set by name, with any of the readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tutelage.checks import nearest
from tutelage.config import Data
from tutelage.data import ADDED, DATA, IMAGENET, DataError
from tutelage.data.cifar import CIFAR10, CIFAR100, check_archive, read_cifar10, read_cifar100
from tutelage.data.collection import COLLECTIONS, ENDINGS, collection_of
from tutelage.data.digits import read_digits
from tutelage.data.folder import check_folder, read_folder, read_rest, read_without_labels, tested
from tutelage.data.given import GIVEN
from tutelage.data.images import Images, Labelled, Unlabelled
from tutelage.data.request import PartName
from tutelage.installed import load

Reader = Callable[[Data, PartName], Labelled]
"""Reads a part of a data set."""

READERS: dict[str, Reader] = {
    "digits": read_digits,
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    **dict.fromkeys(COLLECTIONS, read_folder),
}

CHECKS: dict[str, Callable[[Data], None]] = {
    "cifar10": partial(check_archive, CIFAR10),
    "cifar100": partial(check_archive, CIFAR100),
    **dict.fromkeys(COLLECTIONS, check_folder),
}
"""What refuses a set that cannot be tested."""


def reader_of(name: str) -> Reader:
    """Return the reader of a data set, ours or that of an installed package.

    Raises:
        ValueError: Its package cannot be imported.
    """
    found: Reader = READERS[name] if name in READERS else load("data", name, ADDED[name])
    return found


def read(settings: Data, part: PartName) -> Labelled:
    """Read a part of the data set in the settings.

    The name may also be the path of a folder or of a file that lists images. Only `test` opens
    files of test images, and not if training images are held out.

    Raises:
        DataError: the set is unknown, missing or unusable.
    """
    settings = named(settings)
    labelled = reader_of(settings.name)(settings, part)
    if settings.name not in COLLECTIONS:
        check_unchanged(settings, labelled)
    return labelled


def check_test_part(settings: Data) -> None:
    """Refuse a set that could not be tested after a training, without decoding a test image.

    Raises:
        DataError: a folder has no test part, or one of other classes or shapes; a file of test
            images is missing.
    """
    settings = named(settings)
    if check := CHECKS.get(settings.name):
        check(settings)


def read_unlabelled(settings: Data, searched: Labelled, train: Tensor) -> tuple[Labelled, Tensor]:
    """Read the images to pseudo-label, and return the indices to use.

    They have the shape, mean, deviation and augmentation of the searched set. Images of another set
    have no labels. Those of the training half keep their labels, so that the accuracy of a method's
    labels can be measured.

    Args:
        settings: where `unlabelled` is "train", "rest", a data set's name, or a folder with or
            without classes, of which only the training part is read.
        searched: the part of the searched set that is searched on.
        train: indices of its images that train weights, (N,).

    Raises:
        DataError: the set is unknown, missing or unusable.
    """
    if settings.unlabelled == "train":
        return searched, train
    rest = settings.unlabelled == "rest"
    images = left_out(settings, searched) if rest else other_images(settings, searched)
    unlabelled = Unlabelled(images, searched.images.shape)
    found = replace(searched, name=settings.unlabelled, images=unlabelled, classes=())
    return found, torch.arange(len(images))


def left_out(settings: Data, searched: Labelled) -> Images:
    """Read the training images that the sample leaves out."""
    own = named(settings)
    if own.name in COLLECTIONS:
        return read_rest(own, searched.images.shape)
    return reader_of(own.name)(own, "rest").images


def other_images(settings: Data, searched: Labelled) -> Images:
    """Read the training images of the set or folder that `unlabelled` names, all of another set.

    Test images of the searched set are left out, also those held out.

    Raises:
        DataError: the set is unknown or missing, or has no other images.
    """
    own = named(settings)
    whole = replace(settings, held_out=0, sample=1.0, label_column=None)
    root = settings.root if known(settings.unlabelled) else None
    asked = replace(whole, name=settings.unlabelled, root=root, resolution=None, colour="auto")
    other = named(asked)
    if other.name == GIVEN:
        return read_without_labels(collection_of(other), searched.images.shape, settings)
    if other.name != "folder":
        same = other.name == own.name
        return searched.images if same else reader_of(other.name)(other, "train").images
    if other.root is None:
        raise DataError("unlabelled = folder needs a folder: give --data-root DIR or its path")
    found, shape = collection_of(other), searched.images.shape
    if own.name != "folder" or own.root is None:
        return read_without_labels(found, shape, settings)
    if own.root.resolve() == other.root.resolve():
        return searched.images
    return read_without_labels(found, shape, settings, tested(own))


def known(name: str) -> bool:
    """Tell whether a name is that of a data set, and no path."""
    return name in READERS or name in ADDED


def place_of(settings: Data) -> Path:
    """Return where a path that is the name of a set is, or where a root says that it is now."""
    path, root = Path(settings.name), settings.root
    listed = path.suffix.lower() in ENDINGS and not path.is_dir()
    is_path = listed or path.is_dir() or len(path.parts) > 1
    if root is None or not (is_path or path.name == root.name):
        return path
    return root / path.name if listed and root.is_dir() else root


def named(settings: Data) -> Data:
    """Resolve the name: that of a data set, or the path of a folder or of a file of images.

    A root beside a path is where that folder, or the folder of that file, is now.

    Raises:
        DataError: it is neither, or the root does not hold the file.
    """
    if known(settings.name):
        return settings
    path, root = place_of(settings), settings.root
    if path.is_dir() or (path.suffix.lower() in ENDINGS and path.is_file()):
        return replace(settings, name="folder", root=path)
    if root is not None and path == root:
        return replace(settings, name="folder")
    if root is not None and path != Path(settings.name):
        raise DataError(f"--data-root {root} has no {path.name}: give the folder that it is in now")
    if settings.name == IMAGENET:
        raise DataError(
            "a recipe for ImageNet needs its images, as folders by class or as shards: give "
            "--data FOLDER"
        )
    moved = f"; a folder that was {path} is found by --data-root if that ends in {path}"
    raise DataError(
        f"unknown data set {settings.name!r}, which is no folder of images either, nor a CSV or "
        f"Parquet file: "
        f"{nearest(settings.name, [*DATA, *ADDED])}{moved if root else ''}"
    )


def check_unchanged(settings: Data, labelled: Labelled) -> None:
    """Refuse settings that only a folder's images can have."""
    channels, side, _ = labelled.images.shape
    if settings.resolution not in (None, side):
        raise DataError(
            f"resolution = {settings.resolution}: the images of {settings.name} are "
            f"{side} x {side}; only a folder's images are resized"
        )
    if settings.colour not in ("auto", "grey" if channels == 1 else "rgb"):
        raise DataError(
            f"colour = {settings.colour!r}: the images of {settings.name} are "
            f"{'grey' if channels == 1 else 'RGB'}; only a folder's images are converted"
        )
    if settings.validation == "folder":
        raise DataError(f"validation = 'folder': {settings.name} has no validation part of its own")
    if settings.white != Data.white:
        raise DataError(
            f"white = {settings.white}: the images of {settings.name} have 8 bits; only a folder's "
            "may have 16"
        )
    if settings.label_column is not None:
        raise DataError(
            f"label_column = {settings.label_column!r}: {settings.name} has no columns; only CSV "
            "and Parquet files have"
        )
    if settings.centre < 1 or settings.memory == "stream":
        given = f"centre = {settings.centre}" if settings.centre < 1 else "memory = 'stream'"
        raise DataError(
            f"{given}: the images of {settings.name} are in memory as they are; only a folder's "
            "are decoded batch by batch"
        )
