"""The input of a monitor, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from tutelage.batch import Batch
from tutelage.problem import Learner, pick
from tutelage.run.supernet.view import View
from tutelage.searches.base import Relaxing
from tutelage.spaces.base import ArchWeights
from tutelage.spaces.genotype import Genotype
from tutelage.trees import Tree


@dataclass(frozen=True)
class Subject:
    """A learner after an epoch, the input of monitors: at fixed weights, on validation images.

    Its network is evaluated with the expected architecture weights, since the noise of sampled ones
    would be measured too.
    """

    view: View
    learner: Learner
    genotype: Genotype
    """The architecture that would be derived now."""
    valid: Batch
    """A batch."""

    @property
    def alphas(self) -> Tree:
        """The learner's alphas."""
        return pick(self.view.variables, self.learner.alphas)

    @cached_property
    def arch(self) -> ArchWeights:
        """The expected architecture weights."""
        return self.expected(self.alphas)

    @cached_property
    def _auxiliary(self) -> float:
        """The present weight of DARTS-'s auxiliary skip beside all operations."""
        return cast(float, self.learner.net.relax(self.alphas).auxiliary)

    @property
    def cells(self) -> Mapping[str, int]:
        """How many cells each group of choices has; empty where the supernet does not say."""
        counts = getattr(self.learner.net.module, "counts", {})
        return counts if isinstance(counts, Mapping) else {}

    def expected(self, alphas: Tree) -> ArchWeights:
        """Return the expected architecture weights of alphas."""
        search = cast(Relaxing, self.view.setup.search)
        return replace(search.expected(alphas), auxiliary=self._auxiliary)

    def logits(self, arch: ArchWeights, x: Tensor) -> Tensor:
        """Return logits (B, C) of images for architecture weights."""
        module, weights = self.learner.net.module, self.view.weights(self.learner)
        return cast(Tensor, functional_call(module, weights, (x, arch))[0])

    def loss(self, arch: ArchWeights) -> Tensor:
        """Return the loss () of the batch for architecture weights."""
        return F.cross_entropy(self.logits(arch, self.valid.x), self.valid.y)

    def loss_at(self, alphas: Tree) -> Tensor:
        """Return the loss () of the batch for the expected architecture weights of alphas."""
        return self.loss(self.expected(alphas))


Value = float | Mapping[str, float]
"""A number, or a number for every group of cells."""
