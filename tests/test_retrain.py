import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load as from_bytes
from safetensors.torch import load_file, save_file

from tutelage.config import Data, Retrain
from tutelage.data.read import read
from tutelage.run import checkpoint, network, retrain, training
from tutelage.run.directory import RunDirectory
from tutelage.run.network import About, about, build, export_onnx, load, save_network
from tutelage.spaces.base import Size
from tutelage.spaces.published import PUBLISHED

GENOTYPE = PUBLISHED["DARTS_V2"]
DIGITS = Data(name="digits")
TEST_IMAGES = len(read(DIGITS, "test").images)
SMALL = Retrain(
    epochs=2,
    batch_size=32,
    limit_batches=4,
    channels=4,
    cells=3,
    cutout=2,
    drop_path=0.3,
    log_every=2,
    device="cpu",
)


def train(out, settings=SMALL, resume=False, data=DIGITS):
    return retrain.retrain(GENOTYPE, data, settings, out, resume)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A training that nothing interrupted."""
    out = tmp_path_factory.mktemp("retrain") / "whole"
    train(out)
    return out


def files(out):
    return {name: (out / name).read_bytes() for name in ("metrics.jsonl", "result.json", FILE)}


FILE = "network.safetensors"


def test_rows_follow_the_recipe(finished):
    rows = list(RunDirectory.open(finished).rows())
    shape = [(row["event"], row["epoch"], row["step"]) for row in rows]
    assert shape == [
        (event, epoch, step)
        for epoch in (0, 1)
        for event, step in (("step", 2), ("step", 4), ("epoch", 4))
    ]
    assert [row["lr"] for row in rows] == [0.025] * 3 + [0.0125] * 3
    assert [row["drop_path"] for row in rows] == [0.0] * 3 + [0.15] * 3
    assert all(set(row) >= {"train_loss", "train_accuracy"} for row in rows)
    assert 1.5 < rows[0]["train_loss"] < 4


def test_the_result_says_what_was_trained_and_tested(finished):
    result = RunDirectory.open(finished).read_json("result.json")
    size = Size(4, 3, 10, 1)
    assert result["parameters"] == sum(p.numel() for p in build(GENOTYPE, size).parameters())
    assert result["test_error"] == 1 - result["test_accuracy"]
    assert result["test_images"] == TEST_IMAGES
    assert result["genotype"] == GENOTYPE.to_dict()
    assert (result["data"], result["epochs"], result["seed"]) == ("digits", 2, 0)


def test_the_loaded_network_has_the_test_error_of_the_result(finished):
    result = RunDirectory.open(finished).read_json("result.json")
    trained, details = load(finished), about(finished)
    assert not trained.training
    images = read(DIGITS, "test").images
    pixels = images.take(torch.arange(len(images))) / 255
    x = (pixels - torch.tensor(details.mean)) / torch.tensor(details.std)
    with torch.no_grad():
        logits = trained(x.float())
    accuracy = (logits.argmax(1) == images.labels).float().mean().item()
    assert accuracy == pytest.approx(result["test_accuracy"], abs=1e-6)
    loss = F.cross_entropy(logits, images.labels).item()
    assert loss == pytest.approx(result["test_loss"], rel=1e-4)
    assert details.classes == tuple("0123456789")
    assert details.shape == (1, 8, 8)


def test_the_weights_are_stored_without_the_auxiliary_head(finished):
    stored = load_file(finished / FILE)
    names = set(build(GENOTYPE, Size(4, 3, 10, 1)).state_dict())
    assert set(stored) == names
    assert set(build(GENOTYPE, Size(4, 3, 10, 1), auxiliary=True).state_dict()) > names


def test_a_finished_training_is_not_done_again(finished, capsys, monkeypatch):
    before = files(finished)
    monkeypatch.setattr(retrain, "read", None)
    for resume in (False, True):
        assert train(finished, resume=resume)["test_images"] == TEST_IMAGES
        assert f"{finished} is finished: test error" in capsys.readouterr().out
    assert files(finished) == before
    with pytest.raises(ValueError, match=r"other settings: retrain.lr = 0.1 \(was 0.025\)"):
        train(finished, replace(SMALL, lr=0.1))


def test_one_step_is_the_recipe_written_out(tmp_path, monkeypatch):
    """Two steps of one epoch against clipping, momentum, decay and both losses by hand."""
    settings = replace(
        SMALL,
        epochs=1,
        limit_batches=2,
        drop_path=0.0,
        clip=0.5,
        label_smoothing=0.1,
        auxiliary=0.4,
        lr=0.3,
    )
    seen = []
    batch = training.Stream.batch

    def record(self, epoch, step):
        part = batch(self, epoch, step)
        seen.append((part.x.clone(), part.y.clone()))
        return part

    monkeypatch.setattr(training.Stream, "batch", record)
    train(tmp_path / "out", settings)

    torch.manual_seed(settings.seed)
    expected = build(GENOTYPE, Size(4, 3, 10, 1), auxiliary=True)
    expected.train()
    velocity = [torch.zeros_like(weight) for weight in expected.parameters()]

    def smoothed(logits, y):
        target = 0.9 * F.one_hot(y, 10) + 0.1 / 10
        return -(target * logits.log_softmax(1)).sum(1).mean()

    assert len(seen) == 2
    for x, y in seen:
        logits, auxiliary = expected(x)
        loss = smoothed(logits, y) + 0.4 * smoothed(auxiliary, y)
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        assert norm > 0.5  # the clipping acts
        for weight, gradient, v in zip(expected.parameters(), gradients, velocity, strict=True):
            v.mul_(0.9).add_(gradient * 0.5 / norm + 3e-4 * weight.detach())
            weight.data.sub_(0.3 * v)
    stored = load_file(tmp_path / "out" / FILE)
    for name, value in build_state(expected).items():
        if name in stored:
            assert torch.allclose(stored[name], value, rtol=1e-3, atol=1e-4), name


def build_state(module):
    return {name: value.detach() for name, value in module.state_dict().items()}


def test_dropped_paths_are_drawn_anew_every_step(tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    train(tmp_path / "out")
    assert len(set(seeds)) == 1 + 8  # the initial weights, and every step
    assert seeds[0] == SMALL.seed


class StopError(Exception):
    pass


def stop_after(monkeypatch, steps):
    """Break off before the step after so many, as a kill would."""
    advance = training.Training.advance
    done = 0

    def count(self):
        nonlocal done
        if done == steps:
            raise StopError
        done += 1
        advance(self)

    monkeypatch.setattr(training.Training, "advance", count)


@pytest.mark.parametrize(
    ("steps", "save_every"),  # a checkpoint every step, or every epoch alone
    [(1, 0.0), (3, 0.0), (0, 1000.0), (3, 1000.0), (7, 1000.0)],
)
def test_killed_and_resumed_equals_uninterrupted(
    finished, tmp_path, monkeypatch, steps, save_every
):
    settings = replace(SMALL, save_every=save_every)
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(StopError):
            train(tmp_path / "out", settings)
    train(tmp_path / "out", settings, resume=True)
    assert files(tmp_path / "out") == files(finished)


def sessions(out):
    if not (out / "environment.json").exists():
        return 0
    return len(RunDirectory(out).read_json("environment.json")["sessions"])


@pytest.mark.slow
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
            while sessions(killed) < session or len(list(RunDirectory(killed).rows())) < rows:
                assert process.poll() is None
                time.sleep(0.002)
            time.sleep(choose.uniform(0, 0.02))
            process.kill()
    subprocess.run([*command, str(killed)], check=True, stdout=subprocess.DEVNULL)
    assert sessions(killed) == 4
    assert files(killed) == files(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_first_and_says_how_to_go_on(finished, tmp_path, monkeypatch, number):
    advance = training.Training.advance

    def interrupted(self):
        advance(self)
        if self.epoch == 1 and self.step == 1:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "advance", interrupted)
        with pytest.raises(checkpoint.StoppedError) as caught:
            train(tmp_path / "out")
    assert str(caught.value) == (
        f"{number.name} came: saved at epoch 1, step 1; go on with the same command"
    )
    stored = checkpoint.load(tmp_path / "out")["work"]
    assert (stored["epoch"], stored["step"]) == (1, 1)
    train(tmp_path / "out", resume=True)
    assert files(tmp_path / "out") == files(finished)
    sessions = RunDirectory.open(tmp_path / "out").read_json("environment.json")["sessions"]
    assert [(each["from_epoch"], each["from_step"]) for each in sessions] == [(0, 0), (1, 1)]


def test_a_truncated_checkpoint_goes_on_from_the_one_before(
    finished, tmp_path, monkeypatch, capsys
):
    settings = replace(SMALL, save_every=0.0)
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(StopError):
            train(tmp_path / "out", settings)
    newest = tmp_path / "out" / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    train(tmp_path / "out", settings, resume=True)
    assert "going on from checkpoint.previous.pt" in capsys.readouterr().out
    assert files(tmp_path / "out") == files(finished)


def test_the_test_set_is_read_once_and_last(tmp_path, monkeypatch):
    parts = []

    def record(settings, part):
        rows = RunDirectory(tmp_path / "out").rows()
        parts.append((part, sum(row["event"] == "epoch" for row in rows)))
        return read(settings, part)

    monkeypatch.setattr(retrain, "read", record)
    train(tmp_path / "out")
    assert parts == [("train", 0), ("test", 2)]


def test_other_classes_in_the_test_set_are_one_sentence(tmp_path, monkeypatch):
    def renamed(settings, part):
        data = read(settings, part)
        return data if part == "train" else replace(data, classes=tuple("abcdefghij"))

    monkeypatch.setattr(retrain, "read", renamed)
    with pytest.raises(ValueError, match=r"the test images have classes .*, the training images"):
        train(tmp_path / "out")
    monkeypatch.setattr(retrain, "read", read)
    assert train(tmp_path / "out", resume=True)["test_images"] == TEST_IMAGES


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
    with pytest.raises(ValueError, match=r"the loss is nan and .* at epoch 1, step 3: the last"):
        train(tmp_path / "out", replace(SMALL, save_every=save_every))
    stored = checkpoint.load(tmp_path / "out")["work"]
    assert (stored["epoch"], stored["step"]) == ((1, 2) if save_every == 0 else (1, 0))
    assert all(value.isfinite().all() for value in stored["network"].values())
    assert not (tmp_path / "out" / "result.json").exists()


def test_changed_settings_are_refused_by_name(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(StopError):
            train(tmp_path / "out")
    with pytest.raises(ValueError, match=r"retrain\.epochs = 3 \(was 2\), retrain\.seed = 1"):
        train(tmp_path / "out", replace(SMALL, epochs=3, seed=1), resume=True)
    with pytest.raises(ValueError, match="holds a run: go on with --resume"):
        train(tmp_path / "out")
    train(tmp_path / "out", replace(SMALL, save_every=1.0), resume=True)  # where, not what


def test_bad_data_leaves_no_directory(tmp_path):
    with pytest.raises(ValueError, match=r"unknown data set 'digit', .*: did you mean digits"):
        train(tmp_path / "out", data=Data(name="digit"))
    with pytest.raises(ValueError, match="cutout = 16: would hide whole images"):
        train(tmp_path / "out", replace(SMALL, cutout=16))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="device = 'cuda': there is no CUDA device"):
        train(tmp_path / "out", replace(SMALL, device="cuda"))


def test_bf16_trains_the_same_recipe(tmp_path, finished):
    result = train(tmp_path / "out", replace(SMALL, precision="bf16"))
    rows = list(RunDirectory.open(tmp_path / "out").rows())
    (expected, *_) = RunDirectory.open(finished).rows()
    assert rows[0]["train_loss"] == pytest.approx(expected["train_loss"], rel=0.02)
    assert rows[0]["train_loss"] != expected["train_loss"]
    assert result["test_images"] == TEST_IMAGES
    assert load(tmp_path / "out").state_dict()["classifier.weight"].dtype == torch.float32


def test_training_learns(tmp_path):
    settings = replace(SMALL, epochs=3, limit_batches=None, channels=8, drop_path=0.0, cutout=0)
    assert train(tmp_path / "out", settings)["test_accuracy"] > 0.9


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(tmp_path / "out", replace(SMALL, epochs=1, limit_batches=1))
    assert torch.equal(torch.rand(3), expected)


def small_network(path):
    details = About(GENOTYPE, Size(4, 3, 5, 3), tuple("abcde"), (0.5,) * 3, (0.2,) * 3, (3, 16, 16))
    torch.manual_seed(0)
    built = build(details.genotype, details.size, auxiliary=True)
    for statistic in built.buffers():
        if statistic.is_floating_point():
            statistic += torch.rand_like(statistic)
    save_network(path, built, details)
    return built, details


def test_a_saved_network_comes_back(tmp_path):
    built, details = small_network(tmp_path / FILE)
    x = torch.randn(4, 3, 16, 16)
    for where in (tmp_path, tmp_path / FILE, str(tmp_path)):
        assert torch.equal(load(where)(x), built.eval()(x))
    assert about(tmp_path) == details
    (tmp_path / "retrain").mkdir()
    (tmp_path / FILE).rename(tmp_path / "retrain" / FILE)
    assert about(tmp_path) == details


def test_files_that_are_no_network_are_one_sentence(tmp_path):
    file = tmp_path / FILE
    with pytest.raises(ValueError, match=f"has no {FILE}: make it with `tutelage retrain`"):
        load(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path / "nothing")
    small_network(file)
    with safe_open(file, "pt") as stored:
        values = json.loads(stored.metadata()["tutelage"])
    content = file.read_bytes()
    tensors = from_bytes(content)  # load_file's would die with the file that they map
    for cut in (0, 3, 100, len(content) // 2):
        file.write_bytes(content[:cut])
        with pytest.raises(ValueError, match="is truncated or no safetensors file"):
            load(file)
    for change, message in (
        ({"version": 9}, "version 9 is newer than this release's 1"),
        ({"size": {}, "shape": [1, 2]}, "has unusable metadata"),
        ({"genotype": {}}, "has unusable metadata: not a genotype"),
        ({"size": {"cells": 3, "colour": 1}}, "has unusable metadata"),
        ({"size": {"channels": 8, "cells": 3}}, "weights do not fit its own genotype"),
    ):
        save_file(tensors, file, {"tutelage": json.dumps(values | change)})
        with pytest.raises(ValueError, match=message) as caught:
            load(file)
        assert "\n" not in str(caught.value)
    save_file(tensors, file, {"tutelage": "{"})
    with pytest.raises(ValueError, match="has unusable metadata"):
        load(file)
    save_file(tensors, file)
    with pytest.raises(ValueError, match="holds no network of this package"):
        load(file)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnx_gives_the_module_s_logits_for_any_batch(tmp_path, capsys):
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    small_network(tmp_path / FILE)
    difference = export_onnx(tmp_path, tmp_path / "network.onnx")
    assert difference < 1e-5
    assert "largest difference of a logit from the module" in capsys.readouterr().out
    session = runtime.InferenceSession(tmp_path / "network.onnx")
    x = torch.randn(7, 3, 16, 16)
    (logits,) = session.run(None, {"images": x.numpy()})
    assert torch.allclose(torch.from_numpy(logits), load(tmp_path)(x), atol=1e-5)
    details = json.loads(session.get_modelmeta().custom_metadata_map["tutelage"])
    assert details["classes"] == list("abcde")


def test_onnx_without_its_extra_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"ONNX needs an extra: pip install 'tutelage\[onnx\]'"):
        export_onnx(tmp_path, tmp_path / "network.onnx")


@pytest.mark.slow
@pytest.mark.skipif("TUTELAGE_TEST_DATA" not in os.environ, reason="TUTELAGE_TEST_DATA is not set")
@pytest.mark.parametrize("name", ["cifar10"])
def test_real_images(tmp_path, name):
    data = Data(name=name, root=Path(os.environ["TUTELAGE_TEST_DATA"]))
    settings = replace(SMALL, cutout=16, limit_batches=3, channels=8)
    result = train(tmp_path / "out", settings, data=data)
    assert result["test_images"] == 10_000
    assert about(tmp_path / "out").shape == (3, 32, 32)
    assert network.load(tmp_path / "out")(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_weight_that_is_no_number_is_never_saved(tmp_path, monkeypatch):
    advance = training.Training.advance

    def overflow(self):
        advance(self)
        if (self.epoch, self.step) == (1, 4):  # after the last loss of the epoch
            next(self.network.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(training.Training, "advance", overflow)
    with pytest.raises(ValueError, match="a weight is no number at epoch 2, step 0: the last"):
        train(tmp_path / "out")
    stored = checkpoint.load(tmp_path / "out")["work"]
    assert (stored["epoch"], stored["step"]) == (1, 0)
