"""Statistics of studies, beside scipy's and beside slow definitions."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from tutelage.study.results.intervals import interval
from tutelage.study.results.statistics import (
    MOST,
    Paired,
    Sample,
    holm,
    paired,
    power,
    seeds_for,
    smallest_effect,
)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_mean_and_deviation(n):
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    sample = Sample(tuple(values))
    assert sample.mean == pytest.approx(values.mean())
    assert sample.deviation == pytest.approx(values.std(ddof=1))


def test_a_single_value_has_no_deviation():
    assert Sample((2.0,)).deviation is None
    assert math.isnan(Sample(()).mean)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_paired_test_is_scipys(n):
    generator = np.random.default_rng(n)
    first, second = generator.normal(0.4, 1, n), generator.normal(0, 1, n)
    found = paired(dict(enumerate(first)), dict(enumerate(second)))
    expected = stats.ttest_rel(first, second)
    bounds = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.differences.mean == pytest.approx(first.mean() - second.mean())
    assert interval(found.differences.values, "t") == pytest.approx((bounds.low, bounds.high))
    assert found.effect == pytest.approx(expected.statistic / math.sqrt(n))


def test_pairs_are_by_seed_and_a_seed_without_its_pair_is_left_out():
    found = paired({3: 1.0, 1: 5.0, 9: 7.0}, {1: 4.0, 2: 0.0, 3: 3.0})
    assert sorted(found.differences.values) == [-2.0, 1.0]


def test_equal_differences_cannot_be_tested():
    same = Paired(Sample((0.5, 0.5, 0.5)))
    assert (same.p, same.effect, same.power, same.needed) == (None, None, None, None)
    assert Paired(Sample((0.5,))).p is None


def test_differences_that_differ_by_rounding_are_equal():
    """Test errors in percent, of 360 images: each has one image more than the baseline."""
    more = paired(
        *({i: 100 * (x / 360) for i, x in enumerate(n)} for n in ((7, 9, 12), (6, 8, 11)))
    )
    assert (more.p, more.effect) == (None, None)
    assert more.differences.values == pytest.approx((100 / 360,) * 3)
    same = paired({1: 0.1 + 0.2, 2: 0.7}, {1: 0.3, 2: 0.7})
    assert same.differences.values == (0.0, 0.0)
    assert paired({1: 1e-7, 2: 0.0, 3: 0.0}, {1: 0.0, 2: 0.0, 3: 1e-7}).p == pytest.approx(1.0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_holm_is_bonferroni_in_a_closed_test(count):
    ps = list(np.random.default_rng(count).uniform(0, 0.2, count))
    for index, found in enumerate(holm(ps)):
        others = [other for other in range(count) if other != index]
        families = [
            (index, *chosen)
            for size in range(count)
            for chosen in itertools.combinations(others, size)
        ]
        slow = max(min(1.0, len(each) * min(ps[i] for i in each)) for each in families)
        assert found == pytest.approx(slow)


@pytest.mark.parametrize(("effect", "n"), [(0.0, 5), (0.5, 2), (-0.8, 10), (0.2, 200), (3.0, 4)])
def test_power_is_the_integral_over_the_sampled_deviation(effect, n):
    """Given the sampled variance, the mean is normal: an integral with no noncentral t."""
    threshold, shift = stats.t.ppf(0.975, n - 1), effect * math.sqrt(n)

    def rejected(ratio):  # of the sampled deviation to the true one
        bound = threshold * ratio
        tails = stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)
        return tails * stats.chi.pdf(ratio * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1)

    expected, _ = integrate.quad(rejected, 0, 12, limit=400, points=[0.5, 1, 2])
    assert power(effect, n) == pytest.approx(expected, abs=1e-6)


def test_power_without_an_effect_is_the_level_and_of_a_large_one_is_certain():
    assert power(0.0, 7) == pytest.approx(0.05)
    assert power(50.0, 100) == 1.0
    assert power(1.0, 2000) == pytest.approx(1.0)


@pytest.mark.parametrize("effect", [0.1, 0.5, 1.0, 3.0, 30.0])
def test_the_number_of_seeds_is_the_smallest_that_suffices(effect):
    found = seeds_for(effect)
    assert found is not None
    assert power(effect, found) >= 0.8
    assert found == 2 or power(effect, found - 1) < 0.8
    assert seeds_for(-effect) == found


def test_a_textbook_number_of_pairs():
    """Cohen 1988: for d = 0.5, a level of 5 % and a power of 80 %, 34 pairs."""
    assert seeds_for(0.5) == 34
    assert seeds_for(0.0) is None
    assert power(0.02, MOST) < 0.8 and seeds_for(0.02) is None


@pytest.mark.parametrize("n", [2, 5, 30])
def test_the_smallest_effect_has_the_wanted_power(n):
    assert power(smallest_effect(n), n) == pytest.approx(0.8, abs=1e-5)
