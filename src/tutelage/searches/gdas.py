"""GDAS: searching for a robust neural architecture in four GPU hours.

Dong, Yang. CVPR 2019, arXiv:1910.04465.

Every forward pass samples one operation for each edge, by Gumbel noise on the logits, and only that
operation runs (Eq. 3 and 4):

    h = onehot(argmax_k (log p_k + g_k)),   h~ = softmax((log p + g) / tau)

In the backward pass the gradient is that of h~ (straight through). The temperature tau falls
linearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.checks import at_least, positive
from tutelage.clock import Clock
from tutelage.searches.base import Kind, Needs, near_zero, softmax
from tutelage.spaces.base import Allowed, ArchWeights, Space
from tutelage.spaces.genotype import Genotype


@dataclass(frozen=True)
class Gdas:
    """Sample one operation for each edge; run only those."""

    tau: float = 10.0
    """Temperature of the Gumbel softmax at the start."""
    tau_end: float = 0.1
    """Temperature at the end."""
    init: float = 1e-3
    """Standard deviation of the initial alphas."""

    def __post_init__(self) -> None:
        positive(tau=self.tau, tau_end=self.tau_end)
        at_least(0, init=self.init)

    kind: ClassVar[Kind] = "relaxed"

    def needs(self, space: Space) -> Needs:
        """Take the space as it is."""
        return Needs()

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample alphas (edges, ops) near zero for every group of choices."""
        return near_zero(space, self.init)

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Sample one-hot weights, with the gradient of their relaxation."""
        tau = self.tau + (self.tau_end - self.tau) * clock.progress
        operations, chosen = {}, {}
        for group, a in alphas.items():
            noise = -torch.empty_like(a).exponential_().log()
            scores = a.log_softmax(-1) + noise
            soft = (scores / tau).softmax(-1)
            kept = scores.argmax(-1, keepdim=True)
            hard = torch.zeros_like(a).scatter_(-1, kept, 1.0)
            operations[group] = hard - soft.detach() + soft
            chosen[group] = kept.tolist()
        return ArchWeights(operations, chosen)

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the probabilities of the samples."""
        return ArchWeights(softmax(alphas))

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive the most probable operations and edges, by the space's rule."""
        return space.genotype(self.expected(alphas).only(allowed))
