"""The search loop: the same seed, kills, resuming, bad losses, and what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import pytest
import torch

import tutelage
from tutelage.config import Alphas, Data, Run, Weights
from tutelage.methods.lbt import LBT
from tutelage.methods.sgl import SGL
from tutelage.methods.single import Single
from tutelage.run.job import checkpoint
from tutelage.run.job.signals import StoppedError
from tutelage.run.search import search_run
from tutelage.run.strategies.relaxed import Relaxed
from tutelage.run.supernet.state import Searching
from tutelage.trees import leaves
from written_runs import read_rows

TINY = {
    "channels": 2,
    "cells": 3,
    "epochs": 2,
    "limit_batches": 2,
    "batch_size": 4,
    "log_every": 2,
    "device": "cpu",
    "via": "first-order",
}


def run_toml(method="single", **settings):
    own = {"student": "DARTS_V1"} if method == "lbt" else {}
    return Run(method={"name": method, **own}, **{**TINY, **settings})


def same_runs(one, other):
    """Same metrics, alphas, weights and genotype, to the bit."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert (one / "genotype.json").read_bytes() == (other / "genotype.json").read_bytes()
    a, b = checkpoint.load(one)["work"], checkpoint.load(other)["work"]
    assert a["variables"].keys() == b["variables"].keys()
    for x, y in zip(leaves(a["variables"]), leaves(b["variables"]), strict=True):
        assert torch.equal(x, y)


class KilledError(BaseException):
    """Stands in for SIGKILL: nothing of the package catches it."""


def killed_at(monkeypatch, step):
    """Die after so many steps of the process, without a checkpoint being written."""
    advance, steps = Searching.advance, [0]

    def dying(self):
        if steps[0] == step:
            raise KilledError
        steps[0] += 1
        advance(self)

    monkeypatch.setattr(Searching, "advance", dying)


SLOWER = [pytest.param(name, marks=pytest.mark.slow) for name in ("sgl", "lbt")]


