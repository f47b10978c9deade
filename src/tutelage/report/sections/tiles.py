"""The most important numbers of a run, as tiles on its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tutelage.records.rows import Probe
from tutelage.report.runs.found import (
    flops,
    last_probe,
    params,
    supernet_accuracy,
    tau,
)
from tutelage.report.runs.record import Record, number
from tutelage.report.runs.tables import duration
from tutelage.report.sections.monitor import figure, rank


@dataclass(frozen=True)
class Tile:
    """One important number."""

    name: str
    value: str
    note: str
    result: bool = False
    """Whether it is the run's main result."""


def tiles(record: Record) -> Iterator[Tile]:
    """Yield the important numbers, as far as they are known."""
    yield from _tested(record)
    if (scored := supernet_accuracy(record)) is not None:
        yield Tile("supernet accuracy", percent(scored), "found by evolution, validation data")
    if record.search and record.answer:
        answer, benchmark = record.answer, record.search.benchmark
        for key, data in benchmark.tests.items():
            ranked = key == benchmark.ranked_by and benchmark.count > 0
            note = f"rank {rank(answer, benchmark)}" if ranked else f"of {benchmark.title}"
            yield Tile(
                f"{data} {benchmark.part}{benchmark.how}", figure(answer, key), note, result=ranked
            )
    if (correlation := tau(record)) is not None:
        yield Tile("Kendall’s tau", f"{correlation:.2f}".replace("-", "−"), "supernet and truth")
    yield from _costs(record)
    probe = last_probe(record.search) if record.search else Probe()
    if (right := number(probe.students_accuracy)) is not None:
        more = number(probe.gap)
        note = "sampled paths, validation data"
        if more is not None:
            note += f"; gap to the teacher {100 * more:.2f} points".replace("-", "−")
        yield Tile("students’ accuracy", percent(right), note)
    if record.valid_accuracy is not None:
        alone = "supernet, end of search" if record.kept is None else f"learner {record.kept}, kept"
        yield Tile("valid accuracy", percent(record.valid_accuracy), record.ensemble or alone)
    for name, files in record.run_files:
        if files.seconds is not None:
            count = len(files.sessions)
            note = "in one session" if count == 1 else f"in {count} sessions"
            yield Tile(f"{name} time", duration(files.seconds), note)


def _tested(record: Record) -> Iterator[Tile]:
    """Give the test error after retraining."""
    retraining, result = record.retraining, record.result
    if retraining and result and record.test_error is not None:
        epochs = retraining.epochs_done if result.epochs is None else result.epochs
        note = f"after {epochs} epochs of training"
        if record.members:
            own = ", ".join(percent(each) for each in result.ensemble)
            note = f"of the ensemble, {note} of each network; by themselves {own}"
        yield Tile("test error", percent(record.test_error), note, True)


def _costs(record: Record) -> Iterator[Tile]:
    """Give the parameters and FLOPs of the final network."""
    whose = "of all networks, " if record.members else ""
    if (count := params(record)) is not None:
        yield Tile("parameters", quantity(count), f"{whose}without auxiliary head")
    if (count := flops(record)) is not None:
        yield Tile("FLOPs", quantity(count), f"{whose}one image")


def percent(fraction: float) -> str:
    """Write a fraction in percent, two decimals."""
    return f"{100 * fraction:.2f} %"


def quantity(count: float) -> str:
    """Write a large number with three digits or more.

    >>> quantity(3349342), quantity(528e6), quantity(48214), quantity(12)
    ('3.35 M', '528 M', '48.2 k', '12')
    """
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            digits = 0 if count >= 100 * size else 1 if count >= 10 * size else 2
            return f"{count / size:.{digits}f} {unit}"
    return f"{count:.0f}"
