"""PR-DARTS: sparse gates in groups, and a reward for depth.

Zhou, Xiong, Socher, Hoi: Theory-inspired path-regularized differential network architecture search.
NeurIPS 2020, arXiv:2006.16537.

Skips make a supernet converge faster, even where the network with them is poor, and so they are
chosen too often. Here operations do not compete in a softmax. Every operation has its own
stochastic gate, a logistic variable g stretched to (a, b) and clamped, so that it is often exactly
0 or 1:

    z = clamp(a + (b - a) sigmoid((alpha + g) / tau), 0, 1)

Every edge runs the k operations with the largest gates, after a share of all gates was reduced by 1
so that others run too. They run with weight 1, and in the backward pass the gradient is that of z.
The probability that a gate is open,

    Theta = P(z > 0) = sigmoid(alpha - tau ln(-a / b)),

is penalised among skips (group 1), and among convolutions and pools (group 2), and is rewarded on
the deepest path, which has the edges that join each node to the state directly before it:

    lambda_1 L_skip + lambda_2 (L_convolution + L_pool) - lambda_3 L_path

The penalty is of the sample that the alphas' loss runs. The temperature tau falls linearly from
epoch to epoch. As in the release (salesforce/PR-DARTS), pools of the supernet are not normalised,
and a BatchNorm and a ReLU come before its global pooling.

Deviations: the release updates the weights before the alphas, with a cosine and Nesterov's
momentum. Here those are settings of the run, and the recipes set them. L_path is the mean over the
two cells, like the other terms, and leaves out the edges on which no convolution runs; it is 0
where none runs on any, as in the release.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.checks import at_least, positive, within
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
from tutelage.spaces.genotype import DARTS_OPERATIONS, Genotype

NODES = (2, 3, 4, 5)
"""Edges that enter the nodes of DARTS' cell."""
EDGES = (DARTS_OPERATIONS,) * sum(NODES)
"""The operations that every edge must have, since columns are fixed operations here."""
CHAIN = [edge - 1 for edge in accumulate(NODES)]
"""The last edge into every node: it comes from the state directly before it."""


def columns(*kinds: str) -> list[int]:
    """List the columns of the operations whose names begin with one of these words."""
    return [column for column, name in enumerate(DARTS_OPERATIONS) if name.startswith(kinds)]


SKIPS, POOLS = columns("skip"), columns("max_pool", "avg_pool")
CONVOLUTIONS = columns("sep_conv", "dil_conv")
GROUPS = (SKIPS, [*columns("none"), *CONVOLUTIONS], POOLS)
"""The groups with a penalty on open gates, each by itself; `none` counts as a convolution."""


def mean_of_kept(theta: Tensor, kept: Tensor) -> Tensor:
    """Average over the last dimension of theta (..., n) where kept (..., n) is 1; 0 if nowhere."""
    return (theta * kept).sum(-1) / kept.sum(-1).clamp(min=1)


def group_terms(theta: Tensor, kept: Tensor) -> Tensor:
    """Average theta (edges, ops) over the kept skips, convolutions and pools: (3,)."""
    return torch.stack(
        [mean_of_kept(theta[:, group].flatten(), kept[:, group].flatten()) for group in GROUPS]
    )


def path_term(theta: Tensor, kept: Tensor) -> Tensor:
    """Multiply the mean theta of kept convolutions over the chain's edges that keep one: ().

    It is 0 if no edge of the chain keeps a convolution.
    """
    theta, kept = theta[CHAIN][:, CONVOLUTIONS], kept[CHAIN][:, CONVOLUTIONS]
    means = mean_of_kept(theta, kept)
    product = torch.where(kept.any(-1), means, torch.ones_like(means)).prod()
    return product * kept.any()


