"""What a search says of a learner before it is taught and after, and of one that this spoils."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

import tutelage
from test_live import searching
from test_search import TINY, run_toml, work_of
from toys import ToyMake, toy_batch
from tutelage.extras import AfterStep
from tutelage.methods.pamkd import PAMKD
from tutelage.methods.sgl import SGL
from tutelage.methods.single import Single
from tutelage.records.rows import StageAccuracies
from tutelage.run.monitor.teaching import Stages, two_stages
from tutelage.run.search import search_run
from tutelage.run.strategies.validation import validate
from tutelage.trees import leaves
from written_runs import read_rows

SMALL = TINY | {"space": "nasbench201", "cells": 1, "channels": 4}
SPOILING = SMALL | {"limit_batches": 9, "batch_size": 32}
"""Settings by which a learner is spoilt beyond chance: of nine batches, eight are compared."""


def right(learner, weights, alphas, part):
    """Whether each image is named right, one by one."""
    logits = learner.net(weights, alphas, part.x).tolist()
    return [row.index(max(row)) == y for row, y in zip(logits, part.y.tolist(), strict=True)]


# Two stages of one learner ----------------------------------------------------------------------


def test_stages_are_counted_image_by_image():
    problem = SGL()(ToyMake())
    variables, learner = problem.variables, problem.learners[1]
    parts, before, after = [], [], []
    for images in (40, 7):
        part = toy_batch(images).valid
        logits = learner.net(variables["V"][1], variables["A"][1], part.x)
        y = torch.where(torch.arange(images) % 4 > 0, logits.argmax(1), part.y)
        parts.append(part._replace(y=y))
        before += right(learner, variables["V"][1], variables["A"][1], parts[-1])
        after += right(learner, variables["W"][1], variables["A"][1], parts[-1])
    found = two_stages(learner, variables, parts)
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    assert found == Stages(sum(before), sum(after), changed, images=47)
    assert found.first > found.taught > found.first - found.changed  # both ways something changed
    assert found.accuracies == {"first": sum(before) / 47, "taught": sum(after) / 47}


def test_the_sign_is_mcnemars_test():
    """Of images that changed, `lost` less `won` has the deviation sqrt(lost + won) by chance."""
    for lost, won in itertools.product(range(30), repeat=2):
        spoilt = lost > won and (lost - won) ** 2 / (lost + won) > 4
        assert bool(Stages(50, 50 - lost + won, lost + won, 200).warning) == spoilt


def test_the_sign_just_below_and_just_above():
    assert Stages(60, 48, 36, 150).warning == ""  # 12 fewer: twice the square root of 36
    assert Stages(60, 47, 35, 150).warning == (
        "its peers' teaching spoils it: 31.3 % of 150 validation images right, 40.0 % before it "
        "was taught (collective failure)"
    )
    assert Stages(48, 60, 12, 150).warning == Stages(60, 60, 0, 150).warning == ""


# In a search ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoiling(SGL):
    """Small-group learning that ends every step with a second learner that errs where it can."""

    def __call__(self, make):
        """Make the problem with W of learner 1 that says least what its V says most."""

        def spoil(variables, batch, notes):
            alone = variables["V"][1]
            turned = {name: -x if "classifier" in name else x for name, x in alone.items()}
            variables["W"] = [variables["W"][0], turned]

        return super().__call__(make)._replace(extras=[AfterStep(spoil)])


def test_an_epochs_row_warns_of_a_learner_that_teaching_spoils(tmp_path, monkeypatch):
    work = work_of(SPOILING, tmp_path, monkeypatch, Spoiling())
    for _ in range(9):
        work.advance()
    counts = {"V": [0, 0], "W": [0, 0]}
    for step in range(8):  # batches of the validation half, as the epoch's steps have them
        part = work.setup.streams.valid.batch(0, step)
        for name, k in itertools.product("VW", range(2)):
            weights, alphas = work.phase.variables[name][k], work.phase.variables["A"][k]
            counts[name][k] += sum(right(work.phase.problem.learners[k], weights, alphas, part))
    row = work.end_epoch()
    assert row.stages == [
        StageAccuracies(first=first / 256, taught=taught / 256)
        for first, taught in zip(counts["V"], counts["W"], strict=True)
    ]
    first, taught = (100 * counts[name][1] / 256 for name in "VW")
    assert [warning for warning in row.warnings if "skip" not in warning] == [
        f"learner 1: its peers' teaching spoils it: {taught:.1f} % of 256 validation images "
        f"right, {first:.1f} % before it was taught (collective failure)"
    ]


@pytest.mark.parametrize("method", [Single(), PAMKD(first_stage="none", group_size=2)])
def test_where_no_learner_has_a_first_stage_no_row_speaks_of_stages(method, tmp_path, monkeypatch):
    work = work_of(SMALL, tmp_path, monkeypatch, method)
    work.advance()
    assert work.end_epoch().stages == []


def test_before_anybody_is_taught_no_row_speaks_of_stages(tmp_path, monkeypatch):
    work = work_of(SMALL | {"epochs": 2}, tmp_path, monkeypatch, SGL(pretrain=1))
    found = []
    for _ in range(2):
        while work.step < work.steps:
            work.advance()
        found.append(work.end_epoch())
    assert [bool(row.stages) for row in found] == [False, True]


def rows(path):
    return read_rows(path)


def test_the_end_has_both_stages_on_the_whole_half(tmp_path, monkeypatch):
    """Mean over images, of batches of 100 and of a last one of 99 alike."""
    import tutelage.run.strategies.relaxed as module

    seen = []
    monkeypatch.setattr(module, "validate", lambda view: seen.append(view) or validate(view))
    own = {"cells": 1, "batch_size": 100, "epochs": 1, "limit_batches": None}
    search_run(run_toml("sgl", space={"name": "nasbench201"}, **own), tmp_path / "run")
    (view,) = seen
    parts = list(view.validation())
    assert len({len(part.y) for part in parts}) == 2
    *_, epoch, end = rows(tmp_path / "run")
    assert [set(each) for each in epoch["stages"]] == [{"first", "taught"}] * 2
    for k, (learner, scores) in enumerate(zip(view.learners, end["learners"], strict=True)):
        assert set(scores) == {"valid_loss", "valid_accuracy", "first_loss", "first_accuracy"}
        for stage, name in (("first", "V"), ("valid", "W")):
            weights, alphas = view.variables[name][k], view.variables["A"][k]
            hits = [hit for part in parts for hit in right(learner, weights, alphas, part)]
            losses = torch.cat(
                [
                    F.cross_entropy(learner.net(weights, alphas, x).double(), y, reduction="none")
                    for x, y, _ in parts
                ]
            )
            assert scores[f"{stage}_accuracy"] == sum(hits) / len(hits)
            assert scores[f"{stage}_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)


def test_the_end_of_learners_without_a_first_stage_has_one(tmp_path):
    settings = run_toml(space={"name": "nasbench201"}, cells=1, epochs=1)
    search_run(settings, tmp_path / "run")
    assert [set(scores) for scores in rows(tmp_path / "run")[-1]["learners"]] == [
        {"valid_loss", "valid_accuracy"}
    ]


def test_the_warning_is_printed(tmp_path, capsys):
    tutelage.search(Spoiling(), out=tmp_path / "run", **SPOILING | {"epochs": 1})
    message = "".join(capsys.readouterr())
    assert message.count("warning: learner 1: its peers' teaching spoils it: ") == 1


@pytest.mark.parametrize("search", ["single-path", "gdas"])
def test_learners_are_validated_on_the_same_samples(search):
    """Of learners with the same weights and alphas none is better by the paths that it draws."""
    work = searching(
        run_toml("sgl", search={"name": search}, space={"name": "nasbench201"}, cells=1), 32
    )
    view = work.view()
    for name in ("V", "W", "A"):
        for tree in view.variables[name]:
            for mine, first in zip(leaves(tree), leaves(view.variables[name][0]), strict=True):
                mine.data.copy_(first)
    for drafts, own in zip(view.variables["V"], view.variables["W"], strict=True):
        for draft, taught in zip(leaves(drafts), leaves(own), strict=True):
            draft.data.copy_(taught)
    first, second = validate(view).scores
    assert first == second
    assert first["first_loss"] == first["valid_loss"]
    learner, batches = view.learners[1], list(view.validation())
    assert two_stages(learner, view.variables, batches).changed == 0
