"""The result of a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tutelage.renamed import warn
from tutelage.run.networks.ensemble import Ensemble
from tutelage.run.networks.files import build
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import Genotype


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    genotype: Genotype
    """The kept learner's architecture."""
    path: Path
    """The run directory."""
    learner: int
    """Which learner was kept."""
    scores: list[dict[str, float]]
    """Loss and accuracy of every learner on the whole validation half."""
    size: Size
    """Size of the searched supernet; `network` takes another."""

    ensemble: Ensemble | None = None
    """The learners that a method keeps together, the kept one first; None: it keeps only one."""

    evolved: str = ""
    """The found path's score in the supernet and its cost; empty without an evolution."""

    @property
    def marks(self) -> list[dict[str, float]]:
        """The scores, by their name until 0.1."""
        warn("Found.marks", "scores")
        return self.scores

    def network(self, size: Size | None = None, *, auxiliary: bool = False) -> nn.Module:
        """Build the found network, untrained, at the size of the supernet or another."""
        return build(self.genotype, size or self.size, auxiliary=auxiliary)

    def draw(self) -> str:
        """Draw the cells as SVG text."""
        from tutelage.report.figures.draw import draw

        return draw(self.genotype)
