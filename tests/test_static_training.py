"""The step of a retraining: always the same operations, and nothing of it is read back."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retraining import DIGITS, SMALL, train
from test_search import run_toml
from tutelage.batch import Batch
from tutelage.config import Data
from tutelage.data.augment import Augmentation
from tutelage.data.batches import Stream
from tutelage.data.read import read
from tutelage.run.retrain import retrain
from tutelage.run.search import search_run
from tutelage.run.step.recorders import Again
from tutelage.run.supernet.state import Searching
from tutelage.run.training.rmsprop import RMSProp
from tutelage.run.training.sgd import SGD
from tutelage.run.training.training import Training
from tutelage.spaces.network import drop
from tutelage.spaces.published import resolve


class Listed(TorchDispatchMode):
    """Lists operations with the numbers among their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        values = tree_leaves((args, kwargs))
        numbers = [x for x in values if isinstance(x, (int, float, bool))]
        if function.namespace != "prim":
            self.operations.append((function, *numbers))
        return function(*args, **kwargs)


NB201 = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|"
CASES = {
    "darts": (resolve("DARTS_V2"), {}),
    "nasbench201": (resolve(NB201), {"cells": 1, "auxiliary": 0.0}),
    "resnet18": (resolve("resnet18"), {"channels": 8, "cells": 8, "auxiliary": 0.0}),
    "bf16": (resolve("DARTS_V2"), {"precision": "bf16"}),
    "rmsprop": (resolve("DARTS_V2"), {"optimiser": "rmsprop", "label_smoothing": 0.1}),
    "regularised": (resolve("DARTS_V2"), {"nesterov": True, "dropout": 0.2, "norm_decay": False}),
}


def training(name, **changed):
    genotype, own = CASES[name]
    settings = replace(SMALL, **({"epochs": 6, "auxiliary": 0.4} | own | changed))
    images = SimpleNamespace(shape=(3, 32, 32))
    data = SimpleNamespace(classes=range(10), images=images)
    stream = SimpleNamespace(data=data, device=torch.device("cpu"), steps=5)
    work = Training(genotype, stream, settings)
    work.network.train()
    return work


def batch():
    x = torch.randn(8, 3, 32, 32)
    return Batch(
        x.contiguous(memory_format=torch.channels_last),
        torch.zeros(8, dtype=torch.long),
        None,
    )


def lists(work, change):
    """The operations of three steps, before each of which something changes."""
    images, found = batch(), []
    for index in range(3):
        change(index)
        with Listed() as seen:
            work.take(images)
        found.append(seen.operations)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_the_same_list_of_operations_without_a_read(name):
    """In other epochs, with other rates."""
    work = training(name)

    def later(index):
        work.epoch = 2 * index
        work._lr.fill_(work.rate())
        work._drop_path.fill_(work.drop_path())

    first, second, third = lists(work, later)
    assert second == third
    assert len(first) >= len(second) > 100  # the first step makes the optimiser's buffers
    read = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2"}
    assert not read & {function.overloadpacket.__name__ for function, *_ in second}


def test_the_list_would_show_a_number_that_changes():
    work = training("darts")
    numbers = (0.1, 0.1, 0.2)
    _, second, third = lists(work, lambda k: setattr(work.network, "drop_path", numbers[k]))
    assert second != third
    assert [function for function, *_ in second] == [function for function, *_ in third]


def test_the_list_would_show_a_read():
    with Listed() as seen:
        float(torch.ones(()))
    assert any("_local_scalar_dense" in str(function) for function, *_ in seen.operations)


# As a program -----------------------------------------------------------------------------------


def trained(recorder, **changed):
    """A training of the digits, over epochs whose last batch is smaller."""
    settings = replace(SMALL, **{"epochs": 2, "limit_batches": None, "batch_size": 250} | changed)
    settings = replace(settings, auxiliary=0.4, cutout=2, dropout=0.1)
    data = read(Data("digits"), "train")
    subset = torch.arange(len(data.images))
    stream = Stream(data, subset, 250, 0, "retrain", Augmentation(crop=1), torch.device("cpu"))
    work = Training(resolve("DARTS_V2"), stream, settings, recorder)
    while work.epoch < work.epochs:
        work.advance()
        if work.step == work.steps:
            work.check()
            work.end_epoch()
    return work


@pytest.mark.parametrize(
    "changed",
    [{}, {"optimiser": "rmsprop", "anneal": "step", "ema": 0.9}, {"precision": "bf16"}],
    ids=["sgd", "rmsprop", "bf16"],
)
def test_a_training_as_a_program_has_the_bits_of_one_without(changed):
    eager, static = trained(None, **changed), trained(Again(), **changed)
    assert static.programs.notices() == ["steps of the network run as one program"]
    for mine, theirs in zip(static.held(), eager.held(), strict=True):
        assert torch.equal(mine, theirs)
    if static.average:
        averages = (each.average.network.state_dict().values() for each in (static, eager))
        assert all(map(torch.equal, *averages))


