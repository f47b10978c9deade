"""GDAS: searching for a robust neural architecture in four GPU hours.

Dong, Yang. CVPR 2019, arXiv:1910.04465.

Every forward pass samples one operation for each edge, by Gumbel noise on the logits, and only that
operation runs (Eq. 3 and 4):

    h = onehot(argmax_k (log p_k + g_k)),   h~ = softmax((log p + g) / tau)

In the backward pass the gradient is that of h~ (straight through). The temperature tau falls
linearly, from epoch to epoch.

For cells of DARTS' shape we follow the authors' later code (D-X-Y/AutoDL-Projects): pools of the
supernet are not normalised, a BatchNorm and a ReLU come before its global pooling, and every node
keeps its two best pairs of edge and operation, which may share an edge. DARTS' normalisations and
its rule of two edges are settings. In NAS-Bench-201 that code adds the weights of the operations
that were not sampled as numbers; the paper has no such term, and here it is a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tutelage.checks import at_least, known_choices, positive
from tutelage.clock import Clock
from tutelage.searches.base import (
    NORMAL_AND_REDUCTION,
    Kind,
    Needs,
    annealed,
    near_zero,
    softmax,
)
from tutelage.searches.pairs import derive_pairs
from tutelage.spaces.base import Allowed, ArchWeights, Space
from tutelage.spaces.genotype import Genotype


def has_darts_cells(space: Space) -> bool:
    """Tell whether a space has normal and reduction cells of DARTS' shape."""
    return set(space.operations) == NORMAL_AND_REDUCTION


@dataclass(frozen=True)
class Gdas:
    """Sample one operation for each edge; run only those."""

    tau: float = 10.0
    """Temperature of the Gumbel softmax in the first epoch."""
    tau_end: float = 0.1
    """Temperature in the last epoch."""
    derivation: Literal["pairs", "edges"] = "pairs"
    """What a node of DARTS' cells keeps: its two best pairs of edge and operation (the authors'
    code), or its two best edges (DARTS' rule)."""
    normalisation: Literal["final", "pools"] = "final"
    """Where supernets of DARTS' cells normalise beside convolutions: final, before the global
    pooling (the authors' code), or pools, after every pool (DARTS)."""
    unsampled: Literal["left-out", "added"] = "left-out"
    """Operations that were not sampled: left-out, as in the paper, or added, each as its weight,
    a number of value 0 that gives alphas a gradient (the authors' code in NAS-Bench-201)."""
    init: float = 1e-3
    """Standard deviation of the initial alphas."""

    def __post_init__(self) -> None:
        positive(tau=self.tau, tau_end=self.tau_end)
        known_choices(self)
        at_least(0, init=self.init)

    kind: ClassVar[Kind] = "relaxed"

    def needs(self, space: Space) -> Needs:
        """Ask for the release's normalisations in cells of DARTS' shape.

        Raises:
            ValueError: What was not sampled is to be added, and the space has no cells.
        """
        if self.unsampled == "added" and "chain" in space.operations:
            raise ValueError(
                f"unsampled = 'added' in the space {space.name!r}: only cells add what was not "
                "sampled to their nodes; leave unsampled at 'left-out'"
            )
        if has_darts_cells(space) and self.normalisation == "final":
            return Needs(variant={"final_norm": True, "normalised_pools": False})
        return Needs()

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample alphas (edges, ops) near zero for every group of choices."""
        return near_zero(space, self.init)

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Sample one-hot weights, with the gradient of their relaxation."""
        tau = annealed(self.tau, self.tau_end, clock)
        operations, chosen, offsets = {}, {}, {}
        for group, a in alphas.items():
            noise = -torch.empty_like(a).exponential_().log()
            scores = a.log_softmax(-1) + noise
            soft = (scores / tau).softmax(-1)
            kept = scores.argmax(-1, keepdim=True)
            hard = torch.zeros_like(a).scatter_(-1, kept, 1.0)
            operations[group] = hard - soft.detach() + soft
            offsets[group] = operations[group].masked_fill(hard.bool(), 0.0).sum(-1)
            chosen[group] = kept.tolist()
        return ArchWeights(
            operations, chosen, offsets=offsets if self.unsampled == "added" else None
        )

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the probabilities of the samples."""
        return ArchWeights(softmax(alphas))

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive the most probable operations and edges, by the rule of the settings.

        Spaces other than cells of DARTS' shape have their own rule.
        """
        arch = self.expected(alphas).only(allowed)
        pairs = self.derivation == "pairs" and has_darts_cells(space)
        return derive_pairs(space, arch) if pairs else space.genotype(arch)
