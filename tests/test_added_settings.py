"""Runs that were begun before a setting existed go on as they began."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import reduce

import pytest
import tomli_w

from retraining import SMALL, files, train
from test_retrain_resume import train_until_killed
from test_search import KilledError, killed_at, run_toml, same_runs
from tutelage.config import Retrain, Run, Weights
from tutelage.parts import from_table
from tutelage.run.job import checkpoint
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.settings import ADDED, changed_settings, plain
from tutelage.run.search import search_run


def without(settings, names=ADDED):
    """Settings as they were before these were added."""
    kept = tomllib.loads(tomli_w.dumps(settings))
    for name in names:
        *tables, last = name.split(".")
        reduce(lambda table, key: table.get(key, {}), tables, kept).pop(last, None)
    return kept


def made_older(out):
    """Leave the added settings out of a run's files; return which there were."""
    path = out / "run.toml"
    stored = tomllib.loads(path.read_text(encoding="utf-8"))
    path.write_text(tomli_w.dumps(without(stored)), encoding="utf-8")
    if checkpoint.exists(out):
        state = checkpoint.load(out)
        checkpoint.save(out, {**state, "settings": without(state["settings"])})
    assert path.read_text(encoding="utf-8") != tomli_w.dumps(stored)


def test_what_was_added_has_its_default():
    """So that a run without it is one with it."""
    assert not changed_settings(without(plain(Run())), plain(Run()))
    assert not changed_settings(plain(Run()), without(plain(Run())))
    found = changed_settings(without(plain(Run())), plain(Run(weights=Weights(warm_up=3))))
    assert found == ["weights.warm_up = 3 (was 0)"]


@pytest.mark.parametrize("anneal", ["epoch", "step"])
def test_a_search_that_was_begun_before_goes_on(anneal, tmp_path, monkeypatch):
    settings = run_toml(save_every=0.0, weights=Weights(anneal=anneal))
    search_run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed_at(patch, 3)
        with pytest.raises(KilledError):
            search_run(settings, tmp_path / "killed")
    made_older(tmp_path / "killed")
    stored = from_table(Run, RunDirectory.open(tmp_path / "killed").settings(), "a search")
    assert stored.weights.anneal == anneal
    warmed = replace(stored, weights=replace(stored.weights, warm_up=2))
    with pytest.raises(ValueError, match=r"weights\.warm_up = 2 \(was 0\)"):
        search_run(warmed, tmp_path / "killed", resume=True)
    search_run(stored, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")


def test_a_retraining_that_was_begun_before_goes_on(tmp_path):
    """On a line, by steps, with the warm-up that there was."""
    settings = replace(SMALL, schedule="linear", anneal="step", warm_up=1, lr=0.1, save_every=0.0)
    train(tmp_path / "whole", settings)
    train_until_killed(tmp_path / "killed", settings, 3)
    made_older(tmp_path / "killed")
    stored = RunDirectory.open(tmp_path / "killed").settings()["retrain"]
    stored = from_table(Retrain, stored, "a retraining")
    with pytest.raises(ValueError, match=r"retrain\.linear_tail = 1 \(was 0\)"):
        train(tmp_path / "killed", replace(stored, linear_tail=1), resume=True)
    train(tmp_path / "killed", stored, resume=True)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
