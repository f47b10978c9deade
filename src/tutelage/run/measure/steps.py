"""A few steps of a search, measured: time, memory, weights, multiply-adds; and a score's time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from statistics import median
from typing import NamedTuple, final

import torch
from torch.utils.flop_counter import FlopCounterMode

from tutelage.problem import Part, pick
from tutelage.run.measure.memory import peak, reset_peak
from tutelage.run.one_shot.conclusion import scorer_of
from tutelage.run.one_shot.ranking import counts
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.supernet.state import Searching
from tutelage.spaces.paths import drawn, genotype
from tutelage.virtual import Tree, leaves

SECONDS = 20.0
"""Time after which no further step of a section is measured, nor a further score."""
BATCHES = 2
"""Batches that set BatchNorm statistics, and that judge, when a score is measured."""


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
    """Of one forward pass of a supernet, or of the sub-networks of a batch, for one image."""
    seconds: float
    """Time of a step."""
    paths: int = 0
    """Sub-networks that are drawn for a batch; 0: the supernet runs as a mix."""


class Measured(NamedTuple):
    """A search at one batch size."""

    batch: int
    sections: list[Section]
    peak: int
    """Most memory in use, in bytes."""


class Scoring(NamedTuple):
    """What it takes to score architectures in a supernet, and how many there are."""

    fitted: int
    """Images that set its BatchNorm statistics; 0: none do."""
    judged: int
    """Images that it is judged by."""
    seconds: float
    """Time of one architecture."""
    ranked: int
    """Architectures that are ranked in the end."""
    evolved: int
    """Architectures that evolution scores; fewer where the limits leave fewer."""


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
            for sampled in work.maker.sampled:
                sampled.counts = {}
            seconds, paths = time_of_step(work, steps), paths_of_step(work)
            counts = (*weights_of(work), forward_multiply_adds(work, paths))
            here = range(inside[0], inside[-1] + 1)
            sections.append(Section(here, names, *counts, seconds, paths))
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


def paths_of_step(work: Searching) -> int:
    """Count the sub-networks of the first learner that a step has drawn; 0: it draws none."""
    if not work.maker.sampled:
        return 0
    counts = work.maker.sampled[0].counts.values()
    return max(int(each.sum(1).max()) for each in counts) // work.step


@torch.no_grad()
def forward_multiply_adds(work: Searching, paths: int) -> int:
    """Count the multiply-adds of a forward pass of the first learner's supernet, for one image.

    Where it samples, they are those of all the sub-networks of a batch.
    """
    learner = work.problem.learners[0]
    weights, alphas = (pick(work.variables, path) for path in (learner.weights, learner.alphas))
    x = work.streams.train.batch(0, 0).x[:2]  # batch normalisation takes two
    mixes = learner.net.paths(paths) if paths else [learner.net.mix(alphas)]
    with FlopCounterMode(display=False) as counter:
        for mix in mixes:
            learner.net.under(weights, mix, x)
    return counter.get_total_flops() // (2 * len(x))  # it counts a multiply-add as two operations


# Scoring ----------------------------------------------------------------------------------------


@final
@dataclass
class Few:
    """The first few of some batches, and the time from asking for them to their last use."""

    parts: Callable[[], Iterable[Part]]
    device: torch.device
    images: int = 0
    """Images given so far."""
    seconds: float = 0.0
    """What their use took."""

    def __call__(self) -> Iterator[Part]:
        """Yield them."""
        start = time.perf_counter()
        for part in islice(self.parts(), BATCHES):
            self.images += len(part.y)
            yield part
        synchronise(self.device)
        self.seconds += time.perf_counter() - start

    def of(self, images: int) -> tuple[int, float]:
        """Return how many images are used and for how long, where so many are there; 0: none is."""
        return (images, self.seconds * images / self.images) if self.images else (0, 0.0)


def measure_scoring(work: Searching, steps: int) -> Scoring:
    """Score architectures on few images; tell what one takes on all of them.

    Args:
        work: A search that samples paths.
        steps: How many architectures, after one that is not measured.
    """
    whole, evolution = scorer_of(work, work.problem.learners[0]), work.settings.evolution
    timed_scores(work, whole, 1)
    seconds, fitted, judged = timed_scores(work, whole, steps)
    sets, fitting = fitted.of(min(evolution.images, len(work.streams.train.subset)))
    judges, judging = judged.of(min(evolution.judged, len(work.streams.valid.subset)))
    return Scoring(sets, judges, seconds + fitting + judging, *counts(work))


def timed_scores(work: Searching, whole: Scorer, count: int) -> tuple[float, Few, Few]:
    """Score drawn architectures on a few batches, until there are so many or time is up.

    Returns:
        The time that one takes besides its batches, and the batches' own times.
    """
    fitted, judged = (Few(parts, work.device) for parts in (whole.fitted, whole.judged))
    scorer, done = replace(whole, fitted=fitted, judged=judged), 0
    synchronise(work.device)
    start = now = time.perf_counter()
    while done < count and now - start < SECONDS:
        scorer.score(genotype(work.space, drawn(work.space)))
        done, now = done + 1, time.perf_counter()
    return (now - start - fitted.seconds - judged.seconds) / done, fitted, judged
