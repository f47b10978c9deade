"""Retraining broken off: killed, told to stop or no number, and resumed to the bit."""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from retraining import SMALL, TEST_IMAGES, files, train
from tutelage.records.rows import TRAINING
from tutelage.run import retrain
from tutelage.run.job import checkpoint
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.signals import ENDING, StoppedError
from tutelage.run.training import training


class KilledError(Exception):
    """Stands in for SIGKILL: nothing of the package catches it."""


def train_until_killed(out, settings, steps):
    """Die before the step after so many, without a checkpoint being written."""
    advance, done = training.Training.advance, itertools.count()

    def dying(self):
        if next(done) == steps:
            raise KilledError
        advance(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(training.Training, "advance", dying)
        train(out, settings)


def logged(path):
    """How many rows a retraining has logged."""
    return len(RunDirectory(path).metrics.read(TRAINING))


def sessions(out):
    """What environment.json says of every process that continued with a training."""
    if not (out / "environment.json").exists():
        return []
    return RunDirectory(out).read_json("environment.json")["sessions"]


def test_a_finished_training_is_not_done_again(retrained, capsys, monkeypatch):
    before = files(retrained)
    monkeypatch.setattr(retrain, "read", None)
    for resume in (False, True):
        assert train(retrained, resume=resume)["test_images"] == TEST_IMAGES
        assert f"{retrained} is finished: test error" in capsys.readouterr().out
    assert files(retrained) == before
    with pytest.raises(ValueError, match=r"other settings: retrain.lr = 0.1 \(was 0.025\)"):
        train(retrained, replace(SMALL, lr=0.1))


@pytest.mark.parametrize(
    ("steps", "save_every"),  # a checkpoint every step, or every epoch alone
    [(1, 0.0), (3, 0.0), (0, 1000.0), (3, 1000.0), (7, 1000.0)],
)
def test_killed_and_resumed_equals_uninterrupted(retrained, tmp_path, steps, save_every):
    settings = replace(SMALL, save_every=save_every)
    train_until_killed(tmp_path / "out", settings, steps)
    train(tmp_path / "out", settings, resume=True)
    assert files(tmp_path / "out") == files(retrained)


@pytest.mark.slow
@pytest.mark.exhaustive  # faults/test_kills.py has random moments too
def test_sigkill_at_three_random_moments(tmp_path):
    settings = replace(SMALL, epochs=3, limit_batches=15, log_every=1, save_every=1e-3)
    code = f"""
import sys
from pathlib import Path
from tutelage.config import Data, Retrain
from tutelage.run.retrain import retrain
from tutelage.spaces.published import PUBLISHED
out = Path(sys.argv[1])
retrain(PUBLISHED["DARTS_V2"], Data(), {settings}, out, resume=(out / "run.toml").exists())
"""
    command, killed = [sys.executable, "-c", code], tmp_path / "killed"
    subprocess.run([*command, str(tmp_path / "whole")], check=True, stdout=subprocess.DEVNULL)
    choose = random.Random(0)
    for session, rows in enumerate(sorted(choose.sample(range(1, 40), 3)), start=1):
        with subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL) as process:
            while len(sessions(killed)) < session or logged(killed) < rows:
                assert process.poll() is None
                time.sleep(0.002)
            time.sleep(choose.uniform(0, 0.02))
            process.kill()
    subprocess.run([*command, str(killed)], check=True, stdout=subprocess.DEVNULL)
    assert len(sessions(killed)) == 4
    assert files(killed) == files(tmp_path / "whole")


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_saves_first_and_says_how_to_go_on(retrained, tmp_path, monkeypatch, number):
    advance = training.Training.advance

    def interrupted(self):
        advance(self)
        if self.epoch == 1 and self.step == 1:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "advance", interrupted)
        with pytest.raises(StoppedError) as caught:
            train(tmp_path / "out")
    assert str(caught.value) == (
        f"{number.name} came: saved at epoch 1, step 1; resume with the same command"
    )
    assert caught.value.status == 128 + number
    stored = checkpoint.load(tmp_path / "out")["work"]
    assert (stored["epoch"], stored["step"]) == (1, 1)
    train(tmp_path / "out", resume=True)
    assert files(tmp_path / "out") == files(retrained)
    begun = [(each["from_epoch"], each["from_step"]) for each in sessions(tmp_path / "out")]
    assert begun == [(0, 0), (1, 1)]


def test_a_truncated_checkpoint_goes_on_from_the_one_before(retrained, tmp_path, capsys):
    settings = replace(SMALL, save_every=0.0)
    train_until_killed(tmp_path / "out", settings, 6)
    newest = tmp_path / "out" / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    train(tmp_path / "out", settings, resume=True)
    assert "resuming from checkpoint.previous.pt" in capsys.readouterr().out
    assert files(tmp_path / "out") == files(retrained)


def test_a_result_that_lacks_an_entry_is_named_and_may_be_measured_again(retrained, tmp_path):
    out = Path(shutil.copytree(retrained, tmp_path / "out"))
    whole = json.loads((out / "result.json").read_bytes())
    for name in retrain.MEASURED:
        (out / "result.json").write_text(json.dumps({k: x for k, x in whole.items() if k != name}))
        with pytest.raises(ValueError, match=f"result.json cannot be read: it lacks {name}"):
            train(out, resume=True)
    (out / "result.json").unlink()
    train(out, resume=True)
    assert json.loads((out / "result.json").read_bytes()) == whole


@pytest.mark.parametrize("save_every", [0.0, 1000.0])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch, save_every
):
    batch = training.Stream.batch

    def poisoned(self, epoch, step):
        part = batch(self, epoch, step)
        if (epoch, step) == (1, 2):
            part.x.mul_(float("nan"))
        return part

    monkeypatch.setattr(training.Stream, "batch", poisoned)
    with pytest.raises(ValueError, match=r"the loss is nan and .* at epoch 1, step 3"):
        train(tmp_path / "out", replace(SMALL, save_every=save_every))
    stored = checkpoint.load(tmp_path / "out")["work"]
    assert (stored["epoch"], stored["step"]) == ((1, 2) if save_every == 0 else (1, 0))
    assert all(value.isfinite().all() for value in stored["network"].values())
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_weight_that_is_no_number_is_never_saved(tmp_path, monkeypatch):
    advance = training.Training.advance

    def overflow(self):
        advance(self)
        if (self.epoch, self.step) == (1, 4):  # after the last loss of the epoch
            next(self.network.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(training.Training, "advance", overflow)
    with pytest.raises(ValueError, match="a weight is no number at epoch 2, step 0"):
        train(tmp_path / "out")
    stored = checkpoint.load(tmp_path / "out")["work"]
    assert (stored["epoch"], stored["step"]) == (1, 0)


def test_changed_settings_are_refused_by_name(tmp_path):
    train_until_killed(tmp_path / "out", SMALL, 5)
    with pytest.raises(ValueError, match=r"retrain\.epochs = 3 \(was 2\), retrain\.seed = 1"):
        train(tmp_path / "out", replace(SMALL, epochs=3, seed=1), resume=True)
    with pytest.raises(ValueError, match="holds a run: resume with --resume"):
        train(tmp_path / "out")
    train(tmp_path / "out", replace(SMALL, save_every=1.0), resume=True)  # where, not what
