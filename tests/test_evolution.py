"""Evolution on spaces that can be enumerated, its order against plain loops."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from math import sqrt

import numpy as np
import pytest

from test_selection import plain_crowding, plain_fronts
from tutelage.run.job import checkpoint
from tutelage.searches.evolution import Evolution
from tutelage.searches.evolving import Evolving
from tutelage.searches.pareto import front

LAYERS = [3] * 8
"""As many architectures as NAS-Bench-Macro has: 6,561."""
LONG = [10] * 400
"""So many places that nothing is drawn twice by chance."""
SMALL = {"population": 6, "generations": 4, "parents": 3, "mutation": 0.3}


def anything(encoding):
    return True


def evolved(evolving, score):
    while not evolving.done:
        evolving.tell(score(evolving.ask()))
    return evolving


def knapsack(seed):
    """A random value and cost for every operation; the mean cost of the space as a limit."""
    values, costs = np.random.default_rng(seed).random((2, len(LAYERS), 3))
    limit = costs.mean(1).sum()

    def value(encoding):
        return float(sum(row[gene] for row, gene in zip(values, encoding, strict=True)))

    def cost(encoding):
        return float(sum(row[gene] for row, gene in zip(costs, encoding, strict=True)))

    return value, cost, lambda encoding: cost(encoding) <= limit


def scores_of(settings, seed=0):
    value, cost, allowed = knapsack(seed)
    one = settings.objectives == "accuracy"
    return (
        lambda encoding: (value(encoding),) if one else (value(encoding), -cost(encoding))
    ), allowed


BOTH = pytest.mark.parametrize("objectives", ["accuracy", "accuracy-flops"])


# Killed and resumed -----------------------------------------------------------------------------


@BOTH
def test_killed_and_resumed_at_every_candidate_is_the_uninterrupted_search(objectives, tmp_path):
    settings = Evolution(objectives=objectives, **SMALL)
    score, allowed = scores_of(settings)
    whole = evolved(Evolving(LAYERS, settings, allowed, seed=3), score)
    assert len(whole.history) == 24
    killed = Evolving(LAYERS, settings, allowed, seed=3)
    for told in range(25):
        checkpoint.save(tmp_path, killed.state())
        resumed = Evolving(LAYERS, settings, allowed, seed=4)
        resumed.restore(checkpoint.load(tmp_path))
        assert (resumed.generation, resumed.candidate) == divmod(told, 6)
        assert evolved(resumed, score).history == whole.history
        assert resumed.state() == whole.state()
        if not killed.done:
            asked, before = killed.ask(), killed.state()
            assert killed.ask() == asked == whole.history[told].encoding
            assert killed.state() == before  # asking moves nothing
            killed.tell(score(asked))
            assert len(before["history"]) == told  # and a state is no view of what continues
    assert killed.done


def test_seeds_differ_and_repeat():
    def first(seed):
        return Evolving(LAYERS, Evolution(), anything, seed).state()["candidates"]

    assert first(1) == first(1) != first(2)


# What is asked ----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("seed", range(5))
def test_limits_hold_and_nothing_repeats(objectives, seed):
    settings = Evolution(objectives=objectives)
    score, allowed = scores_of(settings, seed)
    history = evolved(Evolving(LAYERS, settings, allowed, seed), score).history
    assert len({scored.encoding for scored in history}) == len(history) == 50 * 20
    assert all(allowed(scored.encoding) for scored in history)
    assert [scored.generation for scored in history] == [g for g in range(20) for _ in range(50)]


def test_the_first_generation_is_uniform_over_what_is_allowed():
    def one(choices, allowed, seed):
        return Evolving(choices, Evolution(population=1), allowed, seed).ask()

    drawn = [one([3, 3], lambda encoding: encoding != (1, 1), seed) for seed in range(1600)]
    counts = [drawn.count(encoding) for encoding in product(range(3), repeat=2)]
    assert counts.pop(4) == 0
    assert counts == pytest.approx([200] * 8, abs=4 * sqrt(1600 * 7 / 64))
    large = [one([2] * 40, lambda encoding: sum(encoding) % 2, seed) for seed in range(100)]
    assert np.mean(large) == pytest.approx(0.5, abs=4 * 0.5 / sqrt(100 * 40))
    assert all(sum(encoding) % 2 for encoding in large)


def test_the_first_generation_holds_what_it_is_given_where_that_is_allowed():
    given = [(0,) * 8, (1,) * 8, (0,) * 8, (2,) * 8]
    settings = Evolution(population=5)
    evolving = Evolving(
        LAYERS, settings, lambda encoding: encoding != given[1], seed=0, first=given
    )
    candidates = evolving.state()["candidates"]
    assert candidates[:2] == [given[0], given[3]]
    assert len(set(candidates)) == 5 and given[1] not in candidates
    full = Evolving(LAYERS, Evolution(population=2), anything, seed=0, first=given)
    assert full.state()["candidates"] == [given[0], given[1]]


def second_generation(evolving, first_scores):
    """Score the first generation with numbers that are given, and return what comes next."""
    for scores in first_scores:
        evolving.tell(scores)
    assert (evolving.generation, evolving.candidate) == (1, 0)
    return np.array(evolving.state()["candidates"])


def test_mutation_rate():
    evolving = Evolving(LONG, Evolution(parents=1, crossover=0.0, mutation=0.1), anything, seed=0)
    parent = evolving.ask()
    children = second_generation(evolving, [(1.0,)] + [(0.0,)] * 49)
    rate = 0.1 * 0.9  # one draw in ten gives the same again
    share = (children != parent).mean()
    assert share == pytest.approx(rate, abs=4 * sqrt(rate * (1 - rate) / children.size))
    values = children[children != parent]
    assert np.bincount(values, minlength=10) == pytest.approx(len(values) / 10, rel=0.3)


def test_crossover_takes_every_gene_from_one_of_two_parents():
    evolving = Evolving(LONG, Evolution(parents=2, crossover=0.6, mutation=0.1), anything, seed=0)
    ours, theirs = np.array(evolving.state()["candidates"][:2])
    children = second_generation(evolving, [(1.0,)] * 2 + [(0.0,)] * 48)
    children = children[:, ours != theirs]
    ours, theirs = ours[ours != theirs], theirs[ours != theirs]
    from_ours, from_theirs = children == ours, children == theirs
    crossed = (from_ours | from_theirs).all(1)
    assert crossed.tolist() == [True] * 30 + [False] * 20
    count = len(ours)
    assert from_ours[:30].mean() == pytest.approx(0.5, abs=4 * 0.5 / sqrt(30 * count))
    assert from_ours[:30].mean(1) == pytest.approx([0.5] * 30, abs=5 * 0.5 / sqrt(count))
    nearest = np.maximum(from_ours.mean(1), from_theirs.mean(1))[30:]
    assert (nearest > 0.8).all()  # the others are copies of one


@pytest.mark.parametrize(("objectives", "share"), [("accuracy", 0.5), ("accuracy-flops", 0.75)])
def test_parents_are_drawn_uniformly_or_win_a_binary_tournament(objectives, share):
    settings = Evolution(
        population=20, parents=20, crossover=0.0, mutation=0.02, objectives=objectives
    )
    better = []
    for seed in range(30):
        evolving = Evolving(LONG, settings, anything, seed)
        parents = np.array(evolving.state()["candidates"])
        scores = [(float(-place),) * (1 if share == 0.5 else 2) for place in range(20)]
        children = second_generation(evolving, scores)
        copied = (children[:, None] == parents).mean(2).argmax(1)
        better += list(copied < 10)
    error = sqrt(share * (1 - share) / len(better))
    assert np.mean(better) == pytest.approx(share, abs=4 * error)


def test_missing_crossovers_are_made_up_for():
    """All of one operation but in one place: two parents' crossovers are the parents again."""

    def allowed(encoding):
        return sum(gene > 0 for gene in encoding) <= 1

    settings = Evolution(population=4, generations=4, parents=2, crossover=1.0)
    history = evolved(
        Evolving([4] * 6, settings, allowed, seed=0), lambda g: (1.0 * sum(g),)
    ).history
    assert len({scored.encoding for scored in history}) == len(history) == 16


