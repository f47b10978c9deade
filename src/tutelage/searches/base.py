"""What a search is: how the choices of a space are relaxed, and how they are read off."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Tensor

from tutelage.spaces.base import Mix, Space
from tutelage.spaces.genotype import Genotype


class Search(Protocol):
    """How choices are relaxed: a frozen dataclass of settings."""

    trains: ClassVar[bool]
    """Whether there is anything to train before the architecture is read off."""

    def fit(self, space: Any) -> Space:
        """Return the space with what this search needs of it.

        Raises:
            ValueError: When the space does not fit; says which do.
        """

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Draw initial alphas: for every group of choices (edges, ops)."""

    def mix(self, alphas: dict[str, Tensor], progress: float) -> Mix:
        """Turn alphas into the weights of the operations, differentiably."""

    def derive(self, space: Space, alphas: dict[str, Tensor]) -> Genotype:
        """Read off the architecture."""
