"""Folders of images: ROOT/train/CLASS with ROOT/test or ROOT/val, ROOT/CLASS, or no classes.

Shards may replace folders by class, see `tutelage.data.shards`.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from tutelage.config import Data
from tutelage.cpus import decoders
from tutelage.data import DataError, shards
from tutelage.data.images import (
    SUFFIXES,
    Images,
    Labelled,
    Listing,
    OnDisk,
    Opened,
    Shape,
    load,
    measure,
)
from tutelage.data.request import PartName, given_root
from tutelage.data.splits import held_out
from tutelage.data.subsets import chosen_files

TEST_SHARE = 0.2  # of every class, if the folder has no test part
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
    test = chosen_files(train, settings, "test") if held else listing(root, "test")
    if test.classes != train.classes:
        odd = sorted(set(test.classes) ^ set(train.classes))
        raise DataError(f"{root}: only one of its parts has the classes {', '.join(odd)}")
    return test


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
        found = Listing(members, torch.full((len(members),), -1), (), shards.opened)
        return opened(found, shape, settings)
    below = root / "train" if (root / "train").is_dir() else root
    paths = files_below(below)
    if not paths:
        raise DataError(f"{below} holds no images ({', '.join(SUFFIXES)})")
    return opened(Listing(paths, torch.full((len(paths),), -1), ()), shape, settings)


def on_disk(files: Listing, shape: Shape, settings: Data) -> OnDisk:
    """Leave images on disk."""
    return OnDisk(files.paths, files.labels, shape, opened=files.opened, centre=settings.centre)


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
    return load(images) if fits or settings.memory == "load" else images


def listing(root: Path, part: PartName) -> Listing:
    """List the files of a part by class, without decoding."""
    if shards.shards(root, "train"):
        return shards.listing(root, part)
    divided = (root / "train").is_dir()
    top = root / "train" if divided and part == "train" else root
    if divided and part == "test":
        top = root / "test" if (root / "test").is_dir() else root / "val"
        if not top.is_dir():
            raise DataError(f"{root} has a train folder, but neither test nor val beside it")
    elif not divided and ((root / "test").is_dir() or (root / "val").is_dir()):
        raise DataError(f"{root} has a test or val folder, but no train folder beside it")
    folders = sorted(f for f in top.iterdir() if f.is_dir() and not f.name.startswith("."))
    if len(folders) < 2:
        raise DataError(
            f"{top} has {len(folders)} class folders: a classification needs at least 2"
        )
    paths: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        files = files_below(folder)
        if len(files) < (1 if divided else 2):
            raise DataError(
                f"{folder} holds {len(files) or 'no'} images ({', '.join(SUFFIXES)}): "
                f"every class needs {'one' if divided else 'two, one of them for the test part'}"
            )
        if not divided:
            held = held_out([file.removeprefix(str(root)) for file in files], TEST_SHARE)
            files = [f for f, out in zip(files, held, strict=True) if out == (part == "test")]
        paths += files
        labels += [label] * len(files)
    return Listing(paths, torch.tensor(labels), tuple(folder.name for folder in folders))


def files_below(folder: Path) -> list[str]:
    """List the image files below a folder, sorted; as text, since a million paths are large."""
    return sorted(
        f"{where}/{name}"
        for where, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES)
    )


def common_shape(files: Listing, settings: Data) -> Shape:
    """Return the shape of the settings, otherwise the one that all images share.

    Raises:
        DataError: the images differ in a property that the settings do not set.
    """
    channels = {"grey": 1, "rgb": 3, "auto": 0}[settings.colour]
    side = settings.resolution
    if channels and side:
        return channels, side, side
    paths = files.paths
    with ThreadPoolExecutor(decoders()) as pool:
        shapes = list(pool.map(header, paths, repeat(files.opened)))
    first = shapes[0]
    for path, shape in zip(paths, shapes, strict=True):
        if not channels and shape[0] != first[0]:
            grey, colour = sorted([(first[0], paths[0]), (shape[0], path)])
            raise DataError(
                f"{grey[1]} is grey and {colour[1]} is RGB: give --data.colour rgb (or grey)"
            )
        if not side and shape[1:] != first[1:]:
            raise DataError(
                f"{paths[0]} is {describe(first)} and {path} is {describe(shape)}: "
                "give them one size with --data.resolution"
            )
    height, width = (side, side) if side else first[1:]
    return channels or first[0], height, width


def header(path: Any, opened: Opened) -> Shape:
    """Read an image's channels, height and width without decoding it."""
    try:
        with opened(path) as image:
            return (1 if image.mode in ("1", "L", "LA") else 3), image.height, image.width
    except (
        Exception
    ) as error:  # for a broken file Pillow raises OSError, SyntaxError, IndexError...
        raise DataError(f"{path} is not a readable image: {error}") from error


def describe(shape: Shape) -> str:
    """Describe a shape in words."""
    channels, height, width = shape
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"