def test_a_single_parent_has_no_crossovers():
    settings = Evolution(population=1, generations=8, parents=2, crossover=1.0)
    evolving = evolved(Evolving([2] * 3, settings, anything, seed=0), lambda encoding: (1.0,))
    assert len({scored.encoding for scored in evolving.history}) == evolving.generation == 8


# Small spaces and tight limits ------------------------------------------------------------------


@BOTH
def test_an_exhausted_space_ends_the_search(objectives):
    settings = Evolution(population=5, objectives=objectives)
    score = (
        (lambda encoding: (1.0,)) if objectives == "accuracy" else (lambda encoding: (1.0, -1.0))
    )
    evolving = evolved(Evolving([2, 2, 2], settings, lambda g: g != (1, 0, 1), seed=0), score)
    assert sorted(scored.encoding for scored in evolving.history) == [
        encoding for encoding in product(range(2), repeat=3) if encoding != (1, 0, 1)
    ]
    assert [scored.generation for scored in evolving.history] == [0] * 5 + [1] * 2
    resumed = Evolving([2, 2, 2], settings, anything, seed=0)
    resumed.restore(evolving.state())
    assert resumed.done


def test_all_of_a_space_is_searched_where_the_budget_suffices():
    evolving = Evolving([3] * 5, Evolution(), anything, seed=0)
    evolved(evolving, lambda encoding: (float(sum(encoding)),))
    assert len({scored.encoding for scored in evolving.history}) == 3**5
    assert evolving.generation == 5  # four of 50, and what was left


