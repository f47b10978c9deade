"""Steps on CUDA: what is recorded there and why not, graphs against eager steps, side streams."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from itertools import product
from types import SimpleNamespace

import pytest
import torch

import fake_cuda
from test_static_step import (
    CPU,
    REPEATED,
    RULES,
    SEVERAL,
    advance,
    assert_same,
    searching,
    settings_of,
)
from tutelage.config import Alphas
from tutelage.run.step.recorders import Graphs
from tutelage.run.supernet.optimizers import adams
from tutelage.spaces.parallel import concurrently

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LEVEL = SimpleNamespace(variable="alphas", optimiser="alphas")
HOST = {
    "gdas": "it reads a value back: _local_scalar_dense",
    "prdarts": "it reads a value back: _local_scalar_dense",
    "kdcl": "it reads a value back: _local_scalar_dense",
    "cream": "it reads a value back: _local_scalar_dense",
}
"""What stays eager on CUDA, and one of the reasons."""


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The variables with which a process computes shapes on a CUDA device."""
    variables = fake_cuda.preloaded(tmp_path_factory.mktemp("fake"))
    if variables is None:
        pytest.skip("torch has no CUDA, and there is nothing to build a stand-in for its streams")
    return variables


def claimed(found, search="", via=""):
    """A step that is recorded: nothing hinders it once caches are full, and its list repeats."""
    assert len(found["obstacles"]) == fake_cuda.STEPS
    assert found["obstacles"][-2:] == [[], []] and not found["difference"]
    assert found["operations"] > 500 and "progress" not in found["clock"]


def test_on_cuda_a_step_reads_nothing_back_and_repeats_its_operations(library):
    reading = settings_of(search="gdas", via="first-order")
    clipped = settings_of(via="first-order", alphas={"clip": 5.0}, precision="bf16")
    plain, sampled = fake_cuda.steps_of([clipped, reading], library)
    claimed(plain)
    assert HOST["gdas"] in sampled["obstacles"][-1]


def every_rule():
    """Searches and a method by first order, two by the exact rule; an exhaustive run has all."""
    for pair, via in product(SEVERAL, RULES):
        exact = via == "exact" and pair[0] in ("sgl", "pamkd")
        few = exact or (via == "first-order" and pair[0] in ("single", "kdcl"))
        marks = () if few else pytest.mark.exhaustive
        yield pytest.param(pair, via, id="-".join((*pair, via)), marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "via"), [*every_rule()])
def test_on_cuda_every_method_and_search(pair, via, library):
    method, search = pair
    (found,) = fake_cuda.steps_of([settings_of(method, search, via=via)], library)
    if reason := HOST.get(search, HOST.get(method, "")):
        assert reason in found["obstacles"][-1]
    elif via == "finite-difference" and (drawn := REPEATED.get(search, REPEATED.get(method))):
        assert f"a rule repeats random numbers: {drawn}" in found["obstacles"][-1]
    else:
        claimed(found)


ON_A_GPU = [(pair, "first-order") for pair in [("single", "darts"), *SEVERAL]]
ON_A_GPU += [((method, "darts"), via) for method in ("single", "sgl") for via in RULES[:2]]
"""All methods and searches once, and all rules of two methods: a GPU is lent for minutes."""


@pytest.mark.cuda
@CUDA
@pytest.mark.filterwarnings("ignore:.*determinis")
@pytest.mark.parametrize(("pair", "via"), ON_A_GPU, ids=str)
def test_a_replayed_graph_equals_an_eager_step(pair, via, monkeypatch):
    method, search = pair
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings = settings_of(method, search, via=via, limit_batches=9) | {"device": "cuda"}
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        eager = searching(settings | {"graph": "off"})
        static = searching(settings | {"graph": "on"})
        for _ in range(9):
            assert advance(eager) == advance(static)
            assert_same(eager, static)
    finally:
        torch.use_deterministic_algorithms(before)
    said = " ".join(static.programs.notices())
    host = HOST.get(search, HOST.get(method)) or (
        via == "finite-difference" and (search in REPEATED or method in REPEATED)
    )
    assert ("one operation at a time" if host else "run as one program") in said
    assert "recording failed" not in said


class Pretended:
    """Stands in for `torch.cuda` where a graph is recorded: it calls and records nothing."""

    def __init__(self):
        self.emptied = 0
        self.present, self.pools, self.recorded = "the default stream", 0, []
        self.generator = SimpleNamespace(device=CPU, graphsafe_set_state=self.changed)
        self.default_generators = [self.generator]
        self.states = []

    def changed(self, state):
        self.states.append(state)

    def Stream(self, device):
        return SimpleNamespace(wait_stream=lambda other: None, name="the side stream")

    def CUDAGraph(self):
        return SimpleNamespace(replay=lambda: "replayed")

    def graph_pool_handle(self):
        self.pools += 1
        return self.pools

    def current_stream(self, device=None):
        return SimpleNamespace(wait_stream=lambda other: None, name=self.present)

    def set_stream(self, stream):
        self.present = stream.name

    def current_device(self):
        return 0

    def get_rng_state(self):
        return torch.get_rng_state()

    @contextmanager
    def stream(self, stream):
        yield

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        assert not gc.isenabled()
        before, self.present = self.present, stream.name  # stays where a recording fails
        self.recorded.append(pool)
        yield
        self.present = before

    def empty_cache(self):
        self.emptied += 1


