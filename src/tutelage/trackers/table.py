"""A run as a CSV file: a line for every row, a column for every figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Final, final

from tutelage.files import write_bytes
from tutelage.trackers import Outcome, Place, Subject

FILE: Final = "metrics.csv"


@final
class Table:
    """The file metrics.csv, which is written again from the first row by every session."""

    def __init__(self, subject: Subject, place: Place) -> None:
        self._path = subject.path / FILE
        place.where = str(self._path)
        self._lines: list[dict[str, float]] = []
        self._columns: dict[str, None] = {"step": None}
        self._write()

    def row(self, step: int, figures: Mapping[str, float]) -> None:
        """Add a line; a new column needs the whole file to be written again."""
        line = {"step": step, **figures}
        self._lines.append(line)
        if line.keys() <= self._columns.keys():
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(line)
        else:
            self._columns |= dict.fromkeys(line)
            self._write()

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Leave out a picture, which a table cannot hold."""

    def end(self, step: int, figures: Mapping[str, float], outcome: Outcome) -> None:
        """Add a line with the final figures."""
        if figures:
            self.row(step, figures)

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._lines)
        write_bytes(self._path, text.getvalue().encode())
