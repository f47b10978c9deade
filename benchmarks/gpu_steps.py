"""The search steps that `gpu.py` measures, and how a step is timed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch

from tutelage.config import Run
from tutelage.data.streams import halves_of
from tutelage.parts import from_table
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.state import Searching

SECONDS = 3.0
"""Time for which a step is repeated, after the steps that are not timed."""


class Case(NamedTuple):
    """A search step."""

    what: str
    key: str
    table: dict[str, Any]
    """The settings that are not the defaults of a search, nor those of its size."""
    cells: tuple[int, int] = (8, 3)
    """Cells at paper size, of 16 channels and 64 images, and at toy size."""


def _case(what: str, key: str, via: str, cells: tuple[int, int] = (8, 3), **table: Any) -> Case:
    return Case(what, key, table | {"via": via}, cells)


BENCH = {"space": {"name": "nasbench201"}, "cells": (5, 1)}
CASES = (
    _case("DARTS, first order", "first-order", "first-order"),
    _case("NAS-Bench-201, first order", "nasbench201", "first-order", **BENCH),
    _case("DARTS, exact", "exact", "exact"),
    _case("DARTS, two-sided difference", "finite-difference", "finite-difference"),
    _case("SGL, two learners, exact", "sgl", "exact", method={"name": "sgl", "learners": 2}),
    _case("LBT, exact", "lbt", "exact", method={"name": "lbt"}),
    _case("PC-DARTS, first order", "pcdarts", "first-order", search={"name": "pcdarts"}),
    _case("GDAS in NAS-Bench-201", "gdas", "first-order", search={"name": "gdas"}, **BENCH),
)
"""The steps, those with a bar first."""


def modes(options: argparse.Namespace) -> tuple[str, ...]:
    """List the values of `--graph` to measure."""
    return ("on", "off") if options.device == "cuda" else ("off",)


def size_of(options: argparse.Namespace, case: Case) -> tuple[int, int, int]:
    """Return the channels, cells and images of a batch."""
    return (4, case.cells[1], 8) if options.tiny else (16, case.cells[0], 64)


def settings_of(options: argparse.Namespace, case: Case, graph: str, **changed: Any) -> Run:
    """Return the settings of a case, with some changed."""
    channels, cells, batch = size_of(options, case)
    table = {"channels": channels, "cells": cells, "batch_size": batch, **case.table}
    table |= {"data": options.images_of, "device": options.device, "graph": graph}
    return from_table(Run, table | changed, "a search")


def searching(settings: Run) -> Searching:
    """Begin a search without a run directory, in an epoch in which all its levels train."""
    parts = joined(settings)
    torch.manual_seed(settings.seed)
    setup = parts.setup(halves_of(parts.settings, parts.train))
    work = Searching(setup, parts.strategy(setup))
    epochs = range(work.phase.stretch.epochs)
    work.epoch = max(epochs, key=lambda epoch: len(work.phase.levels(epoch)))
    return work


def synchronised(options: argparse.Namespace) -> None:
    """Wait for the device."""
    if options.device == "cuda":
        torch.cuda.synchronize()


def timed(
    advance: Callable[[], Any], options: argparse.Namespace, warm: int = 2
) -> tuple[int, float]:
    """Time a function in blocks; return how often it was called, and the median milliseconds.

    Args:
        advance: Takes a step.
        options: The device, and whether this is a toy run.
        warm: Steps that are not timed.
    """
    for _ in range(warm):
        advance()
    synchronised(options)
    begun = time.perf_counter()
    advance()
    synchronised(options)
    first = time.perf_counter() - begun
    if options.tiny:
        return 1, 1000 * first
    size, ends, times = max(1, min(20, round(0.2 / first))), begun + SECONDS, []
    while not times or time.perf_counter() < ends:
        start = time.perf_counter()
        for _ in range(size):
            advance()
        synchronised(options)
        times.append((time.perf_counter() - start) / size)
    return size * len(times), 1000 * median(times)


def warm(graph: str) -> int:
    """Return how many steps are not timed: some are watched and one is recorded for a replay."""
    return 6 if graph == "on" else 2
