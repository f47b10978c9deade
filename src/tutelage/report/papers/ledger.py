"""The ledger: every row of the papers beside what runs of it have measured, with a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from tutelage.papers import Row, Table, paper_names, read_paper
from tutelage.report.papers.measured import Measured, of_row
from tutelage.report.papers.text import printed
from tutelage.report.runs.tables import NOTHING, Statistic

Verdict = Literal["reproduced", "not reproduced", "not told apart", "not run"]
LEVEL = 0.05
"""Two-sided level of the test that a verdict rests on."""
ENSEMBLE = "an ensemble was found, and a benchmark's table has single networks"
"""Why runs of a queried row have no figure."""
COMPARED = ("error", "accuracy", "c10_test", "c100_test", "in16_test")
"""Measures that a verdict is about, the first that a row has printed."""

ABOUT = """\
Made by `tutelage papers --ledger docs/ledger.md --runs FOLDER`, which keeps what runs have measured
in `ledger.json`; neither is edited by hand. A row is a row of a paper's table or a point of its
figure. `tutelage papers PAPER/TABLE/ROW` says what runs it.

- **reproduced**: runs of the row's full size; their mean is the printed one as far as that is
  rounded, or Welch's test does not tell them apart, at a level of 5 %. The printed deviation is
  known; one of 0 counts as half a unit of the last printed digit.
- **not reproduced**: it tells them apart.
- **not told apart**: one run, or no printed deviation, or a reduced size, whose figure says nothing
  about the printed one; the settings that differ are listed.
- **not run**: with the reason.
"""


def ledger(runs: Sequence[Measured]) -> str:
    """Write the ledger of all papers as Markdown, with the runs that `measured` has found."""
    count: Counter[str] = Counter()
    lines: list[str] = []
    for name in paper_names():
        paper = read_paper(name)
        lines += [f"## {paper.title}", "", f"{paper.cited}. {paper.protocol.strip()}", ""]
        for table in paper.each():
            own = table.name.partition("/")[2].replace("-", " ").capitalize()
            lines += [f"### {own}: {table.title}", ""]
            lines += [table.note, ""] if table.note else []
            lines += ["| row | printed | measured | n, seeds | size | verdict |"]
            lines += ["|---|---|---|---|---|---|"]
            for row in table.each():
                verdict, cells = _line(row, table, runs)
                count[verdict] += 1
                lines.append("| " + " | ".join(cells) + " |")
            lines.append("")
    total = ", ".join(f"{number} {verdict}" for verdict, number in count.most_common())
    head = ["# The ledger", "", ABOUT, f"{count.total()} rows: {total}.", ""]
    return "\n".join([*head, *lines]).rstrip() + "\n"


def _line(row: Row, table: Table, runs: Sequence[Measured]) -> tuple[Verdict, list[str]]:
    own = row.name.removeprefix(f"{table.name}/")
    measure = next((each for each in COMPARED if each in row.printed), "error")
    shown = printed(row, measure)
    best = of_row(runs, row)
    if best is None:
        return "not run", [own, shown, NOTHING, NOTHING, NOTHING, f"not run: {reason(row, table)}"]
    figure = best.figure(measure)
    value = row.values.get(measure, ())
    verdict = judged(figure, value, table.seeds, bool(best.changed), rounding(table, measure))
    size = "; ".join(best.changed) or "full"
    seeds = f"{len(best.runs)}: {', '.join(map(str, best.seeds))}"
    why = "" if any(best.runs.values()) else f": {ENSEMBLE}"
    return verdict, [own, shown, figure.text(), seeds, size, verdict + why]


def reason(row: Row, table: Table) -> str:
    """Say why no run of a row is known."""
    if not row.parts:
        return row.missing
    return "".join(_reasons(row, table))


def _reasons(row: Row, table: Table) -> Iterator[str]:
    settings = row.search()
    data = settings.get("data", {}).get("name", "digits")
    yield f"{settings.get('epochs', 50)} epochs on {data}"
    if table.then == "retrain":
        retrain = {**settings.get("retrain", {}), **row.retraining().get("retrain", {})}
        yield f" and {retrain.get('epochs', 600)} of retraining"
    yield f", times {table.seeds}; no machine for that yet"


def rounding(table: Table, measure: str) -> float:
    """Return half a unit of the last digit that a table prints of a measure.

    A row's own numbers do not tell it: 54.30 is read as 54.3.
    """
    values = [x for row in table.each() for x in row.values.get(measure, ())]
    digits = max((len(f"{x}".partition(".")[2]) for x in values if x % 1), default=0)
    return 0.5 * 10.0**-digits


def judged(
    figure: Statistic,
    value: tuple[float, ...],
    seeds: int,
    reduced: bool,
    rounded: float = 0.005,
) -> Verdict:
    """Judge measured values beside a printed mean and deviation over some seeds.

    Args:
        figure: The measured values.
        value: The printed mean, and its deviation if there is one.
        seeds: How many runs the printed figures are of.
        reduced: Whether the measured runs are not of the row's full size.
        rounded: How far a printed number may be from the computed one, by rounding.
    """
    if reduced or len(figure.values) < 2 or len(value) < 2:
        return "not told apart"
    mean, deviation = value[0], max(value[1], rounded)
    if abs(figure.mean - mean) <= rounded * (1 + 1e-6):
        return "reproduced"
    from scipy.stats import ttest_ind_from_stats  # takes 2 s

    test = ttest_ind_from_stats(
        figure.mean, figure.deviation, len(figure.values), mean, deviation, seeds, equal_var=False
    )
    return "not reproduced" if test.pvalue < LEVEL else "reproduced"
