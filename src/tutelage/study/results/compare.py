"""Tables of a study: a row a configuration, compared with the baseline seed by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tutelage.report.runs.tables import NOTHING
from tutelage.study.results.intervals import ENOUGH, FEWEST, LEVEL, Bounds, Kind, interval
from tutelage.study.results.measures import Measured
from tutelage.study.results.statistics import (
    MOST,
    POWER,
    Paired,
    Sample,
    holm,
    paired,
    smallest_effect,
)

FEW = 5
"""Seeds below which a study says what it could not find."""


@dataclass(frozen=True)
class Line:
    """A configuration's figures of one measure."""

    name: str
    sample: Sample
    paired: Paired | None
    """Against the baseline; None: it is the baseline, or there is none."""
    corrected: float | None
    """The p value after Holm's correction; None: there is no test."""
    kind: Kind = "t"
    """How the intervals are computed."""

    @cached_property
    def interval(self) -> Bounds | None:
        """The interval of the mean; None: too few values."""
        return interval(self.sample.values, self.kind)

    @cached_property
    def difference(self) -> Bounds | None:
        """The interval of the mean difference; None: too few pairs, or no baseline."""
        return interval(self.paired.differences.values, self.kind) if self.paired else None


@dataclass(frozen=True)
class Table:
    """A table as text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def compared(found: Measured, baseline: str | None, kind: Kind = "t") -> list[Line]:
    """Compare all configurations with the baseline; the tests of a measure are one family.

    Args:
        found: The values of one measure.
        baseline: A configuration; None: nothing is compared.
        kind: How the intervals are computed.
    """
    pairs = {
        name: paired(values, found.values[baseline])
        for name, values in found.values.items()
        if baseline is not None and name != baseline
    }
    tested = {name: each.p for name, each in pairs.items() if each.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [
        Line(name, found.sample(name), pairs.get(name), corrected.get(name), kind)
        for name in found.values
    ]


def quality(
    found: Measured, lines: Sequence[Line], baseline: str | None, costs: Sequence[Measured] = ()
) -> Table:
    """Write the comparison of one measure, and the means of some costs beside it."""
    digits = found.measure.digits
    header = ["configuration", "n", "mean ± sd", headed(lines)]
    header += [f"minus {baseline}", "p", "p, Holm", "effect d"] if baseline else []
    rows = []
    for line in lines:
        cells = [line.name, str(line.sample.n), _mean(line.sample, digits)]
        cells.append(_interval(line.interval, digits))
        cells += _tests(line, digits) if baseline else []
        rows.append(
            (*cells, *(_mean(cost.sample(line.name), cost.measure.digits) for cost in costs))
        )
    return Table(found.measure.name, (*header, *(cost.measure.name for cost in costs)), tuple(rows))


def costs_of(costs: Sequence[Measured], names: Sequence[str]) -> Table:
    """Write the mean and the deviation of all costs."""
    rows = [
        (name, *(_mean(cost.sample(name), cost.measure.digits) for cost in costs)) for name in names
    ]
    header = ("configuration", *(cost.measure.name for cost in costs))
    return Table("Costs, mean ± sd", header, tuple(rows))


def headed(lines: Sequence[Line]) -> str:
    """Head the column of the intervals; one that is not by t is named."""
    kinds = [f", {line.kind}" for line in lines[:1] if line.kind != "t"]
    return "".join(["95 % interval", *kinds])


def warnings(lines: Sequence[Line], baseline: str | None) -> Iterator[str]:
    """Say where the seeds are too few to tell anything, and how many would do."""
    yield from _bootstrapped([line for line in lines if line.kind == "bootstrap"])
    none, one = ([line.name for line in lines if line.sample.n == n] for n in (0, 1))
    if none:
        yield f"{', '.join(none)}: no run has this figure."
    if one:
        has = "has 1 run with this figure: its" if len(one) == 1 else "have 1 run each: their"
        yield f"{', '.join(one)} {has} spread is unknown."
    for n in sorted({line.paired.n for line in lines if line.paired and 2 <= line.paired.n < FEW}):
        yield (
            f"{n} seeds find a difference with a probability of {_percent(POWER)} only if it is "
            f"{smallest_effect(n):.1f} times its own deviation over the seeds, or more."
        )
    for line in lines:
        if line.paired and line.sample.n > 1:
            yield from _told_apart(line, line.paired, str(baseline))


def _bootstrapped(lines: Sequence[Line]) -> Iterator[str]:
    """Say which intervals the bootstrap cannot give, and which are too narrow."""
    few = [line.name for line in lines if 1 < line.sample.n < FEWEST]
    if few:
        yield (
            f"{', '.join(few)}: fewer than {FEWEST} seeds, of which no bootstrap interval is "
            "given; take --interval t."
        )
    narrow = [line.name for line in lines if FEWEST <= line.sample.n < ENOUGH]
    if narrow:
        yield (
            f"{', '.join(narrow)}: fewer than {ENOUGH} seeds, so the bootstrap intervals are too "
            f"narrow. Of {FEWEST} normal values, they cover the mean in about 91 % of cases."
        )


def _told_apart(line: Line, pair: Paired, baseline: str) -> Iterator[str]:
    if pair.n < 2:
        yield f"{line.name} has {pair.n} seeds in common with {baseline}: no test is possible."
    elif not any(pair.differences.values):
        yield f"{line.name} has the same figure as {baseline} with every seed: no test is possible."
    elif line.corrected is None or pair.power is None:
        yield f"{line.name} differs from {baseline} by the same amount with every seed: no test."
    elif line.corrected >= LEVEL:
        more = f"more than {MOST:,}" if pair.needed is None else f"{pair.needed:,}"
        yield (
            f"{line.name} is not told apart from {baseline}. If the true effect is the observed "
            f"one, {pair.n} seeds find it with a probability of {_percent(pair.power)}, and {more} "
            f"seeds with {_percent(POWER)} (one test at {_percent(LEVEL)})."
        )


def _tests(line: Line, digits: int) -> tuple[str, str, str, str]:
    pair = line.paired
    if pair is None or not pair.n:
        return (NOTHING,) * 4
    bounds = f" ({_interval(line.difference, digits)})" if line.difference else ""
    effect = NOTHING if pair.effect is None else f"{pair.effect:.2f}"
    difference = f"{pair.differences.mean:+.{digits}f}{bounds}"
    return difference, probability(pair.p), probability(line.corrected), effect


def probability(p: float | None) -> str:
    """Write a p value.

    >>> probability(0.0314), probability(2e-7), probability(None)
    ('0.031', '< 0.001', '–')
    """
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _mean(sample: Sample, digits: int) -> str:
    if not sample.n:
        return NOTHING
    spread = "" if sample.deviation is None else f" ± {sample.deviation:.{digits}f}"
    return f"{sample.mean:.{digits}f}{spread}"


def _interval(bounds: Bounds | None, digits: int) -> str:
    if bounds is None:
        return NOTHING
    low, high = bounds
    return f"{low:.{digits}f} to {high:.{digits}f}"
