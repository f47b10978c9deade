"""What a method may hand over beside its levels: values of one kind, `Extra`.

A problem lists them in `extras`, at most one of each class. Whoever asks for one names the class:

    if probe := problem.extra(Probe):
        answers = probe.ask(variables, fitted, judged)

Every class says when it is asked, and what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from tutelage.batch import Batch, Batches
from tutelage.checks import at_least, positive, within
from tutelage.multilevel import Notes
from tutelage.virtual import Tree


class Extra:
    """Something that a method hands over beside its levels."""


@dataclass(frozen=True)
class AfterStep(Extra):
    """Called after every iteration; may change what is remembered among the variables."""

    call: Callable[[dict[str, Tree], Batches, Sequence[Notes]], None]
    """Gets all variables, the iteration's batches and what the losses noted, inner level first."""


@dataclass(frozen=True)
class Notice(Extra):
    """Said before the run, and by a dry run: memory that is taken."""

    text: str


@dataclass(frozen=True)
class Share(Extra):
    """How much of the training images an epoch reads; without it: all."""

    of_images: float

    def __post_init__(self) -> None:
        positive(of_images=self.of_images)
        within(0, 1, of_images=self.of_images)


@dataclass(frozen=True)
class Members(Extra):
    """The search ends with an ensemble, selected together; without it: with the best learner."""

    count: int
    """How many learners it keeps."""

    def __post_init__(self) -> None:
        at_least(1, count=self.count)


class Answers(NamedTuple):
    """What sampled sub-networks and their teacher answer for the same images."""

    students: Tensor
    """Logits (m, B, C)."""
    teacher: Tensor | None
    """Logits (B, C); None: there is no teacher yet."""


@dataclass(frozen=True)
class Probe(Extra):
    """Of a method that teaches sampled sub-networks: asked after every epoch, for metrics.jsonl."""

    ask: Callable[[dict[str, Tree], Batch, Batch], Answers]
    """Gets all variables, the images that the teacher is made for, and those that are judged."""
    teacher: str = ""
    """Who the teacher is: a sentence that is logged with the answers, for the report."""


@dataclass(frozen=True)
class Score(Extra):
    """What architectures are ranked by and evolve by; without it: by accuracy.

    A method that has its own trains no classifier, so nothing else is asked of its learner.
    """

    ask: Callable[[dict[str, Tree], Any, Batch], Tensor]
    """Gets all variables, sampled architecture weights and images; says how good () it is, higher
    is better."""


@dataclass(frozen=True)
class Seeds(Extra):
    """Architectures that are worth a place in the first generation of the evolution."""

    ask: Callable[[dict[str, Tree]], Sequence[Any]]
    """Gets all variables at the end of the training; returns architecture weights."""
