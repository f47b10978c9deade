"""Data that a Python program gives to a search or a retraining, beside names and folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

import torch

from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.images import Listing
from tutelage.data.items import Items, items_of, names_for, numbers_of
from tutelage.data.request import PartName
from tutelage.data.rows import chosen, undivided

GIVEN: Final = "given"
"""The name of such data in run.toml."""


@final
@dataclass(frozen=True, eq=False)
class Given:
    """Images that a program holds: arrays with labels, or map-style datasets.

    Arrays are pairs (images, labels): images uint8 (N, C, H, W), (N, H, W, C) or (N, H, W), labels
    whole numbers or texts (N,). A dataset has a length and items (image, label), or mappings with
    these keys, as `torch.utils.data.Dataset` and Hugging Face's `datasets` have; its images are
    Pillow's or uint8.
    """

    train: Any
    """Images to search on, and to train."""
    test: Any = None
    """Images for the test of a retraining; None: a fifth of every class of the training images, if
    there is no `validation` either."""
    validation: Any = None
    """Images that train the alphas, beside all training images for weights, and on which a
    retraining is measured after every epoch; None: a part of the training images."""
    unlabelled: Any = None
    """Images to pseudo-label, an array or a dataset; None: as `settings.unlabelled` says."""
    classes: Sequence[str] = ()
    """Names of the classes, by number; empty: those that the dataset has, or the labels."""
    settings: Data = field(default_factory=Data)
    """How images are read, divided and augmented; its name and root are not used."""
    _parts: dict[str, Items] = field(default_factory=dict, init=False, repr=False)

    @property
    def data(self) -> Data:
        """The settings of the data, as a run records them."""
        return replace(
            self.settings,
            name=GIVEN,
            root=None,
            validation="half" if self.validation is None else "folder",
            unlabelled=self.settings.unlabelled if self.unlabelled is None else GIVEN,
        )

    @property
    def name(self) -> str:
        """The name in reports."""
        return GIVEN

    @property
    def divided(self) -> bool:
        """Whether there are images for the test."""
        return len(self._there()) > 1

    def listed(self, part: PartName) -> tuple[Listing, list[str]]:
        """List the images of a part; nothing is left out.

        Raises:
            DataError: There are none, or they cannot be used.
        """
        if self.divided:
            return self._listing(chosen(self._there(), part, "the given data")), []
        whole = self.whole()
        names = [stat.name for stat in whole.source.stats(whole.paths)]
        rows = undivided(names, whole.labels, whole.classes, part, "the given data")
        return whole.at(rows), []

    def whole(self) -> Listing:
        """List all images for training."""
        return self._listing("train")

    def tested(self, part: PartName) -> Sequence[Any]:
        """List nothing: these images are no files."""
        return []

    def without_labels(self) -> tuple[Listing, list[str]]:
        """List the images to pseudo-label; nothing is left out.

        Raises:
            DataError: There are none.
        """
        if self.unlabelled is None:
            raise DataError("unlabelled = 'given': no such images are given")
        items = self._items("unlabelled")
        return items.listing(torch.full((items.count,), -1), ()), []

    def _there(self) -> list[str]:
        parts = ("train", "validation", "test")
        return [part for part in parts if getattr(self, part) is not None]

    def _items(self, part: str) -> Items:
        if part not in self._parts:
            given = getattr(self, part)
            self._parts[part] = items_of(given, part, labelled=part != "unlabelled")
        return self._parts[part]

    def _listing(self, part: str) -> Listing:
        train, items = self._items("train"), self._items(part)
        names = self.classes or train.classes or names_for(train.known().labels)
        classes = tuple(names)
        if len(classes) < 2:
            raise DataError(
                f"the given data have {len(classes)} classes: a classification needs at least 2"
            )
        return items.listing(numbers_of(items.known().labels, classes, part), classes)


_present: list[Given | None] = [None]
"""The data that the present call was given; innermost last."""


def present() -> Given:
    """Return the data that the present call was given.

    Raises:
        DataError: It was given none.
    """
    found = _present[-1]
    if found is None:
        raise DataError(
            "the run was made in Python with data that only its program has: give them again, as "
            "tutelage.search(data=..., out=..., resume=True) or tutelage.retrain, or give --data "
            "to test its network"
        )
    return found


@contextmanager
def using(given: Given | None) -> Iterator[None]:
    """Let readers find data by the name `given`; None: those of an outer call, if any."""
    _present.append(given or _present[-1])
    try:
        yield
    finally:
        _present.pop()


def taken(data: Any) -> tuple[Data, Given | None]:
    """Return the settings of data as an argument of `search` or `retrain`, and what holds them.

    Args:
        data: A name or folder, `Data`, `Given`, or what `Given.train` takes.
    """
    if isinstance(data, Data):
        return data, None
    if isinstance(data, (str, Path)):
        return Data(name=str(data)), None
    given = data if isinstance(data, Given) else Given(train=data)
    return given.data, given