NAMES = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")
"""What ends a recording's allocations, since torch 2.8 and before."""


@pytest.mark.parametrize("end", NAMES)
@pytest.mark.parametrize("ended", [False, True])
def test_graphs_share_a_pool_until_a_recording_fails(end, ended, monkeypatch):
    """A pool is released once for each recording: by its end, or where that fails, here."""
    pretended, states, pools = Pretended(), [], []

    def ending(*given):
        if ended:
            raise RuntimeError("not currently recording")
        pools.append(("ended", *given))

    monkeypatch.setattr(torch, "cuda", pretended)
    monkeypatch.setattr(Graphs, "failure", "")
    for name in NAMES:
        monkeypatch.delattr(torch._C, name, raising=False)
    monkeypatch.setattr(torch._C, end, ending, raising=False)
    released = lambda *given: pools.append(("released", *given))  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_releasePool", released, raising=False)
    fresh = SimpleNamespace(set_state=states.append, graphsafe_get_state=lambda: "new")
    monkeypatch.setattr(torch, "Generator", lambda device: fresh)
    graphs = Graphs(CPU)
    assert graphs.warm(lambda: 7) == 7
    called = []
    for number in range(2):
        assert graphs.record(lambda number=number: called.append(number))() == "replayed"
    assert called == [0, 1] and pretended.recorded == [1, 1, 1]  # the first is the anchor

    def failing():
        raise RuntimeError("not permitted")

    with pytest.raises(RuntimeError, match="not permitted"):
        graphs.record(failing)
    assert pretended.present == "the default stream" and pretended.states == ["new"]
    assert len(states) == 1 and gc.isenabled()
    assert pools == ([] if ended else [("ended", 0, 1), ("released", 0, 1)])
    for each in (graphs, Graphs(CPU)):  # another search of the process
        with pytest.raises(RuntimeError, match=r"an earlier one .* failed: not permitted"):
            each.record(lambda: None)
    assert pretended.recorded == [1] * 4
    graphs.clear()
    assert pretended.emptied == 1


def test_garbage_collection_stays_as_it_was(monkeypatch):
    monkeypatch.setattr(torch, "cuda", Pretended())
    gc.disable()
    try:
        Graphs(CPU).record(lambda: None)
        assert not gc.isenabled()
    finally:
        gc.enable()
    Graphs(CPU).record(lambda: None)
    assert gc.isenabled()


def test_adam_does_not_warn_of_steps_that_no_graph_replays(monkeypatch):
    """Torch warns once of each capturable optimiser, unless it is told that it has."""
    (made,) = adams(Alphas(), [LEVEL], {"alphas": torch.ones(2)}).values()
    made.param_groups[0]["capturable"] = True
    stream = SimpleNamespace(is_capturing=lambda: False)
    for module, name, value in (
        (torch.accelerator, "current_accelerator", SimpleNamespace(type="cuda")),
        (torch.accelerator, "current_stream", stream),
        (torch.backends.cuda, "is_built", True),  # what older versions ask
        (torch.cuda, "is_available", True),
        (torch.cuda, "is_current_stream_capturing", False),
    ):
        monkeypatch.setattr(module, name, lambda *given, v=value, **more: v)
    name = "_accelerator_graph_capture_health_check"
    check = getattr(made, name, None) or made._cuda_graph_capture_health_check
    check()
    made._warned_capturable_if_run_uncaptured = False
    with pytest.warns(UserWarning, match="capturable=True"):
        check()


# Side streams -----------------------------------------------------------------------------------


def test_branches_run_one_after_the_other_on_a_cpu():
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    order = []

    def branch(number):
        def call():
            order.append(number)
            return x * number, x.square()

        return call

    found = concurrently([branch(2), branch(3), branch(4)], [x])
    assert order == [2, 3, 4]
    assert [torch.equal(a, x * n) for (a, _), n in zip(found, order, strict=True)] == [True] * 3
    (g,) = torch.autograd.grad(sum((a * b).sum() for a, b in found), x)
    torch.testing.assert_close(g, 27 * x.square(), rtol=1e-14, atol=0)
    assert concurrently([lambda: x.sin()], [x])[0].equal(x.sin())


@pytest.mark.cuda
@CUDA
def test_branches_in_a_graph_give_the_same_bits():
    w = [torch.rand(64, 64, device="cuda", requires_grad=True) for _ in range(4)]
    x = torch.rand(32, 64, device="cuda", requires_grad=True)

    def step():
        active = x.relu()
        found = concurrently([lambda k=k: (active @ k).sin() for k in w], [active])
        loss = torch.stack(found).square().sum()
        first = torch.autograd.grad(loss, [x, *w], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), [x, *w])

    expected = [g.clone() for g in step()]
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream):
        found = step()
    for _ in range(3):
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
