"""What one phase of a search hands to the next."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from test_search import TINY, work_of
from tutelage.methods.cream import Cream
from tutelage.methods.lbt import LBT
from tutelage.methods.sgl import SGL
from tutelage.methods.single import Single
from tutelage.problem import Problem, pick
from tutelage.run.supernet.transition import carried
from tutelage.searches.base import Needs, Phase
from tutelage.searches.darts import Darts
from tutelage.searches.drnas import DrNas
from tutelage.searches.pdarts import PDarts
from tutelage.spaces.cells import DARTS
from tutelage.trees import leaves, tree_map

METHODS = [
    pytest.param(Single(), id="single"),
    pytest.param(SGL(), id="sgl", marks=pytest.mark.slow),
]


def at_the_second_phase(tmp_path, monkeypatch, method, search=None, **settings):
    """A search at the end of its first phase, as it was, and in its second phase."""
    settings = {**TINY, "epochs": 4, "channels": 12, **settings, "search": search or DrNas()}
    work = work_of(settings, tmp_path, monkeypatch, method)
    while work.epoch < work.setup.phases[0].epochs - 1 or work.step < work.steps:
        if work.step == work.steps:
            work.end_epoch()
        work.advance()
    was = SimpleNamespace(
        problem=work.phase.problem,
        variables=work.phase.variables,
        velocities=work.phase.velocities,
        moments={
            name: [dict(x.state.get(p, {})) for p in leaves(work.phase.variables[name])]
            for name, x in work.phase.optimisers.items()
        },
        alphas=[work.view().alphas(learner) for learner in work.phase.problem.learners],
    )
    work.end_epoch()
    return was, work


def assert_grown(new, old, moved, before):
    """What has a weight's place in the new phase has the place of the same weight in the old."""
    assert new.keys() == moved.keys()
    widened = 0
    for name, weight in new.items():
        if weight.shape == old[name].shape and ".nodes." not in name:
            assert torch.equal(weight, old[name])
            assert torch.equal(moved[name], before[name])
            continue
        values, order = old[name].flatten().sort()
        assert (values.diff() > 0).all()  # no two alike, so that each names its place
        index = torch.searchsorted(values, weight.flatten())
        assert torch.equal(values[index], weight.flatten())
        places = order[index]
        assert torch.equal(before[name].flatten()[places], moved[name].flatten())
        widened += weight.numel() > len(places.unique())
    assert widened > 10


@pytest.mark.parametrize("method", METHODS)
def test_weights_and_their_momentum_are_carried_on_alike(method, tmp_path, monkeypatch):
    was, work = at_the_second_phase(tmp_path, monkeypatch, method)
    assert work.clock.phase == 1
    learners = zip(was.problem.learners, work.phase.problem.learners, strict=True)
    for old, learner in learners:
        assert [old.weights, *old.drafts] == [learner.weights, *learner.drafts]
        for path in (learner.weights, *learner.drafts):
            own = {name: p.shape for name, p in learner.net.module.named_parameters()}
            new = pick(work.phase.variables, path)
            assert {name: x.shape for name, x in new.items()} == own
            before = pick(was.velocities, path)
            assert all(x.abs().max() > 0 for name, x in before.items() if "classifier" in name)
            assert_grown(new, pick(was.variables, path), pick(work.phase.velocities, path), before)


@pytest.mark.parametrize("method", METHODS)
def test_alphas_and_their_moments_are_carried_on(method, tmp_path, monkeypatch):
    was, work = at_the_second_phase(tmp_path, monkeypatch, method)
    assert work.phase.optimisers.keys() == {"A"}
    states = iter(was.moments["A"])
    tensors = iter(leaves(work.phase.variables["A"]))
    assert len(was.moments["A"]) == len(leaves(work.phase.variables["A"]))
    for k, learner in enumerate(work.phase.problem.learners):
        for group, alphas in was.alphas[k].items():
            columns = alphas.topk(4).indices.sort().values
            kept = next(tensors)
            assert kept is pick(work.phase.variables, learner.alphas)[group]
            assert torch.equal(kept, alphas.gather(1, columns))
            before, after = next(states), work.phase.optimisers["A"].state[kept]
            assert after["step"] == before["step"] == 2  # the second of two epochs, two steps
            for key in ("exp_avg", "exp_avg_sq"):
                assert before[key].abs().max() > 0
                assert torch.equal(after[key], before[key].gather(1, columns))
            # a space that has these operations
            names = [op for op in DARTS.operations[group][0] if op != "none"]
            expected = tuple(tuple(names[c] for c in row) for row in columns.tolist())
            assert work.view().space_of(learner).operations[group] == expected
    work.advance()  # Adam continues counting where the alphas move; they are frozen in this epoch
    work.epoch = 3
    work.advance()
    assert work.phase.optimisers["A"].state[kept]["step"] == 3


