"""Tables of trained architectures: their protocol, and a function that opens any of them.

Nothing in this file imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from tutelage.benchmark import nasbench201, nasbench301, nasbench_macro, nats_size, stored
from tutelage.benchmark.absent import AbsentError
from tutelage.spaces.genotype import Genotype

FOLDER: Final = "TUTELAGE_TABLES"
"""The environment's variable with the folder in which tables are found by their names."""
OTHER_NAMES: Final = {"nb301": ("nb301_yahpo",)}
"""Other names of a table in that folder."""


class Answer(Protocol):
    """A table's entry for one architecture."""

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Percent by name."""

    @property
    def rank(self) -> Mapping[str, int]:
        """By the same names: 1 for the best of the table, shared by equal ones; empty: unknown."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `query --json` prints."""

    def as_text(self) -> str:
        """Return what `query` prints."""


class Table(Protocol):
    """All architectures of a space, trained and tested."""

    @property
    def spaces(self) -> Sequence[str]:
        """Names of the spaces whose architectures it has."""

    @property
    def ranked_by(self) -> str:
        """Name of the accuracy that results of searches are ranked by."""

    @property
    def caveat(self) -> str:
        """What must be said wherever its figures are shown; empty: they were measured."""

    def query(self, genotype: Genotype) -> Answer:
        """Look up an architecture.

        Raises:
            ValueError: It is of another space.
            AbsentError: It is of the table's space, but the table does not have it.
        """


BUILT: Final[Mapping[bytes, Callable[[Path], Table]]] = {
    nasbench201.MAGIC: nasbench201.Table,
    stored.MAGIC: stored.Table,
}
"""The tables that `table build` makes, by the first bytes of their files."""


def open_table(path: Path | str) -> Table:
    """Open a table.

    It is a file of `table build`, NAS-Bench-Macro's JSON, the folder of NAS-Bench-301's surrogate,
    or that of NATS-Bench's size space.

    A name that is no file or folder here is looked for in the folder of the environment's variable
    TUTELAGE_TABLES.

    Raises:
        ValueError: it is missing, damaged, or none of them.
    """
    path = placed(Path(path))
    if path.is_dir():
        if nasbench301.surrogate_in(path):
            return nasbench301.Table(path)
        if (path / nats_size.META).is_file():
            return nats_size.Folder(path)
        raise ValueError(
            f"{path} is no file, and no folder with a surrogate of NAS-Bench-301 or with the files "
            "of NATS-Bench's size space"
        )
    if not path.is_file():
        raise ValueError(
            f"{path} is no file: make it with `tutelage table build`, or give NAS-Bench-Macro's "
            "JSON as it was downloaded, or the folder nb301 of YAHPO Gym's data"
        )
    with path.open("rb") as file:
        begins = file.read(len(max(BUILT, key=len)))
    kinds = (table for magic, table in BUILT.items() if begins.startswith(magic))
    return next(kinds, nasbench_macro.Table)(path)


def placed(path: Path) -> Path:
    """Return where a table is: the path, or that of its name in the folder of tables."""
    folder = os.environ.get(FOLDER)
    if path.exists() or len(path.parts) != 1 or not folder:
        return path
    names = (path.name, *OTHER_NAMES.get(path.name, ()))
    return next((x for name in names if (x := Path(folder, name)).exists()), path)


def true_accuracy(table: Table, genotype: Genotype) -> float:
    """Look up the accuracy by which the table ranks, in percent."""
    return table.query(genotype).accuracy[table.ranked_by]


def looked_up(table: Table, genotype: Genotype) -> dict[str, Any]:
    """Return the table's entry for an architecture: percent, and its rank by `ranked_by`.

    The rank is left out if it is unknown, and all if the table does not have the architecture.
    """
    try:
        answer = table.query(genotype)
    except AbsentError:
        return {}
    ranks = {"rank": answer.rank[table.ranked_by]} if table.ranked_by in answer.rank else {}
    return {**answer.accuracy, **ranks}


def why_absent(table: Table, genotype: Genotype) -> str:
    """Say why the table does not have an architecture of its space; empty: it has it."""
    try:
        table.query(genotype)
    except AbsentError as error:
        return str(error)
    return ""
