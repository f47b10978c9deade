"""A retraining that begins with the weights of an earlier one: retrain --from."""

import json
import shutil
from dataclasses import replace

import pytest
import tomli_w
import torch
from safetensors.torch import load_file

from photographs import make_photographs
from retraining import FILE, GENOTYPE, SMALL, files, train
from test_retrain_resume import train_until_killed
from tutelage.config import Data
from tutelage.data.read import read
from tutelage.report.page import write_report
from tutelage.run.job.directory import RunDirectory
from tutelage.run.networks.ensemble import Ensemble
from tutelage.run.networks.files import about
from tutelage.run.retrain import retrain_ensemble
from tutelage.run.trained.begin import begun, fitted
from tutelage.spaces.published import resolve

STILL = replace(SMALL, lr=1e-12, epochs=1, limit_batches=1, weight_decay=0.0)
"""A training that moves no weight by more than rounding."""
HEAD = ("classifier.weight", "classifier.bias")


@pytest.fixture
def other(tmp_path):
    """A set of two classes, grey and of the digits' size."""
    root = make_photographs(tmp_path / "photographs")
    return Data(name=str(root), resolution=8, colour="grey")


def weights(folder):
    return {
        k: x for k, x in load_file(folder / FILE).items() if "running" not in k and "num" not in k
    }


def test_all_but_the_classifier_is_loaded(retrained, other, tmp_path, capsys):
    train(tmp_path / "out", replace(STILL, start=str(retrained)), data=other)
    before, after = weights(retrained), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name in before:
        if name in HEAD:
            assert after[name].shape[0] == 2
        else:
            assert torch.allclose(after[name], before[name], atol=1e-7), name
    said = capsys.readouterr().out
    assert (
        "trained for 10 classes: a new classifier for 2 classes, and a new auxiliary head" in said
    )
    assert about(tmp_path / "out").classes == ("cat", "dog")


def test_the_classifier_too_for_the_same_classes(retrained, tmp_path, capsys):
    train(tmp_path / "out", replace(STILL, start=str(retrained / FILE), seed=5))
    before, after = weights(retrained), weights(tmp_path / "out")
    assert all(torch.allclose(after[name], before[name], atol=1e-7) for name in before)
    assert "its classifier too, for the same 10 classes" in capsys.readouterr().out


def test_a_folder_is_read_in_the_shape_of_the_weights(retrained, other, tmp_path):
    start = str(retrained)
    plain = Data(name=other.name)

    def shaped(data, settings):
        return fitted(data, settings, tmp_path / "out")[0]

    assert shaped(plain, replace(STILL, start=start)) == other
    assert shaped(plain, STILL) == plain
    given = replace(plain, resolution=12, colour="rgb")
    assert shaped(given, replace(STILL, start=start)) == given
    assert shaped(Data(), replace(STILL, start=start)) == Data()


def test_the_weights_may_move_once_the_training_has_a_checkpoint(retrained, other, tmp_path):
    """Size and shape are not given: they were those of the weights."""
    shutil.copytree(retrained, tmp_path / "earlier")
    unset = replace(STILL, channels=None, cells=None, start=str(tmp_path / "earlier"))
    data, out = Data(name=other.name), tmp_path / "out"
    found = train(out, unset, data=data)
    (out / "result.json").unlink()  # as if it had been stopped before its test
    (tmp_path / "earlier").rename(tmp_path / "moved")
    moved = replace(unset, start=str(tmp_path / "moved"))
    assert train(out, moved, data=data, resume=True) == found
    assert train(out, unset, data=data, resume=True) == found
    with pytest.raises(ValueError, match=r"retrain.channels = 8 \(was 4\)"):
        train(out, replace(unset, channels=8), data=data, resume=True)
    (out / "result.json").unlink()
    for path in out.glob("checkpoint*"):
        path.unlink()
    with pytest.raises(ValueError, match="earlier does not exist"):
        train(out, unset, data=data, resume=True)


