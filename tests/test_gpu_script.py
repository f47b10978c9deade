"""The one script for a GPU: its bars, its images, its record of parts, and a toy run."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
import gpu_bars  # noqa: E402
import gpu_images  # noqa: E402
import gpu_parts  # noqa: E402
import gpu_steps  # noqa: E402
import gpu_tests  # noqa: E402
import kernels  # noqa: E402
import precision  # noqa: E402
from tutelage.config import Data  # noqa: E402
from tutelage.data.read import read  # noqa: E402
from tutelage.spaces import kernels as fused_kernels  # noqa: E402


def verdicts(**rows):
    return {bar.what: bar for bar in gpu_bars.judged(rows)}


def steps(**ms):
    return [{"what": key, "key": f"{key.replace('_', '-')}/on", "ms": x} for key, x in ms.items()]


def test_bars_are_judged_by_hand():
    found = verdicts(steps=steps(first_order=29.9, exact=101.0, finite_difference=50.0))
    assert found["DARTS step, first order"].verdict == "met"
    assert found["DARTS step, first order"].measured == "29.9 ms"
    assert found["DARTS step, exact"].verdict == "not met"
    assert found["exact against two-sided"].measured == "2.02"
    assert found["NAS-Bench-201 step"].verdict == "not measured"
    row = {"what": "theirs", "key": "original", "ms": 30 * 29.9}
    found = verdicts(steps=steps(first_order=29.9), original=[row])
    assert found["against quark0/darts, first order"].verdict == "met"
    found = verdicts(repeats=[{"what": "a", "same": True}, {"what": "b", "same": False}])
    assert found["repeats that are the same to the bit"].verdict == "not met"


@pytest.mark.parametrize(
    ("passed", "failed", "note", "verdict"),
    [
        (9, 0, "", "met"),
        (9, 1, "stopped", "not met"),
        (9, 0, "stopped", "not measured"),
        (0, 0, "", "not measured"),
    ],
)
def test_tests_that_did_not_run_meet_no_bar(passed, failed, note, verdict):
    row = {"what": "tests", "key": "tests", "passed": passed, "failed": failed, "note": note}
    assert verdicts(tests=[row])["failed tests on CUDA"].verdict == verdict


def test_an_eager_step_meets_no_bar_of_a_replayed_one():
    rows = [{"what": "a step", "key": "first-order/off", "ms": 1.0}]
    assert verdicts(steps=rows)["DARTS step, first order"].verdict == "not measured"


def test_random_images_are_read_as_cifar10(tmp_path):
    gpu_images.random_cifar(tmp_path, images=3)
    for part, count in (("train", 15), ("test", 3)):
        data = read(Data("cifar10", tmp_path), part)
        assert data.images.shape == (3, 32, 32)
        assert len(data.images) == count and len(data.classes) == 10


def options(tmp_path, **changed):
    made = gpu.parser().parse_args(["--device", "cpu", "--tiny", *changed.pop("flags", ())])
    made.out, made.scratch = tmp_path / "gpu.json", tmp_path
    made.images = gpu_images.prepare(made)
    return argparse.Namespace(**vars(made) | changed)


def record(tmp_path, *names, ends=60.0):
    parts = {name: gpu.Part() for name in names}
    return gpu.Conduct(options(tmp_path), parts, {}, time.monotonic() + ends)


def follow(run, *events):
    left, (receive, send) = list(run.parts), Pipe(duplex=False)
    for event in events:
        send.send(event)
    send.close()
    gpu.follow(run, left, receive)
    return left, json.loads(run.options.out.read_text())["parts"]


def test_a_part_that_fails_is_recorded_and_the_next_ones_are_left(tmp_path):
    run = record(tmp_path, "steps", "kernels", "searches")
    row = {"what": "a step", "ms": 1.0}
    events = [("begin", "steps", None), ("row", "steps", row), ("done", "steps", None)]
    events += [("begin", "kernels", None), ("failed", "kernels", "RuntimeError: no")]
    left, parts = follow(run, *events)
    assert left == ["searches"]
    assert (parts["steps"]["state"], parts["steps"]["rows"]) == ("done", [row])
    assert (parts["kernels"]["state"], parts["kernels"]["error"]) == ("failed", "RuntimeError: no")
    assert parts["searches"]["state"].startswith("not begun")


def test_a_process_that_dies_is_recorded(tmp_path):
    left, parts = follow(record(tmp_path, "steps", "kernels"), ("begin", "steps", None))
    assert left == ["kernels"] and parts["steps"]["state"] == "failed"
    assert parts["steps"]["error"] == "its process ended"


def test_parts_for_which_no_time_is_left_are_recorded(tmp_path):
    events = [("begin", "steps", None), ("done", "steps", None), ("late", "kernels", None)]
    left, parts = follow(record(tmp_path, "steps", "kernels", "searches"), *events)
    assert not left and parts["steps"]["state"] == "done"
    assert parts["kernels"]["state"] == parts["searches"]["state"] == "not begun: the time was up"


def test_a_part_whose_time_is_up_is_stopped(tmp_path):
    run = record(tmp_path, "steps", "kernels", ends=0.2)
    receive, send = Pipe(duplex=False)
    send.send(("begin", "steps", None))
    send.send(("row", "steps", {"what": "a step", "ms": 1.0}))
    left = list(run.parts)
    gpu.follow(run, left, receive)
    assert left == ["kernels"]
    assert (run.parts["steps"].state, run.parts["steps"].error) == ("stopped", "its time was up")
    assert len(run.parts["steps"].rows) == 1


def test_sizes_are_those_of_the_papers(tmp_path):
    made = options(tmp_path, tiny=False)
    cases = {case.key: case for case in gpu_steps.CASES}
    settings = {key: gpu_steps.settings_of(made, case, "off") for key, case in cases.items()}
    sizes = {key: (x.channels, x.cells, x.batch_size) for key, x in settings.items()}
    assert sizes["first-order"] == sizes["exact"] == sizes["sgl"] == sizes["lbt"] == (16, 8, 64)
    assert sizes["nasbench201"] == sizes["gdas"] == (16, 5, 64)
    assert settings["finite-difference"].sides == 2
    assert gpu_parts.PARTS["searches"].share == 1


def test_all_levels_train_in_what_is_timed(tmp_path):
    """PC-DARTS' alphas rest for 15 epochs."""
    case = next(case for case in gpu_steps.CASES if case.key == "pcdarts")
    work = gpu_steps.searching(gpu_steps.settings_of(options(tmp_path), case, "off"))
    assert [level.name for level in work.phase.levels(work.epoch)] == ["learn", "validate"]


