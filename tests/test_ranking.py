"""Rank correlation of scores with true accuracies, against plain loops."""

import math
import random

import pytest

from tutelage.benchmark.ranking import Ranking, compare


def sign(x):
    return (x > 0) - (x < 0)


def plain_tau(x, y):
    """Kendall's tau-b: pairs in the same order less those in the other, ties taken out below."""
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    agreement = sum(sign(x[i] - x[j]) * sign(y[i] - y[j]) for i, j in pairs)
    untied_x = sum(x[i] != x[j] for i, j in pairs)
    untied_y = sum(y[i] != y[j] for i, j in pairs)
    return agreement / math.sqrt(untied_x * untied_y)


def plain_rho(x, y):
    """Pearson's correlation of ranks, equal ones with the mean of their ranks."""

    def mean_ranks(values):
        return [sum(a < b for a in values) + (values.count(b) + 1) / 2 for b in values]

    a, b = mean_ranks(x), mean_ranks(y)
    mean = (len(x) + 1) / 2
    above = sum((p - mean) * (q - mean) for p, q in zip(a, b, strict=True))
    return above / math.sqrt(sum((p - mean) ** 2 for p in a) * sum((q - mean) ** 2 for q in b))


def plain_top(scores, true, top):
    """Choose one after another the best score, of equal ones the truly worst."""
    left, chosen = list(range(len(scores))), []
    for _ in range(top):
        best = left[0]
        for each in left:
            if (scores[each], -true[each]) > (scores[best], -true[best]):
                best = each
        left.remove(best)
        chosen.append(best)
    rank = [1 + sum(other > own for other in true) for own in true]
    return {
        "accuracy": true[chosen[0]],
        "rank": rank[chosen[0]],
        "precision": sum(rank[each] <= top for each in chosen) / top,
        "best_rank": min(rank[each] for each in chosen),
        "regret": max(true) - max(true[each] for each in chosen),
    }


@pytest.mark.parametrize("seed", range(8))
def test_every_figure_is_that_of_plain_loops(seed):
    draw = random.Random(seed)
    count, coarse = draw.randint(5, 60), draw.choice([1, 10, 1000])  # few values: many ties
    true = [round(draw.uniform(80, 93) * coarse) / coarse for _ in range(count)]
    scores = [round((each + draw.gauss(0, 3)) * coarse) / coarse for each in true]
    top = draw.randint(1, count)
    found = compare(scores, true, top=top)
    assert (found.count, found.top) == (count, top)
    assert found.tau == pytest.approx(plain_tau(scores, true), abs=1e-12)
    assert found.rho == pytest.approx(plain_rho(scores, true), abs=1e-12)
    for name, value in plain_top(scores, true, top).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12)


def test_a_hand_worked_example():
    true = [93.0, 92.0, 91.0, 90.0, 89.0]
    scores = [0.5, 0.7, 0.9, 0.2, 0.1]  # 3 of 10 pairs stand the wrong way
    assert compare(scores, true, top=2) == Ranking(
        count=5,
        tau=pytest.approx(0.4),
        rho=pytest.approx(1 - 6 * (4 + 0 + 4) / (5 * 24)),
        accuracy=91.0,
        rank=3,
        top=2,
        precision=0.5,
        best_rank=2,
        regret=1.0,
    )


def test_the_ends_are_one_and_minus_one():
    true = [float(each) for each in range(20)]
    right, wrong = compare(true, true, top=3), compare([-each for each in true], true, top=3)
    assert (right.tau, right.rho) == (pytest.approx(1), pytest.approx(1))
    assert (right.rank, right.precision, right.regret) == (1, 1.0, 0.0)
    assert (wrong.tau, wrong.rho) == (pytest.approx(-1), pytest.approx(-1))
    assert (wrong.rank, wrong.precision, wrong.best_rank, wrong.regret) == (20, 0.0, 18, 17.0)


def test_scores_that_say_nothing_have_no_correlation_and_choose_the_worst():
    found = compare([0.1] * 4, [90.0, 91.0, 92.0, 93.0], top=2)
    assert (found.tau, found.rho) == (None, None)
    assert (found.rank, found.best_rank, found.regret) == (4, 3, 2.0)
    assert compare([1.0, 2.0], [90.0, 90.0], top=1).tau is None
    refused = compare([-math.inf, 0.4, -math.inf, 0.6], [90.0, 91.0, 92.0, 93.0], top=1)
    assert refused.tau == pytest.approx(plain_tau([0, 1, 0, 2], [0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("scores", "true", "top", "message"),
    [
        ([1.0], [1.0], 1, "1 scores with 1 accuracies"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], 1, "2 scores with 3 accuracies"),
        ([1.0, math.nan], [1.0, 2.0], 1, "1 of 2 scores are NaN"),
        ([1.0, 2.0], [math.nan, math.nan], 1, "2 of 2 accuracies are NaN"),
        ([1.0, 2.0], [1.0, 2.0], 3, "top = 3: must be from 1 to 2"),
        ([1.0, 2.0], [1.0, 2.0], 0, "top = 0: must be from 1 to 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(scores, true, top, message):
    with pytest.raises(ValueError, match=message):
        compare(scores, true, top=top)
