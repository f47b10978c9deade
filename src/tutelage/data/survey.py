"""What is understood of a data set: every image is decoded once, and nothing is kept of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from tutelage.config import Data
from tutelage.cpus import decoders
from tutelage.data import DataError
from tutelage.data.collection import COLLECTIONS, collection_of
from tutelage.data.folder import check_classes, test_part
from tutelage.data.given import Given, taken, using
from tutelage.data.images import Listing, Source
from tutelage.data.listing import common_shape, describe
from tutelage.data.pictures import KINDS, Shape, converted, kinds_of, shape_of, upright
from tutelage.data.read import named, read
from tutelage.data.remarks import left_out
from tutelage.data.request import PartName
from tutelage.data.subsets import chosen_files

FEW: Final = 10
"""Images of a class below which it is named."""
LISTED: Final = 30
"""Classes, and names, that the text lists."""
USES: Final = {"train": "to train", "validation": "to validate", "test": "to test"}
"""What the images of a part are for."""
ACROSS: Final = 2 + max(map(len, USES))
"""Letters of a column of the text's table."""


class Picture(NamedTuple):
    """What is kept of an image."""

    name: str
    label: int
    look: str
    """Size and colour in words."""
    kinds: list[str]
    """Keys of `tutelage.data.pictures.KINDS`."""
    digest: bytes
    """Of its pixels; empty, if it cannot be read."""
    error: str = ""


@dataclass
class Part:
    """One part of a set, counted."""

    images: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    """Images by class."""
    looks: Counter[str] = field(default_factory=Counter)
    """Images by size and colour."""
    files: Counter[str] = field(default_factory=Counter)
    """Images by the suffix of their file."""
    converted: Counter[str] = field(default_factory=Counter)
    """Images by what is converted of them."""
    unreadable: list[str] = field(default_factory=list)
    repeated: int = 0
    """Images whose pixels an earlier one of this part has."""
    left_out: str = ""


@dataclass
class Survey:
    """What is understood of a data set."""

    name: str
    shape: Shape | None = None
    """Channels, height and width of the images as they are fed; None: they have none in common."""
    parts: dict[str, Part] = field(default_factory=dict)
    shared: list[tuple[str, str]] = field(default_factory=list)
    """Images of other parts whose pixels a training image has, with its name."""
    contradicted: int = 0
    """Those of them whose classes differ."""
    problems: list[str] = field(default_factory=list)
    """Why a search or a retraining would refuse the set."""

    def as_dict(self) -> dict[str, Any]:
        """Return all entries as plain values."""
        return {**vars(self), "parts": {name: vars(part) for name, part in self.parts.items()}}

    def __str__(self) -> str:
        return self.as_text()

    def as_text(self) -> str:
        """Return the survey in words."""
        return "\n".join(_lines(self))


def survey(data: Data | Given | Any) -> Survey:
    """Decode every image of a set, and count what it has, as `tutelage data` prints it.

    Problems of the set are entries of the survey.

    Args:
        data: The set: a name or a folder, `Data` with settings, or what the program holds, as in
            `tutelage.search`.

    Raises:
        DataError: There is no such set.
    """
    settings, given = taken(data)
    with using(given):
        return _surveyed(named(settings))


def _surveyed(own: Data) -> Survey:
    """Survey a set whose name is resolved."""
    found = Survey(collection_of(own).name if own.name in COLLECTIONS else own.name)
    owners: dict[bytes, tuple[str, int]] = {}
    parts: list[PartName] = ["train", "test"]
    if own.validation == "folder":
        parts.insert(1, "validation")
    for part in parts:
        try:
            names, pictures, others = _part(own, part)
        except DataError as error:
            if not any(str(error) in each for each in found.problems):  # said of another part
                found.problems.append(f"{part}: {error}")
            continue
        counted = found.parts[part] = Part(classes=dict.fromkeys(names, 0))
        counted.left_out = left_out(others) if others else ""
        mine: set[bytes] = set()
        for each in pictures:
            _count(counted, each, names)
            if not each.digest:
                continue
            counted.repeated += each.digest in mine
            mine.add(each.digest)
            if part == "train":
                owners.setdefault(each.digest, (each.name, each.label))
            elif each.digest in owners:
                name, label = owners[each.digest]
                found.shared.append((each.name, name))
                found.contradicted += label != each.label
    _judge(found, own)
    return found


def _judge(found: Survey, settings: Data) -> None:
    """Find the shape as fed, and what a reader would refuse."""
    found.problems += [each for part in found.parts.values() for each in part.unreadable[:LISTED]]
    if settings.name not in COLLECTIONS:
        found.shape = None if found.problems else read(settings, "train").images.shape
        return
    if "train" not in found.parts or any(part.unreadable for part in found.parts.values()):
        return
    try:
        root = collection_of(settings)
        every = root.listed("train")[0]
        found.shape = common_shape(chosen_files(every, settings, "train"), settings)
        if not settings.held_out and "test" in found.parts:
            check_classes(root, every, root.listed(test_part(settings))[0])
    except DataError as error:
        found.problems += [str(error)] * (str(error) not in " ".join(found.problems))


