"""Measured latencies: the timer, tables that may be interrupted, and what they predict."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from made_latencies import OVERHEAD, RATE, by_flops, made, place
from tutelage.parts import make_part
from tutelage.records.latencies import Latencies, OperationRow, Timing
from tutelage.run.cost.count import describe
from tutelage.run.cost.latency import LatencyTable, Target
from tutelage.run.cost.table import costs_of
from tutelage.run.measure import latency, latency_table
from tutelage.run.measure.latency import Timer, latency_of, timer_of
from tutelage.run.measure.latency_table import Agreement, Measurement, correlated
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.paths import genotype, sample

CPU = torch.device("cpu")
SIZES = {
    "nasbench201": (Size(4, 1, 3, 1), (8, 9)),
    "darts": (Size(4, 3, 3, 1), (8, 8)),
    "nasbench-macro": (Size(4, 8, 3, 3), (16, 16)),
}


def space_named(name):
    return make_part("space", {"name": name})


def target_of(name):
    return Target(space_named(name), *SIZES[name])


# The timer ----------------------------------------------------------------------------------------


class Scripted:
    """A clock that moves as a script says, once for each call of what is measured."""

    def __init__(self, seconds):
        self.now, self.calls, self.waits = 0.0, 0, 0
        self.seconds = iter(seconds)

    def call(self):
        self.calls += 1
        self.now += next(self.seconds)

    def wait(self):
        self.waits += 1


def test_the_median_and_the_quartiles_of_the_repeats_without_the_warm_up():
    seconds = [9.0, 5.0, 0.1, 0.4, 0.1, 0.2, 70.0, 0.3]
    clock = Scripted(seconds)
    timer = Timer(lambda: clock.now, repeats=5, seconds=1e9)
    found = timer.measure(clock.call, clock.wait)
    measured = 1000 * np.array(seconds[latency.WARM_UP :])
    assert found.median == pytest.approx(np.median(measured))
    assert found.quartiles == pytest.approx(tuple(np.quantile(measured, [0.25, 0.75])))
    assert found.repeats == 5 and clock.calls == len(seconds)
    assert clock.waits == 2 * 6  # before and after every measurement, and that of the warm-up
    assert found.spread == pytest.approx(np.ptp(np.quantile(measured, [0.25, 0.75])) / 300)


def test_short_calls_are_measured_together_and_long_ones_not_for_ever():
    short = Scripted(itertools.repeat(1e-5))
    found = Timer(lambda: short.now, repeats=4).measure(short.call, short.wait)
    passes = round(latency.SHORTEST / 1e-5)
    assert found.median == pytest.approx(0.01) and short.calls == latency.WARM_UP + 4 * passes
    long = Scripted(itertools.repeat(2.0))
    timer = Timer(lambda: long.now, repeats=50, least=3, seconds=1.0)
    assert timer.measure(long.call, long.wait).repeats == 3
    still = Timer(lambda: 0.0, repeats=2).measure(lambda: None, lambda: None)  # too coarse a clock
    assert still.median == 0 and still.spread == 0


def test_what_is_measured_is_a_forward_pass_in_evaluation_without_gradients():
    seen = []

    class Module(nn.Module):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled(), tuple(x.shape)))
            return x

    state = torch.get_rng_state()
    clock = Scripted(())
    found = latency_of(Module, (2, 3, 4, 5), CPU, Timer(lambda: clock.now, repeats=2))
    assert found.repeats == 2 and set(seen) == {(False, False, (2, 3, 4, 5))}
    assert torch.equal(torch.get_rng_state(), state)


def test_the_clock_of_the_cpu_is_for_one_thread_of_the_cpu():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert timer_of("cpu", CPU).clock is not timer_of("wall", CPU).clock
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match=r"clock = 'cpu' with 2 threads: .* --clock wall"):
            timer_of("cpu", CPU)
        with pytest.raises(ValueError, match="clock = 'cpu' with a GPU"):
            timer_of("cpu", torch.device("cuda"))
        assert timer_of("wall", torch.device("cuda"))
    finally:
        torch.set_num_threads(before)


def test_a_busy_machine_is_said(monkeypatch):
    monkeypatch.setattr(latency.cpus, "idle", lambda: 0.25)
    assert "0.2 are idle" in latency.disturbed(CPU) and "--clock cpu" in latency.disturbed(CPU)
    for idle in (None, 1024.0):
        monkeypatch.setattr(latency.cpus, "idle", lambda idle=idle: idle)
        assert latency.disturbed(CPU) == ""


# The table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["nasbench201", "nasbench-macro", pytest.param("darts", marks=pytest.mark.slow)]
)
def test_a_table_has_a_row_for_each_operation_and_shape_and_predicts_what_adds_up(
    name, tmp_path, monkeypatch
):
    space, size, image = target_of(name)
    target = made(monkeypatch, tmp_path / "t.json", space, size, image, batch=2)
    table = LatencyTable.read(tmp_path / "t.json")
    rows = table.content.operations
    keys = [(row.operation, row.arguments, row.shape) for row in rows]
    slots = list(space.slots(size, image))
    wanted = {  # the last argument is the operations of one's own
        (operation, ", ".join(map(str, slot.arguments[:-1])), slot.shape)
        for slot in slots
        for operation in space.operations[slot.group][slot.edge]
    }
    assert len(keys) == len(set(keys)) and set(keys) == wanted
    costs = costs_of(space, size, image, table)
    plain = costs_of(space, size, image)
    torch.manual_seed(5)
    for _ in range(3):
        found = genotype(space, sample(space))
        cost = costs.of(found)
        assert cost[:2] == plain.of(found)[:2] and plain.of(found).latency == 0
        assert cost.latency == pytest.approx(OVERHEAD + 2 * RATE * cost.flops)
        fixed = cost.latency - table.sum_of(target, found)
        assert fixed == pytest.approx(table.fixed(target)) and costs.fixed.latency == table.fixed(
            target
        )
    even = ArchWeights({g: torch.ones(s) for g, s in space.choices.items()})
    _, flops, expected = costs.table(space).expected(even).tolist()
    assert expected == pytest.approx(OVERHEAD + 2 * RATE * flops)
    agreement = Measurement(tmp_path / "t.json", target, place(batch=2)).agreement()
    assert agreement.predicted == pytest.approx(agreement.measured)
    assert len(agreement.measured) == 3


def test_an_interrupted_measurement_keeps_what_it_has(tmp_path, monkeypatch):
    target, calls = target_of("nasbench201"), []

    def measure(path, networks, until=None):
        def counted(*args):
            if len(calls) == until:
                raise KeyboardInterrupt
            calls.append(args)
            return by_flops(*args)

        calls.clear()
        monkeypatch.setattr(latency_table, "latency_of", counted)
        Measurement(path, target, place()).run(networks, CPU, Timer())
        return len(calls)

    whole, own = tmp_path / "whole.json", tmp_path / "own.json"
    every = measure(whole, 4)
    operations = len(Latencies.read(json.loads(whole.read_text())).operations)
    assert every == operations + 4
    for until in (3, operations - 3 + 2):
        with pytest.raises(KeyboardInterrupt):
            measure(own, 4, until)
    assert measure(own, 4) == 2 and own.read_bytes() == whole.read_bytes()
    assert measure(own, 4) == 0 and measure(own, 2) == 0
    assert measure(own, 6) == 2  # the first four stay
    assert whole.read_text().count("\n") == own.read_text().count("\n") - 2  # a line for each row


def test_a_small_space_has_fewer_networks_than_are_asked_for(tmp_path, monkeypatch):
    space = make_part("space", {"name": "nasbench-macro", "widths": [4], "depths": [1]} | {
        "strides": [1], "stem_channels": 4, "candidates": ["identity", "mbconv3_3x3"]})  # fmt: skip
    monkeypatch.setattr(latency_table, "latency_of", by_flops)
    target = Target(space, Size(4, 1, 3, 1), (8, 8))
    measurement = Measurement(tmp_path / "t.json", target, place())
    measurement.run(9, CPU, Timer())
    assert len(measurement.networks()) == 2
    assert "2 sampled" in measurement.as_text()


def test_the_agreement_is_that_of_ranks_and_of_values():
    measured = [2.0, 3.0, 5.0, 4.0]
    flops = [9, 8, 6, 7]
    lines = Agreement(0.5, [1.0, 2.0, 3.0, 4.0], flops, measured).as_lines()
    linear = np.corrcoef([1, 2, 3, 4], measured)[0, 1]
    error = np.mean([1 / 2, 1 / 3, 2 / 5, 0])
    assert lines["prediction"] == (
        f"Kendall's tau 0.667, Spearman's rho 0.800, linear {linear:.3f}; mean error "
        f"{100 * error:.1f} %; 0.5 ms beside the operations"
    )
    assert lines["by FLOPs"] == "Kendall's tau -1.000, Spearman's rho -1.000, linear -1.000"
    third = 0.1 + 0.2  # not 0.3, but as many milliseconds
    assert correlated(np.array([0.3, third, 1.0]), np.array([2.0, 1.0, 3.0])) == correlated(
        np.array([0.3, 0.3, 1.0]), np.array([2.0, 1.0, 3.0])
    )
    assert correlated(np.ones(3), np.arange(3)) == "all equal"
    assert correlated(np.ones(2), np.arange(2)) == "too few networks for a correlation"


def test_what_a_table_lacks_is_a_sentence_with_the_command_that_measures_it(tmp_path, monkeypatch):
    space, size, image = target_of("nasbench201")
    path = tmp_path / "t.json"
    made(monkeypatch, path, space, size, image)
    table = LatencyTable.read(path)
    larger = replace(size, channels=6)
    flags = "--space nasbench201 --channels 6 --cells 1 --classes 3 --image-channels 1 --stem cifar"
    with pytest.raises(ValueError, match=rf"none \(6, 1\) at 6 x 8 x 9: .*{flags} --side 8 9"):
        costs_of(space, larger, image, table)
    with pytest.raises(ValueError, match=r"any network of this size: .* --cells 2 "):
        costs_of(space, replace(size, cells=2), image, table)
    made(monkeypatch, path, space, larger, image)  # completes it
    both = LatencyTable.read(path)
    assert costs_of(space, larger, image, both).fixed.latency > 0
    assert costs_of(space, size, image, both).fixed == costs_of(space, size, image, table).fixed


def test_what_a_table_lacks_of_a_page_says_which_page_is_meant(tmp_path, monkeypatch):
    """The name of the page's file is not kept, so the command holds a place for it."""
    page = tmp_path / "mine.toml"
    page.write_text('skeleton = "nasbench201"\ncandidates = ["none", "nor_conv_1x1"]\n')
    space, (size, image) = make_part("space", {"name": str(page)}), SIZES["nasbench201"]
    made(monkeypatch, tmp_path / "t.json", space, size, image)
    table = LatencyTable.read(tmp_path / "t.json")
    said = "--space PAGE.toml .* where PAGE.toml stands for the page of the space mine$"
    with pytest.raises(ValueError, match=said):
        costs_of(space, replace(size, channels=6), image, table)


