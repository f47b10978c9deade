"""DNA: stages by hand, whose weights each loss moves, its score, and teachers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from binding import binder
from retraining import DIGITS, SMALL, train
from teachers import chain, even, saved, teacher_file
from test_search import TINY, KilledError, killed_at, same_runs
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.config import Run
from tutelage.extras import Score
from tutelage.methods.dna import DNA
from tutelage.multilevel import own_gradient
from tutelage.parts import make_part
from tutelage.run.cost.count import describe
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.teacher import Pictures, trained
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.retrain import retrain
from tutelage.run.search import search_run
from tutelage.run.supernet.penalty import without_alphas
from tutelage.searches.evolution import Evolution
from tutelage.searches.single_path import SinglePath
from tutelage.spaces.base import Size, one_hot
from tutelage.spaces.cells import DARTS
from tutelage.spaces.chain import NASBENCH_MACRO
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.published import PUBLISHED
from written_runs import read_rows

CPU = torch.device("cpu")
SPACE = chain("nasbench-macro", widths=(4, 6, 8), depths=(2, 1, 2), last=10)
SIZE = Size(channels=32, cells=5, classes=3, image_channels=1)
GREY = Pictures((1, 8, 8), (0.0,), (1.0,))


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def maker(space=SPACE, search=None, size=SIZE, pictures=GREY):
    search = search or SinglePath()
    return Maker(binder(search), [space], size, Clock(), 3, CPU, None, pictures=pictures)


def part(images=4, side=8):
    return Batch(
        torch.randn(images, 1, side, side), torch.randint(3, (images,)), torch.arange(images)
    )


def joined(teacher=None, space=SPACE, **settings):
    torch.manual_seed(0)
    method = DNA(teacher or teacher_file(), **settings)
    return without_alphas(method(maker(space)))


def path_of(problem, seed=0):
    torch.manual_seed(seed)
    return problem.learners[0].net.paths(1)[0]


# A step by hand ---------------------------------------------------------------------------------


def normalised(y):
    """Every channel less its mean, over its standard deviation, in plain loops."""
    found = torch.empty_like(y)
    for channel in range(y.shape[1]):
        values = y[:, channel].flatten().tolist()
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        found[:, channel] = (y[:, channel] - mean) / (variance + 1e-5) ** 0.5
    return found


def pooled(y, side):
    """The mean over equal squares; of a smaller map every pixel again and again."""
    if y.shape[2] <= side:
        return y.repeat_interleave(side // y.shape[2], 2).repeat_interleave(side // y.shape[3], 3)
    step, rows = y.shape[2] // side, []
    for row in range(side):
        squares = [
            y[:, :, row * step : (row + 1) * step, column * step : (column + 1) * step]
            for column in range(side)
        ]
        rows.append(torch.stack([square.mean((2, 3)) for square in squares], 2))
    return torch.stack(rows, 2)


def mapped(adapter, y):
    """A weighted sum of channels for every pixel."""
    if not adapter:
        return y
    rows = adapter["weight"][:, :, 0, 0]
    return torch.stack([sum(a * y[:, k] for k, a in enumerate(row)) for row in rows], 1)


@torch.no_grad()
def by_hand(problem, path, x, places=(3, 4, 5)):
    """What every stage says, and what the teacher wants of it, one layer after the other."""
    w, net = problem.variables["W"], problem.learners[0].net
    genotype = SPACE.genotype(path)
    network = SPACE.network(genotype, SIZE).train()
    inherited = SPACE.inherited(w["net"], genotype)
    network.load_state_dict(network.state_dict() | inherited)
    maps = trained(teacher_file(), GREY, CPU)(x)
    wanted = [
        normalised(pooled(maps[at], side)) for at, side in zip(places, (4, 2, 1), strict=True)
    ]
    answers, layers = [], iter(network.layers)
    for stage, depth in enumerate((2, 1, 2)):
        y = mapped(w["into"][stage - 1], wanted[stage - 1]) if stage else network.frame.stem(x)
        for _ in range(depth):
            y = next(layers)(y, 0.0)
        answers.append(mapped(w["out"][stage], y))
    assert net.module.stages == [0, 0, 1, 2, 2]
    return answers, wanted


def test_stage_losses_are_those_of_plain_loops():
    problem = joined()
    batch = SimpleNamespace(train=part())
    path = path_of(problem, 3)
    torch.manual_seed(3)  # the same one is drawn
    loss, notes = problem.levels[0].loss(SimpleNamespace(**problem.variables), batch)
    answers, wanted = by_hand(problem, path, batch.train.x)
    expected = []
    for a, b in zip(answers, wanted, strict=True):
        pairs = list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
        expected.append(sum((p - q) ** 2 for p, q in pairs) / len(pairs))
    assert notes["stages"].tolist() == [pytest.approx(expected, rel=1e-10)]
    assert float(loss) == pytest.approx(sum(expected), rel=1e-12)


def test_the_score_is_the_relative_distance_by_hand():
    problem = joined()
    path, images = path_of(problem, 5), part()
    answers, wanted = by_hand(problem, path, images.x)
    expected = -sum(
        float((a - b).abs().mean() / b.flatten().std())
        for a, b in zip(answers, wanted, strict=True)
    )
    assert float(problem.extra(Score).ask(problem.variables, path, images)) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("seed", range(3))
def test_stages_one_after_the_other_are_the_stand_alone_network(seed):
    problem = joined()
    net, w = problem.learners[0].net, problem.variables["W"]["net"]
    path, x = path_of(problem, seed), part().x
    genotype = SPACE.genotype(path)
    network = SPACE.network(genotype, SIZE).train()
    network.load_state_dict(network.state_dict() | SPACE.inherited(w, genotype))
    y, maps = x, network.maps(x)
    assert len(maps) == SPACE.stages == 3
    for stage, expected in enumerate(maps):
        y = net.stage(w, path, y, stage)
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    features = network.frame.pooled(y)
    torch.testing.assert_close(net.under(w, path, x)[1], features, rtol=1e-10, atol=1e-10)


def test_a_stages_loss_moves_its_own_weights_and_nothing_else():
    problem = joined(maps=(2, 4, 0))  # as wide as no stage, so all have adapters
    (level,), variables = problem.levels, problem.variables
    w = variables["W"]
    batch = SimpleNamespace(train=part())
    names = list(w["net"])
    tensors = [w["net"][name].requires_grad_() for name in names]
    adapters = [[x["weight"].requires_grad_() for x in w[kind]] for kind in ("into", "out")]
    _, notes = level.loss(SimpleNamespace(**variables), batch)
    for stage in range(3):
        every = tensors + adapters[0] + adapters[1]
        loss = notes["stages"][0][stage]
        found = torch.autograd.grad(loss, every, retain_graph=True, allow_unused=True)
        moved = {n for n, g in zip(names, found, strict=False) if g is not None and g.any()}
        first, last = ((0, 1), (2, 2), (3, 4))[stage]
        own = tuple(f"layers.{layer}." for layer in range(first, last + 1))
        own += ("frame.stem.",) if stage == 0 else ()
        assert moved and all(name.startswith(own) for name in moved)
        by_adapter = [g is not None and bool(g.any()) for g in found[len(names) :]]
        into = [stage == 1, stage == 2]
        assert by_adapter == into + [stage == k for k in range(3)]


def test_one_step_on_the_sum_is_a_step_of_every_stage_alone():
    problem = joined(maps=(2, 4, 0))  # as wide as no stage, so all have adapters
    batch, variables = SimpleNamespace(train=part()), problem.variables

    def only(stage):
        def alone(s, batch):
            return problem.levels[0].loss(s, batch)[1]["stages"][0][stage]

        return replace(problem.levels[0], loss=alone)

    def gradient(level):
        torch.manual_seed(0)
        found, _, _ = own_gradient(level, variables, batch)
        return [*found["net"].values(), *(x["weight"] for x in found["into"] + found["out"])]

    alone = [gradient(only(stage)) for stage in range(3)]
    for together, *each in zip(gradient(problem.levels[0]), *alone, strict=True):
        torch.testing.assert_close(together, sum(each), rtol=1e-12, atol=1e-14)
        assert sum(bool(g.any()) for g in each) <= 1


# The teacher's maps -----------------------------------------------------------------------------


def test_there_is_no_adapter_where_the_teacher_is_as_wide():
    problem = joined()
    w = problem.variables["W"]
    assert [tuple(x["weight"].shape) for x in w["into"]] == [(4, 6, 1, 1), (6, 8, 1, 1)]
    assert [tuple(x["weight"].shape) if x else () for x in w["out"]] == [
        (6, 4, 1, 1),
        (8, 6, 1, 1),
        (),
    ]


def test_maps_that_supervise_can_be_named():
    problem = joined(maps=(0, 2, 4))
    path, images = path_of(problem, 1), SimpleNamespace(train=part())
    torch.manual_seed(1)
    loss, _ = problem.levels[0].loss(SimpleNamespace(**problem.variables), images)
    answers, wanted = by_hand(problem, path, images.train.x, (0, 2, 4))
    expected = sum(float(F.mse_loss(a, b)) for a, b in zip(answers, wanted, strict=True))
    assert float(loss) == pytest.approx(expected, rel=1e-10)


# Refusals ---------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    refused = [
        (DNA(), SPACE, None, "teacher = '': give --teacher, the directory of a"),
        (DNA("timm:x"), SPACE, None, r"teacher 'timm:x' needs an extra: pip install 'tutelage\["),
        (DNA(str(tmp_path / "no")), SPACE, None, "no does not exist: give a network.safetensors"),
        (DNA(teacher_file()), NASBENCH201, None, "this space has no stages.*--space dna"),
        (DNA(teacher_file()), DARTS, None, "this space has no stages"),
        (DNA(teacher_file()), SPACE, "darts", "samples no sub-networks.*single-path"),
        (DNA(teacher_file(), maps=(0, 1)), SPACE, None, "maps = 0 1: give one for each of the 3"),
        (DNA(teacher_file(), maps=(0, 1, 6)), SPACE, None, "from 0 to 5"),
    ]
    for method, space, search, sentence in refused:
        found = make_part("search", {"name": search}) if search else None
        size = SIZE if space is SPACE else Size(2, 2, 3, 1)
        with pytest.raises(ValueError, match=sentence) as refusal:
            method(maker(space, found, size))
        assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="maps = -1: must be a number of at least 0"):
        DNA(maps=(-1,))


def test_a_teacher_of_too_few_maps_is_refused(tmp_path):
    saved(tmp_path, even(SPACE), SIZE)
    with pytest.raises(ValueError, match="has 3 feature maps for 6 stages: use another, or a"):
        DNA(str(tmp_path))(maker(chain(), size=Size(4, 6, 3, 1)))


# Whole runs -------------------------------------------------------------------------------------


def settings(teacher, **more):
    return Run(
        **{**TINY, "cells": None, "limit_batches": 2, "epochs": 2},
        method={"name": "dna", "teacher": teacher},
        search={"name": "single-path"},
        space={"name": "nasbench-macro"},
        evolution=Evolution(population=3, generations=2, parents=2, images=20, judged=20),
        save_every=0.0,
        **more,
    )


@pytest.mark.slow
def test_killed_and_resumed_is_the_run_left_alone(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    run = settings(teacher_file())
    search_run(run, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, 3)  # in the middle of the second epoch
        search_run(run, tmp_path / "killed")
    search_run(run, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")


def test_what_is_trained_by_no_label_is_judged_by_none(tmp_path):
    torch.set_default_dtype(torch.float32)
    found = search_run(settings(teacher_file()), tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    assert found.scores == [{}] == rows[-1]["learners"]
    assert "accuracy" not in json.dumps(rows)
    for row in rows[:-1]:
        if row["event"] == "epoch":
            assert set(row["probe"]) == {"score"}
            assert sum(row["teaching"]["stages"][0]) == pytest.approx(row["loss"]["learn"])
    about = json.loads((tmp_path / "run" / "genotype.json").read_text())["about"]
    assert about["supernet_score"] == rows[-1]["evolution"]["score"] < 0


def test_evolution_keeps_what_scores_best(tmp_path):
    problem = joined()
    images = [part(4), part(2)]
    net = problem.learners[0].net
    scorer = Scorer(
        net,
        problem.variables["W"]["net"],
        SPACE,
        SIZE,
        fitted=lambda: images,
        judged=lambda: images,
        own=lambda path, part: problem.extra(Score).ask(problem.variables, path, part),
    )
    genotype: Genotype = SPACE.genotype(path_of(problem, 2))
    path = one_hot(SPACE, genotype, torch.zeros(()))
    four, two = (float(problem.extra(Score).ask(problem.variables, path, each)) for each in images)
    assert scorer.score(genotype) == pytest.approx((4 * four + 2 * two) / 6, rel=1e-12)
    assert (scorer.quantity, scorer.written(-1.25)) == ("score", "-1.2500")


@pytest.mark.slow
def test_a_retrained_network_of_cells_teaches(tmp_path):
    torch.set_default_dtype(torch.float32)
    train(tmp_path / "teacher")
    found = search_run(settings(str(tmp_path / "teacher")), tmp_path / "run")
    assert found.genotype.space == NASBENCH_MACRO.name


def test_a_retrained_resnet_teaches(tmp_path):
    torch.set_default_dtype(torch.float32)
    narrow = replace(SMALL, cells=None)  # a ResNet has as many layers as it has
    result = retrain(PUBLISHED["resnet18"], DIGITS, narrow, tmp_path / "teacher")
    assert result["params"] == describe(PUBLISHED["resnet18"], Size(4, 8, 10, 1)).params
    found = search_run(settings(str(tmp_path / "teacher")), tmp_path / "run")
    assert found.genotype.space == NASBENCH_MACRO.name
