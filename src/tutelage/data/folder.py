"""Folders of images: ROOT/train/CLASS with ROOT/test or ROOT/val, ROOT/CLASS, or no classes.

Shards may replace folders by class, see `tutelage.data.shards`.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from tutelage.config import Data
from tutelage.data import DataError, shards
from tutelage.data.images import Images, Labelled, Listing, OnDisk, measure
from tutelage.data.listing import common_shape, describe, files_below, listing, source_of
from tutelage.data.pictures import SUFFIXES, Shape
from tutelage.data.remarks import left_out, say
from tutelage.data.request import PartName, given_root
from tutelage.data.subsets import chosen_files

MEMORY = 2 * 2**30  # bytes of pixels up to which a folder is read into memory once


def read_folder(settings: Data, part: PartName) -> Labelled:
    """Read images by class; mean and deviation are measured on the images that train.

    What `held_out` and `sample` leave out stays closed. A folder without a train folder is divided
    class by class: a fifth of the files, chosen by the digests of their names, is the test part.

    Raises:
        DataError: classes or images are missing, broken, or not alike.
    """
    root = given_root(settings)
    every = listing(root, "train")
    train = chosen_files(every, settings, "train" if part == "test" else part)
    if part == "search" and settings.validation == "folder":
        train = with_validation(root, train)
    shape = common_shape(train, settings)
    if part == "test":
        mean, std = measure(on_disk(train, shape, settings))
        images = test_images(root, every, shape, settings)
    else:
        images = opened(train, shape, settings)
        mean, std = measure(images)
    side = min(shape[1:])
    return Labelled(root.name, images, every.classes, mean, std, crop=side // 8, flip=True)


def test_images(root: Path, train: Listing, shape: Shape, settings: Data) -> Images:
    """Read the test part, which must have the training part's classes and shape."""
    test = test_files(root, train, settings)
    found = common_shape(test, settings)
    if found != shape:
        raise DataError(
            f"{root}: its test images are {describe(found)}, its training images "
            f"{describe(shape)}; give --data.colour and --data.resolution"
        )
    return opened(test, shape, settings)


def test_files(root: Path, train: Listing, settings: Data) -> Listing:
    """List the test part, which must have the training part's classes."""
    held = settings.held_out > 0
    test = chosen_files(train, settings, "test") if held else listing(root, test_part(settings))
    check_classes(root, train, test)
    return test


def with_validation(root: Path, train: Listing) -> Listing:
    """Append the images of the validation part to those that are searched on."""
    own = listing(root, "validation")
    if own.classes != train.classes:
        odd = sorted(set(own.classes) ^ set(train.classes))
        raise DataError(f"{root}: only one of train and val has the classes {', '.join(odd)}")
    paths, labels = [*train.paths, *own.paths], torch.cat([train.labels, own.labels])
    return train._replace(paths=paths, labels=labels)


def validation_images(settings: Data) -> int:
    """Count the images of a folder's validation part."""
    return len(listing(given_root(settings), "validation").paths)


def check_classes(root: Path, train: Listing, test: Listing) -> None:
    """Refuse parts of different classes."""
    if test.classes != train.classes:
        odd = sorted(set(test.classes) ^ set(train.classes))
        raise DataError(f"{root}: only one of its parts has the classes {', '.join(odd)}")


def test_part(settings: Data) -> PartName:
    """Return the part that is tested: a test folder alone, if a val folder trains alphas."""
    return "own test" if settings.validation == "folder" else "test"


def check_folder(settings: Data) -> None:
    """Refuse a folder whose test part has other classes, by names alone: no image is opened.

    Raises:
        DataError: a part has no images, or they have different classes.
    """
    root = given_root(settings)
    if not settings.held_out:
        check_classes(root, listing(root, "train"), listing(root, test_part(settings)))


def read_rest(settings: Data, shape: Shape) -> Images:
    """Read the training images that a sample leaves out, in a given shape; no others are opened."""
    every = listing(given_root(settings), "train")
    return opened(chosen_files(every, settings, "rest"), shape, settings)


def read_unlabelled_folder(root: Path, shape: Shape, settings: Data) -> Images:
    """Read every image below ROOT/train, or below ROOT, in a given shape.

    Raises:
        DataError: there are no images.
    """
    if members := shards.members_of(root):
        found = Listing(members, torch.full((len(members),), -1), (), shards.source(root))
        return opened(found, shape, settings)
    below = root / "train" if (root / "train").is_dir() else root
    paths, others = files_below(below)
    if not paths:
        raise DataError(f"{below} holds no images ({', '.join(SUFFIXES)})")
    if others:
        say(f"{below}: files are left out: {left_out(others)}")
    labels = torch.full((len(paths),), -1)
    return opened(Listing(paths, labels, (), source_of(root)), shape, settings)


def on_disk(files: Listing, shape: Shape, settings: Data) -> OnDisk:
    """Leave images on disk."""
    return OnDisk(
        files.paths,
        files.labels,
        shape,
        source=files.source,
        centre=settings.centre,
        white=settings.white,
    )


def opened(files: Listing, shape: Shape, settings: Data) -> Images:
    """Read images into memory or leave them on disk, by the settings or otherwise by their size.

    Raises:
        DataError: the settings need more of an image than memory would hold.
    """
    images = on_disk(files, shape, settings)
    if settings.memory == "load" and settings.centre < 1:
        raise DataError(
            f"centre = {settings.centre} with memory = 'load': images in memory have no border "
            "to cut off, give --data.memory stream"
        )
    whole = settings.rescale == 0 and settings.centre == 1
    small = len(images) * math.prod(shape) <= MEMORY
    fits = settings.memory == "auto" and whole and small
    return images.load() if fits or settings.memory == "load" else images
