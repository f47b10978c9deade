"""Images that are listed before any is decoded, whatever lists them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tutelage.config import Data
from tutelage.data import DataError, parquet, shards, table
from tutelage.data.given import GIVEN, present
from tutelage.data.images import Listing
from tutelage.data.listing import Folder
from tutelage.data.parquet import Parquet
from tutelage.data.remarks import left_out, say
from tutelage.data.request import PartName, given_root
from tutelage.data.shards import Shards
from tutelage.data.table import Table

COLLECTIONS = ("folder", GIVEN)
"""Names of data sets whose images are listed."""
ENDINGS = (*table.ENDINGS, *parquet.ENDINGS)
"""Ends of the names of files that list images."""


class Collection(Protocol):
    """A folder by class, shards, a table, Parquet files, or what Python gives."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    @property
    def divided(self) -> bool:
        """Whether it says which images are for the test."""

    def listed(self, part: PartName) -> tuple[Listing, list[str]]:
        """List the images of a part with their classes, and the files that are left out.

        Raises:
            DataError: There is no such part, or it cannot be used.
        """

    def whole(self) -> Listing:
        """List all images of one that is not divided."""

    def tested(self, part: PartName) -> Sequence[Any]:
        """List the images of a test part, or whole files of them, which stay closed.

        Raises:
            DataError: There is no such part.
        """

    def without_labels(self) -> tuple[Listing, list[str]]:
        """List the images for training, without labels, and the files that are left out."""


def collection(root: Path, label: str | None = None) -> Collection:
    """Return what lists the images of a folder or a file.

    Args:
        root: A folder by class, of shards or of Parquet files; a CSV or Parquet file.
        label: The column of labels, of which only tables have several; None: by its name.

    Raises:
        DataError: It is another kind of file, or has no columns.
    """
    if root.suffix.lower() in table.ENDINGS and root.is_file():
        return Table(root, label)
    if parquet.files(root):
        return Parquet(root, label)
    if root.is_file():
        raise DataError(f"{root} is a file: must be a folder, or end in {', '.join(ENDINGS)}")
    if label is not None:
        raise DataError(f"label_column = {label!r}: {root} is a folder, and only tables have one")
    return Shards(root) if shards.shards(root, "train") else Folder(root)


def collection_of(settings: Data) -> Collection:
    """Return what lists the images of the settings.

    Raises:
        DataError: There is no such folder or file, or Python gives no images.
    """
    if settings.name == GIVEN:
        return present()
    root = settings.root if settings.root and settings.root.is_file() else given_root(settings)
    return collection(root, settings.label_column)


def listing(images: Collection, part: PartName) -> Listing:
    """List the images of a part by class, without decoding; say which files are left out.

    Raises:
        DataError: As `Collection.listed`.
    """
    found, others = images.listed(part)
    if others:
        say(f"{found.source.root or images.name}: files are left out: {left_out(others)}")
    return found