def test_a_search_without_some_operations_needs_only_its_own(tmp_path, monkeypatch):
    """DrNAS leaves out `none` in DARTS' cells; sampled networks may have any operation."""
    space, size, image = target_of("nasbench201")
    made(monkeypatch, tmp_path / "t.json", space, size, image)
    narrow = space.narrowed({"cell": [[1, 2]] * 6})
    table = LatencyTable.read(tmp_path / "t.json")
    costs, whole = (costs_of(each, size, image, table) for each in (narrow, space))
    assert costs.fixed == whole.fixed and costs.operations["cell"][0].keys() < set(
        whole.operations["cell"][0]
    )


# Damaged files, and other machines ----------------------------------------------------------------


def damaged():
    time = {"median": 1.0, "quartiles": [1.0, 1.0], "repeats": 5}
    row = {"space": "s", "operation": "o", "arguments": "", "shape": [1, 1, 1], "time": time}
    good = {"format": "tutelage latencies", "version": 1, "place": vars(place())}
    good |= {"operations": [row], "networks": []}
    network = {"space": "s", "size": {}, "image": [1, 1], "genotype": {}, "time": time}
    yield good | {"version": 2}, "version 2"
    yield good | {"format": "else"}, "it is no table of latencies"
    yield [good], "must be an object"
    yield {**good, "place": {}}, "place"
    yield good | {"operations": [row | {"shape": [1, 1]}]}, "shape|length"
    yield good | {"operations": [row | {"time": time | {"median": -1.0}}]}, "a time of -1.0 ms"
    yield good | {"operations": [row | {"time": time | {"median": "NaN"}}]}, "a time of nan ms"
    yield good | {"networks": [network]}, "genotype"