@pytest.mark.slow
def test_the_average_begins_with_them_too(retrained, other, tmp_path):
    train(tmp_path / "out", replace(STILL, start=str(retrained), ema=0.99), data=other)
    before, after = weights(retrained), weights(tmp_path / "out")
    name = "cells.0.before.1.weight"
    assert torch.allclose(after[name], before[name], atol=1e-7)


def test_the_size_is_that_of_the_weights(retrained, tmp_path):
    unset = replace(STILL, channels=None, cells=None, start=str(retrained))
    train(tmp_path / "out", unset)
    assert about(tmp_path / "out").size == about(retrained).size


@pytest.mark.slow
def test_killed_and_resumed_it_equals_an_uninterrupted_one(retrained, tmp_path):
    settings = replace(SMALL, start=str(retrained), save_every=0.0)
    train(tmp_path / "whole", settings)
    train_until_killed(tmp_path / "out", settings, 3)
    train(tmp_path / "out", settings, resume=True)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"retrain.start = not set \(was "):
        train(tmp_path / "out", replace(settings, start=None), resume=True)


def test_what_does_not_fit_is_one_sentence(retrained, other, tmp_path):
    digits = read(Data(), "train")
    cases = (
        (GENOTYPE, {"channels": 8}, digits, "give --channels 4 --cells 3 --stem cifar"),
        (GENOTYPE, {"stem": "imagenet"}, digits, "give --channels 4 --cells 3 --stem cifar"),
        (resolve("PC_DARTS_cifar"), {}, digits, "its network has another architecture"),
        (GENOTYPE, {}, read(replace(other, colour="rgb"), "train"), "takes images of 1 channels"),
        (GENOTYPE, {"start": "nowhere"}, digits, "nowhere does not exist"),
    )
    for genotype, change, data, message in cases:
        settings = replace(SMALL, **{"start": str(retrained), **change})
        with pytest.raises(ValueError, match=message) as caught:
            begun(genotype, settings, data)
        assert "\n" not in str(caught.value)
    assert begun(GENOTYPE, SMALL, digits) is None


def test_a_refusal_leaves_a_training_that_can_be_corrected(retrained, tmp_path):
    with pytest.raises(ValueError, match="give --channels 4 --cells 3"):
        train(tmp_path / "out", replace(STILL, channels=8, start=str(retrained)))
    assert not (tmp_path / "out").exists()


def test_the_verb_transfers_to_another_set(run, retrained, other, tutelage, refused, here):
    """Its own folder, next to the run's retraining."""
    (run / "genotype.json").write_text(GENOTYPE.to_json(), encoding="utf-8")
    shutil.copytree(retrained, here / "earlier")
    line = "retrain run --from earlier --data.resolution 8 --data.colour grey --epochs 1"
    line += f" --limit-batches 1 --batch-size 4 --auxiliary 0 --data {other.name}"
    settings = RunDirectory.open(run).settings()
    settings["retrain"] |= {"channels": 6, "cells": 5}  # of the search; the weights have others
    (run / "run.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    code, said, error = tutelage(line)
    assert code == 0, error
    assert "begins with the weights of earlier, trained for 10 classes: a new classifier" in said
    result = json.loads((run / "transfer" / "result.json").read_text(encoding="utf-8"))
    assert result["test_images"] == 16 and not (run / "retrain").exists()
    assert about(run / "transfer").size.channels == 4
    page = write_report([run / "transfer"], here / "page.html").read_text(encoding="utf-8")
    assert "etrained from the weights of earlier and tested once" in page
    assert "is finished" in tutelage(line)[1]


def test_an_ensemble_does_not_begin_with_weights(tmp_path):
    together = Ensemble((0, 1), (GENOTYPE, GENOTYPE))
    with pytest.raises(ValueError, match="--from x: an ensemble's networks begin with random"):
        retrain_ensemble(together, Data(), replace(SMALL, start="x"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
