"""What a search is: how the choices of a space are relaxed, and how they are derived."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Protocol

import torch
from torch import Tensor

from tutelage.checks import within
from tutelage.clock import Clock
from tutelage.spaces.base import Allowed, ArchWeights, Edges, Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Encoding


@dataclass(frozen=True)
class Phase:
    """Some epochs of a search, with supernets of their own; all phases have equally many epochs."""

    frozen: float = 0.0
    """Share of the phase's epochs, from its first, in which the alphas do not move."""
    cells: int = 0
    """Cells of the supernet beyond those of the run."""
    operations: int | None = None
    """The strongest operations that every edge keeps of the phase before; None: all."""
    partial: int | None = None
    """Operations see one in so many of the channels; None: as the space has it."""
    carries: bool = False
    """Whether weights, alphas and their schedules continue from the phase before, or start
    again."""

    def __post_init__(self) -> None:
        within(0, 1, frozen=self.frozen)


NORMAL_AND_REDUCTION: Final = frozenset({"normal", "reduce"})
"""The groups of choices of DARTS' cells."""


@dataclass(frozen=True)
class Needs:
    """What a search needs of a space, and which supernets it searches with: `needs` meets it."""

    groups: frozenset[str] | None = None
    """The groups of choices that the space must have, and no other; None: any."""
    least: int = 1
    """Fewest operations of an edge, those that are left out not counted."""
    operations: Mapping[str, Edges] | None = None
    """What every edge of every group must offer, in this order; None: anything."""
    why: str = ""
    """Why all of this: a part of the sentence that refuses another space."""
    left_out: frozenset[str] = frozenset()
    """Operations that no edge offers in the search, though the space has them."""
    variant: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the space's `Variant` in which supernets differ from its plain ones."""
    channels: int | None = None
    """Channels of the supernet where the user gives none; None: the space's own."""
    cells: int | None = None
    """Cells of the supernet where the user gives none; None: the space's own."""
    phases: Sequence[Phase] = (Phase(),)
    """The parts of the search, one or several."""


Diversity = Mapping[str, Sequence[Tensor]]
"""For every group and edge, how much its operations differ (ops, ops), float64."""

Kind = Literal["relaxed", "one-shot", "random"]
"""How a search finds an architecture.

- relaxed: it weighs the operations by alphas that descend, and derives the architecture from them;
- one-shot: it trains sampled paths of the supernet, among which evolution searches;
- random: it samples an architecture and trains nothing.
"""


class Search(Protocol):
    """How choices are made: a frozen dataclass of settings."""

    kind: ClassVar[Kind]

    def needs(self, space: Space) -> Needs:
        """Say what this search needs of a space, by its settings and the space's facts.

        Raises:
            ValueError: Its settings cannot be met in this space, whatever the space has.
        """


class Relaxing(Search, Protocol):
    """A search that relaxes the choices, or samples an architecture once."""

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample initial alphas: for every group of choices (edges, ops)."""

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Turn alphas into the weights of the operations, differentiably."""

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the architecture weights without noise: what is shown, and what is derived."""

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive the architecture, of operations that are allowed where there are such."""


class Sampling(Search, Protocol):
    """A search that trains sampled paths."""

    measures: ClassVar[bool]
    """Whether it samples by how much operations differ, measured after every epoch."""

    def check(self, space: Space, flops: Callable[[Genotype], float]) -> None:
        """Refuse what could not be sampled.

        Args:
            space: What can be built.
            flops: Counts the FLOPs of an architecture.

        Raises:
            ValueError: There are no such paths.
        """

    def paths(
        self, space: Space, count: int, diversity: Diversity, flops: Callable[[Genotype], float]
    ) -> list[Encoding]:
        """Sample the paths of one batch.

        Args:
            space: What can be built.
            count: How many paths.
            diversity: What was measured last; empty before the first measurement.
            flops: Counts the FLOPs of an architecture.

        Raises:
            ValueError: There are no such paths.
        """


KINDS: Mapping[Kind, Any] = {"relaxed": Relaxing, "one-shot": Sampling, "random": Relaxing}
"""The protocol of each kind of search."""


def near_zero(space: Space, deviation: float) -> dict[str, Tensor]:
    """Sample alphas (edges, ops) near zero for every group of choices."""
    return {group: deviation * torch.randn(shape) for group, shape in space.choices.items()}


def softmax(alphas: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weigh the operations of every edge by the softmax of their alphas."""
    return {group: a.softmax(-1) for group, a in alphas.items()}


def fewest(space: Space, left_out: Container[str] = ()) -> int:
    """Count the operations of the edge that has fewest, but for those that are left out."""
    edges = (names for edges in space.operations.values() for names in edges)
    return min(sum(name not in left_out for name in names) for names in edges)