@dataclass(frozen=True)
class PrDarts:
    """Give every operation a gate; run the most open ones; reward depth."""

    tau: float = 1.0
    """Temperature of the gates at the start."""
    tau_end: float = 0.1
    """Temperature at the end."""
    kept: int = 2
    """Operations that run on every edge, k."""
    gate_dropout: float = 0.4
    """Share of the gates that are reduced by 1 when the most open ones are chosen."""
    gate_low: float = -0.1
    """Lower end of the stretched gates, a: below 0."""
    gate_high: float = 1.1
    """Upper end of the stretched gates, b: above 1."""
    skip_weight: float = 0.01
    """Weight of the term that closes skips, lambda_1."""
    other_weight: float = 0.005
    """Weight of the terms that close convolutions and pools, lambda_2."""
    path_weight: float = 0.005
    """Weight of the term that opens convolutions on the deepest path, lambda_3."""
    threshold: float = 0.2
    """Probability of open gates up to which a group has no penalty."""
    init: float = 1e-3
    """Standard deviation of the initial alphas."""

    def __post_init__(self) -> None:
        positive(tau=self.tau, tau_end=self.tau_end)
        within(1, len(DARTS_OPERATIONS), kept=self.kept)
        within(0, 1, gate_dropout=self.gate_dropout, threshold=self.threshold)
        if not (-math.inf < self.gate_low < 0 and 1 < self.gate_high < math.inf):
            raise ValueError(
                f"gate_low = {self.gate_low}, gate_high = {self.gate_high}: gates are stretched "
                "beyond [0, 1], from a number below 0 to one above 1"
            )
        at_least(0, skip_weight=self.skip_weight, other_weight=self.other_weight)
        at_least(0, path_weight=self.path_weight, init=self.init)

    kind: ClassVar[Kind] = "relaxed"

    def needs(self, space: Space) -> Needs:
        """Require DARTS' operations, 6 cells and the normalisations of the release."""
        return Needs(
            operations=dict.fromkeys(NORMAL_AND_REDUCTION, EDGES),
            why="PR-DARTS weighs groups of DARTS' eight operations, which every edge must have",
            variant={"final_norm": True, "normalised_pools": False},
            cells=6,
        )

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample alphas (edges, ops) near zero for every group of choices."""
        return near_zero(space, self.init)

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Open k gates on each edge, with the gradient of all gates; add the penalties."""
        tau = annealed(self.tau, self.tau_end, clock)
        operations, chosen, groups, paths = {}, {}, [], []
        for name, a in alphas.items():
            gates = self.gates(a, tau)
            most_open = self.choose(gates.detach())
            kept = torch.zeros_like(gates).scatter_(-1, most_open, 1.0)
            operations[name] = kept - gates.detach() + gates
            chosen[name] = most_open.tolist()
            theta = (a - tau * math.log(-self.gate_low / self.gate_high)).sigmoid()
            groups.append(group_terms(theta, kept))
            paths.append(path_term(theta, kept))
        excess = (torch.stack(groups).mean(0) - self.threshold).relu()
        skip, convolution, pool = excess.unbind()
        penalty = self.skip_weight * skip + self.other_weight * (convolution + pool)
        penalty = penalty - self.path_weight * torch.stack(paths).mean()
        return ArchWeights(operations, chosen, penalty=penalty)

    def gates(self, a: Tensor, tau: float) -> Tensor:
        """Sample the gates z (edges, ops) of alphas (edges, ops)."""
        noise = torch.rand_like(a).logit()
        gates = ((a + noise) / tau).sigmoid()
        return (self.gate_low + (self.gate_high - self.gate_low) * gates).clamp(0, 1)

    def choose(self, gates: Tensor) -> Tensor:
        """Return the columns (edges, k) of the most open gates, after some were reduced by 1."""
        scores = gates - torch.empty_like(gates).bernoulli_(self.gate_dropout)
        # gates of exactly 0 or 1 are often equal: a random order of the operations decides
        order = torch.randperm(gates.shape[-1], device=gates.device)
        ranks = scores[:, order].argsort(dim=-1, descending=True, stable=True)
        return order[ranks[:, : self.kept]]

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the softmax of the alphas, by which operations are derived."""
        return ArchWeights(softmax(alphas))

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive every node's two most probable operations, by the softmax of their alphas."""
        return derive_pairs(space, self.expected(alphas).only(allowed))
