"""A few steps of a search, measured: time, memory, parameters, FLOPs; and a score's time."""

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

from tutelage.batch import Batch
from tutelage.problem import pick
from tutelage.run.measure.memory import peak, reset_peak
from tutelage.run.one_shot.conclusion import scorer_of
from tutelage.run.one_shot.ranking import counts
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.supernet.state import Searching
from tutelage.run.supernet.view import View
from tutelage.spaces.paths import genotype, sample
from tutelage.virtual import Tree, leaves

SECONDS = 20.0
"""Time after which no further step of a section and no further score is measured."""
BATCHES = 2
"""Batches that set BatchNorm statistics, and that measure accuracy, when a score is timed."""


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


class Scoring(NamedTuple):
    """The work of scoring architectures in a supernet, and how many are scored."""

    fitted: int
    """Images that set an architecture's BatchNorm statistics; 0: none are set."""
    judged: int
    """Images on which its accuracy is measured."""
    seconds: float
    """Time of one architecture."""
    ranked: int
    """Architectures that are ranked in the end."""
    evolved: int
    """Architectures that evolution scores; fewer where the limits leave fewer."""


def measure(work: Searching, steps: int) -> Measured:
    """Take a first step and a few measured ones in every section of a fresh search."""
    gc.collect()
    device = work.setup.device
    reset_peak(device)
    sections = []
    for phase, stretch in enumerate(work.setup.phases):
        if phase:
            work.epoch = stretch.start
            work.next_phase()
        epochs = range(stretch.start, stretch.start + stretch.epochs)
        for names, together in groupby(epochs, key=partial(levels_in, work)):
            inside = list(together)
            work.epoch, work.step = inside[0], 0
            for bound in work.phase.bound:
                bound.begin_epoch()
            seconds, view = time_of_step(work, steps), work.view()
            paths = paths_of_step(view)
            counts = (*weights_of(view), forward_flops(view, paths))
            here = range(inside[0], inside[-1] + 1)
            sections.append(Section(here, names, *counts, seconds, paths))
    return Measured(work.setup.streams.train.batch_size, sections, peak(device))


def levels_in(work: Searching, epoch: int) -> tuple[str, ...]:
    """Name the levels that train in an epoch of the present phase."""
    return tuple(level.name for level in work.phase.levels(epoch))


def time_of_step(work: Searching, steps: int) -> float:
    """Return the median time of a few steps, after those that prepare them."""
    work.advance()
    while not work.programs.settled:
        work.advance()
    times: list[float] = []
    while len(times) < steps and sum(times) < SECONDS:
        synchronise(work.setup.device)
        start = time.perf_counter()
        work.advance()
        synchronise(work.setup.device)
        times.append(time.perf_counter() - start)
    return median(times)


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
            learner.net.under(weights, arch, x)
    return counter.get_total_flops() // (2 * len(x))  # it counts a multiply-add as two operations


# Scoring ----------------------------------------------------------------------------------------


@final
@dataclass
class Few:
    """The first few of some batches, and the time from requesting them to their last use."""

    batches: Callable[[], Iterable[Batch]]
    device: torch.device
    images: int = 0
    """Images yielded so far."""
    seconds: float = 0.0
    """Time that their use took."""

    def __call__(self) -> Iterator[Batch]:
        """Yield them."""
        start = time.perf_counter()
        for batch in islice(self.batches(), BATCHES):
            self.images += len(batch.y)
            yield batch
        synchronise(self.device)
        self.seconds += time.perf_counter() - start

    def of(self, images: int) -> tuple[int, float]:
        """Scale to `images` images: how many of them are used, and the time; 0: none is used."""
        return (images, self.seconds * images / self.images) if self.images else (0, 0.0)


def measure_scoring(view: View, steps: int) -> Scoring:
    """Score architectures on few images, and estimate the time of one on all images.

    Args:
        view: A search that samples paths.
        steps: How many architectures, after one that is not measured.
    """
    whole, evolution = scorer_of(view, view.learners[0]), view.setup.settings.evolution
    streams = view.setup.streams
    timed_scores(view, whole, 1)
    seconds, fitted, judged = timed_scores(view, whole, steps)
    sets, fitting = fitted.of(min(evolution.images, len(streams.train.subset)))
    judges, judging = judged.of(min(evolution.judged, len(streams.valid.subset)))
    return Scoring(sets, judges, seconds + fitting + judging, *counts(view.setup))


def timed_scores(view: View, whole: Scorer, count: int) -> tuple[float, Few, Few]:
    """Score `count` sampled architectures on a few batches, or fewer if the time is up.

    Returns:
        The time of one architecture without its batches, and the times of the batches.
    """
    device, space = view.setup.device, view.setup.space
    fitted, judged = (Few(batches, device) for batches in (whole.fitted, whole.judged))
    scorer, done = replace(whole, fitted=fitted, judged=judged), 0
    synchronise(device)
    start = now = time.perf_counter()
    while done < count and now - start < SECONDS:
        scorer.score(genotype(space, sample(space)))
        done, now = done + 1, time.perf_counter()
    return (now - start - fitted.seconds - judged.seconds) / done, fitted, judged
