"""A few steps of a search, measured: time, memory, weights, multiply-adds."""

from __future__ import annotations

import gc
import time
from functools import partial
from itertools import groupby
from statistics import median
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from tutelage.problem import pick
from tutelage.run.memory import peak, reset_peak
from tutelage.run.searching import Searching
from tutelage.virtual import Tree, leaves

SECONDS = 20.0
"""Time after which no further step of a section is measured."""


class Section(NamedTuple):
    """Epochs of a phase in which the same levels train."""

    epochs: range
    levels: tuple[str, ...]
    """Names of the levels' losses."""
    weights: int
    """Trained numbers of one learner's supernet."""
    trained: int
    """Trained numbers of all networks."""
    multiply_adds: int
    """Of one forward pass of a supernet, for one image."""
    seconds: float
    """Time of a step."""


class Measured(NamedTuple):
    """A search at one batch size."""

    batch: int
    sections: list[Section]
    peak: int
    """Most memory in use, in bytes."""


def measure(work: Searching, steps: int) -> Measured:
    """Take a first step and a few measured ones in every section of a fresh search."""
    gc.collect()
    reset_peak(work.device)
    sections = []
    for phase, stretch in enumerate(work.stretches):
        if phase:
            work.epoch = stretch.start
            work.next_phase()
        epochs = range(stretch.start, stretch.start + stretch.epochs)
        for names, together in groupby(epochs, key=partial(levels_in, work)):
            inside = list(together)
            work.epoch, work.step = inside[0], 0
            seconds = time_of_step(work, steps)
            counts = (*weights_of(work), forward_multiply_adds(work))
            sections.append(Section(range(inside[0], inside[-1] + 1), names, *counts, seconds))
    return Measured(work.streams.train.batch_size, sections, peak(work.device))


def levels_in(work: Searching, epoch: int) -> tuple[str, ...]:
    """Name the levels that train in an epoch of the present phase."""
    work.epoch = epoch
    return tuple(level.name for level in work.levels())


def time_of_step(work: Searching, steps: int) -> float:
    """Return the median time of a few steps, after one that is not measured."""
    work.advance()
    times: list[float] = []
    while len(times) < steps and sum(times) < SECONDS:
        synchronise(work.device)
        start = time.perf_counter()
        work.advance()
        synchronise(work.device)
        times.append(time.perf_counter() - start)
    return median(times)


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def weights_of(work: Searching) -> tuple[int, int]:
    """Count the trained numbers of the first learner's supernet, and of all networks."""
    learner = work.problem.learners[0]
    owned = {level.variable for level in work.problem.levels if level.optimiser == "weights"}

    def count(tree: Tree) -> int:
        return sum(x.numel() for x in leaves(tree))

    every = sum(count(work.variables[name]) for name in owned)
    return count(pick(work.variables, learner.weights)), every


@torch.no_grad()
def forward_multiply_adds(work: Searching) -> int:
    """Count the multiply-adds of a forward pass of the first learner's supernet, for one image."""
    learner = work.problem.learners[0]
    weights, alphas = (pick(work.variables, path) for path in (learner.weights, learner.alphas))
    x = work.streams.train.batch(0, 0).x[:2]  # batch normalisation takes two
    with FlopCounterMode(display=False) as counter:
        learner.net(weights, alphas, x)
    return counter.get_total_flops() // (2 * len(x))  # it counts a multiply-add as two operations