@pytest.mark.parametrize("method", ["single", *SLOWER])
def test_killed_and_resumed_equals_uninterrupted(method, tmp_path, monkeypatch):
    settings = run_toml(method, save_every=0.0)
    search_run(settings, tmp_path / "whole")
    for step in (1, 2):  # in mid-epoch, in the next one, and again
        with monkeypatch.context() as patch:
            killed_at(patch, step)
            with pytest.raises(KilledError):
                search_run(settings, tmp_path / "killed", resume=(tmp_path / "killed").exists())
    search_run(settings, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")


def test_rows_after_the_last_checkpoint_are_not_doubled(tmp_path, monkeypatch):
    """With checkpoints at the ends of epochs alone, a kill loses steps, and no row stays twice."""
    settings = run_toml(log_every=1, save_every=1e6)
    search_run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed_at(patch, 3)
        with pytest.raises(KilledError):
            search_run(settings, tmp_path / "killed")
    assert len(read_rows(tmp_path / "killed")) == 4
    search_run(settings, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")


def test_same_seed_same_run_and_another_seed_another(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        search_run(run_toml(seed=seed), tmp_path / name)
    same_runs(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "one" / "metrics.jsonl").read_text() != (
        tmp_path / "other" / "metrics.jsonl"
    ).read_text()


def test_rows_name_epochs_steps_losses_and_gradient_terms(tmp_path):
    search_run(run_toml("sgl", via="exact", log_every=1), tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    assert [(r["event"], r.get("epoch"), r.get("step")) for r in rows] == [
        ("step", 0, 1),
        ("step", 0, 2),
        ("epoch", 0, 2),
        ("step", 1, 1),
        ("step", 1, 2),
        ("epoch", 1, 2),
        ("end", None, None),
    ]
    epoch = rows[2]
    assert set(epoch["loss"]) == {"learn_alone", "learn_together", "validate"}
    assert set(epoch["gradient"]["validate"]) == {
        "learn_alone",
        "learn_together",
        "learn_together: A_labels",
        "validate",
    }
    assert all(value > 0 for value in epoch["gradient"]["validate"].values())
    assert len(epoch["learners"]) == len(epoch["arch_weights"]) == len(epoch["genotype"]) == 2
    for row in epoch["arch_weights"][0]["normal"]:
        assert sum(row) == pytest.approx(1, abs=1e-4)


def test_lbt_logs_both_exams_apart(tmp_path):
    search_run(run_toml("lbt", via="exact", epochs=1), tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    gradient = next(row for row in rows if row["event"] == "epoch")["gradient"]
    assert set(gradient) == {
        "validate_teacher + validate_student",
        "validate_teacher",
        "validate_student",
    }
    assert (
        gradient["validate_teacher"]["practise"] == 0
    )  # the teacher's validation loss knows no student
    assert gradient["validate_student"]["practise: A_labels"] > 0
    assert (
        gradient["validate_student"]["validate_student"] == 0
    )  # nor does A act on the student's validation loss


@pytest.mark.slow
def test_the_learner_with_the_lowest_validation_loss_is_kept(tmp_path):
    found = search_run(run_toml("sgl"), tmp_path / "run")
    losses = [scores["valid_loss"] for scores in found.scores]
    assert found.learner == losses.index(min(losses))
    about = json.loads((tmp_path / "run" / "genotype.json").read_text())["about"]
    assert about["learner"] == found.learner
    assert about["valid_loss"] == min(losses)


def test_changed_settings_are_refused_by_name(tmp_path):
    search_run(run_toml(epochs=1), tmp_path / "run")
    with pytest.raises(ValueError, match=r"weights\.lr = 0\.5 \(was 0\.025\)"):
        search_run(run_toml(epochs=1, weights=Weights(lr=0.5)), tmp_path / "run", resume=True)


def test_the_test_set_is_not_read_during_a_search(tmp_path, monkeypatch):
    import tutelage.run.strategies.assemble as module

    parts = []
    monkeypatch.setattr(
        module, "read", lambda data, part, read=module.read: parts.append(part) or read(data, part)
    )
    search_run(run_toml(epochs=1), tmp_path / "run")
    assert parts == ["search"]


def test_a_loss_that_is_no_number_stops_with_level_and_step(tmp_path):
    settings = run_toml(weights=Weights(lr=1e30, clip=0.0), epochs=9, save_every=0.0)
    with pytest.raises(ValueError, match=r"(loss of level '\w+'|variable w).*epoch \d+, step \d+"):
        search_run(settings, tmp_path / "run")
    if checkpoint.exists(tmp_path / "run"):
        for tensor in leaves(checkpoint.load(tmp_path / "run")["work"]["variables"]):
            assert torch.isfinite(tensor).all()


def test_random_search_trains_nothing(tmp_path):
    settings = replace(run_toml(), search={"name": "random"})
    found = [search_run(replace(settings, seed=s), tmp_path / f"{s}").genotype for s in range(4)]
    assert len({genotype.to_json() for genotype in found}) == 4
    assert not list((tmp_path / "0").glob("checkpoint*"))


def test_python_interface_takes_instances(tmp_path):
    found = tutelage.search(
        tutelage.SGL(learners=1), tutelage.Darts(init=0.5), out=tmp_path / "run", **TINY
    )
    assert found.genotype.cells.keys() == {"normal", "reduce"}
    assert "learners = 1" in (tmp_path / "run" / "run.toml").read_text()
    assert "<svg" in found.draw()
    logits = found.network().eval()(torch.zeros(2, 1, 8, 8))
    assert logits.shape == (2, 10)


@dataclass(frozen=True)
class OwnMethod:
    """A user's own method: DARTS with a name of its own."""

    strength: float = 2.0

    def __call__(self, make):
        return Single()(make)


def test_a_method_of_ones_own_needs_no_registration(tmp_path):
    tutelage.search(OwnMethod(3.0), out=tmp_path / "run", **TINY)
    text = (tmp_path / "run" / "run.toml").read_text()
    assert "test_search:OwnMethod" in text
    assert "strength = 3.0" in text


def work_of(settings, tmp_path, monkeypatch, method):
    """The state of a search before its first step."""
    import tutelage.run.search as module

    kept = []

    def run(work, directory, **options):
        directory.begin_session(0, 0)
        kept.append(work)

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(Relaxed, "conclude", lambda *rest: None)
    tutelage.search(method, out=tmp_path / "run", **settings)
    return kept[0]


def test_levels_train_in_their_epochs_each_on_its_own_cosine(tmp_path, monkeypatch):
    settings = {**TINY, "epochs": 6, "weights": Weights(lr=1.0, lr_min=0.0)}
    work = work_of(settings, tmp_path, monkeypatch, SGL(pretrain=2))
    named = []
    for epoch in range(6):
        work.epoch = epoch
        named.append([level.variable for level in work.phase.levels(epoch)])
    assert named == [["V"]] * 2 + [["V", "W", "A"]] * 4
    rates = []
    for epoch in (2, 4):
        work.epoch = epoch
        rates.append(work.rates()["W"].lr)
    assert rates == pytest.approx([1.0, 0.5])  # W's cosine begins where W does


def test_release_student_keeps_its_rate(tmp_path, monkeypatch):
    settings = {**TINY, "epochs": 4}
    method = LBT(student="DARTS_V1", student_update="in-turn")
    work = work_of(settings, tmp_path, monkeypatch, method)
    work.epoch = 3
    levels = work.phase.levels(3)[:-2]
    rates = {x.name: work.phase.rate(x, work.setup.settings.weights, 3, 0.0) for x in levels}
    assert rates["learn"].lr < 0.025
    assert (rates["pseudo_labels"].lr, rates["pseudo_labels"].clip) == (0.025, 0.0)


def test_alphas_are_no_module_parameters_and_adam_alone_moves_them(tmp_path, monkeypatch):
    work = work_of(TINY, tmp_path, monkeypatch, Single())
    alphas = {id(x) for x in leaves(work.phase.variables["A"])}
    assert not alphas & {id(x) for x in leaves(work.phase.variables["w"])}
    assert not any("alpha" in name for name in work.phase.variables["w"])
    assert {
        id(x) for group in work.phase.optimisers["A"].param_groups for x in group["params"]
    } == alphas


def test_alphas_gradient_is_clipped_where_asked(tmp_path, monkeypatch):
    settings = {**TINY, "alphas": Alphas(clip=1e-3)}
    work = work_of(settings, tmp_path, monkeypatch, Single())
    work.advance()
    total = torch.stack([x.grad.norm() for x in leaves(work.phase.variables["A"])]).norm()
    assert float(total) <= 1e-3 * 1.001


def test_sigterm_saves_first(tmp_path, monkeypatch):
    advance, steps = Searching.advance, [0]

    def signalled(self):
        steps[0] += 1
        if steps[0] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(self)

    settings = run_toml(save_every=1e6)
    with monkeypatch.context() as patch:
        patch.setattr(Searching, "advance", signalled)
        with pytest.raises(StoppedError, match="SIGTERM came: saved at epoch 1, step 0"):
            search_run(settings, tmp_path / "run")
    search_run(settings, tmp_path / "run", resume=True)
    search_run(settings, tmp_path / "whole")
    same_runs(tmp_path / "whole", tmp_path / "run")


CIFAR = pytest.mark.skipif(
    "TUTELAGE_TEST_DATA" not in os.environ, reason="TUTELAGE_TEST_DATA names no folder of data"
)


@pytest.mark.slow
@pytest.mark.exhaustive  # faults/test_kills.py has random moments of every method
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("data", ["digits", pytest.param("cifar10", marks=CIFAR)])
def test_sigkill_at_random_moments(data, tmp_path):
    """The command line, killed three times, ends as one left alone."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # beside other tests, threads would spin
    command = [sys.executable, "-m", "tutelage", "search", "--method", "sgl", "--data", data]
    command += "--epochs 1 --limit-batches 8 --channels 2 --cells 3 --batch-size 4".split()
    command += ["--save-every", "0", "--log-every", "3"]
    if data == "cifar10":
        command += ["--data-root", os.environ["TUTELAGE_TEST_DATA"]]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, timeout=500, env=alone)
    killed = tmp_path / "killed"
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        resume_with = (
            ["--resume", str(killed)] if (killed / "run.toml").exists() else ["--out", str(killed)]
        )
        start = command if "--out" in resume_with else command[:4]
        process = subprocess.Popen([*start, *resume_with], stdout=subprocess.DEVNULL, env=alone)
        while not (killed / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.2 + 2 * float(torch.rand(1, generator=generator)))
        process.kill()
        process.wait()
    resumed = [*command[:4], "--resume", str(killed)]
    subprocess.run(resumed, check=True, timeout=500, env=alone)
    same_runs(tmp_path / "whole", killed)


def test_unlabelled_half_has_its_own_order(tmp_path, monkeypatch):
    work = work_of({**TINY, "data": Data()}, tmp_path, monkeypatch, SGL())
    streams = work.setup.streams
    assert torch.equal(streams.unlabelled.subset, streams.train.subset)
    assert not set(streams.train.subset.tolist()) & set(streams.valid.subset.tolist())
    first = streams.train.batch(0, 0).position
    assert not torch.equal(first, streams.unlabelled.batch(0, 0).position)


@pytest.mark.slow
def test_bf16_searches_too(tmp_path):
    search_run(run_toml("sgl", precision="bf16", epochs=1, via="exact"), tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    assert all(0 < value < 20 for value in rows[0]["loss"].values())
    stored = checkpoint.load(tmp_path / "run")["work"]["variables"]
    assert {x.dtype for x in leaves(stored)} == {torch.float32}


def test_alphas_that_no_loss_depends_on_are_refused(tmp_path):
    """In first order the student's validation loss knows nothing of the teacher's alphas."""
    method = {"name": "lbt", "student": "DARTS_V1", "validate_teacher": False}
    sentence = "gradient has been zero for 20 steps at epoch 0, step 20: with these settings"
    with pytest.raises(ValueError, match=sentence):
        search_run(replace(run_toml(), method=method, limit_batches=20), tmp_path / "run")


@pytest.mark.parametrize(
    "via", [{"via": "finite-difference", "sides": 1, "radius": 0.1}, {"recompute": True}]
)
def test_rules_take_their_settings(via, tmp_path, monkeypatch):
    work = work_of({**TINY, "via": "exact", **via}, tmp_path, monkeypatch, Single())
    assert {k: v for k, v in via.items() if k != "via"}.items() <= vars(work.via).items()
