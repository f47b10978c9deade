"""Row groups of Parquet files: the bytes of an image, of a bounded number of groups at a time."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

from tutelage.data import DataError
from tutelage.data.remarks import say

MOST: Final = 512 * 2**20
"""Bytes of row groups that are kept."""
LARGEST: Final = 2**30
"""Bytes of images that one row group may have."""
LARGE: Final = 64 * 2**20
"""Bytes of a row group from which images in random order are slow to read."""


Key = tuple[str, str, int, int]
"""A row group: its file, the column, its number, and when the file was written."""


class Row(NamedTuple):
    """An image inside a Parquet file."""

    file: str
    column: str
    """Column of the bytes, dotted inside a structure."""
    group: int
    """Number of the row group."""
    place: int
    """Place in the row group."""
    number: int
    """Place in the file."""

    def __str__(self) -> str:
        return f"row {self.number} of {self.file}"


def pyarrow() -> Any:
    """Return pyarrow's reader of Parquet files.

    Raises:
        DataError: The extra is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError("Parquet files need an extra: pip install 'tutelage[parquet]'") from error


def opened(file: Path | str) -> Any:
    """Open a Parquet file; nothing but its footer is read.

    Raises:
        DataError: It is damaged, or pyarrow is not installed.
    """
    reader = pyarrow()
    try:
        return reader.ParquetFile(file, memory_map=True)
    except Exception as error:  # pyarrow's ArrowInvalid, OSError, ...
        raise DataError(f"{file} is damaged or no Parquet file: {error}") from error


class Cache:
    """The groups that were read last; a group that several threads ask for is read once."""

    def __init__(self, most: int = MOST) -> None:
        """Keep so many bytes, but always one group."""
        self.most, self.size = most, 0
        self.read = 0
        """Groups that were read so far."""
        self._held: OrderedDict[Key, Any] = OrderedDict()
        self._lock, self._own = Lock(), [Lock() for _ in range(64)]

    def bytes_of(self, row: Row) -> bytes | None:
        """Return the bytes of an image; None: the file has none.

        Raises:
            DataError: The group is damaged or too large.
        """
        key = (*row[:3], Path(row.file).stat().st_mtime_ns)  # a file may be written again
        with self._own[hash(key) % len(self._own)]:
            with self._lock:
                values = self._held.get(key)
                if values is not None:
                    self._held.move_to_end(key)
            if values is None:
                values = self._kept(key, _group(row))
        found: bytes | None = values[row.place].as_py()
        return found

    def _kept(self, key: Key, values: Any) -> Any:
        with self._lock:
            self.read += 1
            self._held[key] = values
            self.size += values.nbytes
            while self.size > self.most and len(self._held) > 1:
                self.size -= self._held.popitem(last=False)[1].nbytes
        return values


CACHE: Final = Cache()
"""The groups of this process."""


def _group(row: Row) -> Any:
    """Read the bytes of all images of a row's group, as pyarrow's array."""
    with opened(row.file) as file:
        size = file.metadata.row_group(row.group).total_byte_size
        if size > LARGEST:
            raise DataError(
                f"{row.file} has a row group of {size / 2**30:.1f} GiB: must be at most "
                f"{LARGEST / 2**30:.0f} GiB; write it again with row_group_size=100"
            )
        if size > LARGE:
            say(
                f"{row.file} has row groups of {size / 2**20:.0f} MiB, of which each is read for "
                "one image: written again with row_group_size=100, images stream faster",
                row.file,
                "groups",
            )
        try:
            table = file.read_row_group(row.group, columns=[row.column])
            values = table.column(0).combine_chunks()
            for name in row.column.split(".")[1:]:
                values = values.field(name)
            return values
        except Exception as error:  # pyarrow's ArrowInvalid, OSError, ...
            raise DataError(f"{row.file}: its row group {row.group} is damaged: {error}") from error
