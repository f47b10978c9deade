"""Row groups of Parquet files: the bytes of an image, in any order and with bounded memory.

A row group is decompressed as a whole, and may have thousands of images. So each is read once; what
memory does not keep goes to a temporary file, from which a single image is read.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import weakref
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tutelage.data import DataError
from tutelage.data.remarks import say

MOST: Final = 512 * 2**20
"""Bytes of row groups that are kept."""
LARGEST: Final = 2**30
"""Bytes of images that one row group may have."""
Places = npt.NDArray[np.int64]
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


class Spool:
    """Bytes of images in a file without a name, which vanishes with the process."""

    def __init__(self, folder: str) -> None:
        """Make it in a folder."""
        self._file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed just below
        weakref.finalize(self, self._file.close)
        self._end = 0

    def add(self, values: Any) -> Places:
        """Write the bytes of the images of a group; return where each begins, and the end.

        Raises:
            OSError: The disk is full.
        """
        sizes = [self._file.write(each.as_py() or b"") for each in values]
        self._file.flush()
        places = self._end + np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._end = int(places[-1])
        return places

    def read(self, places: Places, place: int) -> bytes:
        """Return the bytes of an image of a group."""
        start, end = places[place : place + 2].tolist()
        return os.pread(self._file.fileno(), end - start, start)


class Cache:
    """Row groups, each read once: the last ones are kept, earlier ones in a temporary file.

    A group that several threads ask for is read by one of them, and one group at a time.
    """

    def __init__(self, most: int = MOST, folder: str | None = None) -> None:
        """Keep so many bytes, but always one group; others in a folder, None: `folder_for`."""
        self.most, self.size, self.read = most, 0, 0
        self._folder = folder
        self._held: OrderedDict[Key, Any] = OrderedDict()
        self._stored: dict[Key, Places] = {}
        self._spool: Spool | None = None
        self._full = False
        self._lock, self._reading = Lock(), Lock()

    def bytes_of(self, row: Row) -> bytes | None:
        """Return the bytes of an image; None: the file has none.

        Raises:
            DataError: The group is damaged or too large.
        """
        key = (*row[:3], Path(row.file).stat().st_mtime_ns)  # a file may be written again
        if (known := self._known(key, row.place)) is not None:
            return known
        with self._reading:
            if (known := self._known(key, row.place)) is not None:
                return known
            values = _group(row)
            self._keep(key, values)
        found: bytes | None = values[row.place].as_py()
        return found

    def _known(self, key: Key, place: int) -> bytes | None:
        with self._lock:
            values, places = self._held.get(key), self._stored.get(key)
            if values is not None:
                self._held.move_to_end(key)
        if values is not None:
            return values[place].as_py() or b""
        return None if places is None or self._spool is None else self._spool.read(places, place)

    def _keep(self, key: Key, values: Any) -> None:
        """Keep a group, and store the earliest ones where there are too many."""
        self.read += 1
        with self._lock:
            self._held[key] = values
        self.size += values.nbytes
        while self.size > self.most and len(self._held) > 1:
            oldest, earlier = next(iter(self._held.items()))
            if oldest not in self._stored:
                self._store(oldest, earlier)
            with self._lock:
                self.size -= self._held.pop(oldest).nbytes

    def _store(self, key: Key, values: Any) -> None:
        if self._full:
            return
        folder = self._folder or folder_for()
        try:
            self._spool = self._spool or Spool(folder)
            places = self._spool.add(values)
        except OSError as error:
            self._full = True
            say(
                f"{folder} takes no more images of Parquet files ({error.strerror}): row groups "
                "are read again, which is slow in random order; set TMPDIR to a larger folder"
            )
            return
        with self._lock:
            self._stored[key] = places


def folder_for() -> str:
    """Return the folder of the temporary file: TMPDIR, or one that is no memory."""
    there = [os.environ.get("TMPDIR", ""), "/var/tmp"]
    return next((each for each in there if Path(each or "-").is_dir()), tempfile.gettempdir())


CACHE: Final = Cache()
"""The groups of this process."""


def _group(row: Row) -> Any:
    """Read the bytes of all images of a row's group, as pyarrow's array."""
    with opened(row.file) as file:
        size = file.metadata.row_group(row.group).total_byte_size
        if size > LARGEST:
            raise DataError(
                f"{row.file} has a row group of {size / 2**30:.1f} GiB: must be at most "
                f"{LARGEST / 2**30:.0f} GiB; write it again with smaller ones (row_group_size=100)"
            )
        try:
            table = file.read_row_group(row.group, columns=[row.column])
            values = table.column(0).combine_chunks()
            for name in row.column.split(".")[1:]:
                values = values.field(name)
            return values
        except Exception as error:  # pyarrow's ArrowInvalid, OSError, ...
            raise DataError(f"{row.file}: its row group {row.group} is damaged: {error}") from error