def _part(settings: Data, part: PartName) -> tuple[tuple[str, ...], Iterator[Picture], list[str]]:
    """Return the classes of a part, its images, and the files that are left out."""
    if settings.name not in COLLECTIONS:
        whole = read(settings, part)
        return whole.classes, _held(whole.images.take, whole.images.labels), []
    root = collection_of(settings)
    if part == "validation":
        files, others = root.listed(part)
        return files.classes, _decoded(files), others
    from_train = part == "train" or settings.held_out > 0
    files, others = root.listed("train" if from_train else test_part(settings))
    return files.classes, _decoded(chosen_files(files, settings, part)), others


def _held(take: Any, labels: torch.Tensor) -> Iterator[Picture]:
    for index in torch.arange(len(labels)).split(1024):
        for place, pixels in zip(index.tolist(), take(index).numpy(), strict=True):
            shape = pixels.shape
            digest = blake2b(pixels.tobytes(), digest_size=16).digest()
            yield Picture(f"number {place}", int(labels[place]), describe(shape), [], digest)


def _decoded(files: Listing) -> Iterator[Picture]:
    stats = files.source.stats(files.paths)
    names = [stat.name.removeprefix(files.source.root).lstrip("/") for stat in stats]
    look = partial(_look, files.source)
    with ThreadPoolExecutor(decoders()) as pool:
        yield from pool.map(look, files.paths, names, files.labels.tolist())


def _look(source: Source, path: Any, name: str, label: int) -> Picture:
    try:
        with source.opened(path) as image:
            kinds, shape = kinds_of(image), shape_of(image)
            pixels = np.asarray(converted(upright(image), 3))
            size = repr(pixels.shape).encode()
            digest = blake2b(size + pixels.tobytes(), digest_size=16).digest()
            return Picture(name, label, describe(shape), kinds, digest)
    except Exception as error:  # a broken file: Pillow's OSError, SyntaxError, IndexError...
        return Picture(name, label, "", [], b"", f"{path} is not a readable image: {error}")


def _count(part: Part, picture: Picture, names: tuple[str, ...]) -> None:
    part.images += 1
    part.classes[names[picture.label]] += 1
    file = re.sub(r":\d+$", "", picture.name)  # its place in a larger file
    part.files[PurePath(file).suffix.lower() or "in memory"] += 1
    if picture.error:
        part.unreadable.append(picture.error)
        return
    part.looks[picture.look] += 1
    part.converted.update(picture.kinds)


# In words ---------------------------------------------------------------------------------------


def _lines(found: Survey) -> Iterator[str]:
    parts = found.parts
    images = ", ".join(f"{part.images:,} images {USES[name]}" for name, part in parts.items())
    classes = len(next(iter(parts.values())).classes) if parts else 0
    yield f"{found.name}: {classes} classes, {images or 'no images'}"
    if found.shape:
        yield f"as fed: {describe(found.shape)}"
    yield from _table(parts)
    for name, part in parts.items():
        yield from (f"{name}: {line}" for line in _of_part(part))
    if found.shared:
        count, (test, train) = len(found.shared), found.shared[0]
        other = f" ({found.contradicted:,} in another class)" if found.contradicted else ""
        yield f"also in train: {count:,} images of others{other}, such as {test}, which is {train}"
    for problem in found.problems:
        yield f"problem: {problem}"


def _table(parts: dict[str, Part]) -> Iterator[str]:
    classes = list(dict.fromkeys(name for part in parts.values() for name in part.classes))
    shown = classes[:LISTED]
    width = max((len(name) for name in shown), default=0)
    if parts:
        yield f"  {'':{width}}" + "".join(f"{name:>{ACROSS}}" for name in parts)
    for name in shown:
        counts = (part.classes.get(name, 0) for part in parts.values())
        yield f"  {name:{width}}" + "".join(f"{count:>{ACROSS},}" for count in counts)
    if len(classes) > LISTED:
        yield f"  and {len(classes) - LISTED:,} classes more"


def _of_part(part: Part) -> Iterator[str]:
    sizes = part.looks.most_common(3)
    more = f" and {len(part.looks) - 3:,} sizes more" if len(part.looks) > 3 else ""
    yield ", ".join(f"{count:,} of {look}" for look, count in sizes) + more
    yield ", ".join(f"{count:,} {suffix}" for suffix, count in part.files.most_common())
    for kind, count in part.converted.items():
        yield f"{count:,} of {part.images:,} have {KINDS[kind]}"
    if part.left_out:
        yield f"left out: {part.left_out}"
    if part.repeated:
        yield f"{part.repeated:,} of {part.images:,} images repeat an earlier one"
    few = {name: count for name, count in part.classes.items() if count < FEW}
    if few:
        listed = ", ".join(f"{name} ({count})" for name, count in list(few.items())[:LISTED])
        yield f"fewer than {FEW} images: {listed}{', ...' if len(few) > LISTED else ''}"
