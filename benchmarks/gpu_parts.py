"""What `gpu.py` measures, in order of worth; every part yields rows."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
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
    """Run the tests that are marked `cuda`; where the time is up, count those that have ended."""
    marked = [p for p in sorted((ROOT / "tests").glob("test_*.py")) if "mark.cuda" in p.read_text()]
    flags = ["-vv", "--color=no", "-m", "cuda", "-p", "no:cacheprovider"]
    command = [sys.executable, "-u", "-m", "pytest", *flags, *map(str, marked)]
    here = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    path, note = options.scratch / "tests.txt", ""
    with path.open("w") as file:
        try:
            ended = subprocess.run(
                command, cwd=ROOT, env=here, stdout=file, stderr=file, timeout=seconds, check=False
            )
            if ended.returncode not in (0, 1):
                raise RuntimeError(f"pytest ended with {ended.returncode}: {tail(path)}")
        except subprocess.TimeoutExpired:
            note = f"not all: stopped after {seconds:.0f} s"
    ends = re.findall(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)", path.read_text(), re.MULTILINE)
    counts = Counter(how for _, how in ends)
    yield {
        "what": "tests marked cuda",
        "key": "tests",
        "passed": counts["PASSED"],
        "failed": counts["FAILED"] + counts["ERROR"],
        "skipped": counts["SKIPPED"],
        "names": [name for name, how in ends if how in ("FAILED", "ERROR")],
        "note": note,
    }


def tail(path: Path) -> str:
    """Return the end of a file."""
    return path.read_text()[-500:]


def steps(options: argparse.Namespace, seconds: float) -> Rows:
    """Time whole search steps, replayed and eager."""
    ends = time.monotonic() + seconds
    for graph, case in product(modes(options), CASES):  # those with a bar are replayed
        if time.monotonic() > ends:
            yield {"what": f"{case.what}, {graph}, and what follows", "note": "the time was up"}
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
    return row | {"note": "; ".join(work.programs.notices())}  # what is replayed, and why not


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
    busy = sum(event.time_range.elapsed_us() for event in events) / 1000
    return {"kernels": len(events), "gpu_ms": busy}


def repeats(options: argparse.Namespace, seconds: float) -> Rows:
    """Run short searches twice: their metrics are the same to the bit, or not."""
    yield from gpu_searches.repeats(options, "first-order", "nasbench201")
    graph = modes(options)[0]
    costs = [step(options, CASES[0], graph, deterministic=flag)["ms"] for flag in (False, True)]
    percent = 100 * (costs[1] / costs[0] - 1)
    yield {"what": "cost of determinism", "key": "cost", "percent": percent, "ms": costs[1]}
    yield from gpu_searches.repeats(options, "sgl")  # the slowest, and last


def retraining(options: argparse.Namespace, seconds: float) -> Rows:
    """Train the network of DARTS' second-order cell: images a second, and hours of 600 epochs."""
    small = {"channels": 4, "cells": 3, "batch_size": 8} if options.tiny else {}
    for precision, graph in product(get_args(Precision), modes(options)):
        table = {"channels": 36, "cells": 20, "auxiliary": 0.4, **small}
        table |= {"precision": precision, "graph": graph, "device": options.device}
        settings = from_table(Retrain, table, "a retraining")
        with arithmetic(precision):
            work = Training(resolve("DARTS_V2"), stream_of(options, settings), settings)
            count, ms = timed(work.advance, options, warm(graph))
        rate = settings.batch_size / ms * 1000
        yield {
            "what": f"retraining, {precision}, {graph}",
            "key": f"{precision}/{graph}",
            "images_a_second": rate,
            "ms": ms,
            "steps": count,
            "hours_of_600_epochs": 600 * 50_000 / rate / 3600,
            "note": "; ".join(work.programs.notices()),
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
    "tests": Part(tests, 0.25),
    "steps": Part(steps, 0.28),
    "original": Part(original, 0.05),
    "kernels": Part(kernels, 0.05),
    "repeats": Part(repeats, 0.08),
    "retraining": Part(retraining, 0.08),
    "others": Part(others, 0.06),
    "searches": Part(gpu_searches.searches, 1.0),
}
"""All parts, in order of worth."""
