"""The recipes of MBConv papers: optimiser, rates, averages, dropout, resumed to the bit."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from retraining import FILE, GENOTYPE, SIZE, SMALL, files, train
from test_retrain_resume import train_until_killed
from tutelage.config import Retrain
from tutelage.records.rows import TRAINING
from tutelage.run.job import checkpoint
from tutelage.run.job.directory import RunDirectory
from tutelage.run.networks.files import build
from tutelage.run.training import training
from tutelage.run.training.optimizer import Average, optimiser, parameter_groups, rate
from tutelage.run.training.rmsprop import RMSProp
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import Genotype

PAPER = Retrain(
    epochs=500,
    optimiser="rmsprop",
    lr=0.064,
    weight_decay=1e-5,
    schedule="step",
    step_factor=0.973,
    step_epochs=2.4,
    warm_up=3,
    warm_up_lr=1e-6,
)
EVERYTHING = replace(
    SMALL,
    epochs=3,
    optimiser="rmsprop",
    lr=0.01,
    norm_decay=False,
    schedule="step",
    anneal="step",
    step_epochs=0.6,
    warm_up=1,
    ema=0.9,
    dropout=0.2,
    label_smoothing=0.1,
    randaugment=2,
    erasing=0.4,
    save_every=0.0,
)


def test_the_rate_of_creams_retraining():
    assert rate(PAPER, 0) == 1e-6
    assert rate(PAPER, 1) == pytest.approx((0.064 + 2e-6) / 3)
    assert rate(PAPER, 2) == pytest.approx((2 * 0.064 + 1e-6) / 3)
    assert rate(PAPER, 3) == 0.064 * 0.973  # the schedule has counted on: 2.4 epochs are over
    steps = [epoch for epoch in range(3, 20) if rate(PAPER, epoch + 1) < rate(PAPER, epoch)]
    assert steps == [4, 7, 9, 11, 14, 16, 19]  # 4.8, 7.2, 9.6, 12, 14.4, 16.8 and 19.2
    assert rate(PAPER, 499) == pytest.approx(0.064 * 0.973**207)


def test_lines_cosines_and_fractions_of_an_epoch():
    linear = Retrain(epochs=240, lr=0.5, schedule="linear")
    assert [rate(linear, epoch) for epoch in (0, 60, 239.5)] == pytest.approx(
        [0.5, 0.375, 0.5 / 480]
    )
    cosine = Retrain(epochs=4, lr=0.1, warm_up=0.5, warm_up_lr=0.02)
    assert [rate(cosine, epoch) for epoch in (0, 0.25, 0.5, 1, 2, 3.5)] == pytest.approx(
        [0.02, 0.06, *(0.05 * (1 + math.cos(math.pi * t / 4)) for t in (0.5, 1, 2, 3.5))]
    )


def test_rows_say_the_rate_that_was_used(tmp_path):
    settings = replace(SMALL, epochs=1, lr=0.1, schedule="linear", anneal="step", log_every=1)
    train(tmp_path / "out", settings)
    rows = list(RunDirectory.open(tmp_path / "out").metrics.read(TRAINING))
    assert [row.lr for row in rows] == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.025])


def test_biases_and_batchnorm_are_left_out_of_the_decay():
    network = build(GENOTYPE, SIZE, auxiliary=True)
    plain = dict(network.named_parameters())
    names = {weight: name for name, weight in plain.items()}
    decayed, kept = parameter_groups(network, norm_decay=False)
    assert kept["weight_decay"] == 0.0
    assert "weight_decay" not in decayed
    ours = {names[weight] for weight in decayed["params"]}
    assert ours == {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    }
    assert {names[weight] for weight in kept["params"]} == plain.keys() - ours
    ((everything),) = parameter_groups(network, norm_decay=True)
    assert [names[weight] for weight in everything["params"]] == list(plain)


def test_the_settings_reach_the_optimiser():
    network = build(GENOTYPE, SIZE)
    made = optimiser(network, replace(PAPER, rmsprop_decay=0.8, rmsprop_epsilon=0.01))
    assert type(made) is RMSProp
    (group,) = made.param_groups
    del group["params"]
    assert group == {
        "lr": 0.064,
        "momentum": 0.9,
        "decay": 0.8,
        "epsilon": 0.01,
        "weight_decay": 1e-5,
    }


def test_an_average_is_the_sum_of_its_weights_and_buffers():
    """Against the definition, in float64; whole numbers are the network's own."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    average = Average(network, 0.5)
    want = {name: value.clone() for name, value in network.state_dict().items()}
    for done in range(12):
        for weight in network.parameters():
            weight.data += torch.randn_like(weight)
        network(torch.randn(5, 3, dtype=torch.float64))  # moves the running statistics
        average.update(network, done)
        decay = min(0.5, (1 + done) / (10 + done))
        for name, value in network.state_dict().items():
            old = decay * want[name] + (1 - decay) * value
            want[name] = old if value.is_floating_point() else value.clone()
    assert want["1.num_batches_tracked"] == 12
    for name, value in average.network.state_dict().items():
        assert value.dtype == want[name].dtype
        torch.testing.assert_close(value, want[name], rtol=1e-12, atol=1e-12)
    assert not average.network.training
    assert not any(weight.requires_grad for weight in average.network.parameters())


