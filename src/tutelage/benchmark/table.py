"""Tables of trained architectures: what they have in common, and opening one, whichever it is.

Nothing in this file imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tutelage.benchmark import nasbench201, nasbench_macro
from tutelage.spaces.genotype import Genotype


class Answer(Protocol):
    """What a table says of one architecture."""

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Percent by name."""

    @property
    def rank(self) -> Mapping[str, int]:
        """By the same names: 1 for the best of the table; equal ones share a rank."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `query --json` prints."""

    def as_text(self) -> str:
        """Return what `query` prints."""


class Table(Protocol):
    """All architectures of a space, trained and tested."""

    @property
    def space(self) -> str:
        """Name of the space."""

    @property
    def ranked_by(self) -> str:
        """Name of the accuracy that says how good a search's result is."""

    def query(self, genotype: Genotype) -> Answer:
        """Look an architecture up; raise ValueError where it is of another space."""


def open_table(path: Path | str) -> Table:
    """Open the table of NAS-Bench-201 that `table build` wrote, or NAS-Bench-Macro's JSON.

    Raises:
        ValueError: it is missing, neither of the two, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path} is no file: make it with `tutelage table build`, or give NAS-Bench-Macro's "
            "JSON as it was downloaded"
        )
    with path.open("rb") as file:
        built = file.read(len(nasbench201.MAGIC)) == nasbench201.MAGIC
    return nasbench201.Table(path) if built else nasbench_macro.Table(path)


def true_accuracy(table: Table, genotype: Genotype) -> float:
    """Look up the accuracy by which the table ranks, in percent."""
    return table.query(genotype).accuracy[table.ranked_by]


def looked_up(table: Table, genotype: Genotype) -> dict[str, Any]:
    """Return what the table says of an architecture: percent, and its rank by `ranked_by`."""
    answer = table.query(genotype)
    return {**answer.accuracy, "rank": answer.rank[table.ranked_by]}
