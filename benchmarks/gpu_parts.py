"""What `gpu.py` measures, in order of worth; every part yields rows."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import gpu_searches
import operations
import originals
from gpu_steps import (
    CASES,
    Case,
    conditions,
    known,
    modes,
    searching,
    settings_of,
    size_of,
    synchronised,
    timed,
    warm,
)
from tutelage.config import Data, Precision, Retrain
from tutelage.data.augment import augmentation
from tutelage.data.batches import Stream
from tutelage.data.read import read
from tutelage.parts import from_table
from tutelage.run.job.device import arithmetic
from tutelage.run.retrain import default_cutout
from tutelage.run.training.training import Training
from tutelage.spaces.base import Size
from tutelage.spaces.cells import DARTS
from tutelage.spaces.published import resolve

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]
Rows = Iterator[Row]


class Part(NamedTuple):
    """A part of the measurement."""

    measure: Callable[[argparse.Namespace, float], Rows]
    """Given the options, and the seconds that it should take at most."""
    share: float
    """Share of all minutes; 1: whatever is left."""


def tests(options: argparse.Namespace, seconds: float) -> Rows:
    """Run the tests that are marked `cuda`."""
    marked = [p for p in sorted((ROOT / "tests").glob("test_*.py")) if "mark.cuda" in p.read_text()]
    report = options.scratch / "tests.xml"
    flags = ["-q", "-m", "cuda", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *flags, *map(str, marked)]
    here = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=ROOT, env=here, capture_output=True, text=True, timeout=seconds, check=False
    )
    if not report.exists():
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-500:]}")
    suite = ElementTree.parse(report).getroot()
    cases = list(suite.iter("testcase"))
    kinds = {kind: [c for c in cases if c.find(kind) is not None] for kind in NOT_PASSED}
    failed = [*kinds["failure"], *kinds["error"]]
    yield {
        "what": "tests marked cuda",
        "key": "tests",
        "passed": len(cases) - len(failed) - len(kinds["skipped"]),
        "failed": len(failed),
        "skipped": len(kinds["skipped"]),
        "names": [f"{c.get('classname')}.{c.get('name')}" for c in failed],
    }


NOT_PASSED = ("failure", "error", "skipped")
"""Elements of a test's report."""


def steps(options: argparse.Namespace, seconds: float) -> Rows:
    """Time whole search steps, replayed and eager."""
    ends = time.monotonic() + seconds
    for case in CASES:
        for graph in modes(options):
            if time.monotonic() > ends:
                return
            yield step(options, case, graph)


def step(options: argparse.Namespace, case: Case, graph: str, **changed: Any) -> Row:
    """Time a step of one case."""
    settings = settings_of(options, case, graph, **changed)
    row: Row = {"what": f"{case.what}, {graph}", "key": f"{case.key}/{graph}"}
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with conditions(settings):
        work = searching(settings)
        count, ms = timed(work.advance, options, warm(graph))
    row |= {"ms": ms, "steps": count}
    if options.device == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    programs = getattr(work, "programs", None)  # what is replayed, and why not
    return row | ({"note": "; ".join(programs.notices())} if programs else {})


def original(options: argparse.Namespace, seconds: float) -> Rows:
    """Time a step of quark0/darts, and beside it ours."""
    case = CASES[0]
    if options.darts is None:
        yield {"what": "quark0/darts", "note": "not measured: give a checkout, --darts"}
        return
    device = torch.device(options.device)
    if device.type == "cuda":
        originals.on_cpu = lambda: None  # its alphas go to the GPU by themselves
    channels, cells, batch = size_of(options, case)
    data = read(settings_of(options, case, "off").data, "train")
    inputs, side = data.images.shape[:2]
    size = Size(channels, cells, len(data.classes), inputs)
    theirs = originals.darts(options.darts, Size(channels, cells, len(data.classes)), DARTS)
    theirs.net.to(device)
    x = torch.randn(batch, 3, side, side, device=device)
    y = torch.randint(size.classes, (batch,), device=device)
    count, ms = timed(lambda: theirs.step(x, y), options)
    yield {"what": "quark0/darts, first order", "key": "original", "ms": ms, "steps": count}
    yield step(options, case, modes(options)[0])  # ours in the same minute


