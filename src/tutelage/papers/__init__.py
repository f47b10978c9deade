"""The papers as data: every table and figure, its rows, what they printed, and what runs each.

One file a paper, in this folder. A row names the parts that its settings consist of: recipes, and
shared pieces of `recipes/parts.toml`. `tutelage search --row PAPER/TABLE/ROW` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tutelage.checks import nearest
from tutelage.formats import read_toml
from tutelage.parts import from_table
from tutelage.recipes import composed, layered

FOLDER = Path(__file__).parent

Printed = Mapping[str, tuple[float, ...]]
"""By measure: the printed value, and its standard deviation if there is one."""


@dataclass(frozen=True)
class Row:
    """A row of a table, or a point of a figure."""

    parts: tuple[str, ...] = ()
    """What its settings consist of, later parts override earlier ones; none: it cannot run."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of its own."""
    evaluate: tuple[str, ...] = ()
    """Parts of its retraining, if that is on other data than the search."""
    printed: dict[str, Any] = field(default_factory=dict)
    """Values by measure: one number, or a mean and its standard deviation."""
    genotype: str = ""
    """Name of the published genotype, if there is one."""
    quoted: bool = False
    """Whether the paper quotes the figures from elsewhere."""
    missing: str = ""
    """Why no part runs it."""
    note: str = ""
    """What a reader must know: silence of the paper, a contradiction, a choice."""
    name: str = ""
    """PAPER/TABLE/ROW."""

    @property
    def values(self) -> Printed:
        """The printed values as tuples."""
        return {
            measure: tuple(value) if isinstance(value, list) else (value,)
            for measure, value in self.printed.items()
        }

    def search(self) -> dict[str, Any]:
        """Return the settings of its search.

        Raises:
            ValueError: No part runs it.
        """
        if not self.parts:
            raise ValueError(f"row {self.name} cannot run: {self.missing}")
        return layered(composed(self.parts), self.settings, {"row": self.name})

    def retraining(self) -> dict[str, Any]:
        """Return the settings of its retraining that are not those of its search."""
        return composed(self.evaluate)


@dataclass(frozen=True)
class Table:
    """A table or a figure of a paper."""

    title: str
    """What it shows."""
    measures: dict[str, str]
    """Columns: the measure and its heading, with the unit."""
    then: Literal["retrain", "query", "nothing"] = "retrain"
    """What follows a search: a retraining from scratch, or a query of the benchmark's table."""
    seeds: int = 10
    """How many runs the figures are the mean of, with seeds from 1."""
    parts: tuple[str, ...] = ()
    """Parts of all rows, after their own."""
    evaluate: tuple[str, ...] = ()
    """Parts of all retrainings."""
    note: str = ""
    """What holds for all rows: silence of the paper, a contradiction, a choice."""
    rows: dict[str, Any] = field(default_factory=dict)
    """The rows by name."""
    name: str = ""
    """PAPER/TABLE."""

    def each(self) -> Iterator[Row]:
        """Yield the rows, in the paper's order."""
        for name, given in self.rows.items():
            row: Row = from_table(Row, given, f"row {self.name}/{name}")
            parts = (*row.parts, *self.parts) if row.parts else ()
            evaluate = (*row.evaluate, *self.evaluate)
            row = replace(row, name=f"{self.name}/{name}", parts=parts, evaluate=evaluate)
            for measure in row.printed:
                if measure not in self.measures:
                    raise ValueError(f"row {row.name}: {nearest(measure, self.measures)}")
            yield row


@dataclass(frozen=True)
class Paper:
    """A paper and its tables."""

    title: str
    cited: str
    """Authors, place, year."""
    protocol: str
    """How the paper's figures are measured, and whose settings are taken where it is silent."""
    tables: dict[str, Any] = field(default_factory=dict)
    """Tables and figures by name."""
    name: str = ""

    def each(self) -> Iterator[Table]:
        """Yield the tables and figures, in the paper's order."""
        for name, given in self.tables.items():
            table: Table = from_table(Table, given, f"{self.name}/{name}")
            yield replace(table, name=f"{self.name}/{name}")


def paper_names() -> list[str]:
    """List the papers."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


@cache
def read_paper(name: str) -> Paper:
    """Read a paper by its name.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in paper_names():
        raise ValueError(f"unknown paper {name!r}: {nearest(name, paper_names())}")
    table = read_toml(FOLDER / f"{name}.toml")
    paper: Paper = from_table(Paper, table, f"the paper {name}")
    return replace(paper, name=name)


def read_table(paper: str, name: str) -> Table:
    """Read a table or a figure of a paper.

    Raises:
        ValueError: There is none of this name.
    """
    found = read_paper(paper)
    for table in found.each():
        if table.name == f"{paper}/{name}":
            return table
    raise ValueError(f"{paper} has no {name!r}: {nearest(name, found.tables)}")


def row_named(name: str) -> Row:
    """Find a row by its name, PAPER/TABLE/ROW.

    Raises:
        ValueError: There is none of this name.
    """
    paper, _, rest = name.partition("/")
    table, _, own = rest.partition("/")
    if not own:
        raise ValueError(f"row {name!r}: must be PAPER/TABLE/ROW, as `tutelage papers` lists them")
    found = read_table(paper, table)
    if own not in found.rows:
        raise ValueError(f"{found.name} has no row {own!r}: {nearest(own, found.rows)}")
    return next(row for row in found.each() if row.name == name)


def every_row() -> Iterator[Row]:
    """Yield all rows of all papers."""
    for name in paper_names():
        for table in read_paper(name).each():
            yield from table.each()
