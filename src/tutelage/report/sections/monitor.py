"""The diagnostics of a search, and a benchmark's figures of its architectures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import methodcaller

from tutelage.records.rows import Answer, EpochRow
from tutelage.report.figures.layout import cell_name
from tutelage.report.figures.plots import Line, by_epoch, plot, values
from tutelage.report.figures.theme import SERIES, Drawn
from tutelage.report.runs.benchmarks import Benchmark
from tutelage.report.runs.record import RunFiles, at, number

QUANTITIES = (
    ("skips", "Skip connections of every cell", (0.0, 3.0)),
    ("entropy", "Entropy of the architecture weights (1: uniform, 0: one operation)", (0.0, 1.0)),
    ("alignment", "Layer alignment", (-0.1, 0.1)),
    ("eigenvalue", "Dominant eigenvalue of the validation loss in the alphas", (0.0, 0.0)),
    ("sharpness", "Sharpness: rise of the validation loss near the alphas", (0.0, 0.0)),
    (
        "gap",
        "Discretisation gap: accuracy of the supernet minus that of the derived architecture",
        (0.0, 0.0),
    ),
)
"""Entries of `collapse` in metrics.jsonl, captions, and values that are always shown."""

COUNTED = ("one_hot_accuracy",)
"""Entries without their own plot."""


def collapse(files: RunFiles) -> Iterator[Drawn]:
    """Plot all diagnostics of learners: one colour for each learner, dashes for `reduce`.

    The caption of a user's own monitor is its name.
    """
    axis, _, rows = by_epoch(files)
    known = {quantity for quantity, *_ in QUANTITIES} | set(COUNTED)
    others = dict.fromkeys(name for row in rows for each in row.collapse for name in each)
    more = [(name, name, (0.0, 0.0)) for name in others if name not in known]
    for quantity, caption, shown in (*QUANTITIES, *more):
        yield from plot(caption, diagnostic_lines(files, quantity), axis, shown=shown)


def diagnostic_lines(files: RunFiles, quantity: str) -> list[Line]:
    """Make a line for every learner, and for every cell if the quantity is measured by cell."""
    _, x, rows = by_epoch(files)
    count = max((len(row.collapse) for row in rows), default=0)
    lines = []
    for k in range(count):
        name, colour = _learner(k, count), SERIES[k % len(SERIES)]
        found = [at(row.collapse, k, {}).get(quantity) for row in rows]
        cells = [each if isinstance(each, dict) else {} for each in found]
        for group in dict.fromkeys(group for each in cells for group in each):
            y = values(cells, methodcaller("get", group))
            label = ", ".join(part for part in (cell_name(group), name) if part)
            lines.append(Line(label, x, y, colour, dashed=group == "reduce"))
        if not any(cells):
            pairs = zip(x, map(number, found), strict=True)
            known = [(place, value) for place, value in pairs if value is not None]
            lines.append(Line(name, [x for x, _ in known], [y for _, y in known], colour))
    return lines


def warnings(files: RunFiles) -> list[tuple[str, str]]:
    """List the warnings and their epochs, with one entry for consecutive epochs."""
    found: list[tuple[str, list[float]]] = []
    _, x, rows = by_epoch(files)
    for epoch, row in zip(x, rows, strict=True):
        for sentence in row.warnings or ():
            going = (each for other, each in found if other == sentence and each[-1] == epoch - 1)
            epochs = next(going, None)
            if epochs:
                epochs.append(epoch)
            else:
                found.append((sentence, [epoch]))
    return [(_stretch(epochs), sentence) for sentence, epochs in found]


def _stretch(epochs: list[float]) -> str:
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"


def table_plots(files: RunFiles) -> Iterator[Drawn]:
    """Plot accuracy and rank of the architecture derived after every epoch."""
    axis, benchmark = by_epoch(files)[0], files.benchmark
    for key, data in benchmark.tests.items():
        yield from plot(
            f"{data}: {benchmark.accuracy} (%){benchmark.how}", table_lines(files, key), axis
        )
    if count := benchmark.count:
        caption = f"Rank of {count:,} on CIFAR-10 (1: best)"
        yield from plot(caption, table_lines(files, "rank"), axis, log=True, shown=(1, count))


def table_lines(files: RunFiles, key: str) -> list[Line]:
    """Make a line of the table's figures for every learner."""
    _, x, rows = by_epoch(files)
    count = max((len(row.table) for row in rows), default=0)
    return [
        Line(_learner(k, count), x, values(rows, answered(k, key)), SERIES[k % len(SERIES)])
        for k in range(count)
    ]


def answered(k: int, key: str) -> Callable[[EpochRow], float | None]:
    """Return a function that reads a learner's figure of the table from a row."""
    return lambda row: at(row.table, k, {}).get(key)


def table_header(files: RunFiles) -> tuple[str, ...]:
    """Name the columns of `table_rows`."""
    ranked = ("rank by CIFAR-10",) if files.benchmark.count else ()
    return ("architecture", *files.benchmark.tests.values(), *ranked)


def table_rows(files: RunFiles, kept: int | None) -> list[tuple[str, ...]]:
    """Return name, accuracies and rank of every learner, at the epoch that is kept."""
    rows = []
    for k, answer in enumerate(files.answers):
        name = f"learner {k}" + (", kept" if k == kept else "")
        name = "found by evolution" if files.sampled else name
        figures = (figure(answer, key) for key in files.benchmark.tests)
        ranked = (rank(answer, files.benchmark),) if files.benchmark.count else ()
        rows.append((name, *figures, *ranked))
    return rows


def figure(answer: Answer, key: str) -> str:
    """Write an accuracy of the table."""
    value = number(answer.get(key))
    return "–" if value is None else f"{value:.2f} %"


def rank(answer: Answer, benchmark: Benchmark) -> str:
    """Write a rank of the table.

    >>> from tutelage.report.runs.benchmarks import NASBENCH201
    >>> rank({"rank": 2759}, NASBENCH201)
    '2,759 of 15,625'
    """
    value = number(answer.get("rank"))
    return "–" if value is None else f"{value:,.0f} of {benchmark.count:,}"


def _learner(k: int, count: int) -> str:
    return f"learner {k}" if count > 1 else ""
