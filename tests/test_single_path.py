"""Single path one-shot: uniform paths, and paths by ranges of FLOPs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from math import sqrt
from types import SimpleNamespace

import pytest
import torch

from binding import binder
from chains import own_size
from test_search import run_toml
from tutelage.clock import Clock
from tutelage.methods.single import Single
from tutelage.run.cost.table import costs_of
from tutelage.run.dry_run import dry_run
from tutelage.run.networks.factory import Maker
from tutelage.run.search import search_run
from tutelage.searches.single_path import SinglePath
from tutelage.spaces.chain import NASBENCH_MACRO, SHUFFLE
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import genotype

DRAWS = 1200
SPACE = replace(NASBENCH_MACRO, depths=(2, 1, 1))


def millions(found: Genotype) -> float:
    """FLOPs of a toy: a million a large block, half of one a small block."""
    known = {"identity": 0.0, "mbconv3_3x3": 0.5e6, "mbconv6_5x5": 1e6}
    return sum(known[name] for name in found.names)


def cost(encoding) -> float:
    return sum(encoding) / 2


def near(count, draws, probability):
    return abs(count - draws * probability) < 5 * sqrt(draws * probability * (1 - probability))


def test_without_ranges_paths_are_uniform():
    found = SinglePath().paths(SPACE, DRAWS, {}, millions)
    assert len(found) == DRAWS
    for place in range(4):
        counts = Counter(encoding[place] for encoding in found)
        assert set(counts) == {0, 1, 2}
        assert all(near(count, DRAWS, 1 / 3) for count in counts.values())


def test_ranges_are_drawn_uniformly_and_never_left():
    search = SinglePath(bins=3, bins_from=0.4, bins_to=3.4)
    found = [cost(encoding) for encoding in search.paths(SPACE, DRAWS, {}, millions)]
    assert min(found) == 0.5 and max(found) == 3.0
    counts = Counter(int(each - 0.4) for each in found)
    assert set(counts) == {0, 1, 2}
    assert all(near(count, DRAWS, 1 / 3) for count in counts.values())
    without = [cost(encoding) for encoding in SinglePath().paths(SPACE, DRAWS, {}, millions)]
    rare = sum(0 < each < 1.4 for each in without)
    assert near(rare, DRAWS, 14 / 81)  # a range that uniform samples seldom reach


def test_within_a_range_architectures_are_uniform():
    search = SinglePath(bins=1, bins_from=0.9, bins_to=1.1)
    found = Counter(search.paths(SPACE, DRAWS, {}, millions))
    assert len(found) == 4 + 4 * 3 // 2  # one large block, or two small ones
    assert all(near(count, DRAWS, 1 / 10) for count in found.values())


def test_both_ends_of_a_range_belong_to_it():
    found = SinglePath(bins=2, bins_from=1.0, bins_to=2.0).paths(SPACE, 200, {}, millions)
    assert set(map(cost, found)) == {1.0, 1.5, 2.0}


@pytest.mark.slow
def test_the_ranges_of_spos_code_are_reached_in_its_space():
    costs = costs_of(SHUFFLE, own_size(SHUFFLE, 1000, "imagenet"), (224, 224))
    known = []

    def flops(found):
        known.append(costs.of(found).flops)
        return known[-1]

    search = SinglePath(bins=7, bins_from=290, bins_to=360)
    search.check(SHUFFLE, flops)
    for _ in range(4):
        (encoding,) = search.paths(SHUFFLE, 1, {}, flops)
        assert 290e6 <= known[-1] <= 360e6
        assert costs.of(genotype(SHUFFLE, encoding)).flops == known[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bins": -1}, "bins = -1: must be a number of at least 0"),
        ({"bins": 2, "bins_from": -3}, "bins_from = -3"),
        ({"bins": 2}, r"bins_to = 0\.0: must be above bins_from = 0\.0"),
        ({"bins": 2, "bins_from": 3, "bins_to": 3}, "must be above bins_from = 3"),
    ],
)
def test_ranges_that_are_none_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SinglePath(**settings)


def test_a_range_that_nothing_is_in_is_refused_by_name(monkeypatch):
    monkeypatch.setattr("tutelage.searches.single_path.TRIES", 200)
    search = SinglePath(bins=3, bins_from=2.5, bins_to=8.5)
    with pytest.raises(ValueError, match=r"of 200 architectures of .* none has 4\.5 to 6\.5;"):
        search.check(SPACE, millions)
    SinglePath(bins=3, bins_from=1, bins_to=4).check(SPACE, millions)


def test_a_range_that_few_are_in_stops_no_search_that_has_begun(monkeypatch):
    """Whoever resumed it would draw the same again, and never get on."""
    monkeypatch.setattr("tutelage.searches.single_path.TRIES", 10)
    search, asked = SinglePath(bins=1, bins_from=1, bins_to=2), itertools.count(1)
    found = [search.paths(SPACE, 1, {}, lambda _: 1e6 * (next(asked) % 300 == 0)) for _ in "ab"]
    assert len(found) == 2 and next(asked) == 601


def test_a_search_with_such_a_range_is_refused_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("tutelage.searches.single_path.TRIES", 100)
    settings = run_toml(
        search={"name": "single-path", "bins": 2, "bins_from": 1.0, "bins_to": 1e4},
        space={"name": "nasbench-macro"},
        cells=None,
    )
    for begin in (lambda: search_run(settings, tmp_path / "run"), lambda: dry_run(settings)):
        with pytest.raises(ValueError, match="million FLOPs: of 100 architectures"):
            begin()
    assert not list(tmp_path.iterdir())


def test_the_same_seed_draws_the_same_paths():
    search = SinglePath(bins=2, bins_from=1, bins_to=3)
    torch.manual_seed(5)
    first = search.paths(SPACE, 5, {}, millions)
    torch.manual_seed(5)
    assert search.paths(SPACE, 5, {}, millions) == first
    assert search.paths(SPACE, 5, {}, millions) != first


def test_spos_smooths_the_labels_that_weights_learn_from():
    torch.set_default_dtype(torch.float64)
    try:
        size = own_size(SPACE, 3, channels=4)
        maker = Maker(binder(SinglePath()), [SPACE], size, Clock(), 2, torch.device("cpu"), None)
        problem = Single(label_smoothing=0.3)(maker)
        batch = SimpleNamespace(train=(torch.randn(4, 3, 8, 8), torch.tensor([0, 2, 1, 0]), None))
        loss, notes = problem.levels[0].loss(SimpleNamespace(**problem.variables), batch)
    finally:
        torch.set_default_dtype(torch.float32)
    expected = 0.0
    for logits, label in zip(notes["train"][0].tolist(), (0, 2, 1, 0), strict=True):
        total = sum(math.exp(z) for z in logits)
        for place, z in enumerate(logits):
            share = 0.1 + (0.7 if place == label else 0.0)
            expected -= share * math.log(math.exp(z) / total) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match=r"label_smoothing = 1\.5: must be between 0 and 1"):
        Single(label_smoothing=1.5)