def test_the_rate_goes_on_falling_where_weights_are_carried_on(tmp_path, monkeypatch):
    _, work = at_the_second_phase(tmp_path, monkeypatch, Single())
    (level,) = [each for each in work.phase.problem.levels if each.variable == "w"]
    weights = work.setup.settings.weights
    assert work.epoch == 2  # half of the way down the cosine
    assert work.rates()[level.variable].lr == pytest.approx((weights.lr + weights.lr_min) / 2)
    work.set_clock()
    assert (work.clock.epoch, work.clock.epochs) == (2, 4)


def test_what_starts_afresh_does_so_in_all(tmp_path, monkeypatch):
    """P-DARTS' second phase has new weights, alphas, momentum, moments and schedules."""
    search = PDarts(deeper=(0, 1))
    was, work = at_the_second_phase(
        tmp_path, monkeypatch, Single(), search, epochs=6, channels=2, cells=3
    )
    assert work.clock.phase == 1
    assert work.phase.velocities == {}
    assert not work.phase.optimisers["A"].state
    stem = "stem.0.0.weight"
    assert work.phase.variables["w"][stem].shape == was.variables["w"][stem].shape
    assert not torch.equal(work.phase.variables["w"][stem], was.variables["w"][stem])
    assert all(x.abs().max() < 0.01 for x in leaves(work.phase.variables["A"]))
    assert [tuple(x.shape) for x in leaves(work.phase.variables["A"])] == [(14, 5)] * 2
    (level,) = [each for each in work.phase.problem.levels if each.variable == "w"]
    assert work.rates()[level.variable].lr == work.setup.settings.weights.lr
    work.set_clock()
    assert (work.clock.epoch, work.clock.epochs) == (0, 2)
    for epoch in (2, 3):  # one of two epochs is frozen
        work.epoch = epoch
        assert [each.variable for each in work.phase.levels(work.epoch)] == ["w", "A"][: epoch - 1]


def test_what_is_not_searched_is_carried_on_too(tmp_path, monkeypatch):
    """LBT's student has no operations to lose: its weights and momentum stay as they are."""
    method = LBT(student="DARTS_V1")
    was, work = at_the_second_phase(tmp_path, monkeypatch, method, epochs=2, limit_batches=1)
    for name, x in was.variables["S"].items():
        assert torch.equal(work.phase.variables["S"][name], x)
        assert torch.equal(work.phase.velocities["S"][name], was.velocities["S"][name])


@pytest.mark.slow
def test_alphas_of_a_separate_first_stage_are_carried_on_too(tmp_path, monkeypatch):
    """SGL's B (Eq. 13) weighs the operations of V, which learners keep by their A."""
    method = SGL(first_stage="separate", pretrain=3)  # B moves in the epoch between 2 and 3
    was, work = at_the_second_phase(tmp_path, monkeypatch, method, epochs=8, limit_batches=1)
    before = iter(was.moments["B"])
    for k, alphas in enumerate(was.alphas):
        for group, a in alphas.items():
            columns = a.topk(4).indices.sort().values
            kept, state = work.phase.variables["B"][k][group], next(before)
            assert torch.equal(kept, was.variables["B"][k][group].gather(1, columns))
            assert state["exp_avg"].abs().max() > 0
            moved = work.phase.optimisers["B"].state[kept]["exp_avg"]
            assert torch.equal(moved, state["exp_avg"].gather(1, columns))


