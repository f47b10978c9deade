"""What `tutelage papers` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tutelage.files import write_bytes
from tutelage.papers import Row, read_paper, read_table, row_named
from tutelage.report.papers.ledger import ledger
from tutelage.report.papers.measured import as_json, measured, read_known
from tutelage.report.papers.text import overview, paper_text, row_text, table_text


def show(name: str | None, table: str | None, runs: Sequence[Path]) -> None:
    """Print the papers, one paper, a table, or a row.

    Args:
        name: PAPER, PAPER/TABLE or PAPER/TABLE/ROW; None: all papers.
        table: A table of the paper, if the name is only PAPER.
        runs: Folders of runs, whose figures are shown beside the printed ones.

    Raises:
        ValueError: There is no paper, table or row of this name.
    """
    parts = "/".join(part for part in (name, table) if part).split("/", 2)
    match parts:
        case [""]:
            print(overview())
        case [paper]:
            print(paper_text(read_paper(paper)))
        case [paper, own]:
            print(table_text(read_table(paper, own), measured(runs)))
        case [paper, own, _]:
            print(row_text(row_named("/".join(parts)), read_table(paper, own)))


def rows_of(name: str | None, table: str | None) -> list[Row]:
    """Return the rows that run of what `show` would print.

    Raises:
        ValueError: There is no paper, table or row of this name, or the name is missing.
    """
    parts = "/".join(part for part in (name, table) if part).split("/", 2)
    match parts:
        case [""]:
            raise ValueError("--cost needs a paper, a table or a row")
        case [paper]:
            found = [row for table in read_paper(paper).each() for row in table.each()]
        case [paper, own]:
            found = list(read_table(paper, own).each())
        case _:
            found = [row_named("/".join(parts))]
    return [row for row in found if row.parts]


def write_ledger(path: Path, runs: Sequence[Path]) -> None:
    """Write the ledger of all rows as Markdown, and what it knows of runs as JSON beside it.

    Runs that an earlier ledger knew stay in it: their directories need not.
    """
    data = path.with_suffix(".json")
    found = measured(runs, read_known(data))
    write_bytes(data, as_json(found).encode())
    write_bytes(path, ledger(found).encode())
    print(f"Ledger: {path}, of the runs in {data}")
