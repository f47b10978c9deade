"""Several processes that compute together, inside a test: as torchrun starts them, with gloo.

They are forked from a server that has imported torch and has computed nothing, which takes a tenth
of a second each. Whoever waits for them stops after a while, and ends them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from tutelage import ranks
from tutelage.config import Run
from tutelage.data import batches
from tutelage.data.streams import halves_of
from tutelage.parts import from_table
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.state import Searching
from tutelage.trees import Tree, leaves

FORKED = "forkserver" in multiprocessing.get_all_start_methods()
PATIENCE = 300.0
"""Seconds after which processes have failed."""


def together(count: int, work: Callable[..., Any], *given: Any, seconds: float = PATIENCE) -> list:
    """Call a function in processes that are joined as ranks; return what each returned, by rank.

    Args:
        count: How many processes.
        work: A function of a module that they can import.
        given: Its arguments.
        seconds: When they have failed if they are not done.
    """
    with tempfile.TemporaryDirectory() as folder:
        method = "forkserver" if FORKED else "spawn"
        if FORKED:
            _serve()
        arguments = (count, folder, work, given)
        begun = start_processes(_rank, arguments, count, join=False, start_method=method)
        end = time.monotonic() + seconds
        try:
            while not begun.join(max(0.0, end - time.monotonic())):  # raises what a process raised
                if time.monotonic() >= end:
                    raise TimeoutError(f"{count} processes are not done after {seconds:.0f} s")
        finally:
            for process in begun.processes:
                process.kill()
        load = [Path(folder, f"{rank}.pt") for rank in range(count)]
        return [torch.load(each, weights_only=False) for each in load]


def _serve() -> None:
    """Start the server that is forked, unless it runs; it finds the modules that this one finds."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["launched"])
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver.ensure_running()


def _rank(rank: int, count: int, folder: str, work: Callable[..., Any], given: Any) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder, "store")), count)
    patience = timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=patience)
    try:
        torch.save(work(*given), Path(folder, f"{rank}.pt"))
        dist.barrier()
    finally:
        ranks.leave()


@contextmanager
def computing(kind: torch.dtype):
    """Compute in a type, images included."""
    before, changed = torch.get_default_dtype(), batches._changed

    def in_kind(*given):
        batch = changed(*given)
        return batch._replace(x=batch.x.to(kind))

    torch.set_default_dtype(kind)
    try:
        with patch.object(batches, "_changed", in_kind):
            yield
    finally:
        torch.set_default_dtype(before)


# Searches ---------------------------------------------------------------------------------------


class Case(NamedTuple):
    """Some steps of a search."""

    settings: Mapping[str, Any]
    """The settings of a run."""
    epochs: Sequence[int]
    """Steps of every epoch, from the first one."""
    kind: torch.dtype = torch.float64


class Found(NamedTuple):
    """What a search holds after some steps."""

    before: dict[str, list[Tensor]]
    """Its variables at the beginning."""
    variables: dict[str, list[Tensor]]
    velocities: dict[str, list[Tensor]]
    moments: dict[str, list[Tensor]]
    """Those of Adam, of the alphas."""
    metrics: dict[Any, float]


def searching(settings: Mapping[str, Any]) -> Searching:
    """Begin a search."""
    run = from_table(Run, dict(settings), "a search")
    parts = joined(run)
    torch.manual_seed(run.seed)
    setup = parts.setup(halves_of(run, parts.train))
    return Searching(setup, parts.strategy(setup))


def searched(cases: Mapping[Any, Case]) -> dict[Any, Found]:
    """Take the steps of every case."""
    return {name: _searched(case) for name, case in cases.items()}


def _searched(case: Case) -> Found:
    with computing(case.kind):
        work = searching(case.settings)
        before = _tensors(work.phase.variables)
        for epoch, steps in enumerate(case.epochs):
            work.epoch, work.step = epoch, 0
            for _ in range(steps):
                work.advance()
            work.check()
            work.check_state()  # compares the ranks
        phase = work.phase
        moments = {
            name: [x for own in each.state.values() for x in own.values() if x.dim()]
            for name, each in phase.optimisers.items()
        }
        return Found(
            before,
            _tensors(phase.variables),
            _tensors(phase.velocities),
            moments,
            dict(work.meter.last) | {("apart", *k): x for k, x in _flat(work.apart).items()},
        )


def _tensors(trees: Mapping[str, Tree]) -> dict[str, list[Tensor]]:
    return {name: [x.detach().clone() for x in leaves(tree)] for name, tree in trees.items()}


def _flat(nested: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    return {(a, b): x for a, inner in nested.items() for b, x in inner.items()}
