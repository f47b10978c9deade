"""The image files of a folder, by class, and their common shape; nothing is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, final

import torch

from tutelage.config import Data
from tutelage.cpus import decoders
from tutelage.data import DataError
from tutelage.data.images import Listing, Source
from tutelage.data.pictures import SUFFIXES, Shape, shape_of
from tutelage.data.remarks import left_out
from tutelage.data.request import PartName
from tutelage.data.rows import TEST_SHARE, digested
from tutelage.data.splits import held_out

HIDDEN = (".", "__MACOSX")
"""Beginnings of names that a system's programs leave behind: neither classes nor images."""


FOLDERS: Mapping[PartName, str] = {"validation": "val", "own test": "test"}
"""Parts that are one folder and no other."""


@final
@dataclass(frozen=True)
class Folder:
    """Images in a folder for each class, perhaps inside a folder for each part."""

    root: Path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.root.name

    @property
    def divided(self) -> bool:
        """Whether there is a folder for each part."""
        return (self.root / "train").is_dir()

    def listed(self, part: PartName) -> tuple[Listing, list[str]]:
        """List the files of a part by class, and the files that are left out.

        Raises:
            DataError: A part or a class has no images, or there are fewer than two classes.
        """
        return listed(self.root, part)

    def whole(self) -> Listing:
        """List all images of a folder without parts by class.

        Raises:
            DataError: There are none.
        """
        below = class_folders(self.root)
        files = [(path, label) for label, each in enumerate(below) for path in files_below(each)[0]]
        if not files:
            raise DataError(f"{self.root} holds no images by class: it must be ROOT/CLASS/IMAGE")
        labels = torch.tensor([label for _, label in files])
        classes = tuple(each.name for each in below)
        return Listing([path for path, _ in files], labels, classes, source_of(self.root))

    def tested(self, part: PartName) -> Sequence[Any]:
        """List the files of a test part."""
        return self.listed(part)[0].paths

    def without_labels(self) -> tuple[Listing, list[str]]:
        """List every image below ROOT/train, or below ROOT, with or without classes.

        Raises:
            DataError: There are none.
        """
        below = self.root / "train" if self.divided else self.root
        paths, others = files_below(below)
        if not paths:
            raise DataError(f"{below} holds no images ({', '.join(SUFFIXES)})")
        labels = torch.full((len(paths),), -1)
        return Listing(paths, labels, (), source_of(self.root)), others


def listed(root: Path, part: PartName) -> tuple[Listing, list[str]]:
    """List the files of a part by class, and the files that are left out.

    Raises:
        DataError: As `Folder.listed`.
    """
    top, divided = top_of(root, part)
    folders = class_folders(top)
    if len(folders) < 2:
        raise DataError(
            f"{top} has {len(folders)} class folders: a classification needs at least 2"
        )
    paths: list[str] = []
    labels: list[int] = []
    few: list[str] = []
    others = [str(f) for f in top.iterdir() if f.is_file() and image(f.name)]
    for label, folder in enumerate(folders):
        files, unknown = files_below(folder)
        if len(files) < (1 if divided else 2):
            instead = f", but {left_out(unknown)}" if unknown else ""
            few.append(
                f"{folder} holds {len(files) or 'no'} images ({', '.join(SUFFIXES)}){instead}"
            )
            continue
        if not divided:
            held = held_out([digested(file, root) for file in files], TEST_SHARE)
            files = [f for f, out in zip(files, held, strict=True) if out == (part == "test")]
        paths += files
        labels += [label] * len(files)
        others += unknown
    if few:
        rest = len(few) - 1
        more = f", and {rest} more folder{'s' * (rest > 1)} as few" if rest else ""
        raise DataError(
            f"{few[0]}{more}: every class needs "
            f"{'one' if divided else 'two, one of them for the test part'}"
        )
    classes = tuple(folder.name for folder in folders)
    return Listing(paths, torch.tensor(labels), classes, source_of(root)), others


def top_of(root: Path, part: PartName) -> tuple[Path, bool]:
    """Return the folder that holds the classes of a part, and whether each part has its own.

    Raises:
        DataError: there is only one part.
    """
    if part in FOLDERS:
        folder = FOLDERS[part]
        if not (root / "train").is_dir() or not (root / folder).is_dir():
            raise DataError(
                f"{root} needs the folders train, val and test with --data.validation folder, and "
                f"has no {folder if (root / 'train').is_dir() else 'train'}"
            )
        return root / folder, True
    if (root / "train").is_dir():
        top = root / "train"
        if part == "test":
            top = root / "test" if (root / "test").is_dir() else root / "val"
        if not top.is_dir():
            raise DataError(f"{root} has a train folder, but neither test nor val beside it")
        return top, True
    if (root / "test").is_dir() or (root / "val").is_dir():
        raise DataError(f"{root} has a test or val folder, but no train folder beside it")
    return root, False


def class_folders(top: Path) -> list[Path]:
    """List the folders of the classes, sorted, without hidden ones."""
    return sorted(f for f in top.iterdir() if f.is_dir() and not f.name.startswith(HIDDEN))


def source_of(root: Path) -> Source:
    """Say where files lie."""
    return Source(str(root))


def image(name: str) -> bool:
    """Tell whether a file is read, by its name."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(HIDDEN)


def files_below(folder: Path) -> tuple[list[str], list[str]]:
    """List the image files below a folder, and the other files, each sorted.

    Hidden files and folders are in neither. Paths are text, since a million paths are large.
    """
    images: list[str] = []
    others: list[str] = []
    for file in _below(folder):
        (images if image(file.rpartition("/")[2]) else others).append(file)
    return sorted(images), sorted(others)


def _below(folder: Path) -> Iterator[str]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        yield from (f"{where}/{name}" for name in names if not name.startswith(HIDDEN))


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
    shapes = headers(files)
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


def headers(files: Listing) -> Sequence[Shape]:
    """Read the channels, height and width of upright images without decoding them.

    Raises:
        DataError: a file is not a readable image.
    """
    with ThreadPoolExecutor(decoders()) as pool:
        return list(pool.map(header, files.paths, repeat(files.source)))


def header(path: Any, source: Source) -> Shape:
    """Read an image's channels, height and width without decoding it."""
    try:
        with source.opened(path) as opened:
            return shape_of(opened)
    except Exception as error:  # a broken file: Pillow's OSError, SyntaxError, IndexError...
        raise DataError(f"{path} is not a readable image: {error}") from error


def describe(shape: Shape) -> str:
    """Describe a shape in words."""
    channels, height, width = shape
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"
