"""A few steps of a search, measured: time, memory, parameters, FLOPs."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tutelage.problem import pick
from tutelage.run.measure.forecast import Traced
from tutelage.run.measure.live import traced
from tutelage.run.measure.memory import peak, reset_peak, synchronise
from tutelage.run.supernet.state import Searching
from tutelage.run.supernet.view import View
from tutelage.spaces.base import ArchWeights
from tutelage.spaces.convolution import chosen_for_batch
from tutelage.trees import Tree, leaves, tree_map

SECONDS = 20.0
"""Time after which no further step of a section is measured."""


class Section(NamedTuple):
    """Epochs of a phase in which the same levels train."""

    epochs: range
    levels: tuple[str, ...]
    """Names of the levels' losses."""
    params: int
    """Parameters of one learner's supernet."""
    trained: int
    """Parameters of all networks."""
    flops: int
    """FLOPs of a forward pass of a supernet, or of a batch's sub-networks, for one image."""
    seconds: float
    """Time of a step."""
    paths: int = 0
    """Sub-networks that are sampled for a batch; 0: the whole supernet runs."""


class Measured(NamedTuple):
    """A search at one batch size."""

    batch: int
    sections: list[Section]
    peak: int
    """Most memory in use, in bytes."""


def measure(work: Searching, steps: int) -> Measured:
    """Take a first step and a few measured ones in every section of a fresh search."""
    gc.collect()
    device = work.setup.device
    reset_peak(device)
    found = []
    for epochs, names in sections(work):
        seconds, view = time_of_step(work, steps), work.view()
        paths = paths_of_step(view)
        counts = (*weights_of(view), forward_flops(view, paths))
        found.append(Section(epochs, names, *counts, seconds, paths))
    return Measured(work.setup.streams.train.batch_size, found, peak(device))


def trace(work: Searching, asked: int) -> Traced:
    """Trace a step in every section of a fresh search, after one that is not traced.

    Its batch is small and stands for one of `asked` images, whose forms of operations are traced.
    """
    gc.collect()
    device = work.setup.device
    reset_peak(device)
    traces = []
    with chosen_for_batch(asked / work.setup.streams.train.batch_size):
        for _ in sections(work):
            found = traced(work.advance, device.type)
            settle(work)
            traces.append(replace(found, recorded=work.programs.recorded))
    tensors = max(each.peak for each in traces)
    extra = max(0, peak(device) - tensors)
    return Traced(work.setup.streams.train.batch_size, traces, extra)


def sections(work: Searching) -> Iterator[tuple[range, tuple[str, ...]]]:
    """Bring a fresh search to every section in turn; yield its epochs and its levels' names.

    A phase keeps operations by the alphas from which the previous one began, so that they do not
    depend on the batch size.
    """
    begun: dict[str, list[Tensor]] = {}
    for phase, stretch in enumerate(work.setup.phases):
        if phase:
            for name, alphas in begun.items():
                for moved, first in zip(leaves(work.phase.variables[name]), alphas, strict=True):
                    moved.copy_(first)
            work.epoch = stretch.start
            work.next_phase()
        variables, trained = work.phase.variables, work.phase.optimisers
        begun = {name: [x.clone() for x in leaves(variables[name])] for name in trained}
        epochs = range(stretch.start, stretch.start + stretch.epochs)
        for names, together in groupby(epochs, key=partial(levels_in, work)):
            inside = list(together)
            work.epoch, work.step = inside[0], 0
            for bound in work.phase.bound:
                bound.begin_epoch()
            yield range(inside[0], inside[-1] + 1), names


def levels_in(work: Searching, epoch: int) -> tuple[str, ...]:
    """Name the levels that train in an epoch of the present phase."""
    return tuple(level.name for level in work.phase.levels(epoch))


def settle(work: Searching) -> None:
    """Take steps until the next ones run as all later ones will, as programs or not."""
    while not work.programs.settled:
        work.advance()


def time_of_step(work: Searching, steps: int) -> float:
    """Return the median time of a few steps, after those that prepare them."""
    work.advance()
    settle(work)
    times: list[float] = []
    while len(times) < steps and sum(times) < SECONDS:
        synchronise(work.setup.device)
        start = time.perf_counter()
        work.advance()
        synchronise(work.setup.device)
        times.append(time.perf_counter() - start)
    return median(times)


def shapes(tree: Tree) -> Tree:
    """Return tensors of the same shapes without values, where no form depends on the batch."""
    return tree_map(lambda x: x.to("meta"), tree)


def of_shapes(arch: ArchWeights) -> ArchWeights:
    """Return architecture weights without values."""
    edges = None if arch.edges is None else shapes(arch.edges)
    return replace(arch, operations=shapes(arch.operations), edges=edges)


def weights_of(view: View) -> tuple[int, int]:
    """Count the parameters of the first learner's supernet, and of all networks."""
    learner = view.learners[0]
    owned = {level.variable for level in view.problem.levels if level.optimiser == "weights"}

    def count(tree: Tree) -> int:
        return sum(x.numel() for x in leaves(tree))

    every = sum(count(view.variables[name]) for name in owned)
    return count(view.weights(learner)), every


def paths_of_step(view: View) -> int:
    """Count the sub-networks of the first learner that a step has sampled."""
    counts = view.bound[0].counts.values()
    return max((int(each.sum(1).max()) for each in counts), default=0) // view.step


@torch.no_grad()
def forward_flops(view: View, paths: int) -> int:
    """Count the FLOPs of a forward pass of the first learner's supernet, for one image.

    If the search samples paths, they are the FLOPs of all sub-networks of a batch.
    """
    learner = view.learners[0]
    weights, alphas = (pick(view.variables, path) for path in (learner.weights, learner.alphas))
    x = view.setup.streams.train.batch(0, 0).x[:2]  # batch normalisation takes two
    archs = learner.net.paths(paths) if paths else [learner.net.relax(alphas)]
    with FlopCounterMode(display=False) as counter:
        for arch in archs:
            functional_call(learner.net.module, shapes(weights), (shapes(x), of_shapes(arch)))
    return counter.get_total_flops() // (2 * len(x))  # it counts a multiply-add as two operations
