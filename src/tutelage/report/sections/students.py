"""Sampled sub-networks and their teacher: their accuracy, and how much they differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import attrgetter

from tutelage.records.rows import EpochRow
from tutelage.report.figures.plots import Axis, Line, Mark, by_epoch, plot, values
from tutelage.report.figures.theme import LIGHT, SERIES, Drawn
from tutelage.report.runs.record import RunFiles, number
from tutelage.report.runs.tables import NOTHING

HALVES = (("probe", "validation images"), ("teaching", "training batches"))
"""Fields of an epoch's row, and the images on which they are measured."""

HEADER = ("on", "students", "teacher", "gap in points", "distance of logits")


def students(files: RunFiles) -> Iterator[Drawn]:
    """Plot accuracies (EnNAS, Figure 1) with the gap shaded, and the distance of logits (2)."""
    axis, x, _ = by_epoch(files)
    axis = Axis(axis.name, (*axis.marks, *taught_from(files)))
    accuracies = [
        Line(whose, x, [100 * y for y in measured(files.epochs, "probe", key)], colour)
        for whose, key, colour in (
            ("teacher", "teacher_accuracy", SERIES[1]),
            ("students, mean", "students_accuracy", SERIES[0]),
        )
    ]
    caption = "Accuracy on validation images (%), the gap shaded"
    if not any(map(math.isfinite, accuracies[0].y)):
        caption = "Accuracy of sampled sub-networks on validation images (%)"
    yield from plot(caption, accuracies, axis, filled=True)
    for key, caption, scale in (
        ("gap", "The teacher’s accuracy minus its students’ (points)", 100),
        ("logit_distance", "Distance between the logits of two students", 1),
    ):
        lines = [
            Line(
                where,
                x,
                [scale * y for y in measured(files.epochs, half, key)],
                SERIES[0],
                half != "probe",
            )
            for half, where in HALVES
        ]
        yield from plot(caption, lines, axis, shown=(0, 0))


def measured(rows: Sequence[EpochRow], half: str, key: str) -> list[float]:
    """Return a measurement on one half of the images, epoch by epoch."""
    return values(rows, attrgetter(f"{half}.{key}"))


def taught_from(files: RunFiles) -> Iterator[Mark]:
    """Mark the beginning of the teaching, if the method has a warm-up."""
    share, epochs = number(files.setting("method", "warmup")), number(files.setting("epochs"))
    if share and epochs and share < 1:
        yield Mark(math.ceil(share * epochs) - 0.5, "teaching begins", LIGHT["muted"])


def teacher(files: RunFiles) -> str:
    """Describe the teacher of the students, as logged by the run; empty if there is none."""
    return (files.epochs[-1].taught_by if files.epochs else None) or ""


def at_the_end(files: RunFiles) -> list[tuple[str, ...]]:
    """Return accuracies, gap and distance of the last epoch, on each half of the images.

    The list is empty if there was no teacher.
    """
    last, rows = files.epochs[-1:], []
    for half, where in HALVES:
        taught, teacher, gap, distance = (
            measured(last, half, key)[0] if last else math.nan
            for key in ("students_accuracy", "teacher_accuracy", "gap", "logit_distance")
        )
        if math.isfinite(teacher):
            taught = teacher - gap if math.isnan(taught) else taught
            percents = (_written(100 * value, " %") for value in (taught, teacher))
            rows.append((where, *percents, _written(100 * gap), _written(distance)))
    return rows


def _written(value: float, unit: str = "") -> str:
    return f"{value:.2f}{unit}" if math.isfinite(value) else NOTHING
