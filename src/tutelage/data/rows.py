"""Rows that name an image, its class and its part: what CSV, Parquet and Python's data share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from tutelage.data import DataError
from tutelage.data.request import PartName
from tutelage.data.splits import held_out

LABELS: Final = ("label", "labels", "class", "class_name", "category", "target")
"""Names of the column of labels, the preferred one first."""
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""The parts, and the words for each."""
WANTED: Final[Mapping[PartName, tuple[str, ...]]] = {
    "test": ("test", "validation"),
    "validation": ("validation",),
    "own test": ("test",),
}
"""The parts that serve as one, the first that exists; all others are the train part."""
TEST_SHARE: Final = 0.2
"""Of every class, where nothing says which images are for the test."""


def part_named(word: str) -> str | None:
    """Return the part that a word means; None: no part.

    >>> part_named("Val"), part_named("holdout")
    ('validation', None)
    """
    lower = word.strip().lower()
    return next((part for part, words in PARTS.items() if lower in words), None)


def chosen(there: Collection[str], part: PartName, where: Any) -> str:
    """Return which of the parts that exist serves as a part.

    Args:
        there: The parts that exist, of `PARTS`; empty: nothing is divided.
        part: What is to be read.
        where: Whose parts they are, for the message.

    Raises:
        DataError: None of them does.
    """
    wanted = WANTED.get(part, ("train",))
    for each in wanted:
        if each in there:
            return each
    if part in ("validation", "own test"):
        raise DataError(
            f"{where} needs the parts train, validation and test with --data.validation folder, "
            f"and has no {wanted[0]}"
        )
    if part == "test":
        raise DataError(
            f"{where} has a train part, but neither test nor validation: add one of them, or give "
            "--data.held-out N to test on training images"
        )
    raise DataError(f"{where} has no train part, but {', '.join(sorted(there))}")


def column(columns: Sequence[str], known: Iterable[str]) -> str | None:
    """Return the column that has the first of the known names, in any case; None: there is none.

    >>> column(["Path", "Label"], LABELS)
    'Label'
    """
    by_name = {name.strip().lower(): name for name in reversed(columns)}
    return next((by_name[name] for name in known if name in by_name), None)


def label_column(columns: Sequence[str], given: str | None, where: Any) -> str:
    """Return the column of the labels: the one that is given, or one of a known name.

    Raises:
        DataError: There is none.
    """
    found = column(columns, LABELS) if given is None else given if given in columns else None
    if found is None:
        missing = f"label_column = {given!r}" if given else f"no column {', '.join(LABELS)}"
        raise DataError(
            f"{missing}: {where} has the columns {', '.join(columns)}; give --data.label-column"
        )
    return found


def numbered(texts: Sequence[str], where: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Number classes by their names, in alphabetical order, or as numbers where all are.

    >>> numbered(["10", "9", "10"], "list.csv")
    (tensor([1, 0, 1]), ('9', '10'))

    Returns:
        The class of every row, int64 (N,), and the classes.

    Raises:
        DataError: There are fewer than two classes.
    """
    names = sorted(set(texts))
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    if len(names) < 2:
        raise DataError(f"{where} has {len(names)} classes: a classification needs at least 2")
    places = {name: place for place, name in enumerate(names)}
    return torch.tensor([places[text] for text in texts]), tuple(names)


def digested(name: str, root: Path) -> str:
    """Return the part of a path below a folder, which is the same however the path is written.

    >>> digested("a/1.png", Path(".")), digested("/data/a/1.png", Path("/data"))
    ('/a/1.png', '/a/1.png')
    """
    above = root.resolve() if name.startswith("/") and not root.is_absolute() else root
    return "/" + name.removeprefix(f"{above}/").lstrip("/")


def undivided(
    names: Sequence[str], labels: Tensor, classes: Sequence[str], part: PartName, where: Any
) -> Tensor:
    """Return the rows of a part where none is named, int64: a fifth of every class is the test.

    Args:
        names: Names of the images; the digests of these decide.
        labels: Their classes, int64 (N,).
        classes: Names of the classes.
        part: What is to be read.
        where: Whose rows they are, for the message.

    Raises:
        DataError: A class has a single image, or there is no such part.
    """
    if part in ("validation", "own test"):
        chosen((), part, where)
    tested = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[:, 0]
        if len(own) < 2:
            raise DataError(
                f"{where} holds 1 image of class {classes[label]}: every class needs two, one of "
                "them for the test part"
            )
        held = held_out([names[place] for place in own.tolist()], TEST_SHARE)
        tested[own] = torch.tensor(held)
    return (tested if part == "test" else ~tested).nonzero()[:, 0]
