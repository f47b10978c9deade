"""ONE: knowledge distillation by on-the-fly native ensemble.  Lan, Zhu, Gong, NeurIPS 2018.

    min_A   Σ_k  L(W_k*, A_k; D_val)
    s.t.    W*, G* = argmin  Σ_k L(W_k, A_k) + L(z_e) + λ r(epoch) T² Σ_k KL(p_e ‖ p_k) Eq. 7

    W_k, A_k   weights and alphas of branch k
    z_e        Σ_k g_k z_k, the gated ensemble's logits                                 Eq. 4
    g          softmax(G e): the gate, a linear map of shared features e
    p_k, p_e   probabilities at temperature T of a branch and the ensemble
    r          exp(-5 (1 - epoch / ramp)²) up to `ramp` epochs, then 1

Deviations:
    The paper's branches share their first layers; here every branch is a separate supernet, so the
    gate reads the mean of the branches' features. arXiv:1806.04606. The ramp is the release's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tutelage.checks import at_least, known_choices, positive
from tutelage.methods.group import Group, ramped
from tutelage.multilevel import Level, Order
from tutelage.problem import Make, Problem
from tutelage.transfer import divergence
from tutelage.virtual import hold


@dataclass(frozen=True)
class ONE:
    """Branches imitate their gated ensemble."""

    learners: int = 2
    """Number of branches, K."""
    peer_weight: float = 1.0
    """Weight of the teaching loss, λ."""
    temperature: float = 3.0
    """Temperature of the probabilities, T."""
    ramp: int = 80
    """Epochs in which the teaching loss grows to its full weight."""
    order: Order = "alphas-first"
    """What trains first in an iteration: levels-first or alphas-first."""

    def __post_init__(self) -> None:
        at_least(1, learners=self.learners)
        at_least(0, peer_weight=self.peer_weight, ramp=self.ramp)
        positive(temperature=self.temperature)
        known_choices(self)

    def __call__(self, make: Make) -> Problem:
        """Make the two-level problem."""
        group = Group.of(make, self.learners)

        def learn(s, batch):  # Eq. 7
            x, y, _ = batch.train
            *W, G = s.W
            answers = group.answers(W, s.A, x)
            logits = [answer.logits for answer in answers]
            features = torch.stack([answer.features for answer in answers]).mean(0)
            g = F.linear(features, G["weight"], G["bias"]).softmax(1)  # (B, K)
            z_e = torch.einsum("bk,kbc->bc", g, torch.stack(logits))  # Eq. 4
            target, r = hold(z_e), ramped(make.clock, self.ramp)
            teaching = torch.stack([divergence(z, target, self.temperature) for z in logits])
            loss = group.total(logits, y) + group.cross_entropy(z_e, y)
            return loss + self.peer_weight * r * teaching.sum(), {"train": logits}

        gate = group.linear(group.features, self.learners)
        return Problem(
            variables={"W": [*group.weights(), gate], "A": group.alphas()},
            levels=[Level("W", learn), Level("A", group.validate, optimiser="alphas")],
            learners=group.learners("W", "A"),
            order=self.order,
        )