def test_the_average_is_what_is_tested_and_saved(tmp_path, monkeypatch):
    """Three steps, the average of four states by hand."""
    states = []
    advance = training.Training.advance

    def record(self):
        if not states:
            states.append(copy.deepcopy(self.network.state_dict()))
        advance(self)
        states.append(copy.deepcopy(self.network.state_dict()))

    monkeypatch.setattr(training.Training, "advance", record)
    settings = replace(SMALL, epochs=1, limit_batches=3, lr=0.3, ema=0.15)
    result = train(tmp_path / "averaged", settings)
    plain = train(tmp_path / "plain", replace(settings, ema=0.0))
    weights = [0.1 * 0.15 * 0.15, 0.9 * 0.15 * 0.15, 0.85 * 0.15, 0.85]  # 1/10, then 2/11 > 0.15
    for name, value in load_file(tmp_path / "averaged" / FILE).items():
        if value.is_floating_point():
            want = sum(w * state[name] for w, state in zip(weights, states, strict=False))
            torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)
    assert result["test_loss"] != plain["test_loss"]
    assert result.keys() == plain.keys()
    first, second = (
        list(RunDirectory.open(tmp_path / name).metrics.read(TRAINING))
        for name in ("averaged", "plain")
    )
    assert first == second  # the average only watches


@pytest.mark.parametrize(
    ("genotype", "size"),
    [
        (GENOTYPE, SIZE),
        (
            Genotype.from_nasbench201(
                "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
            ),
            Size(channels=4, cells=1, image_channels=1),
        ),
    ],
)
def test_dropout_zeroes_features_before_the_classifier(genotype, size):
    network = build(genotype, size)
    x = torch.randn(64, 1, 8, 8)
    seen = []
    classifier = next(m for m in network.modules() if isinstance(m, torch.nn.Linear))
    classifier.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    network.train()
    for dropout in (0.0, 0.25):
        network.dropout = dropout
        torch.manual_seed(3)
        network(x)
    network.eval()
    network(x)
    whole, dropped, tested = seen
    torch.manual_seed(3)
    assert torch.equal(dropped, F.dropout(whole, 0.25))
    assert (tested != 0).any(1).all()
    alive = whole != 0
    share = ((dropped == 0) & alive).sum() / alive.sum()
    assert abs(share - 0.25) < 4 * (0.1875 / alive.sum()) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 6])
def test_killed_and_resumed_with_everything_on(tmp_path, steps):
    train(tmp_path / "whole", EVERYTHING)
    train_until_killed(tmp_path / "out", EVERYTHING, steps)
    stored = checkpoint.load(tmp_path / "out")["work"]
    assert stored["average"].keys() == stored["network"].keys()
    train(tmp_path / "out", EVERYTHING, resume=True)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.slow
def test_the_recipe_learns(tmp_path):
    settings = replace(EVERYTHING, epochs=6, limit_batches=None, channels=8, lr=0.003)
    settings = replace(settings, drop_path=0.0, cutout=0, randaugment=0, erasing=0.1)
    settings = replace(settings, step_epochs=2.4, save_every=5.0)
    assert train(tmp_path / "out", settings)["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimiser": "adam"}, "optimiser = 'adam': must be one of sgd, rmsprop"),
        ({"schedule": "poly"}, "schedule = 'poly': must be one of cosine, linear, step"),
        ({"ema": 1.0}, "ema = 1.0: must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout = -0.1: must be at least 0 and below 1"),
        ({"warm_up": 700.0}, "warm_up = 700.0: must be at most the 600 epochs in all"),
        ({"step_epochs": 0.0}, "step_epochs = 0.0: must be a number above 0"),
        ({"randaugment": -1}, "randaugment = -1: must be a number of at least 0"),
        ({"randaugment_magnitude": 11.0}, "must be between 0 and 10"),
        ({"erasing": 1.5}, "erasing = 1.5: must be between 0 and 1"),
        ({"optimiser": "rmsprop", "nesterov": True}, "only 'sgd' has it"),
    ],
)
def test_bad_values_are_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Retrain(**change)
