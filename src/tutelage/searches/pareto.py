"""NSGA-II's order by several objectives, all of them to be maximised.

Deb, Pratap, Agarwal, Meyarivan: A fast and elitist multiobjective genetic algorithm: NSGA-II.
IEEE Transactions on Evolutionary Computation 6(2), 2002.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

Scores = tuple[float, ...]


def dominates(ours: Scores, theirs: Scores) -> bool:
    """Tell whether ours are worse in no objective, and better in at least one.

    >>> dominates((2, 1), (1, 1)), dominates((2, 0), (1, 1)), dominates((1, 1), (1, 1))
    (True, False, False)
    """
    return ours != theirs and all(x >= y for x, y in zip(ours, theirs, strict=True))


def front(scores: Sequence[Scores]) -> list[int]:
    """List the places of the scores that no other dominates, in descending order of scores.

    >>> front([(1, 1), (3, 0), (2, 2), (0, 3), (1, 0)])
    [1, 2, 3]
    """
    found: list[int] = []
    for place in sorted(range(len(scores)), key=scores.__getitem__, reverse=True):
        # in this order, a score that dominates it, or one that dominates that one, comes first
        if not any(dominates(scores[other], scores[place]) for other in found):
            found.append(place)
    return found


def fronts(scores: Sequence[Scores]) -> list[list[int]]:
    """Sort places into fronts: members are dominated only by members of earlier fronts.

    >>> fronts([(1, 1), (3, 0), (2, 2), (0, 3), (1, 0)])
    [[1, 2, 3], [0], [4]]
    """
    found, left = [], list(range(len(scores)))
    while left:
        found.append([left[i] for i in front([scores[place] for place in left])])
        left = [place for place in left if place not in found[-1]]
    return found


def crowding(scores: Sequence[Scores]) -> list[float]:
    """Measure the distance between the neighbours of each member of a front; inf at both ends.

    The distance is a sum over objectives, each as a share of its range.

    >>> crowding([(0, 4), (1, 3), (4, 0)])
    [inf, 2.0, inf]
    """
    distances = [0.0] * len(scores)
    for values in zip(*scores, strict=True):
        order = sorted(range(len(values)), key=values.__getitem__)
        span = values[order[-1]] - values[order[0]]
        distances[order[0]] = distances[order[-1]] = inf
        for before, place, after in zip(order, order[1:], order[2:], strict=False):
            distances[place] += (values[after] - values[before]) / span if span else 0.0
    return distances


def ranked(scores: Sequence[Scores]) -> list[int]:
    """Order places from best to worst: by front, then the least crowded first.

    >>> ranked([(1,), (3,), (2,)])
    [1, 2, 0]
    """
    order: list[int] = []
    for places in fronts(scores):
        distance = dict(zip(places, crowding([scores[place] for place in places]), strict=True))
        order += sorted(places, key=distance.__getitem__, reverse=True)
    return order
