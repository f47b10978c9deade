"""Methods x searches x spaces: what every combination owes.

A method, search or space that is added to its folder's dict is tested here without another line,
but for these: `SMALL` has the settings of a part that cannot do without one or takes long by its
defaults, `CHANNELS` those of a search that shares channels out, and `fits` the methods that are
refused with some searches or spaces.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from binding import binder
from teachers import teacher_file
from test_search import TINY, KilledError, killed_at, run_toml, same_runs
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.config import Run
from tutelage.multilevel import hypergradient, search_step
from tutelage.parts import PARTS, make_part
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.teacher import Pictures
from tutelage.run.search import search_run
from tutelage.run.supernet.penalty import without_alphas
from tutelage.searches.evolution import Evolution
from tutelage.searches.needs import fit
from tutelage.spaces.base import Size
from tutelage.spaces.chain import Chain
from tutelage.trees import leaves
from tutelage.virtual import Exact, Rate
from unrolled import unrolled

SMALL = {
    "dna": {"teacher": teacher_file()},
    "ennas": {"students": 2},
    "lbt": {"student": "DARTS_V1"},
    "nes": {"learners": 2, "members": 2},
    "pamkd": {"group_size": 2},
    "pdarts": {"deeper": (0, 1)},
}
"""Settings that make a part small enough for a test."""
CHANNELS = {"pcdarts": 4, "drnas": 12}
"""Channels of searches that share them out."""
CHAINS = [x for x in PARTS["space"] if isinstance(make_part("space", {"name": x}), Chain)]
KINDS = {name: make_part("search", {"name": name}).kind for name in PARTS["search"]}
TRIPLES = list(itertools.product(PARTS["method"], PARTS["search"], PARTS["space"]))
BENCHMARK = "nasbench201"
IMAGES = 16
SIZE = Size(channels=2, cells=3, classes=3, image_channels=1)


def refusal(method, search, space):
    """The sentence that refuses a combination at construction; None where it works."""
    try:
        join(method, search, space)
    except ValueError as error:
        return str(error)
    return None


def join(method, search, space, dtype=torch.float64):
    """A combination at toy size: problem, search."""
    torch.manual_seed(0)
    relaxation = make_part("search", {"name": search, **SMALL.get(search, {})})
    fitted = fit(relaxation, make_part("space", {"name": space}))
    phase = relaxation.needs(fitted).phases[0]
    if phase.partial:
        fitted = fitted.varied(partial=phase.partial)
    cells = fitted.sizes.cells if space in CHAINS else SIZE.cells
    size = replace(SIZE, channels=CHANNELS.get(search, SIZE.channels), cells=cells)
    images = {"train": IMAGES, "valid": IMAGES}
    maker = Maker(
        binder(relaxation),
        [fitted],
        size,
        Clock(),
        3,
        torch.device("cpu"),
        None,
        images,
        pictures=Pictures((1, 8, 8), (0.0,), (1.0,)),
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        problem = make_part("method", {"name": method, **SMALL.get(method, {})})(maker)
        if relaxation.kind == "one-shot":
            problem = without_alphas(problem)
    finally:
        torch.set_default_dtype(before)
    return problem, relaxation, fitted


def phases(search, space):
    """How many phases the search of a pair has."""
    relaxation = make_part("search", {"name": search})
    return len(relaxation.needs(fit(relaxation, make_part("space", {"name": space}))).phases)


def batch(images=4, side=8):
    def part():
        x = torch.randn(images, 1, side, side, dtype=torch.float64)
        return Batch(x, torch.randint(3, (images,)), torch.arange(images))

    return SimpleNamespace(train=part(), valid=part(), unlabelled=part())


def default(triples):
    """Leave to slower runs what the default one has with another method, search or space.

    What meets is two: a method and a search in architecture weights and phases, a search and a
    space in `fit`. So the slow run has every method with every search in one space, and with every
    space under one search; the exhaustive one has every triple. Chains differ in their settings
    alone, and a method sees no difference between searches that sample paths: one of each stands
    for the others.
    """
    home = {search: space for _, search, space in reversed(WORKING) if space == "darts"}
    home |= {search: space for _, search, space in WORKING if space == BENCHMARK}

    def marks(method, search, space):
        if space in CHAINS:
            first = space == "nasbench-macro"
            if first and method in ("single", "ennas", "dna"):
                return ()
            if first and (method, search) == ("cream", "single-path"):
                return ()
            if search == "single-path" and (first or method in ("single", "ennas", "dna")):
                return (pytest.mark.slow,)
        elif method == "single" or (search, space) == ("darts", BENCHMARK):
            narrower = space in ("s1", "s2", "s3", "s4") and search != "darts"
            sampled = KINDS[search] == "one-shot" and space != BENCHMARK
            return (pytest.mark.slow,) if narrower or sampled else ()
        elif search != "diverse-paths" and (search == "darts" or space == home.get(search)):
            return (pytest.mark.slow,)
        return (pytest.mark.slow, pytest.mark.exhaustive)

    return [pytest.param(triple, id="-".join(triple), marks=marks(*triple)) for triple in triples]


PAIRS = {
    pair
    for pair in itertools.product(PARTS["search"], PARTS["space"])
    if refusal("single", *pair) is None
}


def fits(method, search, space):
    """Whether the search and the space give a method what it asks for, of those that ask."""
    samples = KINDS[search] == "one-shot"
    needs = {"ennas": samples, "dna": samples and space in CHAINS}
    return needs.get(method, True)


WORKING = [triple for triple in TRIPLES if triple[1:] in PAIRS and fits(*triple)]
TRAINED = [triple for triple in WORKING if KINDS[triple[1]] != "random"]
MIXED = [triple for triple in WORKING if KINDS[triple[1]] == "relaxed"]
DERIVED = [triple for triple in WORKING if KINDS[triple[1]] != "one-shot"]


@pytest.mark.parametrize("triple", default(TRIPLES))
def test_constructs_or_is_refused_in_one_sentence(triple):
    sentence = refusal(*triple)
    assert (sentence is None) == (triple in WORKING), sentence or "fits says no"
    assert sentence is None or ("\n" not in sentence and len(sentence) > 20)


def rates_of(levels):
    return {x.variable: Rate(0.05, 0.9, 3e-4, 5.0) for x in levels if x.optimiser == "weights"}


@pytest.mark.parametrize("triple", default(MIXED))
def test_hypergradient_equals_the_full_unroll(triple):
    problem, _, _ = join(*triple)
    levels = [level for level in problem.levels if level.trains(0)]
    # few numbers in a map of one pixel are normalised badly, and a deep chain multiplies that
    images = batch(IMAGES, 16) if triple[2] in CHAINS else batch()
    for seed in range(5):  # a sampled path may lead nowhere
        torch.manual_seed(seed)  # both draw alike
        found = hypergradient(levels, problem.variables, images, rates_of(levels), Exact())
        torch.manual_seed(seed)
        expected = unrolled(levels, problem.variables, images, rates_of(levels))
        scale = max(float(x.abs().max()) for x in expected)
        if scale > 0:
            break
    assert scale > 0
    for a, b in zip(leaves(found.gradient), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8 * scale)


@pytest.mark.parametrize("triple", default(TRAINED))
def test_one_step_changes_every_optimised_variable_and_nothing_else(triple):
    problem, _, _ = join(*triple)
    levels = [level for level in problem.levels if level.trains(0)]
    variables = dict(problem.variables)
    before = {name: [x.clone() for x in leaves(tree)] for name, tree in variables.items()}

    def move(name, gradient):
        for x, g in zip(leaves(variables[name]), leaves(gradient), strict=True):
            x.sub_(g)

    search_step(
        levels,
        variables,
        {},
        batch(),
        rates=rates_of(levels),
        virtual=rates_of(levels),
        via=Exact(),
        order=problem.order,
        move=move,
    )
    owned = {level.variable for level in levels}
    for name, tree in variables.items():
        same = [torch.equal(x, y) for x, y in zip(leaves(tree), before[name], strict=True)]
        assert not all(same) if name in owned else all(same), name


@pytest.mark.parametrize("triple", default(DERIVED))
def test_reads_off_a_genotype_that_the_space_builds(triple):
    problem, search, space = join(*triple, dtype=torch.float32)
    learner = problem.learners[0]
    alphas = problem.variables
    for key in learner.alphas:
        alphas = alphas[key]
    size = replace(SIZE, cells=space.sizes.cells if triple[2] in CHAINS else SIZE.cells)
    network = space.network(search.derive(space, alphas), size).eval()
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("triple", default(WORKING))
def test_killed_and_resumed_is_the_run_left_alone(triple, tmp_path, monkeypatch):
    method, search, space = triple
    settings = Run(
        **{
            **TINY,
            "epochs": phases(search, space),
            "channels": CHANNELS.get(search, TINY["channels"]),
            "cells": None if space in CHAINS else TINY["cells"],
        },
        evolution=Evolution(population=2, generations=2, parents=2, images=20, judged=20),
        method={"name": method, **SMALL.get(method, {})},
        search={"name": search, **SMALL.get(search, {})},
        space={"name": space},
        save_every=0.0,
    )
    search_run(settings, tmp_path / "whole")
    if KINDS[search] != "random":
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            killed_at(patch, 1)  # in mid-epoch
            search_run(settings, tmp_path / "killed")
        search_run(settings, tmp_path / "killed", resume=True)
        same_runs(tmp_path / "whole", tmp_path / "killed")
    else:
        search_run(settings, tmp_path / "killed")
        one, two = tmp_path / "whole", tmp_path / "killed"
        assert (one / "genotype.json").read_bytes() == (two / "genotype.json").read_bytes()


def test_a_part_of_a_wrong_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown method 'slg': did you mean sgl"):
        make_part("method", {"name": "slg"})
    with pytest.raises(ValueError, match=r"unknown setting 'learner' of method sgl.*learners"):
        make_part("method", {"name": "sgl", "learner": 3})
    with pytest.raises(ValueError, match="learners = 'two': must be a whole number"):
        make_part("method", {"name": "sgl", "learners": "two"})
    with pytest.raises(ValueError, match="learners = 0"):
        replace(make_part("method", {"name": "sgl"}), learners=0)
    assert run_toml().method == {"name": "single"}
