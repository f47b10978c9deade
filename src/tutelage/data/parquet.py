"""Parquet files of images as Hugging Face writes them: `image` with bytes and path, and `label`.

An image is bytes of a file in its column. A label is a number, whose names the schema's metadata
may have (ClassLabel), or a text. The name of a file, or of its folder, says the part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import torch
from PIL import Image

from tutelage.data import DataError
from tutelage.data.digests import Stat
from tutelage.data.groups import CACHE, Row, opened
from tutelage.data.images import Listing, Source
from tutelage.data.pictures import from_bytes
from tutelage.data.request import PartName
from tutelage.data.rows import (
    chosen,
    column,
    digested,
    label_column,
    numbered,
    part_named,
    undivided,
)
from tutelage.formats import from_json

ENDINGS: Final = (".parquet",)
IMAGES: Final = ("image", "img", "jpg", "png", "picture", "photo")
"""Names of the column of images, the preferred one first."""
BATCH: Final = 65_536
"""Labels that are read at a time."""


class Columns(NamedTuple):
    """What is read of a file."""

    image: str
    """The column of the bytes, dotted inside a structure."""
    label: str
    """Empty, if labels are not read."""
    classes: tuple[str, ...] | None
    """Names of the numbers; None: there are none, or labels are texts."""


@final
@dataclass(frozen=True)
class Parquet:
    """One file, or those of a folder and of the folders in it."""

    root: Path
    label: str | None = None
    """The column of labels; None: found by its name."""

    @property
    def name(self) -> str:
        """The name of the folder, or of the file without its ending."""
        return self.root.stem if self.root.is_file() else self.root.name

    @property
    def divided(self) -> bool:
        """Whether names of files say a part."""
        return "" not in parts(self.root)

    def listed(self, part: PartName) -> tuple[Listing, list[str]]:
        """List the images of a part; files of other parts stay closed, and nothing is left out.

        Raises:
            DataError: A file is damaged, lacks a column, or pyarrow is missing.
        """
        found = parts(self.root)
        if "" not in found:
            return _listing(found[chosen(found, part, self.root)], self), []
        whole = self.whole()
        alone = self.root.is_file()
        files = {row.file: "" if alone else digested(row.file, self.root) for row in whole.paths}
        names = [f"{files[row.file]}:{row.number}" for row in whole.paths]
        rows = undivided(names, whole.labels, whole.classes, part, self.root)
        return whole.at(rows), []

    def whole(self) -> Listing:
        """List the images of all files."""
        return _listing([file for own in parts(self.root).values() for file in own], self)

    def tested(self, part: PartName) -> Sequence[Any]:
        """List the files of a test part, or its rows in files of all parts."""
        found = parts(self.root)
        if "" in found:
            return self.listed(part)[0].paths
        return list(map(str, found[chosen(found, part, self.root)]))

    def without_labels(self) -> tuple[Listing, list[str]]:
        """List the images of the train part, or all if there are no parts, without labels."""
        found = parts(self.root)
        own = found[""] if "" in found else found[chosen(found, "train", self.root)]
        rows = [row for file in own for row in _rows(file, _columns(file, None, False).image)]
        return Listing(rows, torch.full((len(rows),), -1), (), source(self.root)), []


def files(root: Path) -> list[Path]:
    """List the Parquet files at a path, in its folder, and in the folders there."""
    if root.is_file():
        return [root] if root.suffix.lower() in ENDINGS else []
    return [
        file
        for pattern in ("*.parquet", "*/*.parquet")
        for file in sorted(root.glob(pattern))
        if not file.relative_to(root).parts[0].startswith(".")
    ]


def parts(root: Path) -> dict[str, list[Path]]:
    """Return the files of each part; one entry "" if nothing is divided.

    Raises:
        DataError: Only some names say a part.
    """
    found: dict[str, list[Path]] = {}
    for file in files(root):
        names = [file.stem] if root.is_file() else [file.stem, *file.relative_to(root).parts[:-1]]
        words = [word for name in names for word in re.split(r"[^a-zA-Z]+", name)]
        part = next(filter(None, map(part_named, words)), "")
        found.setdefault(part, []).append(file)
    if root.is_file():  # a part alone is all that is given
        return {"": [root]}
    if "" in found and len(found) > 1:
        raise DataError(
            f"{found[''][0]} is of no part, and other files of {root} are: a name must have the "
            "word train, validation or test, or none has"
        )
    return found


def source(root: Path) -> Source:
    """Say how the images of Parquet files are opened and described."""
    return Source(str(root.parent if root.is_file() else root), picture, stats)


def picture(row: Row) -> Image.Image:
    """Open the image of a row.

    Raises:
        DataError: It has no bytes.
    """
    content = CACHE.bytes_of(row)
    if not content:
        raise DataError("its bytes are not in the file; write it again with the images embedded")
    return from_bytes(content)


def stats(rows: Sequence[Row]) -> list[Stat]:
    """Describe rows by their places, and by the sizes and times of their files."""
    found = {file: Path(file).stat() for file in {row.file for row in rows}}
    return [
        Stat(f"{row.file}:{row.number}", found[row.file].st_size, found[row.file].st_mtime_ns)
        for row in rows
    ]


def _listing(own: Sequence[Path], of: Parquet) -> Listing:
    """List the images of files, of which all must have the same classes."""
    times = tuple(file.stat().st_mtime_ns for file in own)
    return _indexed(tuple(own), times, of)


@lru_cache(maxsize=4)
def _indexed(own: tuple[Path, ...], times: tuple[int, ...], of: Parquet) -> Listing:
    """Read the labels of files, once for each time that they were written."""
    columns = [_columns(file, of.label, True) for file in own]
    labels: list[Any] = []
    rows: list[Row] = []
    for file, each in zip(own, columns, strict=True):
        if each.classes != columns[0].classes:
            raise DataError(f"{file} and {own[0]} have other classes for {each.label}")
        rows += _rows(file, each.image)
        labels += _labels(file, each)
    where = own[0] if len(own) == 1 else of.root
    classes = columns[0].classes
    if classes is None and all(isinstance(label, str) for label in labels):
        numbers, classes = numbered(labels, where)
    else:
        classes = classes or tuple(str(label) for label in range(max(labels, default=-1) + 1))
        numbers = torch.tensor(labels)
    if len(classes) < 2:
        raise DataError(f"{where} has {len(classes)} classes: a classification needs at least 2")
    return Listing(rows, numbers, classes, source(of.root))


def _rows(file: Path, image: str) -> Iterator[Row]:
    """Yield the rows of a file."""
    with opened(file) as found:
        sizes = [found.metadata.row_group(k).num_rows for k in range(found.num_row_groups)]
    number = 0
    for group, size in enumerate(sizes):
        for place in range(size):
            yield Row(str(file), image, group, place, number)
            number += 1


def _labels(file: Path, columns: Columns) -> Iterator[Any]:
    """Yield the labels of a file, whole numbers or texts.

    Raises:
        DataError: A label is missing, or is no number of a class.
    """
    most = len(columns.classes) if columns.classes else 2**20
    number = 0
    with opened(file) as found:
        for batch in found.iter_batches(BATCH, columns=[columns.label]):
            for label in batch.column(0).to_pylist():
                if label is None or (not isinstance(label, str) and not 0 <= label < most):
                    none = " (-1 means that there is none)" if label == -1 else ""
                    raise DataError(
                        f"row {number} of {file}: {columns.label} = {label}{none}: must be from 0 "
                        f"to {most - 1:,}"
                    )
                yield label
                number += 1


def _columns(file: Path, label: str | None, labelled: bool) -> Columns:
    """Find the columns of a file by their names, types, and Hugging Face's metadata.

    Raises:
        DataError: A column is missing, or of another type.
    """
    with opened(file) as found:
        schema = found.schema_arrow
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    features = _features(schema.metadata or {})
    images = [name for name in kinds if _holds_bytes(schema.field(name).type)]
    image = column(images, IMAGES) or (images[0] if len(images) == 1 else None)
    if image is None:
        raise DataError(
            f"{file} has no column of images called {', '.join(IMAGES)}, binary or with binary "
            f"bytes in it: it has {', '.join(f'{name} ({kind})' for name, kind in kinds.items())}"
        )
    inside = kinds[image].startswith("struct")
    content = f"{image}.bytes" if inside else image
    if not labelled:
        return Columns(content, "", None)
    named = [name for name, each in features.items() if each.get("_type") == "ClassLabel"]
    if label is None and len(named) == 1:
        label = named[0]
    label = label_column([name for name in kinds if name != image], label, file)
    kind = re.sub(r"dictionary<values=(\w+),.*", r"\1", kinds[label])
    if not re.fullmatch(r"u?int\d+|(large_)?string(_view)?", kind):
        raise DataError(
            f"{file}: the column {label} is {kinds[label]}: labels must be whole numbers or texts"
        )
    names = features.get(label, {}).get("names")
    return Columns(content, label, tuple(map(str, names)) if names and "int" in kind else None)


def _features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """Return what Hugging Face's metadata says of the columns; nothing, where there is none."""
    try:
        found = from_json(metadata[b"huggingface"])["info"]["features"]
        return {name: each for name, each in found.items() if isinstance(each, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _holds_bytes(kind: Any) -> bool:
    """Tell whether a column may be images: binary, or a structure with binary bytes."""
    inner = {kind.field(k).name: str(kind.field(k).type) for k in range(kind.num_fields)}
    return "binary" in inner.get("bytes", "" if inner else str(kind))
