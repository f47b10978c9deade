"""Runs on a part of the images: the test set they agree on, closed files, resuming, old runs."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
import torch

from ensembles import TOGETHER
from photographs import make_photographs
from retraining import SMALL, files, train
from test_retrain_resume import train_until_killed
from test_search import KilledError, killed_at, run_toml, same_runs
from tutelage.commands.flags import RETRAIN_FLAGS
from tutelage.config import Data
from tutelage.data import folder
from tutelage.data.listing import Folder
from tutelage.data.read import read
from tutelage.data.splits import load_split
from tutelage.data.subsets import places
from tutelage.run import retrain
from tutelage.run.search import SPLIT, search_run

DIGITS = Data(held_out=198, sample=0.5, unlabelled="rest", unlabelled_sample=0.25)
ADDED = ("held_out", "sample", "unlabelled_sample")


FEW = Data(held_out=198, sample=0.1, unlabelled="rest", unlabelled_sample=0.05)


def sgl(data, **settings):
    small = {"space": {"name": "nasbench201"}, "cells": 1, "epochs": 1}
    return run_toml("sgl", data=data, **small, **settings)


def recorded(monkeypatch):
    """Collect the parts that a retraining reads, and how many images each has."""
    counts = []

    def record(settings, part):
        data = read(settings, part)
        counts.append((part, len(data.images)))
        return data

    monkeypatch.setattr(retrain, "read", record)
    return counts


def forget(path: Path) -> None:
    """Make a run.toml one of a release without these settings."""
    settings = tomllib.loads((path / "run.toml").read_text(encoding="utf-8"))
    for name in ADDED:
        del settings["data"][name]
    (path / "run.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")


def test_a_search_on_a_sample_and_its_rest_resumes_to_the_bit(tmp_path, monkeypatch):
    settings = sgl(FEW, save_every=0.0, limit_batches=3)
    search_run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, 2)
        search_run(settings, tmp_path / "out")
    search_run(settings, tmp_path / "out", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "out")
    count = len(read(FEW, "search").images)
    assert abs(count - 100) <= 5  # a tenth of each of ten classes, rounded
    train_half, valid_half = load_split(tmp_path / "out" / SPLIT, count)
    assert abs(len(train_half) - len(valid_half)) <= 1


def test_a_search_never_decodes_what_is_left_out(tmp_path):
    """It has the same files where all images that it leaves out are damaged."""
    shares = {"held_out": 3, "sample": 0.5, "unlabelled": "rest", "unlabelled_sample": 0.25}
    look = {"resolution": 24, "colour": "rgb", "rescale": 0.2, "centre": 0.875}
    for name in ("whole", "damaged"):
        root = make_photographs(tmp_path / f"images-{name}")
        data = Data(str(root), **look, **shares)
        if name == "damaged":
            every = folder.listing(Folder(root), "train")
            used = torch.cat([places(every.labels, data, part) for part in ("search", "rest")])
            left_out = set(range(len(every.paths))) - set(used.tolist())
            assert len(left_out) == 6
            for place in left_out:
                Path(every.paths[place]).write_bytes(b"no image")
        search_run(sgl(data, batch_size=2), tmp_path / name)
    same_runs(tmp_path / "whole", tmp_path / "damaged")


def test_a_retraining_uses_all_images_but_those_held_out(tmp_path, monkeypatch):
    counts = recorded(monkeypatch)
    result = train(tmp_path / "out", data=DIGITS)
    assert counts == [("train", 1000), ("test", 198)]
    assert result["test_images"] == 198
    with monkeypatch.context() as patch:
        patch.setattr("test_retrain_resume.train", lambda out, how: train(out, how, data=DIGITS))
        train_until_killed(tmp_path / "again", replace(SMALL, save_every=0.0), 3)
    train(tmp_path / "again", replace(SMALL, save_every=0.0), resume=True, data=DIGITS)
    assert files(tmp_path / "again") == files(tmp_path / "out")


def test_an_ensemble_is_tested_on_the_held_out_images(tmp_path, monkeypatch):
    counts = recorded(monkeypatch)
    settings = replace(SMALL, epochs=1, limit_batches=1)
    result = retrain.retrain_ensemble(TOGETHER, DIGITS, settings, tmp_path / "out")
    assert set(counts) == {("train", 1000), ("test", 198)}
    assert result["test_images"] == 198


def test_by_the_command_line_a_search_and_its_retraining_agree(tutelage, here):
    own = "--data.held-out 200 --data.sample 0.5 --unlabelled rest --data.unlabelled-sample 0.5"
    assert tutelage(f"search --quick {own} --device cpu --out run")[0] == 0
    code, told, _ = tutelage("retrain run --device cpu")
    assert (code, "on 200 images" in told) == (0, True)
    result = json.loads((here / "run" / "retrain" / "result.json").read_text(encoding="utf-8"))
    assert result["test_images"] == 200
    flags = {flag.name for flag in RETRAIN_FLAGS}
    assert "data.held-out" in flags
    assert not flags & {"data.sample", "data.unlabelled-sample", "unlabelled"}


def test_a_run_begun_before_these_settings_resumes(tmp_path, monkeypatch):
    settings = run_toml(save_every=0.0, epochs=1)
    search_run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, 1)
        search_run(settings, tmp_path / "out")
    forget(tmp_path / "out")
    changed = replace(settings, data=Data(held_out=5))
    with pytest.raises(ValueError, match=r"other settings: data\.held_out = 5 \(was 0\); resume"):
        search_run(changed, tmp_path / "out", resume=True)
    search_run(settings, tmp_path / "out", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "out")


def test_a_retraining_finished_before_these_settings_is_still_finished(tmp_path, capsys):
    result = train(tmp_path / "out", replace(SMALL, epochs=1, limit_batches=1))
    forget(tmp_path / "out")
    capsys.readouterr()
    again = train(tmp_path / "out", replace(SMALL, epochs=1, limit_batches=1))
    assert again == result
    assert "is finished" in capsys.readouterr().out
    other = Data(sample=0.5)
    with pytest.raises(ValueError, match=r"data\.sample = 0\.5 \(was 1\.0\)"):
        train(tmp_path / "out", replace(SMALL, epochs=1, limit_batches=1), data=other)


def test_the_seed_of_a_run_moves_its_halves_and_not_its_images(tmp_path):
    for seed in (0, 1):
        search_run(
            run_toml(data=DIGITS, seed=seed, epochs=1, limit_batches=1), tmp_path / str(seed)
        )
    count = len(read(DIGITS, "search").images)
    one, other = (load_split(tmp_path / str(seed) / SPLIT, count)[0] for seed in (0, 1))
    assert not torch.equal(one, other)
