"""Deterministic algorithms: when they are required, and that every operation has such a form."""

from __future__ import annotations

import inspect
import json
import os
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from retraining import SMALL, train
from test_contracts import CHAINS, CHANNELS, KINDS, WORKING, phases
from test_contracts import SMALL as PARTS_SMALL
from test_search import TINY, run_toml
from tutelage.config import Run
from tutelage.run.job.settings import changed_settings, plain
from tutelage.run.machine import deterministic
from tutelage.run.search import search_run
from tutelage.searches.evolution import Evolution
from tutelage.spaces.network import quarters

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def flags():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
        os.environ.get(deterministic.WORKSPACE),
    )


# The switch -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "default", "on"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_a_gpu_is_switched_and_the_callers_settings_come_back(asked, default, on, monkeypatch):
    monkeypatch.delenv(deterministic.WORKSPACE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = flags()
    assert deterministic.present() is None
    with deterministic.required(asked, CUDA, default=default):
        assert flags() == ((True, True, False, False, ":4096:8") if on else before)
        assert deterministic.present() is on
    assert flags() == before
    assert deterministic.present() is None


def test_settings_come_back_after_an_error():
    before = flags()
    with pytest.raises(KeyError), deterministic.required(True, CUDA, default=True):
        raise KeyError
    assert flags() == before


def test_a_cpu_is_left_alone():
    before = flags()
    with deterministic.required(True, CPU, default=True):
        assert flags() == before
        assert deterministic.present() is None


def test_another_workspace_is_replaced_and_one_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setenv(deterministic.WORKSPACE, ":0:0")
    with deterministic.required(True, CUDA, default=True):
        assert os.environ[deterministic.WORKSPACE] == ":4096:8"
    assert os.environ[deterministic.WORKSPACE] == ":0:0"
    assert "CUBLAS_WORKSPACE_CONFIG is :0:0" in capsys.readouterr().out
    monkeypatch.setenv(deterministic.WORKSPACE, ":16:8")
    with deterministic.required(True, CUDA, default=True):
        assert os.environ[deterministic.WORKSPACE] == ":16:8"
    assert capsys.readouterr().out == ""


def test_an_operation_without_a_deterministic_form_is_named():
    with (
        pytest.raises(ValueError, match=r"put_ has no deterministic form.*--no-deterministic"),
        deterministic.required(True, CUDA, default=True),
    ):
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
    with (
        pytest.raises(RuntimeError, match="shape"),
        deterministic.required(True, CUDA, default=True),
    ):
        torch.zeros(2).view(3)


def test_the_setting_may_change_when_a_run_resumes():
    old, new = plain(Run()), plain(Run(deterministic=True))
    assert "deterministic" not in old
    assert changed_settings(old, new) == []


def test_a_run_on_a_cpu_records_that_it_needed_none(tmp_path):
    search_run(run_toml(epochs=1, limit_batches=1, deterministic=True), tmp_path / "run")
    sessions = json.loads((tmp_path / "run" / "environment.json").read_text())["sessions"]
    assert sessions[0]["deterministic"] is None


# Operations without a deterministic form --------------------------------------------------------


def always(*args, **kwargs):
    return True


def floating(x, *args, **kwargs):
    return x.is_floating_point()


NO_FORM = {
    "torch.nn.AvgPool3d": {"avg_pool3d_backward": always},
    "torch.nn.AdaptiveAvgPool2d": {"_adaptive_avg_pool2d_backward": always},
    "torch.nn.AdaptiveAvgPool3d": {"_adaptive_avg_pool3d_backward": always},
    "torch.nn.MaxPool3d": {"max_pool3d_with_indices_backward": always},
    "torch.nn.AdaptiveMaxPool2d": {"adaptive_max_pool2d_backward": always},
    "torch.nn.FractionalMaxPool2d": {"fractional_max_pool2d_backward": always},
    "torch.nn.FractionalMaxPool3d": {"fractional_max_pool3d_backward": always},
    "torch.nn.MaxUnpool1d": {"max_unpool2d": always},
    "torch.nn.MaxUnpool2d": {"max_unpool2d": always},
    "torch.nn.MaxUnpool3d": {"max_unpool3d": always},
    "torch.nn.functional.interpolate": {
        f"upsample_{kind}_backward": always
        for kind in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")
    },
    **{f"torch.nn.ReflectionPad{n}d": {f"reflection_pad{n}d_backward": always} for n in (1, 2, 3)},
    **{
        f"torch.nn.ReplicationPad{n}d": {f"replication_pad{n}d_backward": always} for n in (1, 2, 3)
    },
    "torch.nn.NLLLoss": {"nll_loss2d_forward": always},  # of maps; that of logits has no atomics
    "torch.nn.CTCLoss": {"_ctc_loss_backward": always},
    "torch.nn.EmbeddingBag": {"_embedding_bag_dense_backward": always},
    "torch.Tensor.put_": {"put_": always, "put": always},
    "torch.histc": {"histc": always},
    "torch.bincount": {"bincount": lambda x, weights=None, *rest, **kwargs: weights is not None},
    "torch.kthvalue": {"kthvalue": always},
    "torch.median": {"median": lambda x, *dim, **kwargs: bool(dim or kwargs)},
    "torch.nn.functional.grid_sample": {
        "grid_sampler_2d_backward": always,
        "grid_sampler_3d_backward": always,
    },
    "torch.cumsum": {"cumsum": floating},
    "torch.Tensor.scatter_reduce": {"scatter_reduce": always, "scatter_reduce_": always},
    "torch.Tensor.resize_": {},  # of quantised tensors
}
"""What torch documents to raise on CUDA: the operations, and for which arguments."""
SILENT = {"index_reduce": always, "index_reduce_": always, "adaptive_max_pool3d_backward": always}
"""What raises too, as torch's source says and its documentation does not."""
WITHOUT = SILENT | {name: given for entry in NO_FORM.values() for name, given in entry.items()}


class Watch(TorchDispatchMode):
    """Notes the operations that would raise on CUDA."""

    def __init__(self):
        super().__init__()
        self.seen, self.without = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        self.seen.add(name)
        if name in WITHOUT and WITHOUT[name](*args, **kwargs):
            self.without.add(name)
        return func(*args, **kwargs)


def test_every_entry_of_torchs_documentation_is_known():
    text = inspect.getdoc(torch.use_deterministic_algorithms)
    section = text.partition("operations will throw a")[2].partition("In addition")[0]
    entries = set(re.findall(r"\* :(?:class|func):`([\w.]+)`", section))
    assert len(entries) > 10
    assert entries <= NO_FORM.keys()


def test_the_watch_finds_an_operation_without_a_form():
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    with Watch() as watch:
        F.adaptive_avg_pool2d(x, 2).sum().backward()
        torch.ones(3).cumsum(0)
        torch.ones(3, dtype=torch.int64).cumsum(0)
        torch.bincount(torch.ones(3, dtype=torch.int64))
    assert watch.without == {"_adaptive_avg_pool2d_backward", "cumsum"}


def covering():
    """Every method, search and space once, beside the smallest of the others that work."""
    quick = {"nasbench201", "nasbench-macro"}
    found, names = [], set()
    for triple in sorted(WORKING, key=lambda x: (x[2] not in quick, x[0] != "single", x[2])):
        if any(name not in names for name in triple):
            found.append(triple)
            names |= set(triple)
    marks = {x: [] if x[2] in quick and x[0] != "dna" else [pytest.mark.slow] for x in found}
    for triple in found:  # the largest chains have the blocks of the third
        if triple[2] in ("ennas-s1", "ennas-s2"):
            marks[triple].append(pytest.mark.exhaustive)
    return [pytest.param(x, id="-".join(x), marks=marks[x]) for x in found]


@pytest.mark.parametrize("triple", covering())
def test_a_search_has_a_deterministic_form(triple, tmp_path):
    method, search, space = triple
    relaxed = KINDS[search] == "relaxed" and method == "single"
    settings = Run(
        **{
            **TINY,
            "via": "exact",
            "epochs": phases(search, space),
            "limit_batches": 1,
            "channels": CHANNELS.get(search, TINY["channels"]),
            "cells": None if space in CHAINS else TINY["cells"],
        },
        evolution=Evolution(population=2, generations=2, parents=2, images=20, judged=20),
        method={"name": method, **PARTS_SMALL.get(method, {})},
        search={"name": search, **PARTS_SMALL.get(search, {})},
        space={"name": space},
        eigenvalue_every=int(relaxed),
        sharpness_every=int(relaxed),
        gap_every=int(relaxed),
    )
    with Watch() as watch:
        search_run(settings, tmp_path / "run")
    assert len(watch.seen) > 20
    assert watch.without == set()


@pytest.mark.parametrize("cells", [3, 6])
def test_a_retraining_has_a_deterministic_form(tmp_path, cells):
    settings = replace(
        SMALL, epochs=1, limit_batches=1, cells=cells, auxiliary=0.4, randaugment=2, erasing=0.3,
        ema=0.9, dropout=0.1, label_smoothing=0.1, optimiser="sgd" if cells == 3 else "rmsprop",
    )  # fmt: skip
    with Watch() as watch:
        train(tmp_path / "run", settings)
    assert "avg_pool2d_backward" in watch.seen
    assert watch.without == set()


# What has another form here ---------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, (4, 7), (1, 6)])
def test_quarters_are_torchs_adaptive_averages(side):
    height, width = (side, side) if isinstance(side, int) else side
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    for got, want in zip(
        values(quarters, x), values(lambda x: F.adaptive_avg_pool2d(x, 2), x), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-15)


def values(pool, x):
    """A pool, and the gradient of a function of it."""
    y = pool(x)
    return y, *torch.autograd.grad((y**3).sum(), x)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("method", ["single", "sgl", "pamkd", "sd-darts"])
def test_equal_searches_on_a_gpu_have_equal_files(method, tmp_path):
    settings = run_toml(
        method, epochs=2, limit_batches=4, via="exact", device="cuda", batch_size=16, channels=8
    )
    for name in ("one", "other"):
        search_run(settings, tmp_path / name)
    one, other = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "other"))
    assert one == other
    sessions = json.loads((tmp_path / "one" / "environment.json").read_text())["sessions"]
    assert sessions[0]["deterministic"] is True


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_torchs_max_pool_repeats_on_a_gpu_to_the_second_derivative(stride, layout):
    """Its kernels gather, so that it needs no form of its own."""
    with deterministic.required(True, CUDA, default=True):
        draws = torch.Generator().manual_seed(0)
        x = torch.randn(64, 48, 33, 33, generator=draws).round(decimals=1)  # with ties
        x = x.cuda().contiguous(memory_format=layout).requires_grad_()

        def found():
            y = F.max_pool2d(x, 3, stride, 1)
            (g,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
            return y, g, *torch.autograd.grad((g**2).sum(), x)

        first = found()
        for _ in range(5):
            assert all(torch.equal(a, b) for a, b in zip(first, found(), strict=True))
