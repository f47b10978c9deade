"""Tables of trained architectures: their protocol, and a function that opens any of them.

Nothing in this file imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tutelage.benchmark import nasbench201, nasbench_macro
from tutelage.spaces.genotype import Genotype


class Answer(Protocol):
    """A table's entry for one architecture."""

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
        """Name of the accuracy that results of searches are ranked by."""

    def query(self, genotype: Genotype) -> Answer:
        """Look up an architecture; raise ValueError if it is of another space."""


def open_table(path: Path | str) -> Table:
    """Open the table of NAS-Bench-201 that `table build` wrote, or NAS-Bench-Macro's JSON.

    Raises:
        ValueError: it is missing, damaged, or neither of the two.
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
    """Return the table's entry for an architecture: percent, and its rank by `ranked_by`."""
    answer = table.query(genotype)
    return {**answer.accuracy, "rank": answer.rank[table.ranked_by]}