@pytest.mark.parametrize(("content", "message"), list(damaged()))
def test_another_file_is_refused(content, message, tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"t\.json is not usable: .*({message})"):
        LatencyTable.read(path)


def test_rows_of_two_conditions_are_not_mixed(tmp_path, monkeypatch):
    space, size, image = target_of("nasbench201")
    path = tmp_path / "t.json"
    made(monkeypatch, path, space, size, image)
    with pytest.raises(ValueError, match=r"batch 1, not 8; .*threads 1|threads 1, not 2; batch 1"):
        Measurement(path, Target(space, size, image), place(batch=8, threads=2))
    with pytest.raises(ValueError, match="no folder"):
        Measurement(tmp_path / "none" / "t.json", Target(space, size, image), place())


@pytest.mark.parametrize(("device", "there"), [("cpu", "this machine has "), ("cuda", "cuda")])
def test_a_table_of_another_device_is_refused(device, there, tmp_path):
    table = LatencyTable(tmp_path, Latencies(place(device=device, name="Another One")))
    with pytest.raises(ValueError, match=rf"measured on Another One \({device}\).*{there}"):
        table.refuse_other_device()
    LatencyTable(tmp_path, Latencies(place())).refuse_other_device()


def test_a_table_reads_as_it_was_written():
    row = OperationRow("s", "o", "3, Style(x='y')", (1, 2, 3), Timing(0.1, (0.05, 0.2), 7))
    content = Latencies(place(), [row, row])
    assert Latencies.read(json.loads(content.as_text())) == content


