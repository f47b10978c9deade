"""Settings of the evolutionary search among a trained supernet's paths; `evolving` does the work.

Nothing here imports torch or numpy, so that help and checks are fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tutelage.checks import at_least, known_choices, within

Objectives = Literal["accuracy", "accuracy-flops", "accuracy-params", "accuracy-latency"]


@dataclass(frozen=True)
class Evolution:
    """Evolve paths of the trained supernet; SPOS' settings by default."""

    population: int = 50
    """Architectures in a generation."""
    generations: int = 20
    """Generations, including the first of random architectures (with cream also its board's)."""
    parents: int = 10
    """Best architectures so far that have children; with two objectives the whole population does.
    """
    crossover: float = 0.5
    """Share of a generation that takes every choice from one of two parents; the others are
    mutated copies of one parent."""
    mutation: float = 0.1
    """Probability that a choice of a mutated copy is sampled again."""
    objectives: Objectives = "accuracy"
    """Objectives of the selection: accuracy alone, or a Pareto front of accuracy and of few FLOPs,
    few parameters or a low latency by the table."""
    images: int = 25_600
    """Training images that set an architecture's BatchNorm statistics before it is scored; at most
    all of them."""
    judged: int = 8_000
    """Validation images that an architecture is scored on; at most all of them."""

    def __post_init__(self) -> None:
        at_least(1, population=self.population, generations=self.generations)
        at_least(1, parents=self.parents)
        at_least(2, images=self.images, judged=self.judged)  # a supernet normalises by the batch
        within(0, 1, crossover=self.crossover, mutation=self.mutation)
        known_choices(self)
        if self.parents == 1 and self.crossover:
            raise ValueError(
                f"parents = 1 with crossover = {self.crossover}: a crossover needs two, give more "
                "parents or crossover 0"
            )
