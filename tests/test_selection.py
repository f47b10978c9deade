"""The selection of parents with several objectives, against plain loops."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from tutelage.searches.pareto import crowding, fronts, ranked


def plain_fronts(scores):
    """Peel off, front by front, what nothing that is left dominates."""
    left, found = list(range(len(scores))), []
    while left:
        first = []
        for i in left:
            dominated = False
            for j in left:
                nowhere_worse = all(scores[j][k] >= scores[i][k] for k in range(len(scores[i])))
                better = any(scores[j][k] > scores[i][k] for k in range(len(scores[i])))
                dominated |= nowhere_worse and better
            if not dominated:
                first.append(i)
        found.append(first)
        left = [i for i in left if i not in first]
    return found


def plain_crowding(scores):
    """Of one front without equal numbers: by each one's neighbours above and below."""
    distances = []
    for i in range(len(scores)):
        distance = 0.0
        for k in range(len(scores[i])):
            values = [other[k] for other in scores]
            below = [value for value in values if value < scores[i][k]]
            above = [value for value in values if value > scores[i][k]]
            if not below or not above:
                distance = inf
            else:
                distance += (min(above) - max(below)) / (max(values) - min(values))
        distances.append(distance)
    return distances


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_fronts_are_those_of_plain_loops(objectives):
    rng = np.random.default_rng(objectives)
    for _ in range(50):
        scores = [tuple(row) for row in rng.integers(6, size=(30, objectives)).tolist()]
        assert [sorted(places) for places in fronts(scores)] == plain_fronts(scores)


def test_crowding_is_that_of_plain_loops():
    rng = np.random.default_rng(0)
    for count in range(1, 20):
        scores = [tuple(row) for row in rng.random((count, 2)).tolist()]
        assert crowding(scores) == pytest.approx(plain_crowding(scores), abs=1e-12)


def test_crowding_by_hand():
    scores = [(0.0, 8.0), (1.0, 6.0), (3.0, 5.0), (4.0, 0.0)]
    assert crowding(scores) == [inf, 3 / 4 + 3 / 8, 3 / 4 + 6 / 8, inf]
    assert crowding([(1.0, 1.0)] * 3) == [inf, 0.0, inf]
    assert ranked([*scores, (0.0, 0.0)]) == [3, 0, 2, 1, 4]