def test_a_large_space_of_which_little_is_allowed():
    def allowed(encoding):
        return not any(encoding[:13])

    asked = []
    evolving = Evolving([2] * 17, Evolution(generations=2), allowed, seed=0)
    while not evolving.done:
        asked.append(evolving.ask())
        evolving.tell((float(sum(asked[-1])),))
    assert len(set(asked)) == len(asked) <= 2**4
    assert all(map(allowed, asked))
    assert evolving.best.encoding == (0,) * 13 + (1,) * 4


@pytest.mark.parametrize(("places", "tried"), [(3, "8"), (30, "100,000")])
def test_limits_that_allow_nothing_are_refused(places, tried):
    with pytest.raises(
        ValueError, match=f"allow none of {tried} architectures .* raise max_params"
    ):
        Evolving([2] * places, Evolution(), lambda encoding: False, seed=0)


# The optimum ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_the_known_optimum_is_found(seed):
    """In 300 of 6,561 architectures, where as many random ones have it in one search of eleven."""
    value, _, allowed = knapsack(seed)
    optimum = max(filter(allowed, product(*map(range, LAYERS))), key=value)
    settings = Evolution(population=20, generations=15)
    evolving = evolved(Evolving(LAYERS, settings, allowed, seed), lambda g: (value(g),))
    assert evolving.best.encoding == optimum
    assert evolving.front == [evolving.best]


@pytest.mark.parametrize("seed", range(5))
def test_the_known_front_is_found(seed):
    """ZDT1 on whole numbers: 16 of 16,384, with zeros everywhere but in the first place."""
    choices = [16, 4, 4, 4, 4, 4]

    def score(encoding):
        x, g = encoding[0] / 15, 1 + 3 * sum(encoding[1:]) / 5
        return -g * (1 - sqrt(x / g)), -x

    settings = Evolution(objectives="accuracy-params")
    evolving = evolved(Evolving(choices, settings, anything, seed), score)
    true = {(first, 0, 0, 0, 0, 0) for first in range(16)}
    every = list(product(*map(range, choices)))
    assert {every[place] for place in front([score(encoding) for encoding in every])} == true
    assert [scored.encoding for scored in evolving.front] == sorted(true)  # the cheapest first
    assert evolving.best.encoding == (15, 0, 0, 0, 0, 0)


@BOTH
def test_the_best_of_parents_and_children_survive(objectives):
    settings = Evolution(objectives=objectives, **SMALL | {"generations": 8})
    score, allowed = scores_of(settings)
    evolving = Evolving(LAYERS, settings, allowed, seed=0)
    most = 3 if objectives == "accuracy" else 6
    kept = []
    while not evolving.done:
        evolving.tell(score(evolving.ask()))
        if evolving.candidate:
            continue
        pool = kept + list(range(6 * evolving.generation - 6, 6 * evolving.generation))
        kept = evolving.state()["parents"]
        merits = {}
        scores = [evolving.history[place].scores for place in pool]
        for rank, places in enumerate(plain_fronts(scores)):
            distances = plain_crowding([scores[i] for i in places])
            merits |= {pool[i]: (-rank, x) for i, x in zip(places, distances, strict=True)}
        assert set(kept) <= set(pool)
        assert [merits[place] for place in kept] == sorted(merits.values(), reverse=True)[:most]
    if objectives == "accuracy":
        best = sorted(evolving.history, key=lambda scored: scored.scores)[:-4:-1]
        assert [evolving.history[place] for place in kept] == best


# What a user may give ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, "population = 0: must be a number of at least 1"),
        ({"generations": 0}, "generations = 0"),
        ({"parents": 0}, "parents = 0"),
        ({"images": 0}, "images = 0"),
        ({"crossover": 1.5}, "crossover = 1.5: must be between 0 and 1"),
        ({"mutation": -0.1}, "mutation = -0.1"),
        ({"objectives": "flops"}, "objectives = 'flops': must be one of accuracy, accuracy-flops"),
        ({"parents": 1}, "parents = 1 with crossover = 0.5: a crossover needs two"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Evolution(**settings)


@pytest.mark.parametrize("scores", [(), (1.0,), (1.0, 2.0, 3.0), (1.0, float("nan"))])
def test_scores_that_cannot_be_compared_are_refused(scores):
    evolving = Evolving(LAYERS, Evolution(objectives="accuracy-flops"), anything, seed=0)
    with pytest.raises(ValueError, match="must be finite, and 2 of them"):
        evolving.tell(scores)
    assert evolving.history == [] and evolving.candidate == 0


def test_the_settings_need_neither_torch_nor_numpy():
    code = (
        "import sys, tutelage.searches.evolution; "
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
