"""NES: retraining and reporting an ensemble."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ensembles import GENOTYPES, TOGETHER
from retraining import DIGITS, SMALL, TEST_IMAGES
from test_search import KilledError
from tutelage.data.read import read
from tutelage.records.predictions import Predictions
from tutelage.records.results import Result
from tutelage.report.page import write_report
from tutelage.report.runs.read import read_run
from tutelage.report.runs.tables import as_text, comparison
from tutelage.report.sections.contents import status, tiles
from tutelage.run import retrain
from tutelage.run.job.directory import RunDirectory
from tutelage.run.networks import ensemble
from tutelage.run.networks.ensemble import Ensemble
from tutelage.run.networks.files import about, load
from tutelage.run.trained.export import export
from tutelage.run.trained.opened import open_trained
from tutelage.run.trained.predict import Predictor
from tutelage.run.trained.testing import measured_on
from tutelage.run.training import training

RECIPE = replace(SMALL, epochs=1, limit_batches=2, channels=2)


# Retraining -------------------------------------------------------------------------------------


def train(out, settings=RECIPE, resume=False):
    return retrain.retrain_ensemble(TOGETHER, DIGITS, settings, out, resume)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An ensemble of three, retrained; not to be written to."""
    out = tmp_path_factory.mktemp("ensemble") / "retrain"
    train(out)
    return out


def result_of(folder):
    return Result.read(json.loads((folder / "result.json").read_text())).as_dict()


def test_every_member_is_a_retraining_of_its_own_seed(trained, tmp_path):
    for place, genotype in enumerate(GENOTYPES):
        folder = trained / f"member-{place}"
        assert RunDirectory.open(folder).settings()["retrain"]["seed"] == place
        assert result_of(folder)["genotype"] == genotype.to_dict()
    alone = tmp_path / "alone"
    retrain.retrain(GENOTYPES[1], DIGITS, replace(RECIPE, seed=1), alone)
    for name in ("metrics.jsonl", "network.safetensors"):
        assert (alone / name).read_bytes() == (trained / "member-1" / name).read_bytes()


def test_the_result_is_that_of_the_mean_probabilities(trained):
    details = about(trained / "member-0")
    data = read(DIGITS, "test").images
    pixels = data.take(torch.arange(len(data))) / 255
    x = (pixels - torch.tensor(details.mean)) / torch.tensor(details.std)
    with torch.no_grad():
        each = [load(trained / f"member-{k}")(x.float()).double().softmax(1) for k in range(3)]
        mean = sum(each) / 3
        together = load(trained)
        torch.testing.assert_close(
            together(x.float()).double().softmax(1), mean, rtol=1e-4, atol=1e-6
        )
    result = result_of(trained)
    assert result["test_accuracy"] == pytest.approx((mean.argmax(1) == data.labels).double().mean())
    assert result["test_loss"] == pytest.approx(
        float(F.nll_loss(mean.log(), data.labels)), rel=1e-4
    )
    assert result["test_error"] == 1 - result["test_accuracy"]
    assert result["test_images"] == TEST_IMAGES
    members = [result_of(trained / f"member-{k}") for k in range(3)]
    assert result["ensemble"] == [each["test_error"] for each in members]
    for name in ("params", "flops"):
        assert result[name] == sum(each[name] for each in members)
    assert result["params"] == sum(x.numel() for x in together.parameters())


def test_a_finished_ensemble_is_not_trained_again(trained, capsys, monkeypatch):
    monkeypatch.setattr(retrain, "read", None)
    assert train(trained, resume=True) == result_of(trained)
    message = f"{trained} is finished: test error of the ensemble of 3 networks"
    assert message in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"other settings: retrain.lr = 0.1 \(was 0.025\)"):
        train(trained, replace(RECIPE, lr=0.1))


def same_ensembles(one, other):
    files = [
        "result.json",
        "predictions.npz",
        *(f"member-{k}/{name}" for k in range(3) for name in ("metrics.jsonl", "result.json")),
    ]
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_what_is_kept_and_said_of_images_is_the_ensembles(trained, tmp_path):
    """Mean probabilities of its networks, in predictions.npz and of a new image."""
    kept = Predictions.read(trained / "predictions.npz")
    own = [Predictions.read(trained / f"member-{k}" / "predictions.npz") for k in range(3)]
    mean = sum(each.probabilities.astype(float) for each in own) / 3
    assert np.allclose(kept.probabilities, mean, atol=1e-3)
    result = RunDirectory.open(trained).read_json("result.json")
    assert (kept.labels == kept.predicted).mean() == result["test_accuracy"]
    pixels = read(DIGITS, "test").images.take(torch.tensor([0]))[0, 0].numpy()
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    (found,) = Predictor(trained)([tmp_path / "digit.png"])
    assert found.classes == (kept.classes[kept.predicted[0]],)
    assert found.probabilities[0] == pytest.approx(kept.confidence[0], abs=1e-5)
    opened = open_trained(trained)
    assert measured_on(opened).as_dict()["accuracy"] == result["test_accuracy"]
    with pytest.raises(ValueError, match=r"is an ensemble of 3 networks: export each, .*member-0"):
        export(trained, tmp_path / "out")


