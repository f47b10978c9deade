"""Tables of images: CSV with a column of paths and one of labels, and perhaps one of parts."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import torch

from tutelage.data import DataError
from tutelage.data.images import Listing, Source
from tutelage.data.pictures import SUFFIXES
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

ENDINGS: Final = (".csv", ".tsv")
PATHS: Final = (
    *("path", "file", "filename", "file_name", "filepath", "file_path"),
    *("image", "image_path", "img", "img_path"),
)
"""Names of the column of paths."""
SPLITS: Final = ("split", "part", "subset")
"""Names of the column of parts."""


class Entry(NamedTuple):
    """A line of a table."""

    line: int
    path: str
    """As written."""
    label: str
    """Empty, if labels are not read."""
    part: str
    """Of `PARTS`; empty: there is no column of parts."""


@final
@dataclass(frozen=True)
class Table:
    """A CSV file that lists images; paths are relative to its folder."""

    root: Path
    """The file."""
    label: str | None = None
    """The column of labels; None: found by its name."""

    @property
    def name(self) -> str:
        """The name of the file without its ending."""
        return self.root.stem

    @property
    def divided(self) -> bool:
        """Whether a column says which part an image is of."""
        return any(entry.part for entry in self._entries(labels=False))

    def listed(self, part: PartName) -> tuple[Listing, list[str]]:
        """List the images of a part, and the files that are left out.

        Raises:
            DataError: The table is damaged or lacks a column, or a file is missing.
        """
        entries = self._entries()
        if any(entry.part for entry in entries):
            own = chosen({entry.part for entry in entries}, part, self.root)
            return self._listing([entry for entry in entries if entry.part == own])
        whole, others = self._listing(entries)
        names = [digested(path, self.root.parent) for path in whole.paths]
        rows = undivided(names, whole.labels, whole.classes, part, self.root)
        return whole.at(rows), others

    def whole(self) -> Listing:
        """List all images, whatever their part."""
        return self._listing(self._entries())[0]

    def tested(self, part: PartName) -> Sequence[Any]:
        """List the files of a test part."""
        return self.listed(part)[0].paths

    def without_labels(self) -> tuple[Listing, list[str]]:
        """List the images of the train part, or all if there are no parts, without labels."""
        entries = [each for each in self._entries(labels=False) if each.part in ("", "train")]
        paths, others = self._images(entries)
        files = Listing(list(paths), torch.full((len(paths),), -1), (), Source(self._folder))
        return files, others

    @property
    def _folder(self) -> str:
        return str(self.root.parent)

    def _listing(self, entries: list[Entry]) -> tuple[Listing, list[str]]:
        paths, others = self._images(entries)
        labels, classes = numbered([entry.label for entry in paths.values()], self.root)
        return Listing(list(paths), labels, classes, Source(self._folder)), others

    def _images(self, entries: list[Entry]) -> tuple[dict[str, Entry], list[str]]:
        """Return the entries by the path of their image, and the files that are left out."""
        found: dict[str, Entry] = {}
        others: list[str] = []
        for entry in entries:
            path = str(self.root.parent / entry.path)
            if not path.lower().endswith(SUFFIXES):
                others.append(path)
                continue
            found[path] = entry
        missing = [(path, entry) for path, entry in found.items() if not Path(path).is_file()]
        if missing:
            path, first = missing[0]
            more = f", and {len(missing) - 1:,} more are missing" if len(missing) > 1 else ""
            raise DataError(
                f"{self.root} line {first.line}: {path} is no file{more}; paths are relative to "
                "the folder of the table"
            )
        if not found:
            raise DataError(f"{self.root} lists no images ({', '.join(SUFFIXES)})")
        return found, others

    def _entries(self, labels: bool = True) -> list[Entry]:
        """Read all lines.

        Raises:
            DataError: The table is damaged, lacks a column, or names a file twice.
        """
        try:
            with self.root.open(encoding="utf-8-sig", newline="") as file:
                found = list(self._read(file, labels))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.root} is no readable table in UTF-8: {error}") from error
        lines: dict[str, int] = {}
        for entry in found:
            path = str(Path(entry.path))
            if (before := lines.setdefault(path, entry.line)) != entry.line:
                raise DataError(
                    f"{self.root}: lines {before} and {entry.line} both name {entry.path}; an "
                    "image has one line"
                )
        return found

    def _read(self, file: Iterable[str], labels: bool) -> Iterator[Entry]:
        lines = iter(file)
        head = next(lines, "")
        mark = max(",;\t", key=head.count)
        header = next(csv.reader([head], delimiter=mark), [])
        path = column(header, PATHS)
        if path is None:
            raise DataError(
                f"{self.root} begins with {head.strip()[:60]!r}: its first line must name the "
                f"columns, one of them {', '.join(PATHS[:4])}, ..., and label"
            )
        split = column(header, SPLITS)
        wanted = [header.index(path)]
        wanted += [header.index(label_column(header, self.label, self.root))] if labels else []
        wanted += [header.index(split)] if split else []
        reader = csv.reader(lines, delimiter=mark)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            line, cells = reader.line_num + 1, [row[at].strip() for at in wanted if at < len(row)]
            if len(cells) < len(wanted) or not all(cells):
                names = ", ".join(header[at] for at in wanted)
                raise DataError(f"{self.root} line {line} lacks one of {names}")
            part = part_named(cells[-1]) if split else ""
            if part is None:
                raise DataError(
                    f"{self.root} line {line}: {split} = {cells[-1]!r}: must be train, validation "
                    "or test"
                )
            yield Entry(line, cells[0], cells[1] if labels else "", part)
