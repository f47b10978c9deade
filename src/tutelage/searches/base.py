"""What a search is: how the choices of a space are relaxed, and how they are read off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from tutelage.spaces.base import Mix, Space
from tutelage.spaces.genotype import Genotype


class Phase(NamedTuple):
    """A stretch of a search in one supernet."""

    space: Space
    """What the supernet is built from."""
    epochs: int
    """How many epochs it trains."""


class Search(Protocol):
    """How choices are relaxed: a frozen dataclass of settings."""

    def phases(self, space: Any, epochs: int) -> Sequence[Phase]:
        """Divide the search into phases, with what this search needs of the space.

        Raises:
            ValueError: When the space does not fit; says which do.
        """

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Draw initial alphas: for every group of choices (edges, ops)."""

    def mix(self, alphas: dict[str, Tensor], progress: float) -> Mix:
        """Turn alphas into the weights of the operations, differentiably."""

    def derive(self, space: Space, alphas: dict[str, Tensor]) -> Genotype:
        """Read off the architecture."""
