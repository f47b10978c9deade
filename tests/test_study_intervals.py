"""Intervals of a mean: by t beside scipy, by the bootstrap beside scipy and beside plain loops."""

import math
from itertools import accumulate
from statistics import NormalDist, fmean

import numpy as np
import pytest
from scipy import stats

from tutelage.study.results.intervals import FEWEST, interval

NORMAL = NormalDist()
SKEWED = tuple(np.random.default_rng(5).exponential(2.0, FEWEST))
COLLAPSED = (91.2, 90.4, 10.0, 92.3, 89.9, 91.0, 88.7, 10.0, 93.1, 90.2, 91.7, 92.2)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_by_t_is_scipys(n):
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    error = values.std(ddof=1) / math.sqrt(n)
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=error)
    assert interval(tuple(values), "t") == pytest.approx(expected)
    assert interval((2.0,), "t") is None


@pytest.mark.parametrize("values", [SKEWED, COLLAPSED])
def test_the_bootstrap_is_scipys_and_the_same_each_time(values):
    expected = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(0))
    found = interval(values, "bootstrap")
    assert found == tuple(expected.confidence_interval)
    assert interval(values, "bootstrap") == found


def exact_means(values):
    """Every mean that n draws with replacement can have, ascending, with its probability.

    A plain recursion over how often each value is drawn: for 10 values 92,378 samples.
    """
    n, found = len(values), []

    def draw(place, left, total, weight):
        if place == n - 1:
            weight *= n**-n * math.factorial(n) / math.factorial(left)
            found.append(((total + left * values[place]) / n, weight))
            return
        for times in range(left + 1):
            own = total + times * values[place]
            draw(place + 1, left - times, own, weight / math.factorial(times))

    draw(0, n, 0.0, 1.0)
    return sorted(found)


def accelerated(values, means):
    """BCa's interval (Efron 1987) by its definition, of the exact distribution."""
    n, centre = len(values), fmean(values)
    below = sum(weight for mean, weight in means if mean < centre - 1e-12)
    equal = sum(weight for mean, weight in means if abs(mean - centre) <= 1e-12)
    bias = NORMAL.inv_cdf(below + equal / 2)
    without = [fmean([*values[:i], *values[i + 1 :]]) for i in range(n)]
    apart = [fmean(without) - each for each in without]
    acceleration = sum(x**3 for x in apart) / (6 * sum(x**2 for x in apart) ** 1.5)
    for z in (NORMAL.inv_cdf(0.025), NORMAL.inv_cdf(0.975)):
        share = NORMAL.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        sums = accumulate(weight for _, weight in means)
        yield next(mean for (mean, _), total in zip(means, sums, strict=True) if total >= share)


def test_the_bootstrap_is_that_of_all_samples():
    """9,999 of them leave an error of a few hundredths of the interval's width."""
    means = exact_means(SKEWED)
    assert len(means) == math.comb(2 * FEWEST - 1, FEWEST)
    assert sum(weight for _, weight in means) == pytest.approx(1)
    low, high = accelerated(SKEWED, means)
    assert interval(SKEWED, "bootstrap") == pytest.approx((low, high), abs=0.03 * (high - low))
    middle = fmean(SKEWED)
    assert high - middle > 1.2 * (middle - low)  # it follows the skewness


def test_the_bootstrap_stays_within_the_values_where_t_does_not():
    low, high = interval(COLLAPSED, "bootstrap")
    assert min(COLLAPSED) < low < fmean(COLLAPSED) < high < max(COLLAPSED)
    assert interval(COLLAPSED, "t")[1] > max(COLLAPSED)


def test_too_few_and_equal_values():
    assert interval(SKEWED[:-1], "bootstrap") is None
    assert interval((0.5,) * FEWEST, "bootstrap") == (0.5, 0.5)


@pytest.mark.slow
def test_of_ten_normal_values_it_covers_the_mean_too_rarely():
    """What the report says: about 91 % and not 95 %, which t has."""
    draws = np.random.default_rng(1).normal(0.0, 1.0, (1000, FEWEST))
    cover = {"t": 0, "bootstrap": 0}
    for kind in cover:
        for values in draws:
            low, high = interval(tuple(values), kind)
            cover[kind] += low < 0 < high
    assert 930 <= cover["t"] <= 970
    assert 890 <= cover["bootstrap"] <= 930
