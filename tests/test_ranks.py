"""Searches on several processes equal those on one, whatever teaches, searches and unrolls."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from launched import Case, computing, searched, searching, together
from tutelage import shares
from tutelage.data.streams import LazyBatches
from tutelage.multilevel import hypergradient
from tutelage.parts import PARTS, make_part
from tutelage.problem import Net
from tutelage.trees import leaves
from tutelage.virtual import Exact, Rate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import collectives

BATCH = 6
"""On four ranks their shares are 1, 2, 1 and 2 images."""
ONE, TWO = (0, 0, 1), (0, 0, 2)
"""Steps of the third epoch, in which everything trains; the second step has momentum."""
RULES = collectives.RULES
METHODS = [name for name in PARTS["method"] if name not in ("ennas", "dna")]
"""Those that train alphas; the two others sample paths."""
RELAXED = [
    name for name in PARTS["search"] if make_part("search", {"name": name}).kind == "relaxed"
]
CHAINS = [("ennas", "single-path"), ("ennas", "diverse-paths"), ("cream", "single-path")]
CHAINS += [("cream", "diverse-paths"), ("dna", "single-path")]
ROUNDING = 1e-11
"""The largest difference between several ranks and one, against the largest value of a kind."""


def case(method, search, via="exact", epochs=ONE, kind=torch.float64, **more):
    """Some steps of a toy search; settings that are none of a run are the method's."""
    settings = collectives.toy(method, search, via) | {"batch_size": BATCH}
    if method == "cream" and search in dict.fromkeys(pair[1] for pair in CHAINS):
        settings["method"] = {"name": "cream", "every": 1}
    if search == "pdarts":
        settings["search"] |= {"skip_dropout": (0.5, 0.5, 0.5)}
    return Case(settings | more, epochs, kind)


def of_methods(via, epochs=ONE):
    """Every method, with alphas or with paths."""
    pairs = [(method, "darts") for method in METHODS] + (CHAINS if via == "exact" else [])
    return {(*pair, via): case(*pair, via, epochs) for pair in pairs}


def of_searches(via):
    """Every search that relaxes, and the operation that is noise."""
    found = {("single", search, via): case("single", search, via) for search in RELAXED}
    noise = case("single", "darts", via, space={"name": "s4"}, cells=3)
    one = case("ennas", "single-path", via)
    one.settings["method"]["one_at_a_time"] = True
    return found | {("noise", via): noise, ("one at a time", via): one}


def differences(alone, found):
    """What differs between one process and a rank, by more than rounding."""
    for name, one in alone.items():
        for kind in ("variables", "velocities", "moments"):
            theirs, mine = getattr(one, kind), getattr(found[name], kind)
            assert theirs.keys() == mine.keys()
            for variable, tensors in theirs.items():
                most = max((float(x.abs().max()) for x in tensors if x.numel()), default=0.0)
                for x, y in zip(tensors, mine[variable], strict=True):
                    if x.numel() and float((x - y).abs().max()) > ROUNDING * most:
                        yield name, kind, variable
        assert one.metrics.keys() == found[name].metrics.keys()
        for place, value in one.metrics.items():
            if not abs(value - found[name].metrics[place]) <= ROUNDING * max(1e-3, abs(value)):
                yield name, place


def same_bits(one, other):
    """Tell whether two ranks hold the same, and measured the same."""
    for name, mine in one.items():
        for kind in ("variables", "velocities", "moments"):
            a, b = getattr(mine, kind), getattr(other[name], kind)
            if not all(map(torch.equal, leaves(a), leaves(b))):
                return False
        if mine.metrics != other[name].metrics:
            return False
    return True


def moved(found):
    """The variables that steps have changed, of those that hold anything."""
    return {
        name
        for name, tensors in found.before.items()
        if any(not torch.equal(*pair) for pair in zip(tensors, found.variables[name], strict=True))
    }


def assert_equal_on(count, cases):
    """Compare searches on ranks with those on one process, and the ranks with one another."""
    alone = searched(cases)
    first, *others = together(count, searched, cases)
    assert not list(differences(alone, first))
    assert all(same_bits(first, each) for each in others)
    for name, found in first.items():
        trained = {"W", "w", "T", "S", "V"} & found.before.keys()
        trained |= {"A"} if any(x.numel() for x in found.before["A"]) else set()
        assert moved(found) >= trained, name


