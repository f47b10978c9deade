"""What a search is: how the choices of a space are relaxed, and how they are read off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from tutelage.checks import within
from tutelage.clock import Clock
from tutelage.spaces.base import Mix, Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Genes


@dataclass(frozen=True)
class Phase:
    """A part of a search that has supernets of its own; phases share the epochs out evenly."""

    frozen: float = 0.0
    """Share of the phase's epochs in which the alphas stand still at first."""
    cells: int = 0
    """Cells of the supernet beyond those of the run."""
    operations: int | None = None
    """The strongest operations that every edge keeps of the phase before; None: all."""
    partial: int | None = None
    """Operations see one in so many of the channels; None: as the space has it."""
    carries: bool = False
    """Whether weights, alphas and their schedules go on from the phase before, or start afresh."""

    def __post_init__(self) -> None:
        within(0, 1, frozen=self.frozen)


Diversity = Mapping[str, Sequence[Tensor]]
"""For every group and edge, how much its operations differ (ops, ops), float64."""

Kind = Literal["relaxes", "samples", "draws"]
"""How a search finds an architecture.

- relaxes: it mixes the operations by alphas that descend, and reads the architecture off them;
- samples: it trains sampled paths of the supernet, among which evolution searches;
- draws: it draws an architecture and trains nothing.
"""


class Search(Protocol):
    """How choices are made: a frozen dataclass of settings."""

    kind: ClassVar[Kind]

    def fit(self, space: Any) -> Space:
        """Return the space with what this search needs of it.

        Raises:
            ValueError: When the space does not fit; says which do.
        """

    def size(self, space: Space) -> tuple[int, int]:
        """Return the channels and cells of its supernet where the user gives none."""

    def phases(self, space: Space) -> Sequence[Phase]:
        """List the phases of a search in a fitted space."""


class Relaxing(Search, Protocol):
    """A search that mixes operations, or draws an architecture once."""

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Draw initial alphas: for every group of choices (edges, ops)."""

    def mix(self, alphas: dict[str, Tensor], clock: Clock) -> Mix:
        """Turn alphas into the weights of the operations, differentiably."""

    def expected(self, alphas: dict[str, Tensor]) -> Mix:
        """Return the mix without noise: what is shown, and what is read off."""

    def derive(self, space: Space, alphas: dict[str, Tensor]) -> Genotype:
        """Read off the architecture."""


class Sampling(Search, Protocol):
    """A search that trains sampled paths."""

    measures: ClassVar[bool]
    """Whether it samples by how much operations differ, measured after every epoch."""

    def check(self, space: Space, flops: Callable[[Genotype], float]) -> None:
        """Refuse what could not be drawn.

        Args:
            space: What can be built.
            flops: Counts the multiply-adds of an architecture.

        Raises:
            ValueError: There are no such paths.
        """

    def paths(
        self, space: Space, count: int, diversity: Diversity, flops: Callable[[Genotype], float]
    ) -> list[Genes]:
        """Draw the paths of one batch.

        Args:
            space: What can be built.
            count: How many paths.
            diversity: What was measured last; empty before the first measurement.
            flops: Counts the multiply-adds of an architecture.

        Raises:
            ValueError: There are no such paths.
        """


KINDS: Mapping[Kind, Any] = {"relaxes": Relaxing, "samples": Sampling, "draws": Relaxing}
"""The protocol of each kind of search."""


def near_zero(space: Space, deviation: float) -> dict[str, Tensor]:
    """Draw alphas (edges, ops) near zero for every group of choices."""
    return {group: deviation * torch.randn(shape) for group, shape in space.choices.items()}


def softmax(alphas: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weigh the operations of every edge by the softmax of their alphas."""
    return {group: a.softmax(-1) for group, a in alphas.items()}
