"""Cooling: DARTS' softmax with a temperature that falls as the search continues."""

from dataclasses import dataclass
from typing import ClassVar

from tutelage.searches.base import Kind, Needs, near_zero, softmax
from tutelage.spaces.base import ArchWeights


@dataclass(frozen=True)
class Cooling:
    """Relax the choice to a softmax that grows harder."""

    end: float = 0.1
    """Temperature at the end of the search; it starts at 1."""

    kind: ClassVar[Kind] = "relaxed"

    def needs(self, space):
        """Take any space as it is, and search in one go."""
        return Needs()

    def alphas(self, space):
        """Sample alphas (edges, ops) near zero for every group of choices."""
        return near_zero(space, 1e-3)

    def relax(self, alphas, clock):
        """Turn alphas into weights; the clock's progress goes from 0 to 1."""
        return ArchWeights(
            softmax({group: a / self.end**clock.progress for group, a in alphas.items()})
        )

    def expected(self, alphas):
        """Return the architecture weights that the search ends with."""
        return ArchWeights(softmax({group: a / self.end for group, a in alphas.items()}))

    def derive(self, space, alphas, allowed=None):
        """Derive the strongest operations of those that are allowed, by the space's rule."""
        return space.genotype(self.expected(alphas).only(allowed))