def test_without_a_gpu_it_says_what_to_give(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for line, message in (("", "--device cpu --tiny"), ("--device cpu", "give --tiny")):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *line.split()])
        with pytest.raises(SystemExit):
            gpu.main()
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("cores", "xdist", "several"), [(8, True, True), (4, True, False)])
def test_tests_of_kernels_come_first_and_many_cores_share_the_tests(
    cores, xdist, several, monkeypatch
):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(gpu_tests, "find_spec", lambda name: xdist or None)
    line = gpu_tests.command()
    files = [Path(each).name for each in line if each.endswith(".py")]
    assert files[0] == "test_kernels.py" and len(files) > 3
    assert ("-n" in line) == several


def test_outcomes_are_read_from_one_process_and_from_several():
    text = """
tests/test_a.py::test_b[a case] PASSED [ 50%]
tests/test_a.py::test_c SKIPPED (needs two) [100%]
tests/test_a.py::test_d
[gw1] [  5%] FAILED tests/test_a.py::test_e[a case] 
[gw0] [100%] ERROR tests/test_a.py::test_f
FAILED tests/test_a.py::test_e[a case] - AssertionError
"""
    found = dict(gpu_tests.outcomes(text))
    name = "tests/test_a.py::test_"
    assert found == {
        f"{name}b[a case]": "PASSED",
        f"{name}c": "SKIPPED",
        f"{name}e[a case]": "FAILED",
        f"{name}f": "ERROR",
    }


def test_tests_find_modules_where_this_process_does(monkeypatch):
    source = str(BENCHMARKS.parent / "src")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert gpu_tests.searched() == source
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    assert gpu_tests.searched() == os.pathsep.join([source, "elsewhere"])


