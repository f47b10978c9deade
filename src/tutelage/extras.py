"""Optional parts of a method beside its levels: values of one kind, `Extra`.

A problem lists them in `extras`, at most one of each class. Other code gets one by its class:

    if probe := problem.extra(Probe):
        answers = probe.ask(variables, fitted, judged)

Every class documents when it is called, and with which arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from tutelage.batch import Batch, Batches
from tutelage.checks import at_least, positive, within
from tutelage.multilevel import Notes
from tutelage.trees import Tree


class Extra:
    """An optional part of a method beside its levels."""


@dataclass(frozen=True)
class AfterStep(Extra):
    """Called after every iteration; may change stored values among the variables."""

    call: Callable[[dict[str, Tree], Batches, Sequence[Notes]], None]
    """Gets all variables, the iteration's batches and the losses' notes, inner level first."""


@dataclass(frozen=True)
class Notice(Extra):
    """A sentence that is printed before a run and by a dry run, such as the memory it takes."""

    text: str


@dataclass(frozen=True)
class Share(Extra):
    """Share of the training images in an epoch; without it: all."""

    of_images: float

    def __post_init__(self) -> None:
        positive(of_images=self.of_images)
        within(0, 1, of_images=self.of_images)


@dataclass(frozen=True)
class Members(Extra):
    """The search keeps an ensemble, selected together; without it: the best learner."""

    count: int
    """Number of learners in the ensemble."""

    def __post_init__(self) -> None:
        at_least(1, count=self.count)


class Answers(NamedTuple):
    """Logits of sampled sub-networks and their teacher for the same images."""

    students: Tensor
    """Logits (m, B, C)."""
    teacher: Tensor | None
    """Logits (B, C); None: there is no teacher yet."""


@dataclass(frozen=True)
class Probe(Extra):
    """For methods that teach sampled sub-networks: called after every epoch, for metrics.jsonl."""

    ask: Callable[[dict[str, Tree], Batch, Batch], Answers]
    """Gets all variables, the images to fit the teacher to, and those for the measurement."""
    teacher: str = ""
    """A sentence that describes the teacher, logged with the scores for the report."""


@dataclass(frozen=True)
class Score(Extra):
    """The score for ranking and evolution of architectures; without it: accuracy.

    A method with its own score trains no classifier, so no accuracy is measured.
    """

    ask: Callable[[dict[str, Tree], Any, Batch], Tensor]
    """Gets all variables, sampled architecture weights and images; returns the score (), higher is
    better."""


@dataclass(frozen=True)
class Seeds(Extra):
    """Architectures for the first generation of the evolution."""

    ask: Callable[[dict[str, Tree]], Sequence[Any]]
    """Gets all variables at the end of the training; returns architecture weights."""
