"""Tables of benchmarks that `tutelage table build` makes from files of their authors.

The file has a header, which is a line of JSON, and then a matrix of float64, architectures x
columns, NaN where a figure is missing. It is mapped into memory. Nothing in this file imports
torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from math import isnan
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from tutelage.benchmark.absent import AbsentError
from tutelage.files import write_bytes
from tutelage.formats import from_json
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.notation import WRITTEN_NAMES

FORMAT: Final = "tutelage benchmark table"
VERSION: Final = 1
MAGIC: Final = f'{{"format": "{FORMAT}"'.encode()
LONGEST_HEADER: Final = 1 << 22


class Head(NamedTuple):
    """The header of a table."""

    title: str
    """Name of the benchmark."""
    ranked_by: str
    """The column by which results of searches are ranked."""
    spaces: Mapping[str, int]
    """Names of spaces, and how many architectures each has; their rows follow one another."""
    architectures: Sequence[str]
    """The benchmark's texts of all architectures."""
    columns: Sequence[str]
    better: Mapping[str, int]
    """The columns that are scores: 1 if more is better, -1 if less is."""


@dataclass(frozen=True)
class Answer:
    """A table's entry for one architecture."""

    architecture: str
    """The benchmark's text."""
    title: str
    """Name of the benchmark."""
    accuracy: Mapping[str, float]
    """Scores by name, as the benchmark gives them: accuracies are percent."""
    rank: Mapping[str, int]
    """By the same names: 1 for the best of the space; equal ones share a rank; may be empty."""
    count: int
    """Architectures of the space."""
    costs: Mapping[str, float]
    """All other figures by name."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `query --json` prints."""
        return asdict(self)

    def as_text(self) -> str:
        """Return what `query` prints."""
        width = max(map(len, (*self.accuracy, *self.costs)), default=0)
        lines = [self.architecture, f"{self.title}, one of {self.count:,}", ""]
        for name, value in self.accuracy.items():
            ranked = f"  rank {self.rank[name]:,}" if name in self.rank else ""
            lines.append(f"{name:{width}}  {value:10.4f}{ranked}")
        lines += ["", *(f"{name:{width}}  {value:14,.10g}" for name, value in self.costs.items())]
        return "\n".join(lines)


class Table:
    """A built table; a query reads one row, and ranks it in its columns.

    Attributes:
        spaces: Names of its spaces.
        ranked_by: Name of the score that results of searches are ranked by.
        caveat: Empty, because its figures were measured.
        path: The file.
        head: Its header.
    """

    caveat = ""

    def __init__(self, path: Path | str) -> None:
        """Map the file.

        Raises:
            ValueError: It is missing, not a table, of another version, or cut short.
        """
        self.path = Path(path)
        with self.path.open("rb") as file:
            line = file.readline(LONGEST_HEADER)
        self.head = _head(self.path, line)
        self.spaces, self.ranked_by = tuple(self.head.spaces), self.head.ranked_by
        shape = len(self.head.architectures), len(self.head.columns)
        size, needed = self.path.stat().st_size, len(line) + 8 * shape[0] * shape[1]
        if size != needed:
            raise ValueError(
                f"{path} has {size:,} bytes where its header asks for {needed:,}: it is cut short "
                "or damaged, make it again with `tutelage table build`"
            )
        self._values = np.memmap(self.path, "<f8", "r", offset=len(line), shape=shape)
        self._rows = {text: row for row, text in enumerate(self.head.architectures)}

    def query(self, genotype: Genotype) -> Answer:
        """Look up an architecture.

        Raises:
            ValueError: It is of another space.
            AbsentError: The benchmark has not trained it.
        """
        text = text_of(genotype, self.spaces)
        if text not in self._rows:
            raise AbsentError(f"{self.head.title} has no figures of {text}: it did not train it")
        row = self._rows[text]
        values = dict(zip(self.head.columns, self._values[row].tolist(), strict=True))
        scores = {
            name: value
            for name, value in values.items()
            if name in self.head.better and not isnan(value)
        }
        return Answer(
            architecture=text,
            title=self.head.title,
            accuracy=scores,
            rank={name: self._rank(genotype.space, row, name) for name in scores},
            count=self.head.spaces[genotype.space],
            costs={k: x for k, x in values.items() if k not in self.head.better and not isnan(x)},
        )

    def _rank(self, space: str, row: int, name: str) -> int:
        """Rank a row among those of its space that have the score."""
        ends = dict(zip(self.spaces, accumulate(self.head.spaces.values()), strict=True))
        rows = slice(ends[space] - self.head.spaces[space], ends[space])
        values = self.head.better[name] * self._values[:, self.head.columns.index(name)]
        known = values[rows][~np.isnan(values[rows])]
        return int(1 + (known > values[row]).sum())


def text_of(genotype: Genotype, spaces: Sequence[str]) -> str:
    """Write a genotype as its benchmark does.

    Raises:
        ValueError: It is of another space.
    """
    if genotype.space not in spaces or genotype.space not in WRITTEN_NAMES:
        raise ValueError(
            f"the genotype is of the space {genotype.space!r}: the table is of {', '.join(spaces)}"
        )
    return WRITTEN_NAMES[genotype.space](genotype.names)


def write_table(out: Path, head: Head, values: np.ndarray) -> None:
    """Write a table, completely or not at all: values are architectures x columns."""
    line = json.dumps({"format": FORMAT, "version": VERSION, **head._asdict()}).encode()
    line = line.ljust(-(-(len(line) + 1) // 64) * 64 - 1) + b"\n"
    if len(line) > LONGEST_HEADER:
        raise ValueError(f"{len(head.architectures):,} architectures are too many for a table")
    write_bytes(out, line + values.astype("<f8").tobytes())


def _head(path: Path, line: bytes) -> Head:
    """Read the first line."""
    again = "make it again with `tutelage table build`"
    try:
        content = from_json(line)
        version = content["version"]
        if version != VERSION:
            raise ValueError(f"version {version!r}: this Tutelage reads {VERSION}")
        head = Head(**{name: content[name] for name in Head._fields})
        counts = [*head.spaces.values()]
        texts = [head.title, head.ranked_by, *head.spaces, *head.architectures, *head.columns]
        whole = all(type(count) is int and count > 0 for count in counts)
        if not whole or not all(type(text) is str for text in texts):
            raise ValueError("other values than it must have")
        if sum(counts) != len(head.architectures) or not set(head.better) <= set(head.columns):
            raise ValueError("counts that do not fit")
        if head.ranked_by not in head.better or not set(head.better.values()) <= {1, -1}:
            raise ValueError("no score to rank by")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no table, or damaged ({error}): {again}") from None
    return head