@pytest.mark.parametrize("step", [2, 3])  # between two members, and in mid-epoch
def test_killed_and_resumed_equals_uninterrupted(trained, tmp_path, monkeypatch, step):
    advance, done = training.Training.advance, itertools.count()

    def dying(self):
        if next(done) == step:
            raise KilledError
        advance(self)

    settings = replace(RECIPE, save_every=0.0)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(training.Training, "advance", dying)
        train(tmp_path / "out", settings)
    assert (tmp_path / "out" / "member-0" / "result.json").exists()
    assert not (tmp_path / "out" / "member-1" / "result.json").exists()
    with pytest.raises(ValueError, match=r"member-1 has no network.safetensors"):
        load(tmp_path / "out")
    train(tmp_path / "out", settings, resume=True)
    same_ensembles(trained, tmp_path / "out")


def test_the_test_set_is_read_for_the_ensemble_once_and_last(tmp_path, monkeypatch):
    out, parts = tmp_path / "out", []

    def recorded(settings, part):
        parts.append((part, len(list(out.glob("member-*/result.json")))))
        return read(settings, part)

    monkeypatch.setattr(retrain, "read", recorded)
    train(out, replace(RECIPE, limit_batches=1))
    assert [part for part in parts if part[1] == 3] == [("test", 3)]
    assert [part for part, _ in parts].count("test") == 4  # and each member's own


def test_random_numbers_and_folders_of_others_are_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(tmp_path / "out", replace(RECIPE, limit_batches=1))
    assert torch.equal(torch.rand(3), expected)
    with pytest.raises(ValueError, match="unknown data set 'digit'"):
        retrain.retrain_ensemble(
            TOGETHER, replace(DIGITS, name="digit"), RECIPE, tmp_path / "other"
        )
    assert not (tmp_path / "other").exists()


def test_one_network_is_asked_for_where_one_is_needed(trained):
    with pytest.raises(ValueError, match=r"holds 3 networks, an ensemble: give .*member-0"):
        about(trained)


# The command line and the report ----------------------------------------------------------------

COMMAND = "--epochs 1 --limit-batches 1 --batch-size 32 --channels 2 --cells 3 --log-every 1"


@pytest.mark.slow
def test_a_run_is_retrained_loaded_and_reported_as_an_ensemble(searched_pool, tutelage, here):
    run = shutil.copytree(searched_pool.path, here / "run")
    code, out, error = tutelage(f"retrain run {COMMAND} --device cpu")
    assert (code, error) == (0, "")
    result = result_of(run / "retrain")
    message = f"test error of the ensemble of 2 networks {100 * result['test_error']:.2f} %"
    assert message in out
    for again in (f"retrain run {COMMAND} --device cpu", "retrain run/retrain"):
        assert f"is finished: {message}" in tutelage(again)[1]
    assert len(load(Path("run")).members) == 2
    code, out, _ = tutelage("report run")
    assert code == 0
    record = read_run(run)
    stored = Ensemble.read(run / ensemble.FILE)
    names = ", ".join(map(str, stored.learners))
    found = {tile.name: tile for tile in tiles(record)}
    own = ", ".join(f"{100 * each:.2f} %" for each in result["ensemble"])
    assert found["test error"].value == f"{100 * result['test_error']:.2f} %"
    assert found["test error"].note == (
        f"of the ensemble, after 1 epochs of training of each network; by themselves {own}"
    )
    accuracy = found["valid accuracy"]
    assert accuracy.value == f"{100 * stored.scores['valid_accuracy']:.2f} %"
    assert accuracy.note == f"ensemble of learners {names}"
    page = (run / "report.html").read_text()
    assert f"the first of the ensemble of learners {names}," in page
    assert "No epoch has ended yet." not in page
    assert len(record.retraining.sessions) == 2


def test_a_retraining_on_its_way_and_a_comparison_say_that_it_is_an_ensemble(
    searched_pool, trained, tmp_path
):
    run = shutil.copytree(searched_pool.path, tmp_path / "run")
    shutil.copytree(trained, run / "retrain")
    rows = as_text(comparison([read_run(run), read_run(searched_pool.path)])).splitlines()
    assert "nes × darts × darts × digits, ensemble of 3" in rows[2]
    error = 100 * result_of(trained)["test_error"]
    assert f"{error:.2f} (n = 1)" in rows[2]
    (run / "retrain" / "result.json").unlink()
    (run / "retrain" / "member-2" / "result.json").unlink()
    assert status(read_run(run)).endswith("retraining in progress, 2 of 3 networks.")
    write_report([run / "retrain"], tmp_path / "page.html")
    (run / ensemble.FILE).write_text("{")
    assert any("ensemble.json is damaged" in note for note in read_run(run).search.notes)


def test_the_first_member_trained_alone_is_no_ensemble(searched_pool, trained, tmp_path):
    run = shutil.copytree(searched_pool.path, tmp_path / "run")
    shutil.copytree(trained / "member-0", run / "retrain")
    record = read_run(run)
    found = {tile.name: tile.note for tile in tiles(record)}
    assert found["test error"] == "after 1 epochs of training"
    assert found["valid accuracy"] == f"learner {record.kept}, kept"
    (row,) = comparison([record])
    assert row.cells()["runs"] == "nes × darts × darts × digits"