# The commands -------------------------------------------------------------------------------------


@pytest.fixture
def exact(monkeypatch):
    """Measure by FLOPs in the commands."""
    monkeypatch.setattr(latency_table, "latency_of", by_flops)
    monkeypatch.setattr(latency, "latency_of", by_flops)
    monkeypatch.setattr(latency.cpus, "idle", lambda: None)


@pytest.mark.usefixtures("exact")
def test_the_command_measures_a_space_with_its_own_settings(tutelage):
    line = "latency --space nasbench-macro --widths 4 6 --depths 1 1 --strides 1 2 --channels 4"
    line += " --side 8 --classes 3 --image-channels 1 --networks 4 --threads 1 --batch-size 2"
    code, out, _ = tutelage(f"{line} --clock cpu --out t.json")
    assert code == 0
    assert re.search(r"^6 operations to measure, and up to 4 networks$", out, re.MULTILINE)
    assert "1 thread, torch 2" in out and "by the cpu clock, batches of 2" in out
    assert "Spearman's rho 1.000" in out and "mean error 0.0 %" in out
    code, out, _ = tutelage(f"{line} --clock cpu --out t.json")
    assert code == 0 and out.startswith("0 operations to measure")


@pytest.mark.usefixtures("exact")
def test_mistakes_are_sentences(refused, here):
    refused("latency --space dart --out t.json", "unknown space 'dart': did you mean darts")
    refused("latency --out t.json --side 8 8 8", "side has 3 numbers")
    refused("latency --out t.json --networks 0", "networks = 0: must be")
    refused("latency --out no/t.json", "no is no folder")
    refused("latency --space nasbench-macro --cells 9 --out t.json", "cells = 9")
    refused("latency", "latency needs --out")
    refused("latency --out t.json --width 3", "unknown flag --width")
    (here / "t.json").write_text("{}")
    refused("latency --out t.json", r"t\.json is not usable: it is no table of latencies")
    for flag in ("--max-latency 3", "--evolution.objectives accuracy-latency"):
        refused(f"search {flag} --out run", "without a table of latencies: measure one with")
    refused("search --max-latency 0 --latency-table t.json --out run", "max_latency = 0")
    refused("search --latency-table t.json --out run", r"t\.json is not usable")
    refused("search --latency-table none.json --out run", r"none\.json: No such file")
    refused("describe DARTS_V2 --latency --batch-size 0", "batch_size = 0")
    refused("describe DARTS_V2 --latency --threads 0", "threads = 0")


@pytest.mark.usefixtures("exact")
def test_describe_measures_batches_of_one_and_more(tutelage):
    line = "describe DARTS_V2 --channels 4 --cells 3 --side 8 --latency --threads 1"
    code, out, _ = tutelage(f"{line} --batch-size 1 4 --json")
    assert code == 0
    found = json.loads(out)
    one, four = found["latency"]
    assert (one["batch"], four["batch"], one["threads"]) == (1, 4, 1)
    assert one["median"] == pytest.approx(OVERHEAD + RATE * found["flops"])
    assert four["median"] == pytest.approx(OVERHEAD + 4 * RATE * found["flops"])
    code, out, _ = tutelage(line)
    assert re.search(r"^latency +[\d.]+ ms for 1 image; quartiles .* of 50 measure", out, re.M)
    assert re.search(r"^latency +[\d.]+ ms for 32 images, [\d.]+ ms each; quartiles", out, re.M)
    assert re.search(r"^measured on .* \(cpu\), 1 thread, torch 2", out, re.M)


def test_describe_has_no_latency_unless_it_is_asked_for(tutelage):
    code, out, _ = tutelage("describe DARTS_V2 --channels 4 --cells 3 --json")
    assert code == 0 and "latency" not in json.loads(out)


def test_a_real_measurement_of_a_real_network():
    """No figure of a time is asserted: only that all of it runs."""
    size = Size(4, 1, 3, 1)
    quick = Timer(repeats=2, seconds=0.0, least=2)
    space = space_named("nasbench201")
    found = genotype(space, (3,) * 6)
    time = latency_of(partial(space.network, found, size), (2, 1, 8, 8), CPU, quick)
    assert time.median > 0 and time.quartiles[0] <= time.median <= time.quartiles[1]
    assert describe(found, size, 8).flops > 0
