"""The memory of a step: traced, and predicted at other batch sizes."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from test_search import run_toml
from tutelage.data.streams import halves_of
from tutelage.run.measure import allocator, forecast
from tutelage.run.measure.forecast import Forecast, Traced
from tutelage.run.measure.live import BLOCK, Live, Trace, allocations_at, peak_at, traced
from tutelage.run.measure.steps import sections, trace
from tutelage.run.step.recorders import Again
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.state import Searching

MIB = 2**20


def test_tensors_count_from_their_operation_until_they_are_freed():
    live = Live("cpu")
    with live:
        a = torch.ones(MIB // 4)
        b = a.view(2, -1)  # the same memory
        c = b + 1
        del a, b
        d = c * 2
        del c, d
        torch.ones(3)
    assert live.trace.sizes == [MIB, 2 * MIB, 2 * MIB, 12]
    assert live.trace.rounded == [MIB, 2 * MIB, 2 * MIB, BLOCK]
    assert live.trace.peak == 2 * MIB


def test_what_is_in_use_before_counts_once_it_is_read():
    x = torch.ones(MIB // 4)
    live = Live("cpu")
    with live:
        y = x + 1
        live.begin()
        z = x + y
    assert live.trace.sizes == [3 * MIB]
    assert len(y) == len(z)


def test_allocations_and_frees_are_listed_in_their_order():
    live = Live("cpu")
    with live:
        a = torch.ones(3)
        b = torch.cat([a, a])
        del a
        live.begin()
        c = b * 2
        d = c[:1] + 1
        del b
        torch.cat([c, d])
    assert live.trace.tensors == [24, 24, 4, 28]
    assert live.trace.moves == [0, 1, 2, 0, 3, 3]


def test_allocations_are_extended_tensor_by_tensor():
    low, high = Trace(tensors=[8, 20], moves=[0, 1, 1]), Trace(tensors=[8, 40], moves=[0, 1, 1])
    assert allocations_at((1, low), (2, high), 10) == ([8, 200], [0, 1, 1])
    assert allocations_at((1, low), (2, replace(high, moves=[0, 0, 1])), 10) is None


def test_empty_places_grow_as_the_allocator_says(monkeypatch):
    """Tensors of 100 bytes an image, of which the allocator makes 150."""

    def at(batch, extra):
        sizes = [100 * batch]
        return Traced(batch, [Trace(["a"], sizes, sizes, False, sizes, [0])], extra)

    monkeypatch.setattr(forecast, "taken", lambda sizes, moves: 3 * sizes[0] // 2)
    found = Forecast(at(1, 1000), at(2, 1007)).on_cpu(10)
    assert found.growth == 50
    assert found.at(10) == 1000 + 1007 + 8 * 50
    assert found.at(1) == 100 + 1007 and found.largest(1000 + 1007 + 400, 1000) == 8
    monkeypatch.setattr(forecast, "taken", lambda sizes, moves: None)
    assert Forecast(at(1, 1000), at(2, 1007)).on_cpu(10).at(10) == 1000 + 1007


def test_an_allocator_is_asked_without_taking_the_memory(monkeypatch):
    if allocator.taken([1], [0]) is None:
        pytest.skip("the allocator does not say what it takes")
    both = allocator.taken([MIB, MIB], [0, 1])
    assert 2 * MIB <= both < 2.1 * MIB
    assert MIB <= allocator.taken([MIB, MIB], [0, 0, 1, 1]) < 1.1 * MIB
    assert allocator.taken([2**28] * 40, range(40)) >= 10 * 2**30
    monkeypatch.setattr(allocator, "REPLAY", "missing.py")
    assert allocator.taken([1], [0]) is None


def test_graphs_hold_what_a_backward_pass_needs():
    """By hand: in 3 layers of exp, each output is kept until its backward pass."""
    x = torch.zeros(MIB // 4, requires_grad=True)

    def step():
        x.grad = None
        y = x
        for _ in range(3):
            y = y.exp()
        y.sum().backward()

    found = traced(step, "cpu")
    # while the second of three products is computed: x, three outputs, its gradient and its result
    assert found.peak == pytest.approx(6 * MIB, abs=4 * BLOCK)
    # at the third one: x, the first and the last output, which `y` names, and the two gradients
    assert found.sizes[-1] == pytest.approx(5 * MIB, abs=4 * BLOCK)


def test_another_device_is_not_counted():
    live = Live("cuda")
    with live:
        torch.ones(3)
    assert live.trace.peak == 0


def test_tensors_without_data_are_counted():
    with FakeTensorMode(), Live("cuda") as live:
        x = torch.empty(64, 2**20, device="cuda")
        y = nn.functional.relu(x)
    assert live.trace.peak == 2 * 256 * MIB == 2 * y.untyped_storage().nbytes()


def test_the_peak_moves_with_the_batch():
    """One operation needs 1,000 bytes at any size, the other one 100 an image."""

    def at(batch):
        sizes = [1000, 100 * batch]
        return batch, Trace(["constant", "grows"], sizes, sizes)

    assert [peak_at(at(2), at(4), batch) for batch in (2, 4, 10, 64)] == [1000, 1000, 1000, 6400]


def test_other_operations_are_extended_by_their_peaks():
    low, high = Trace(["a"], [100], [100]), Trace(["a", "b"], [100, 200], [100, 200])
    assert peak_at((2, low), (4, high), 8) == 400
    assert peak_at((2, high), (4, low), 80) == 0
    assert peak_at((2, Trace()), (4, Trace()), 80) == 0


def test_sections_have_peaks_of_their_own():
    first, second = Trace(["a"], [100], [100]), Trace(["b"], [10], [10])
    more = Trace(["b"], [90], [90])
    found = Forecast(Traced(1, [first, second], 7), Traced(2, [first, more], 5))
    assert found.at(3) == 170 + 7
    assert found.largest(170 + 7, 1000) == 0
    assert found.largest(10 + 80 * 15 + 7, 1000) == 16
    assert found.largest(10 + 80 * 15 + 6, 1000) == 8
    assert found.largest(10 + 80 * 15, 10) == 10


def test_a_program_keeps_what_its_step_frees():
    """Of a step that needs 40 bytes an image at its peak, and 100 at its end."""

    def at(batch, recorded):
        sizes = [100, 100 + 40 * batch, 100]
        return Traced(batch, [Trace(["a", "b", "c"], sizes, sizes, recorded)])

    found = Forecast(at(1, True), at(2, True))
    assert (found.at(10), found.graph(10), found.needed(10)) == (500, 400, 900)
    assert found.largest(900, 8) == 8 and found.largest(739, 100) == 0
    assert found.largest(740, 100) == 8
    without = Forecast(at(1, False), at(2, False))
    assert (without.at(10), without.graph(10), without.needed(10)) == (500, 0, 500)


@pytest.mark.parametrize(("search", "recorded"), [("darts", True), ("gdas", False)])
def test_what_is_recorded_is_found_by_running_it(search, recorded):
    """On a CPU with a recorder that calls the step again."""
    settings = run(search=search, limit_batches=None)
    work = searching(settings, 8)
    work.programs.recorder = Again()
    assert [each.recorded for each in trace(work, 8).traces] == [recorded]


# Predicted against measured ---------------------------------------------------------------------


def searching(settings, batch, device="cpu"):
    parts = joined(replace(settings, device=device))
    torch.manual_seed(0)
    setup = parts.setup(halves_of(settings, parts.train))
    setup = replace(setup, streams=setup.streams.of(batch))
    return Searching(setup, parts.strategy(setup))


def run(method="single", search="darts", space="nasbench201", **changed):
    # as chains have their own cells
    cells = {"darts": 3, "nasbench201": 1}.get(space)
    own = {"cells": cells, "channels": 4 if cells else None, "epochs": 2, "via": "exact"} | changed
    return run_toml(method, search={"name": search}, space={"name": space}, **own)


FEW = [run(), run(via="first-order"), run("sgl", recompute=True), run(search="gdas")]
MORE = [
    run(space="darts"),
    run(space="darts", search="pcdarts", channels=16),
    run("lbt"),
    run("pamkd", via="finite-difference"),
    run("sd-darts"),
    run("ennas", search="single-path", space="nasbench-macro"),
    run("cream", search="single-path", space="nasbench-macro"),
    run(search="drnas"),
    run(search="pdarts", space="darts", epochs=3, via="first-order"),
    run(precision="bf16", via="first-order"),
]


def name(settings):
    parts = (settings.method, settings.search, settings.space)
    return "-".join([*(part["name"] for part in parts), settings.via])


def near(settings, asked=64, rel=0.1):
    batches = (asked // 8, asked // 4, asked)
    low, high, taken = (trace(searching(settings, batch), asked) for batch in batches)
    predicted = Forecast(low._replace(extra=0), high._replace(extra=0)).at(asked)
    assert predicted == pytest.approx(max(each.peak for each in taken.traces), rel=rel)


@pytest.mark.parametrize("settings", FEW, ids=name)
def test_the_prediction_is_near(settings):
    near(settings)


@pytest.mark.parametrize("via", ["first-order", "exact"])
def test_small_batches_take_the_forms_of_the_large_one(via):
    """Its maps of 131,072 elements are summed node by node, those of a small batch together."""
    near(run(channels=16, via=via), 128, 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("settings", MORE, ids=name)
def test_the_prediction_is_near_for_more(settings):
    near(settings)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("settings", FEW, ids=name)
def test_the_prediction_is_near_what_a_gpu_allocates(settings):
    settings = replace(settings, channels=16, graph="off")
    before = freed()  # a trace counts it among the bytes beside its tensors
    low, high = (trace(searching(settings, batch, "cuda"), 256) for batch in (32, 64))
    predicted = Forecast(low, high).at(256) - before
    before = freed()
    work = searching(settings, 256, "cuda")
    torch.cuda.reset_peak_memory_stats()
    for _ in sections(work):
        work.advance()
        work.advance()
    assert predicted == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=0.1)


def freed():
    """Free what earlier tests have left on the GPU; return the bytes that are still allocated."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()