def test_a_board_of_paths_starts_afresh_where_paths_have_other_shapes(tmp_path, monkeypatch):
    """Cream's in DrNAS: what a path took of seven operations it cannot take of the four left."""
    method = Cream(board=3, warmup=0.0)
    was, work = at_the_second_phase(tmp_path, monkeypatch, method, epochs=2)
    old, board = was.variables["board"], work.phase.variables["board"]
    assert int(old["filled"]) == 2
    assert {tuple(x.shape) for x in leaves(old["paths"])} == {(3, 14, 7)}
    assert {tuple(x.shape) for x in leaves(board["paths"])} == {(3, 14, 4)}
    assert not any(x.any() for x in leaves(board))
    for name, x in was.variables["A"]["match"].items():  # it judges logits, which stay as many
        assert torch.equal(work.phase.variables["A"]["match"][name], x)
    work.advance()
    assert int(work.phase.variables["board"]["filled"]) == 1


@dataclass(frozen=True)
class Wider(Darts):
    """DARTS in two phases of all operations, the second with more channels."""

    def needs(self, space):
        """Search in two phases."""
        return Needs(phases=(Phase(partial=2), Phase(partial=1, carries=True)))


def test_a_board_of_paths_goes_on_where_paths_have_the_same_shapes(tmp_path, monkeypatch):
    method = Cream(board=3, warmup=0.0)
    was, work = at_the_second_phase(tmp_path, monkeypatch, method, Wider(), epochs=2, channels=4)
    old, board = was.variables["board"], work.phase.variables["board"]
    assert int(old["filled"]) == 2
    for before, after in zip(leaves(old), leaves(board), strict=True):
        assert torch.equal(before, after)
    work.advance()
    assert int(work.phase.variables["board"]["filled"]) == 3


def test_momentum_goes_where_its_variable_goes():
    """Of what is no learner's: a variable of other shapes has none of its own yet."""
    values = {"kept": {"x": torch.ones(2, 3)}, "changed": [torch.ones(4), torch.ones(5)]}
    momentum = {name: tree_map(torch.zeros_like, tree) for name, tree in values.items()}
    fresh = {"kept": {"x": torch.zeros(2, 3)}, "changed": [torch.zeros(4), torch.zeros(6)]}
    before, after = Problem(values, [], []), Problem(fresh, [], [])
    variables, velocities = carried(before, after, values, momentum, [])
    assert variables["kept"] is values["kept"] and variables["changed"] is fresh["changed"]
    assert velocities.keys() == {"kept"} and velocities["kept"] is momentum["kept"]
    assert set(momentum) == {"kept", "changed"}  # what was given is left as it was


def test_a_rehearsal_is_narrowed_by_its_learners_alphas(tmp_path, monkeypatch):
    """SGL's B and its moments keep the columns that A keeps, whatever B itself favours."""
    settings = {"space": "nasbench201", "cells": 1, "channels": 4, "epochs": 2}
    settings |= {"search": DrNas(progressive=True)}
    method = SGL(first_stage="separate", pretrain=1)
    work = work_of({**TINY, **settings}, tmp_path, monkeypatch, method)
    before = work.phase.variables["B"]
    for x in leaves([before, work.phase.variables["A"]]):
        x.copy_(torch.randn_like(x))
        x.grad = torch.randn_like(x)
    work.phase.optimisers["B"].step()
    moments = [[dict(work.phase.optimisers["B"].state[x]) for x in leaves(each)] for each in before]
    alphas = work.phase.variables["A"]
    work.next_phase()
    for k in range(2):
        columns = alphas[k]["cell"].topk(3).indices.sort().values
        assert not torch.equal(columns, before[k]["cell"].topk(3).indices.sort().values)
        kept = work.phase.variables["B"][k]["cell"]
        assert torch.equal(kept, before[k]["cell"].gather(1, columns))
        for name in ("exp_avg", "exp_avg_sq"):
            moved = work.phase.optimisers["B"].state[kept][name]
            assert torch.equal(moved, moments[k][0][name].gather(1, columns))