def test_a_processor_has_no_graphs(tmp_path):
    with pytest.raises(ValueError, match="graph = 'on' with device = 'cpu'"):
        train(tmp_path / "run", replace(SMALL, graph="on"))
    with pytest.raises(ValueError, match="graph = 'always'"):
        replace(SMALL, graph="always")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replayed_training_has_the_bits_of_an_eager_one(precision, tmp_path, monkeypatch):
    found = {}
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    for graph in ("off", "on"):
        settings = replace(SMALL, device="cuda", graph=graph, precision=precision, epochs=3)
        settings = replace(settings, cells=1, auxiliary=0.0)
        retrain(resolve(NB201), DIGITS, settings, tmp_path / graph)  # no pool that adds by atomics
        found[graph] = (tmp_path / graph / "network.safetensors").read_bytes()
    assert found["on"] == found["off"]


# The optimisers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_is_torchs(nesterov, momentum):
    if nesterov and not momentum:
        pytest.skip("torch refuses it")
    shapes, made = [(3, 4), (5,), ()], []
    settings = {"momentum": momentum, "weight_decay": 0.1, "nesterov": nesterov}
    for kind in (SGD, torch.optim.SGD):
        torch.manual_seed(1)
        weights = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
        groups = [{"params": weights[:1]}, {"params": weights[1:], "weight_decay": 0.0}]
        optimiser = kind(groups, lr=0.1, **settings)
        for step in range(4):
            for group in optimiser.param_groups:
                group["lr"] = 0.1 / (1 + step)
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            optimiser.step()
        made.append(weights)
    for mine, theirs in zip(*made, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-14, atol=1e-15)


def test_a_checkpoint_of_torchs_sgd_continues():
    torch.manual_seed(0)
    gradients = torch.randn(4, 3)
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    theirs = torch.optim.SGD([weights[0]], lr=0.1, momentum=0.9)
    mine = SGD([weights[1]], lr=0.1, momentum=0.9)
    for index, g in enumerate(gradients):
        if index == 2:
            weights[1].data.copy_(weights[0].detach())
            mine.load_state_dict(deepcopy(theirs.state_dict()))
        for weight in weights:
            weight.grad = g.clone()
        theirs.step()
        if index >= 2:
            mine.step()
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("kind", [SGD, RMSProp])
def test_a_rate_that_is_a_tensor_gives_the_same_bits(kind):
    made = []
    for tensor in (False, True):
        torch.manual_seed(2)
        weight, lr = nn.Parameter(torch.randn(50)), torch.zeros(())
        optimiser = kind([weight], lr=0.1, momentum=0.9, weight_decay=1e-3)
        if tensor:
            optimiser.rates(lr)
        for number in (0.1, 0.07, 0.013):
            lr.fill_(number)
            if not tensor:
                optimiser.param_groups[0]["lr"] = number
            weight.grad = torch.randn(50)
            optimiser.step()
        made.append(weight)
    assert torch.equal(*made)


def test_paths_are_dropped_with_a_probability_that_is_a_tensor():
    """Of 20,000 images 30 % are zero, and the others are scaled so that the mean stays."""
    x = torch.ones(20_000, 1, 1, 2)
    found = drop(x, torch.tensor(0.3))
    kept = found[found > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.7))
    assert torch.equal(found[..., 0], found[..., 1])
    assert float((found[..., 0] == 0).double().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(drop(x, torch.tensor(0.0)), x)
    assert drop(x.bfloat16(), torch.tensor(0.3)).dtype == torch.bfloat16


# Precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "ieee", "bf16"])
def test_tf32_is_allowed_except_in_ieee(tmp_path, monkeypatch, precision):
    seen, take = [], Training.take

    def watched(self, images):
        seen.append(torch.backends.cudnn.allow_tf32)
        return take(self, images)

    monkeypatch.setattr(Training, "take", watched)
    train(tmp_path / "run", replace(SMALL, precision=precision, epochs=1, limit_batches=1))
    assert seen == [precision != "ieee"]
    assert torch.backends.cudnn.allow_tf32  # torch's own default again


def test_a_search_in_ieee_allows_no_tf32(tmp_path, monkeypatch):
    seen, advance = [], Searching.advance

    def watched(self):
        seen.append(torch.backends.cudnn.allow_tf32)
        advance(self)

    monkeypatch.setattr(Searching, "advance", watched)
    settings = run_toml(precision="ieee", epochs=1, limit_batches=1)
    search_run(settings, tmp_path / "run")
    assert seen == [False] and torch.backends.cudnn.allow_tf32
