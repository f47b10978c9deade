"""KDCL: online distillation via collaborative learning.  Guo et al., CVPR 2020.

    min_A   Σ_k  L(W_k*, A_k; D_val)
    s.t.    W_k* = argmin_W  L(W_k, A_k; D_train) + λ T² KL(p_t ‖ p_k)                  Eq. 2

    W_k, A_k   weights and alphas of learner k
    z_k, p_k   its logits, and its probabilities at temperature T
    z_t, p_t   the same of the ensemble, detached

    naive           z_t = z_k with the lowest cross-entropy on the batch                Eq. 3
    naive-by-image  the same, chosen for each image
    linear          z_t = Σ_k w_k z_k with convex weights of lowest cross-entropy       Eq. 4, 5
    minimum         z_t = min_k (z_k - z_k[y]), by class                                Eq. 6, 7
    general         z_t = Σ_k w_k z_k,  w = C⁻¹ 1 / 1ᵀ C⁻¹ 1,                           Eq. 8 to 10
                    C_kj = E (p_k - y)(p_j - y)

Deviations:
    The paper trains fixed networks; learners with alphas are the adaptation that PAMKD compares
    with. It gives every network its own augmentation of an image; here all get the same image.
    It measures C on held-out data once an epoch; here C is a running mean over the batches of
    D_val, whose logits the alphas' loss computes anyway. Equation numbers are counted in the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from tutelage.checks import at_least, known_choices, positive
from tutelage.ensembling import differentiable_weights
from tutelage.extras import AfterStep
from tutelage.methods.group import Group
from tutelage.multilevel import Level, Order
from tutelage.problem import Make, Problem
from tutelage.transfer import divergence
from tutelage.trees import Tree
from tutelage.virtual import hold

Ensemble = Literal["naive", "naive-by-image", "linear", "minimum", "general"]
MEMORY = 0.99
"""Share of the running mean of error correlations that a step keeps."""


@dataclass(frozen=True)
class KDCL:
    """Learners imitate their ensemble."""

    learners: int = 2
    """Size of the group, K."""
    ensemble: Ensemble = "linear"
    """How the learners are combined to the teacher: naive, naive-by-image, linear, minimum or
    general."""
    peer_weight: float = 1.0
    """Weight of the teaching loss, λ."""
    temperature: float = 2.0
    """Temperature of the probabilities, T."""
    order: Order = "alphas-first"
    """What trains first in an iteration: levels-first or alphas-first."""

    def __post_init__(self) -> None:
        at_least(1, learners=self.learners)
        at_least(0, peer_weight=self.peer_weight)
        positive(temperature=self.temperature)
        known_choices(self)

    def __call__(self, make: Make) -> Problem:
        """Make the two-level problem."""
        group = Group.of(make, self.learners)

        def learn(s, batch):  # Eq. 2
            x, y, _ = batch.train
            logits = group(s.W, s.A, x)
            errors = s.C if self.ensemble == "general" else None
            teacher = hold(combine(torch.stack(logits).detach(), y, self.ensemble, errors))
            teaching = torch.stack([divergence(z, teacher, self.temperature) for z in logits])
            return group.total(logits, y) + self.peer_weight * teaching.sum(), {"train": logits}

        def measure(variables, batch, notes):  # C of Eq. 10
            for noted in notes:  # there are none while the alphas do not train
                if "valid" in noted:
                    now = correlations(torch.stack(noted["valid"]), batch.valid.y)
                    variables["C"] = MEMORY * variables["C"] + (1 - MEMORY) * now

        variables: dict[str, Tree] = {"W": group.weights(), "A": group.alphas()}
        if self.ensemble == "general":
            variables["C"] = torch.eye(self.learners).to(group.like)
        return Problem(
            variables,
            levels=[Level("W", learn), Level("A", group.validate, optimiser="alphas")],
            learners=group.learners("W", "A"),
            order=self.order,
            extras=[AfterStep(measure)] if self.ensemble == "general" else [],
        )


def combine(logits, y, ensemble: Ensemble, errors=None):
    """Return the logits (B, C) of the teacher from K learners' logits (K, B, C)."""
    if ensemble == "naive":  # Eq. 3
        return logits[torch.stack([F.cross_entropy(z, y) for z in logits]).argmin()]
    if ensemble == "naive-by-image":
        losses = torch.stack([F.cross_entropy(z, y, reduction="none") for z in logits])
        return logits[losses.argmin(0), torch.arange(len(y), device=y.device)]
    if ensemble == "minimum":  # Eq. 6, 7
        return (logits - logits.gather(2, y.expand(len(logits), -1).unsqueeze(2))).amin(0)
    if ensemble == "linear":  # Eq. 5
        weights = differentiable_weights(logits, y)
    else:  # Eq. 9
        weights = torch.linalg.lstsq(errors, torch.ones_like(errors[:, :1])).solution.squeeze(1)
        weights = (weights / weights.sum()).to(logits)
    return torch.einsum("k,kbc->bc", weights, logits)


def correlations(logits, y):
    """Return correlations C (K, K) of learners' errors, from logits (K, B, C), labels (B,)."""
    errors = logits.softmax(2) - F.one_hot(y, logits.shape[2])
    return torch.einsum("kbc,jbc->kj", errors, errors) / len(y)
