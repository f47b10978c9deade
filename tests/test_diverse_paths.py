"""Diverse paths: no operation twice in a layer, all equally often, by what was measured."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from math import nan, sqrt

import pytest
import torch

from chains import SMALL
from tutelage.searches.diverse_paths import DiversePaths, conditionals
from tutelage.searches.diversity import sequential
from tutelage.spaces.cells import DARTS
from tutelage.spaces.chain import ENNAS_S1, NASBENCH_MACRO
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.paths import bounds, kept

SPACES = [NASBENCH_MACRO, ENNAS_S1, NASBENCH201, DARTS]


def flops(found):
    return nan


def measured(space, seed=0):
    """Diversities that could have been measured, different on every edge."""
    torch.manual_seed(seed)

    def one(operations):
        away = 1.5 * torch.rand(operations, operations, dtype=torch.float64)
        return ((away + away.T) / 2).fill_diagonal_(0)

    return {g: [one(ops) for _ in range(edges)] for g, (edges, ops) in space.choices.items()}


def per_edge(space, paths):
    """Of every edge, the operations that paths keep of it, in their order."""
    found = {}
    for encoding in paths:
        for group, edge, name in kept(space, encoding):
            found.setdefault((group, edge), []).append(name)
    return found


def near(count, draws, probability):
    return abs(count - draws * probability) < 5 * sqrt(draws * probability * (1 - probability))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_paths_have_no_operation_of_an_edge_in_common(space, known):
    diversity = measured(space) if known else {}
    for rule in ("exact", "printed", "direct"):
        for _ in range(5):
            paths = DiversePaths(rule).paths(space, 3, diversity, flops)
            assert len(paths) == 3 and all(
                len(encoding) == len(bounds(space)) for encoding in paths
            )
            for names in per_edge(space, paths).values():
                assert len(set(names)) == len(names)


@pytest.mark.parametrize("known", [False, True])
def test_all_operations_are_drawn_equally_often_in_every_pick(known):
    draws = 600
    diversity = measured(NASBENCH201) if known else {}
    counts = Counter()
    for _ in range(draws):
        for place, encoding in enumerate(DiversePaths().paths(NASBENCH201, 3, diversity, flops)):
            counts.update((place, edge, gene) for edge, gene in enumerate(encoding))
    assert len(counts) == 3 * 6 * 5
    assert all(near(count, draws, 1 / 5) for count in counts.values())


def test_darts_cells_keep_uniform_edges_and_operations():
    draws, diversity = 250, measured(DARTS)
    counts, sources = Counter(), Counter()
    for _ in range(draws):
        for encoding in DiversePaths().paths(DARTS, 2, diversity, flops):
            last = [(edge, name) for g, edge, name in kept(DARTS, encoding) if (g, edge > 8) == END]
            sources[tuple(edge for edge, _ in last)] += 1
            counts.update(name for _, name in last)
    assert len(sources) == 10 and len(counts) == 7
    assert all(near(count, 2 * draws, 1 / 10) for count in sources.values())
    # the two operations of a node stand on different edges, whose draws are independent
    assert all(near(count, 4 * draws, 1 / 7) for count in counts.values())


END = ("normal", True)
"""The edges 9 to 13, which enter the last node."""


def test_what_was_measured_decides():
    """Two operations that are alike are seldom drawn together; uniformly they are in a sixth."""
    alike = torch.ones(4, 4, dtype=torch.float64)
    alike[0, 1] = alike[1, 0] = 0.01
    diversity = {"chain": [alike.fill_diagonal_(0), torch.ones(4, 4).double(), alike.double()]}
    together = Counter()
    for _ in range(600):
        first, second = DiversePaths().paths(SMALL, 2, diversity, flops)
        for layer in range(3):
            together[layer] += {first[layer], second[layer]} == {0, 1}
    assert together[0] < 45 and together[2] < 45
    assert near(together[1], 600, 1 / 6)


def test_what_was_measured_is_of_the_operations_that_can_be_kept():
    """In DARTS' cells, whose first column is `none`: the last two columns are alike."""
    alike = torch.ones(8, 8, dtype=torch.float64).fill_diagonal_(0)
    alike[6, 7] = alike[7, 6] = 0.01
    diversity = {group: [alike] * 14 for group in DARTS.choices}
    dilated = {"dil_conv_3x3", "dil_conv_5x5"}
    together = 0
    for _ in range(200):
        found = per_edge(DARTS, DiversePaths().paths(DARTS, 2, diversity, flops))
        together += sum(set(found[g, edge]) == dilated for g in diversity for edge in (0, 1))
    assert together < 12  # of 800; uniformly they would be 38


def test_draws_are_those_of_the_edges_own_sampler():
    diversity = measured(ENNAS_S1)
    torch.manual_seed(4)
    found = DiversePaths("printed").paths(ENNAS_S1, 4, diversity, flops)
    torch.manual_seed(4)
    expected = []
    for zeta in diversity["chain"]:
        torch.randint(1, (4,))  # which edges each path keeps: there is one
        expected.append(sequential(zeta, 4, "printed").draw()[0].tolist())
    assert found == list(zip(*expected, strict=True))


def test_as_many_paths_as_operations_use_all_of_them():
    orders, diversity = Counter(), measured(NASBENCH_MACRO)
    for _ in range(600):
        paths = DiversePaths().paths(NASBENCH_MACRO, 3, diversity, flops)
        orders[tuple(encoding[0] for encoding in paths)] += 1
    assert set(orders) == set(permutations(range(3)))
    assert all(near(count, 600, 1 / 6) for count in orders.values())


def test_one_path_and_one_operation():
    diversity = measured(SMALL)
    counts = Counter(DiversePaths().paths(SMALL, 1, diversity, flops)[0][1] for _ in range(600))
    assert set(counts) == set(range(4))
    assert all(near(count, 600, 1 / 4) for count in counts.values())
    only = SMALL.narrowed({"chain": [[2], [1], [0]]})
    for diversity in ({}, measured(only)):
        assert DiversePaths().paths(only, 1, diversity, flops) == [(0, 0, 0)]


@pytest.mark.parametrize(
    ("space", "count", "message"),
    [
        (
            NASBENCH_MACRO,
            4,
            "4 sub-networks in a layer of 3 operations, .*: give --students 3 or fewer, or",
        ),
        (NASBENCH201, 6, "6 sub-networks in a layer of 5 operations, .* --students 5 or fewer, or"),
        (DARTS, 8, "8 sub-networks in a layer of 7 operations, .* --students 7 or fewer, or"),
    ],
    ids=["nasbench-macro", "nasbench201", "darts"],
)
@pytest.mark.parametrize("known", [False, True])
def test_more_paths_than_operations_are_refused(space, count, message, known):
    with pytest.raises(ValueError, match=message):
        DiversePaths().paths(space, count, measured(space) if known else {}, flops)
    assert len(DiversePaths().paths(space, count - 1, {}, flops)) == count - 1


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule = 'exakt': must be one of exact, printed, direct"):
        DiversePaths("exakt")


def test_probabilities_are_made_once_between_measurements():
    conditionals.cache_clear()
    diversity = measured(ENNAS_S1)
    for _ in range(3):
        DiversePaths().paths(ENNAS_S1, 4, diversity, flops)
    assert conditionals.cache_info().misses == 21
