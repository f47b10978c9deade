"""Who teaches whom: gates, transfer and attention of every pair, labels, and the effect."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import attrgetter

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tutelage.records.rows import EpochRow, Matrix
from tutelage.report.figures.plots import Line, by_epoch, learner, plot, values
from tutelage.report.figures.theme import LIGHT, SERIES, Drawn, canvas, drawn, styled
from tutelage.report.runs.record import RunFiles, at
from tutelage.report.runs.tables import NOTHING, Statistic

PAIRS = (
    ("gate", "Gate", " (0: no teaching)", 1e-3),
    ("transfer", "Transfer loss", "", 1e-3),
    ("attention", "Attention", "", 1.0),
)
"""Matrices of `Teaching`, names, notes, and the least range of plots."""

LABELS = (
    ("label_accuracy", "Accuracy of the labels that every learner gives (%)", 100.0),
    ("label_entropy", "Entropy of the labels that every learner gives (nats)", 1.0),
)
"""Fields of `LearnerScores`, captions, and factors of the values."""

TOGETHER = 3
"""Most learners whose pairs share a plot; with more, every learner has its own plot."""

LEFT, TOP, WIDTH, HEIGHT = 62.0, 22.0, 400.0, 48.0
"""Space for names, width of a matrix (that of a plot), and height of its cells, in points."""


def teaching(files: RunFiles) -> Iterator[Drawn]:
    """Draw all measurements of how learners teach one another."""
    axis, x, rows = by_epoch(files)
    for what, name, note, high in PAIRS:
        taught = pair_lines(files, what)
        lines = [line for each in taught for line in each]
        shown = 0.0, max([high, *(y for line in lines for y in line.y if math.isfinite(y))])
        if len(taught) <= TOGETHER:
            yield from plot(f"{name} of every pair{note}", lines, axis, shown=shown)
        else:
            for k, each in enumerate(taught):
                yield from plot(f"{name} of learner {k}{note}", each, axis, shown=shown)
        mean = mean_matrix(files, what)
        if np.isfinite(mean).any():
            caption = f"Mean {name.lower()} over all epochs"
            yield drawn(caption, matrix(mean), caption)
    for quantity, caption, scale in LABELS:
        yield from plot(caption, label_lines(files, quantity, scale), axis)
    agreement = [100 * value for value in values(rows, attrgetter("teaching.agreement"))]
    yield from plot(
        "Images on which two learners agree (%)", [Line("", x, agreement, SERIES[0])], axis
    )


def pair_lines(files: RunFiles, what: str) -> list[list[Line]]:
    """Make for every learner a line for each of its peers, in the peer's colour."""
    _, x, rows = by_epoch(files)
    count = _count(rows, what)
    return [
        [
            Line(
                f"learner {k} from {j}",
                x,
                entries(rows, what, k, j),
                SERIES[j % len(SERIES)],
                dashed=count == TOGETHER and (k - j) % count == 2,  # a peer's second learner
            )
            for j in range(count)
            if j != k
        ]
        for k in range(count)
    ]


def label_lines(files: RunFiles, quantity: str, scale: float) -> list[Line]:
    """Make a line for every learner of a property of its labels."""
    _, x, rows = by_epoch(files)
    count = max((len(row.learners) for row in rows), default=0)
    scores = [[learner(row, k) for row in rows] for k in range(count)]
    return [
        Line(
            f"learner {k}",
            x,
            [scale * value for value in values(each, attrgetter(quantity))],
            SERIES[k % len(SERIES)],
        )
        for k, each in enumerate(scores)
    ]


def entries(rows: Sequence[EpochRow], what: str, k: int, j: int) -> list[float]:
    """Return a learner's entry for a peer, epoch by epoch."""
    return values(rows, lambda row: at(at(_matrix(row, what), k, []), j, None))


def mean_matrix(files: RunFiles, what: str) -> np.ndarray:
    """Average over the epochs that have it, (learners, peers); NaN: no epoch has it, or itself."""
    rows = files.epochs
    count = _count(rows, what)
    mean = np.full((count, count), math.nan)
    for k, j in np.ndindex(mean.shape):
        known = [y for y in entries(rows, what, k, j) if math.isfinite(y)]
        if k != j or any(known):
            mean[k, j] = Statistic(tuple(known)).mean
    return mean


def matrix(mean: np.ndarray) -> Figure:
    """Draw numbers (learners, peers) in cells; larger ones are darker."""
    count = len(mean)
    width = (WIDTH - LEFT - 2) / count
    most = max(np.nanmax(mean), 0.0) or 1.0
    with styled():
        figure, axes = canvas(WIDTH, TOP + HEIGHT * count + 2)
        for j in range(count):
            x = LEFT + (j + 0.5) * width
            axes.text(x, TOP - 6, f"from {j}", ha="center", color=LIGHT["muted"])
        for k, row in enumerate(mean):
            y = TOP + k * HEIGHT
            axes.text(0, y + HEIGHT / 2, f"learner {k}", va="center", color=LIGHT["muted"])
            for j, value in enumerate(row):
                x = LEFT + j * width
                shade = 0.04 + 0.46 * max(value, 0.0) / most if math.isfinite(value) else 0.0
                axes.add_patch(Rectangle((x, y), width, HEIGHT, fc=LIGHT["blue"], alpha=shade))
                axes.add_patch(Rectangle((x, y), width, HEIGHT, fc="none", ec=LIGHT["line"]))
                axes.text(x + width / 2, y + HEIGHT / 2, _written(value), ha="center", va="center")
    return figure


def first_stage(files: RunFiles, kept: int | None) -> list[tuple[str, ...]]:
    """Return every learner's accuracy in its first stage and after teaching; may be empty."""
    ends = files.ends
    count = max((len(row.learners) for row in ends), default=0)
    rows: list[tuple[str, ...]] = []
    for k in range(count):
        alone, taught = (
            100 * values([learner(ends[-1], k)], attrgetter(f"{which}_accuracy"))[0]
            for which in ("first", "valid")
        )
        if math.isfinite(alone):
            name = f"learner {k}" + (", kept" if k == kept else "")
            rows.append((name, _percent(alone), _percent(taught), _signed(taught - alone)))
    return rows


def _count(rows: Sequence[EpochRow], what: str) -> int:
    """Count the learners of a matrix in the rows."""
    return max((len(_matrix(row, what)) for row in rows), default=0)


def _matrix(row: EpochRow, what: str) -> Matrix:
    return getattr(row.teaching, what) or []


def _percent(value: float) -> str:
    return f"{value:.2f} %" if math.isfinite(value) else NOTHING


def _signed(value: float) -> str:
    """Write a difference with its sign.

    >>> _signed(1.234), _signed(-0.5), _signed(-0.001)
    ('+1.23', '−0.50', '+0.00')
    """
    text = f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0: no negative zero
    return text if math.isfinite(value) else NOTHING


def _written(value: float) -> str:
    """Write a number with three digits.

    >>> _written(0.05), _written(1234.5), _written(0.0)
    ('0.0500', '1234', '0')
    """
    if not math.isfinite(value):
        return NOTHING
    return f"{value:.0f}" if value >= 100 or not value else f"{value:#.3g}"