def test_of_a_profile_only_kernels_count():
    def event(name, device=DeviceType.CUDA, **more):
        return SimpleNamespace(name=name, device_type=device, **more)

    assert gpu_parts.is_kernel(event("void at::native::vectorized_elementwise_kernel"))
    assert gpu_parts.is_kernel(event("relu_depthwise", is_user_annotation=False))
    for name in ("Memcpy DtoD (Device -> Device)", "Memset (Device)", "Optimizer.step#Adam.step"):
        assert not gpu_parts.is_kernel(event(name))
    assert not gpu_parts.is_kernel(event("aten::relu", DeviceType.CPU))
    assert not gpu_parts.is_kernel(event("a stretch", is_user_annotation=True))


def test_rows_of_a_benchmark_are_kept_until_the_time_is_up(monkeypatch):
    made, clock = [], iter([0.0, 1.0, 2.0, 9.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    rows = ({"ms": made.append(number) or number} for number in range(10))
    *kept, last = gpu_parts.within(rows, "kernels", 5.0)
    assert kept == [{"what": "kernels", "ms": 0}, {"what": "kernels", "ms": 1}]
    assert last["note"] == "the time was up" and made == [0, 1, 2]


def test_gradients_are_compared_for_some_steps_on_a_gpu(monkeypatch):
    """And each case is measured when it is asked for."""
    given = []

    def rows(method, via, arguments):
        given.append(arguments)
        yield {"method": method}

    monkeypatch.setattr(precision, "rows", rows)
    assert next(precision.measure("cuda", tiny=False)) == {"method": "single"}
    assert [(x.device, x.epochs, x.limit_batches) for x in given] == [("cuda", 1, 12)]
    next(precision.measure("cpu", tiny=False))
    assert (given[1].epochs, given[1].limit_batches) == (5, None)


def test_kernels_are_compared_without_tf32_and_their_arithmetic_is_stated(monkeypatch):
    used = []

    def disagreement(pair):
        used.append(torch.backends.cudnn.allow_tf32)
        return 0.0

    def replayed(form, inputs, order):
        used.append((form, torch.backends.cudnn.allow_tf32, fused_kernels._allowed[0]))
        return lambda: None

    pair = kernels.Pair("a kernel", len, max, [])
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(kernels, "pairs", lambda *given: iter([pair]))
    monkeypatch.setattr(kernels, "disagreement", disagreement)
    monkeypatch.setattr(kernels, "replayed", replayed)
    row = next(kernels.measure("cpu", tiny=True))
    assert used == [False, (len, True, True), (max, True, False), (max, False, False)]
    assert {"fused_ms", "plain_ms", "plain_ieee_ms", "ratio"} <= row.keys()
    monkeypatch.setattr(kernels, "disagreement", lambda pair: float("nan"))
    with pytest.raises(RuntimeError, match="the forms differ"):
        next(kernels.measure("cpu", tiny=True))


def test_plain_forms_have_two_derivatives_and_use_no_kernels(monkeypatch):
    torch.manual_seed(0)
    asked, computed = [], kernels.computed

    def noted(form, inputs, order):
        asked.append(fused_kernels._allowed[0])
        return computed(form, inputs, order)

    monkeypatch.setattr(kernels, "computed", noted)
    pairs = list(kernels.pairs(*kernels.TINY[0], "cpu"))
    assert len(pairs) == 6
    for pair in pairs:  # the plain form on both sides: its kernels need Triton
        again = pair._replace(fast=lambda *given, form=pair.plain: form(*given))
        assert kernels.disagreement(again) == 0
    assert asked == [True, False] * 6
    assert fused_kernels._allowed[0]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_toy_run_has_every_part(tmp_path):
    out = tmp_path / "gpu.json"
    command = [
        sys.executable,
        BENCHMARKS / "gpu.py",
        "--device",
        "cpu",
        "--tiny",
        "--minutes",
        "60",
        "--out",
        out,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=590)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert list(found["parts"]) == list(gpu_parts.PARTS)
    for name, part in found["parts"].items():
        assert part["state"] == "done", (name, part)
        assert part["rows"] and all(row["what"] for row in part["rows"])
    keys = {row["key"] for row in found["parts"]["steps"]["rows"]}
    assert keys == {f"{case.key}/off" for case in gpu_steps.CASES}
    assert all(row["same"] for row in found["parts"]["repeats"]["rows"] if "same" in row)
    assert found["parts"]["tests"]["rows"][0]["failed"] == 0
    assert {bar["verdict"] for bar in found["bars"]} == {"not measured"}
    assert "| steps | DARTS, exact, off | ms" in done.stdout
