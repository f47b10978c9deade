"""metrics.jsonl of a run directory: rows are appended, and removed back to a checkpoint."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from tutelage.files import FULL
from tutelage.records import metrics
from tutelage.records.rows import Row


class MetricsFile:
    """The rows of a search, a retraining, a ranking or an evolution.

    Attributes:
        path: The file, which may not exist yet.
        writes: Whether this process writes it; one that does not reads it all the same.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    def append(self, row: Row) -> None:
        """Add one row: the complete row or, on a full disk, nothing of it.

        Raises:
            ValueError: The disk is full; earlier rows are safe.
        """
        self._append(metrics.line_of(row))

    def _append(self, line: bytes) -> None:
        if not self.writes:
            return
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                written = file.write(line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                file.truncate(size)
                if error.errno not in FULL:
                    raise
                raise ValueError(
                    f"no room for another row in {self.path} ({error.strerror}): its rows and "
                    "the last checkpoint are safe, free some space and resume the run"
                ) from error

    def read(self, types: Mapping[str, type[Row]]) -> list[Row]:
        """Read the rows, without an incomplete last one.

        Args:
            types: The types of the rows, by their event.

        Raises:
            ValueError: A line is damaged, or a newer release wrote it.
        """
        rows, damage = self._read(types)
        if damage:
            raise ValueError(f"{self.path} line {damage[0].line} is damaged: {damage[0].reason}")
        return rows

    def intact(self, types: Mapping[str, type[Row]]) -> list[Row]:
        """Read the rows that can be read, without damaged ones."""
        return self._read(types).rows

    def _read(self, types: Mapping[str, type[Row]]) -> metrics.Metrics:
        return metrics.read(self.path.read_bytes() if self.path.exists() else b"", types)

    def size(self) -> int:
        """Return the size in bytes, once all is on disk, for a checkpoint to record."""
        if not self.writes:
            return 0
        with self.path.open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def cut(self, size: int) -> None:
        """Remove the rows after the first `size` bytes: steps after a checkpoint are repeated.

        Raises:
            ValueError: The file is shorter than that.
        """
        if not self.writes:
            return
        with self.path.open("ab") as file:
            present = file.tell()
            if present < size:
                raise ValueError(
                    f"{self.path} has {present:,} bytes where the checkpoint counted {size:,}: "
                    "rows were taken out, so the run cannot resume"
                )
            file.truncate(size)

    def begin(self) -> None:
        """Record the version of the rows that follow the present end.

        Call it after `cut`. A new file has no such line, and neither has a file of release 0.1 or
        a file that was cut before that line.

        Raises:
            ValueError: A newer release wrote the file, or the disk is full.
        """
        if not self.writes:
            return
        try:
            version = metrics.version_of(self.path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{self.path} cannot be continued: {error}") from error
        if version < metrics.VERSION:
            self._append(metrics.line_of(metrics.HEAD))
