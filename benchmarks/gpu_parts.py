"""What `gpu.py` measures, in order of worth; every part yields rows."""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple, get_args

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import gpu_searches
import gpu_tests
import kernels as fused_kernels
import operations
import originals
import precision
from gpu_steps import (
    CASES,
    Case,
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
from tutelage.run.conditions import conditions
from tutelage.run.machine.device import arithmetic
from tutelage.run.retrain import default_cutout
from tutelage.run.training.training import Training
from tutelage.spaces.base import Size
from tutelage.spaces.cells import DARTS
from tutelage.spaces.published import resolve

NO_KERNELS = ("Memcpy", "Memset", "Optimizer.", "ProfilerStep")
"""What the names of events of a GPU begin with that are no kernels."""
Row = dict[str, Any]
Rows = Iterator[Row]


class Part(NamedTuple):
    """A part of the measurement."""

    measure: Callable[[argparse.Namespace, float], Rows]
    """Given the options, and the seconds that it should take at most."""
    share: float
    """Share of all minutes; 1: whatever is left."""


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
        gc.collect()  # the search before this one refers to itself
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with conditions(settings, repeatable=True):
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
            with conditions(settings, repeatable=True):
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
    found = [event for event in seen.events() if is_kernel(event)]
    busy = sum(event.time_range.elapsed_us() for event in found) / 1000
    return {"kernels": len(found), "gpu_ms": busy}


def is_kernel(event: Any) -> bool:
    """Tell whether an event of a profile is a kernel: no copy, and no name of a stretch of time."""
    noted = getattr(event, "is_user_annotation", False) or event.name.startswith(NO_KERNELS)
    return event.device_type == DeviceType.CUDA and not noted


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
    for kind, graph in product(get_args(Precision), modes(options)):
        table = {"channels": 36, "cells": 20, "auxiliary": 0.4, **small}
        table |= {"precision": kind, "graph": graph, "device": options.device}
        settings = from_table(Retrain, table, "a retraining")
        with arithmetic(kind):
            work = Training(resolve("DARTS_V2"), stream_of(options, settings), settings)
            count, ms = timed(work.advance, options, warm(graph))
        rate = settings.batch_size / ms * 1000
        yield {
            "what": f"retraining, {kind}, {graph}",
            "key": f"{kind}/{graph}",
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


def fused(options: argparse.Namespace, seconds: float) -> Rows:
    """Time every fused kernel against its plain form."""
    rows = fused_kernels.measure(options.device, options.tiny)
    return within(rows, "fused kernels", seconds)


def precisions(options: argparse.Namespace, seconds: float) -> Rows:
    """Compare the architecture gradients of bf16 with those of fp32."""
    return within(precision.measure(options.device, options.tiny), "bf16 gradients", seconds)


def within(rows: Rows, what: str, seconds: float) -> Rows:
    """Yield the rows of a benchmark until the time is up."""
    ends = time.monotonic() + seconds
    for row in rows:
        if time.monotonic() > ends:
            yield {"what": f"{what}: what follows", "note": "the time was up"}
            return
        yield {"what": what} | row


PARTS: Mapping[str, Part] = {
    "tests": Part(gpu_tests.tests, 0.3),
    "steps": Part(steps, 0.26),
    "original": Part(original, 0.04),
    "kernels": Part(kernels, 0.04),
    "repeats": Part(repeats, 0.08),
    "retraining": Part(retraining, 0.07),
    "fused": Part(fused, 0.05),
    "precision": Part(precisions, 0.05),
    "searches": Part(gpu_searches.searches, 1.0),
}
"""All parts, in order of worth."""
