"""Plots with the curves of several runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from operator import attrgetter

from tutelage.records.rows import EpochRow
from tutelage.report.figures.plots import Axis, Line, by_epoch, learner, plot, values
from tutelage.report.figures.theme import SERIES, Drawn
from tutelage.report.runs.benchmarks import BENCHMARKS
from tutelage.report.runs.scores import ACCURACY, quantity_of
from tutelage.report.runs.tables import Row
from tutelage.report.sections.evolution import candidates
from tutelage.report.sections.monitor import answered

PROBES = (
    (attrgetter("students_accuracy"), "Search: accuracy of the sampled students (%)", 100),
    (attrgetter("gap"), "Search: the teacher’s accuracy minus its students’ (points)", 100),
    (attrgetter("logit_distance"), "Search: distance between the logits of two students", 1),
)
"""Readers of a `Probe`'s fields, captions, and factors of the values."""


def compared(rows: Sequence[Row]) -> list[Drawn]:
    """Plot the runs of a comparison together, with one colour for each row of the table."""
    accuracy, loss, training = [], [], []
    tables: dict[str, list[Line]] = {each.title: [] for each in BENCHMARKS}
    kinds = {
        each.title: f"{each.accuracy} of the kept learner (%){each.how}" for each in BENCHMARKS
    }
    for place, row in enumerate(rows):
        colour = SERIES[place % len(SERIES)]
        for record in row.records:
            if record.search and not record.search.sampled:
                kept = record.kept or 0
                _, x, found = by_epoch(record.search)
                scores = [learner(each, kept) for each in found]
                y = [100 * value for value in values(scores, attrgetter("valid_accuracy"))]
                accuracy.append(Line(row.label, x, y, colour))
                y = values(scores, attrgetter("valid_loss"))
                loss.append(Line(row.label, x, y, colour))
                benchmark = record.search.benchmark
                epochs = [each for each in found if isinstance(each, EpochRow)]
                y = values(epochs, answered(kept, benchmark.ranked_by))
                x = x if epochs else []
                tables[benchmark.title].append(Line(row.label, x, y, colour))
            for files in record.retraining.trainings if record.retraining else ():
                _, x, found = by_epoch(files)
                training.append(Line(row.label, x, values(found, attrgetter("train_loss")), colour))
    axis = Axis("epoch")
    return [
        *plot("Search: validation accuracy of the kept learner (%)", accuracy, axis),
        *plot("Search: validation loss of the kept learner", loss, axis),
        *sampled(rows),
        *chain.from_iterable(
            plot(f"{title}: CIFAR-10 {kinds[title]}", lines, axis)
            for title, lines in tables.items()
        ),
        *plot("Retraining: training loss", training, axis),
    ]


def sampled(rows: Sequence[Row]) -> Iterator[Drawn]:
    """Plot students and evolution of the runs that sample paths."""
    searches = [
        (row.label, SERIES[place % len(SERIES)], record.search)
        for place, row in enumerate(rows)
        for record in row.records
        if record.search and record.search.sampled
    ]
    for read, caption, scale in PROBES:
        lines = []
        for label, colour, search in searches:
            _, x, _ = by_epoch(search)
            y = [scale * value for value in values([row.probe for row in search.epochs], read)]
            lines.append(Line(label, x, y, colour))
        yield from plot(caption, lines, Axis("epoch"))
    best = []
    for label, colour, search in searches:
        known = search.evolution and quantity_of(search.evolution.scored) is ACCURACY
        scored = candidates(search.evolution) if search.evolution and known else []
        y = list(accumulate((each.score for each in scored), max))
        best.append(Line(label, range(1, len(y) + 1), y, colour))
    yield from plot("Evolution: best accuracy in the supernet so far (%)", best, Axis("candidate"))
