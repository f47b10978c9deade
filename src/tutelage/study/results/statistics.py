"""Statistics of a study: paired t tests, Holm's correction, power.

A test is two-sided. `scipy` is imported inside functions: it takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutelage.report.runs.tables import Statistic
from tutelage.study.results.intervals import LEVEL, quantile

POWER = 0.8
"""The usual power that a study is planned for."""
MOST = 10_000
"""Seeds beyond which no number is given."""
FAR = 6.0
"""Noncentrality from which the test's other tail has less than 1e-9; scipy may give NaN there."""
ROUNDING = 1e-9
"""Share of the largest value within which differences are equal: they differ by rounding."""


class Sample(Statistic):
    """Values of one measure over the seeds of a configuration."""

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.values)


@dataclass(frozen=True)
class Paired:
    """Differences between two configurations, seed by seed: of one, minus the baseline's."""

    differences: Sample

    @property
    def n(self) -> int:
        """How many seeds both have."""
        return self.differences.n

    @property
    def effect(self) -> float | None:
        """Cohen's d for pairs: the mean difference over the deviation of the differences.

        None: fewer than two pairs, or all differences are equal.
        """
        spread = self.differences.deviation
        return self.differences.mean / spread if spread else None

    @property
    def p(self) -> float | None:
        """The p value of the paired t test.

        None: fewer than two pairs, or all differences are equal, and no test can judge them.
        """
        if self.effect is None:
            return None
        from scipy.stats import t

        return float(2 * t.sf(abs(self.effect) * math.sqrt(self.n), self.n - 1))

    @property
    def power(self) -> float | None:
        """The probability that such a study finds an effect of the observed size."""
        return None if self.effect is None else power(self.effect, self.n)

    @property
    def needed(self) -> int | None:
        """How many seeds would find an effect of the observed size with a power of POWER.

        None: no effect was observed, or more than MOST.
        """
        return None if self.effect is None else seeds_for(self.effect)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Paired:
    """Pair two configurations' values by seed; a seed that only one has is left out.

    Differences that are equal but for ROUNDING are made equal, and zero where the values are equal.
    """
    seeds = [seed for seed in values if seed in baseline]
    found = [values[seed] - baseline[seed] for seed in seeds]
    within = ROUNDING * max((abs(x[seed]) for x in (values, baseline) for seed in seeds), default=0)
    if found and max(found) - min(found) <= within:
        found = [found[0] if abs(found[0]) > within else 0.0] * len(found)
    return Paired(Sample(tuple(found)))


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p values for the number of tests, by Holm's step-down method, in the given order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected, largest = [0.0] * len(ps), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[index]))
        corrected[index] = largest
    return corrected


def power(effect: float, n: int, level: float = LEVEL) -> float:
    """Return the power of the two-sided paired t test.

    Args:
        effect: The mean difference over the deviation of the differences.
        n: How many pairs; at least 2.
        level: The test's level.
    """
    from scipy.stats import nct

    threshold, shift = quantile(1 - level / 2, n - 1), abs(effect) * math.sqrt(n)
    other = nct.cdf(-threshold, n - 1, shift) if shift < FAR else 0.0
    return float(nct.sf(threshold, n - 1, shift) + other)


def seeds_for(effect: float, wanted: float = POWER) -> int | None:
    """Return the smallest number of pairs with which the test has the wanted power.

    None: more than MOST.
    """
    if power(effect, MOST) < wanted:
        return None
    low, high = 1, MOST  # the power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle) >= wanted else (middle, high)
    return high


def smallest_effect(n: int, wanted: float = POWER) -> float:
    """Return the smallest effect that n pairs find with the wanted power; n is at least 2."""
    from scipy.optimize import brentq

    return float(brentq(lambda effect: power(effect, n) - wanted, 0.0, 100.0, xtol=1e-6))
