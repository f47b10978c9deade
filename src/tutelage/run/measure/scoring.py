"""The time of a score of an architecture in a supernet, from a few batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, final

import torch

from tutelage.batch import Batch
from tutelage.run.measure.memory import synchronise
from tutelage.run.one_shot.conclusion import scorer_of
from tutelage.run.one_shot.ranking import counts
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.supernet.view import View
from tutelage.spaces.paths import genotype, sample

SECONDS = 20.0
"""Time after which no further score is measured."""
BATCHES = 2
"""Batches that set BatchNorm statistics, and that measure accuracy, when a score is timed."""


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
