"""The protocol of searches: how choices are relaxed, and how architectures are derived."""

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
    """Some epochs of a search, with their own supernets; all phases have equally many epochs."""

    frozen: float = 0.0
    """Share of the phase's epochs, from its first, in which the alphas do not train."""
    cells: int = 0
    """Cells of the supernet, in addition to those of the run."""
    operations: int | None = None
    """The number of strongest operations that every edge keeps from the last phase; None: all."""
    partial: int | None = None
    """Operations see one in so many of the channels; None: as in the space."""
    carries: bool = False
    """Whether weights, alphas and their schedules continue from the last phase, or start again."""

    def __post_init__(self) -> None:
        within(0, 1, frozen=self.frozen)


NORMAL_AND_REDUCTION: Final = frozenset({"normal", "reduce"})
"""The groups of choices of DARTS' cells."""


@dataclass(frozen=True)
class Needs:
    """What a search needs of a space, and which supernets it uses; `searches.needs` applies it."""

    groups: frozenset[str] | None = None
    """The groups of choices that the space must have, and no others; None: any."""
    least: int = 1
    """Fewest operations of an edge, without those that are left out."""
    operations: Mapping[str, Edges] | None = None
    """The operations that every edge of every group must have, in this order; None: any."""
    why: str = ""
    """The reason for these needs, a part of the message that refuses another space."""
    left_out: frozenset[str] = frozenset()
    """Operations of the space that no edge has in the search."""
    variant: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the space's `Variant` in which supernets differ from its default ones."""
    channels: int | None = None
    """Channels of the supernet if the user gives none; None: the space's default."""
    cells: int | None = None
    """Cells of the supernet if the user gives none; None: the space's default."""
    phases: Sequence[Phase] = (Phase(),)
    """The parts of the search, one or several."""


Diversity = Mapping[str, Sequence[Tensor]]
"""For every group and edge, how much its operations differ (ops, ops), float64."""

Kind = Literal["relaxed", "one-shot", "random"]
"""How a search finds an architecture.

- relaxed: it weighs operations by trained alphas, and derives the architecture from them;
- one-shot: it trains sampled paths of the supernet, and evolution searches among them;
- random: it samples an architecture and trains nothing.
"""


class Search(Protocol):
    """How choices are made: a frozen dataclass of settings."""

    kind: ClassVar[Kind]

    def needs(self, space: Space) -> Needs:
        """Return what this search needs of a space, by its settings and the space's properties.

        Raises:
            ValueError: Its settings are impossible in this space.
        """


class Relaxing(Search, Protocol):
    """A search that relaxes the choices, or samples an architecture once."""

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample initial alphas: for every group of choices (edges, ops)."""

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Make the operations' weights of alphas; they are differentiable."""

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the architecture weights without noise, for display and derivation."""

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive the architecture, from allowed operations if there are any."""


class Sampling(Search, Protocol):
    """A search that trains sampled paths."""

    measures: ClassVar[bool]
    """Whether it samples by the diversity of operations, measured after every epoch."""

    def check(self, space: Space, flops: Callable[[Genotype], float]) -> None:
        """Refuse a space or limits in which no path can be sampled.

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
            diversity: The last measured diversity; empty before the first measurement.
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


def annealed(start: float, end: float, clock: Clock) -> float:
    """Return a number that changes by equal steps after every epoch, from the first to the last.

    After the last epoch, when learners are validated, it is that of the last epoch.
    """
    return start + (end - start) * clock.scheduled / max(clock.epochs - 1, 1)


def fewest(space: Space, left_out: Container[str] = ()) -> int:
    """Count the operations of the edge that has fewest, without those that are left out."""
    edges = (names for edges in space.operations.values() for names in edges)
    return min(sum(name not in left_out for name in names) for names in edges)