@pytest.mark.parametrize("via", RULES)
def test_every_method_on_two_ranks(via):
    more = {"momentum": case("sgl", "darts", via, TWO)}
    more["weighted"] = case("sgl", "darts", via, class_weights="balanced")
    more["balanced"] = case("single", "darts", via, data={"balanced": True})
    assert_equal_on(2, of_methods(via) | more)


def test_methods_of_every_number_of_levels_on_four_ranks():
    """One, two and three levels; the others are slow."""
    some = [case(name, "darts") for name in ("single", "lbt", "sgl")]
    some += [case(*pair) for pair in CHAINS]
    assert_equal_on(4, dict(enumerate(some)))


def test_every_search_on_two_ranks():
    assert_equal_on(2, of_searches("exact"))


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("via", RULES)
def test_every_method_on_four_ranks(via):
    assert_equal_on(4, of_methods(via, TWO))


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("via", RULES)
def test_every_search_on_four_ranks(via):
    assert_equal_on(4, of_searches(via))


def test_a_batch_smaller_than_the_ranks_is_computed_by_every_rank():
    assert_equal_on(4, {via: case("sgl", "darts", via, batch_size=3) for via in RULES})


def test_a_network_normalises_by_the_images_of_a_rank_where_that_is_asked_for():
    """A run on four ranks is one whose network sees its batch in four parts, one after another."""
    cases = {via: case("sgl", "darts", via, statistics="rank") for via in RULES}
    under = Net.under

    def in_parts(self, weights, arch, x):
        ends = [len(x) * r // 4 for r in range(5)]
        parts = [x[a:b] for a, b in pairwise(ends)]
        found = [under(self, weights, arch, part) for part in parts]
        return tuple(torch.cat(each) for each in zip(*found, strict=True))

    with patch.object(Net, "under", in_parts):
        alone = searched(cases)
    first, *others = together(4, by_rank, cases)
    assert not list(differences(alone, first))
    assert all(same_bits(first, each) for each in others)
    assert list(differences(searched(cases), first))  # the statistics of the batch are others


def by_rank(cases):
    with shares.statistics(together=False):
        return searched(cases)


@pytest.mark.slow
def test_ranks_hold_the_same_bits_in_float32():
    """After three epochs, over which rounding has come to differ from that of one process."""
    rules = ("exact", "finite-difference")
    cases = {via: case("single", "darts", via, (2, 2, 2), torch.float32) for via in rules}
    first, *others = together(4, searched, cases)
    assert all(same_bits(first, each) for each in others)
    alone = searched(cases)
    for via in rules:
        for x, y in zip(alone[via].variables["A"], first[via].variables["A"], strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-3)


# The foil ---------------------------------------------------------------------------------------


def unrolled_gradients(reduced, together):
    """The alphas' gradients through a virtual step, exchanged or only averaged at the end.

    Args:
        reduced: Whether gradient and cotangent of the virtual step are exchanged.
        together: Whether batch statistics are.
    """
    with computing(torch.float64), shares.statistics(together):
        work = searching(case("single", "darts").settings)
        work.set_clock()
        phase, batch = work.phase, LazyBatches(work.setup.streams, 0, 0)
        with nullcontext() if reduced else patch("tutelage.virtual.average", list):
            each = [
                hypergradient(
                    phase.levels(0), phase.variables, batch, {"w": Rate(lr)}, Exact()
                ).gradient
                for lr in ERRORS
            ]
        return [torch.cat([x.flatten() for x in leaves(gradient)]) for gradient in each]


ERRORS = {0.025: 0.1, 0.5: 0.5}
"""Rates of the virtual step, and how wrong the gradient at least is that is only averaged."""


@pytest.mark.parametrize("statistics", [True, False], ids=["batch", "rank"])
def test_averaging_unrolled_gradients_is_another_gradient(statistics):
    """It is that of every rank's own step on its own images, judged by its own."""
    right, wrong = (
        together(2, unrolled_gradients, reduced, statistics)[0] for reduced in (True, False)
    )
    for true, one, lr in zip(right, wrong, ERRORS, strict=True):
        error = (one - true).norm() / true.norm()
        print(f"{lr}: {float(error):.3f}")
        assert error > ERRORS[lr]
    if statistics:
        for true, alone in zip(right, unrolled_gradients(True, True), strict=True):
            assert (true - alone).norm() < ROUNDING * alone.norm()
