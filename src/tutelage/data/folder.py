"""Images that are listed: folders by class, shards, tables, Parquet files, what Python gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.apart import without
from tutelage.data.collection import Collection, collection_of, listing
from tutelage.data.images import Images, Labelled, Listing, OnDisk, measure
from tutelage.data.listing import common_shape, describe
from tutelage.data.pictures import Shape
from tutelage.data.remarks import left_out, say
from tutelage.data.request import PartName
from tutelage.data.subsets import chosen_files

MEMORY = 2 * 2**30  # bytes of pixels up to which a folder is read into memory once


def read_folder(settings: Data, part: PartName) -> Labelled:
    """Read images by class; mean and deviation are measured on the images that train.

    What `held_out` and `sample` leave out stays closed. Images without parts are divided class by
    class: a fifth, chosen by the digests of their names, is the test part.

    Raises:
        DataError: classes or images are missing, broken, or not alike.
    """
    root = collection_of(settings)
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


def test_images(root: Collection, train: Listing, shape: Shape, settings: Data) -> Images:
    """Read the test part, which must have the training part's classes and shape."""
    test = test_files(root, train, settings)
    check_shape(root, "test", test, shape, settings)
    return opened(test, shape, settings)


def check_shape(root: Collection, part: str, files: Listing, shape: Shape, settings: Data) -> None:
    """Refuse images of another shape than the training images, by headers alone."""
    found = common_shape(files, settings)
    if found != shape:
        raise DataError(
            f"{root.name}: its {part} images are {describe(found)}, its training images "
            f"{describe(shape)}; give --data.colour and --data.resolution"
        )


def test_files(root: Collection, train: Listing, settings: Data) -> Listing:
    """List the test part, which must have the training part's classes."""
    held = settings.held_out > 0
    test = chosen_files(train, settings, "test") if held else listing(root, test_part(settings))
    check_classes(root, train, test)
    return test


def with_validation(root: Collection, train: Listing) -> Listing:
    """Append the images of the validation part to those that are searched on."""
    own = validation_files(root, train.classes)
    paths, labels = [*train.paths, *own.paths], torch.cat([train.labels, own.labels])
    return train._replace(paths=paths, labels=labels)


def validation_files(root: Collection, classes: tuple[str, ...]) -> Listing:
    """List the validation part, which must have the training part's classes."""
    own = listing(root, "validation")
    if own.classes != classes:
        odd = sorted(set(own.classes) ^ set(classes))
        raise DataError(f"{root.name}: only one of train and val has the classes {', '.join(odd)}")
    return own


def read_validation(settings: Data, train: Labelled) -> Labelled:
    """Read the validation part, normalised as the training images are.

    Raises:
        DataError: There is none, or it has other classes or another shape.
    """
    root = collection_of(settings)
    files = validation_files(root, train.classes)
    check_shape(root, "validation", files, train.images.shape, settings)
    return replace(train, images=opened(files, train.images.shape, settings))


def validation_images(settings: Data) -> int:
    """Count the images of a folder's validation part."""
    return len(listing(collection_of(settings), "validation").paths)


def check_classes(root: Collection, train: Listing, test: Listing) -> None:
    """Refuse parts of different classes."""
    if test.classes != train.classes:
        odd = sorted(set(test.classes) ^ set(train.classes))
        raise DataError(f"{root.name}: only one of its parts has the classes {', '.join(odd)}")


def test_part(settings: Data) -> PartName:
    """Return the part that is tested: a test folder alone, if a val folder trains alphas."""
    return "own test" if settings.validation == "folder" else "test"


def check_folder(settings: Data) -> None:
    """Refuse a folder whose test part has other classes or shapes: no image is decoded.

    The training images have been read, so that the first one has the shape of all.

    Raises:
        DataError: a part has no images, or they have different classes, shapes or broken headers.
    """
    if settings.held_out:
        return
    root = collection_of(settings)
    train = listing(root, "train")
    test = test_files(root, train, settings)
    first = common_shape(train.at(torch.tensor([0])), settings)
    check_shape(root, "test", test, first, settings)


def read_rest(settings: Data, shape: Shape) -> Images:
    """Read the training images that a sample leaves out, in a given shape; no others are opened."""
    every = listing(collection_of(settings), "train")
    return opened(chosen_files(every, settings, "rest"), shape, settings)


def tested(settings: Data) -> list[Any]:
    """List the images that are not to be searched on: the test part, and what is held out.

    Of a test part with files of its own, these files are listed. Nothing is opened.
    """
    root = collection_of(settings)
    held = settings.held_out > 0
    found = list(chosen_files(root.listed("train")[0], settings, "test").paths) if held else []
    with suppress(DataError):  # a search does not need a test part
        found += root.tested(test_part(settings))
    return found


def read_without_labels(
    images: Collection, shape: Shape, settings: Data, closed: Sequence[Any] = ()
) -> Images:
    """Read the images for training, with or without classes, in a given shape.

    Args:
        images: What lists them.
        shape: The shape.
        settings: Those of the searched set.
        closed: Images that are left out, as `tested` lists them.

    Raises:
        DataError: there are no images.
    """
    found, others = images.without_labels()
    found = without(found, closed, settings.unlabelled)
    if others:
        say(f"{images.name}: files are left out: {left_out(others)}")
    return opened(found, shape, settings)


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