def kernels(options: argparse.Namespace, seconds: float) -> Rows:
    """Count what one step launches: kernels on a GPU, dispatched operations on a CPU."""
    for case in CASES[:4]:
        for graph in modes(options):
            row: Row = {"what": f"{case.what}, {graph}", "key": f"{case.key}/{graph}"}
            settings = settings_of(options, case, graph)
            with conditions(settings):
                work = searching(settings)
                for _ in range(warm(graph)):
                    work.advance()
                synchronised(options)
                yield row | launched(options, work.advance)


def launched(options: argparse.Namespace, advance: Callable[[], Any]) -> Row:
    """Count what a step launches."""
    if options.device == "cpu":
        with operations.Count() as counted:
            advance()
        return {"operations": counted.operations.total()}
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        advance()
        synchronised(options)
    events = [event for event in seen.events() if event.device_type == DeviceType.CUDA]
    busy = sum(event.device_time_total for event in events) / 1000
    return {"kernels": len(events), "gpu_ms": busy}


def repeats(options: argparse.Namespace, seconds: float) -> Rows:
    """Run short searches twice: their metrics are the same to the bit, or not."""
    yield from gpu_searches.repeats(options)
    case = CASES[0]
    if not known("deterministic"):
        return
    graph = modes(options)[0]
    costs = [step(options, case, graph, deterministic=flag)["ms"] for flag in (False, True)]
    percent = 100 * (costs[1] / costs[0] - 1)
    yield {"what": "cost of determinism", "key": "cost", "percent": percent, "ms": costs[1]}


def retraining(options: argparse.Namespace, seconds: float) -> Rows:
    """Train the network of DARTS' second-order cell: images a second, and hours of 600 epochs."""
    small = {"channels": 4, "cells": 3, "batch_size": 8} if options.tiny else {}
    for precision in get_args(Precision):
        table = {"channels": 36, "cells": 20, "auxiliary": 0.4, "precision": precision} | small
        settings = from_table(Retrain, table | {"device": options.device}, "a retraining")
        with arithmetic(precision):
            work = Training(resolve("DARTS_V2"), stream_of(options, settings), settings)
            count, ms = timed(work.advance, options)
        rate = settings.batch_size / ms * 1000
        yield {
            "what": f"retraining, {precision}",
            "key": precision,
            "images_a_second": rate,
            "ms": ms,
            "steps": count,
            "hours_of_600_epochs": 600 * 50_000 / rate / 3600,
        }


def stream_of(options: argparse.Namespace, settings: Retrain) -> Stream:
    """Return the images of a retraining."""
    data = from_table(Data, options.images_of, "the data")
    train = read(data, "train")
    cut = replace(data, cutout=default_cutout(train))
    return Stream(
        data=train,
        subset=torch.arange(len(train.images)),
        batch_size=settings.batch_size,
        seed=0,
        name="retrain",
        augmentation=augmentation(train, cut),
        device=torch.device(options.device),
    )


def others(options: argparse.Namespace, seconds: float) -> Rows:
    """Run the benchmarks of kernels and of precision, where there are any."""
    for name in ("kernels", "precision"):
        if not (Path(__file__).parent / f"{name}.py").exists():
            yield {"what": name, "note": f"not measured: there is no benchmarks/{name}.py"}
            continue
        for row in importlib.import_module(name).measure(options.device, options.tiny):
            yield {"what": name} | row


PARTS: Mapping[str, Part] = {
    "tests": Part(tests, 0.2),
    "steps": Part(steps, 0.3),
    "original": Part(original, 0.06),
    "kernels": Part(kernels, 0.06),
    "repeats": Part(repeats, 0.1),
    "retraining": Part(retraining, 0.08),
    "others": Part(others, 0.08),
    "searches": Part(gpu_searches.searches, 1.0),
}
"""All parts, in order of worth."""
