"""The papers' tables as text for a terminal: what was printed, what runs it, what is known."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence

import tomli_w

from tutelage.papers import Paper, Row, Table, every_row, paper_names, read_paper
from tutelage.report.papers.measured import Measured, of_row
from tutelage.report.runs.tables import NOTHING

WIDTH = 100
"""Columns of a terminal that notes are wrapped to."""


def overview() -> str:
    """List the papers, their tables, and how many of their rows run."""
    lines = []
    for name in paper_names():
        paper = read_paper(name)
        lines += [f"{name}: {paper.title} ({paper.cited})"]
        lines += [f"  {line}" for line in _tables(paper)]
    rows = list(every_row())
    why = Counter(row.missing for row in rows if not row.parts).most_common()
    missing = "; ".join(f"{count} {reason}" for reason, count in why)
    total = f"{len(rows)} rows, {sum(bool(row.parts) for row in rows)} run; the others: {missing}"
    return "\n".join([*lines, *_wrapped(total)])


def paper_text(paper: Paper) -> str:
    """Describe a paper: its protocol, and its tables."""
    lines = [f"{paper.title} ({paper.cited})", *_wrapped(paper.protocol), *_tables(paper)]
    return "\n".join([*lines, f"A table: tutelage papers {paper.name} TABLE"])


def table_text(table: Table, runs: Sequence[Measured]) -> str:
    """Write a table: every row's printed figures, what runs it, and what runs have measured."""
    header = ["row", *table.measures.values(), "runs from"]
    if runs:
        header.append("measured here")
    rows = [header]
    for row in table.each():
        cells = [_own(row, table) + ("*" if row.quoted else "")]
        cells += [printed(row, measure) for measure in table.measures]
        cells.append(" + ".join(row.parts) if row.parts else f"({row.missing})")
        if runs:
            cells.append(known(row, table, runs))
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows]
    notes = [_own(row, table) + ": " + row.note for row in table.each() if row.note]
    quoted = any(row.quoted for row in table.each())
    return "\n".join(
        [
            *_wrapped(f"{table.name}: {table.title}. {table.note}"),
            *lines,
            *(["* quoted in the paper"] if quoted else []),
            *(line for note in notes for line in _wrapped(note)),
            f"A row: tutelage papers {table.name}/ROW",
        ]
    )


def row_text(row: Row, table: Table) -> str:
    """Write how a row runs: the commands, and the settings that differ from the defaults."""
    lines = [f"{row.name}: {table.title}", *_wrapped(f"{table.note} {row.note}")]
    lines += [
        f"  {heading}: {printed(row, measure)}"
        for measure, heading in table.measures.items()
        if measure in row.printed
    ]
    if not row.parts:
        return "\n".join([*lines, f"It cannot run: {row.missing}."])
    lines.append(f"Run it with seeds 1 to {table.seeds}:")
    lines.append(f"  tutelage search --row {row.name} --seed 1 --out RUN")
    if table.then == "retrain":
        lines.append("  tutelage retrain RUN" + (" --data FOLDER" if row.evaluate else ""))
    if table.then == "query":
        lines.append("  tutelage query RUN --table TABLE --json > RUN/query.json")
    settings = {name: x for name, x in row.search().items() if name != "row"}
    lines += ["", tomli_w.dumps(settings).rstrip()]
    if row.evaluate:
        lines += ["", "# the retraining", tomli_w.dumps(row.retraining()).rstrip()]
    return "\n".join(lines)


def printed(row: Row, measure: str) -> str:
    """Write a printed figure with its deviation."""
    value = row.values.get(measure)
    return NOTHING if value is None else " ± ".join(f"{number:g}" for number in value)


def known(row: Row, table: Table, runs: Sequence[Measured]) -> str:
    """Write what runs of a row have measured, at the size nearest to the row's."""
    best = of_row(runs, row)
    if best is None:
        return NOTHING
    figures = (best.figure(measure) for measure in table.measures)
    found = next((figure.text() for figure in figures if figure.values), NOTHING)
    return found + (f"; {len(best.changed)} settings differ" if best.changed else "")


def _tables(paper: Paper) -> list[str]:
    lines = []
    for table in paper.each():
        rows = list(table.each())
        run = sum(bool(row.parts) for row in rows)
        own = table.name.partition("/")[2]
        lines.append(f"{own:10} {len(rows):3} rows, {run:3} run  {table.title}")
    return lines


def _own(row: Row, table: Table) -> str:
    return row.name.removeprefix(f"{table.name}/")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH)
