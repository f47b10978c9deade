"""How well a supernet ranks architectures whose true accuracies are in a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tutelage.records.rows import Candidate, RankingScores
from tutelage.report.figures.scatter import Points, scatter
from tutelage.report.figures.theme import LIGHT, Drawn, drawn
from tutelage.report.runs.benchmarks import Benchmark
from tutelage.report.runs.record import RunFiles, number
from tutelage.report.runs.scores import quantity_of
from tutelage.report.runs.tables import NOTHING

HEADER = ("", "the supernet", "FLOPs alone")
"""The columns of `figures`: what ranks the architectures."""


class Pair(NamedTuple):
    """An architecture that was sampled at random."""

    scored: float
    """Accuracy in the supernet in percent, or the method's own score."""
    true: float
    """The table's accuracy, percent."""


def pairs(files: RunFiles) -> list[Pair]:
    """List the architectures that are scored so far and are in the table."""
    key = files.benchmark.ranked_by
    rows = files.ranking.scored if files.ranking else []
    scored = quantity_of(rows)
    both = [(scored.of(row), number(row.table.get(key))) for row in rows]
    return [Pair(x, y) for x, y in both if x is not None and y is not None]


def agreement(files: RunFiles) -> RankingScores | None:
    """Return the figures of the ranking; None before the search has ended."""
    found = [row.ranking for row in files.ends if row.ranking]
    return found[-1] if found else None


def apart(found: list[Pair], top: int) -> tuple[list[Pair], list[Pair]]:
    """Return the best-scored and the rest; of equals, those of lower true accuracy come first.

    `tutelage.benchmark.ranking`, which computes the figures, does the same.
    """
    order = sorted(found, key=lambda pair: (-pair.scored, pair.true))
    return order[:top], order[top:]


def ranked(files: RunFiles) -> Iterator[Drawn]:
    """Plot true accuracy against accuracy in the supernet."""
    found, scores = pairs(files), agreement(files)
    if not found:
        return
    top = (scores.top if scores else 0) or 0
    first, rest = apart(found, top)
    kinds = [
        Points("sampled at random", *_columns(rest), LIGHT["slate"], 22.0, alpha=0.6),
        Points(f"the supernet’s first {top}", *_columns(first), LIGHT["blue"], 22.0),
        Points("found by evolution", *_columns(_found(files)), LIGHT["vermilion"], 80.0, ring=True),
    ]
    data = files.benchmark.tests[files.benchmark.ranked_by]
    scored = quantity_of(files.ranking.scored if files.ranking else []).caption
    caption = f"True accuracy on {data} (%), by {scored}"
    shown = [each for each in kinds if len(each.x)]
    yield drawn(caption, scatter(shown, scored), caption)


def figures(files: RunFiles) -> list[tuple[str, ...]]:
    """Return the quality of the ranking by the supernet, and by FLOPs alone."""
    found = agreement(files)
    if not found:
        return []
    by_cost = found.by_flops or RankingScores()
    top, count = found.top or 0, found.count or 0
    kinds = (
        ("tau", "Kendall’s tau", "{:.2f}", 1),
        ("rho", "Spearman’s rho", "{:.2f}", 1),
        ("accuracy", "True accuracy of the first", "{:.2f} %", 1),
        ("rank", f"Its true rank among the {count}", "{:.0f}", 1),
        (
            "precision",
            f"Share of the first {top} that are truly among the best {top}",
            "{:.0f} %",
            100,
        ),
        ("best_rank", f"Best true rank among the first {top}", "{:.0f}", 1),
        ("regret", f"Lost by training only the first {top} (points)", "{:.2f}", 1),
    )
    return [
        (name, *(_written(number(getattr(each, key)), form, scale) for each in (found, by_cost)))
        for key, name, form, scale in kinds
    ]


def baseline(benchmark: Benchmark) -> str:
    """Describe how well FLOPs alone rank all architectures of a benchmark."""
    if not benchmark.by_flops:
        return ""
    return (
        f"Over all {benchmark.count:,} architectures of {benchmark.title}, FLOPs alone "
        f"reach a tau of {benchmark.by_flops:.2f}. Compare the supernet with that."
    )


def _found(files: RunFiles) -> list[Pair]:
    """Return the architecture that the evolution found, if it is in the table."""
    found = [row.evolution or Candidate() for row in files.ends]
    scored = [quantity_of(found).of(row) for row in found]
    true = [number(answer.get(files.benchmark.ranked_by)) for answer in files.answers]
    both = zip(scored[-1:], true[-1:], strict=False)
    return [Pair(x, y) for x, y in both if x is not None and y is not None]


def _columns(found: list[Pair]) -> tuple[list[float], list[float]]:
    return [pair.scored for pair in found], [pair.true for pair in found]


def _written(value: float | None, form: str, scale: float) -> str:
    return NOTHING if value is None else form.format(scale * value).replace("-", "−")
