"""AFD: feature-map-level online adversarial distillation.  Chung, Park, Kim, Kwak, ICML 2020.

    min_A   Σ_k  L(W_k*, A_k; D_val)
    s.t.    W* = argmin_W  Σ_k [L(W_k, A_k; D_train) + λ T² KL(p_j ‖ p_k) + β (1 - C_k(e_k))²]
            C* = argmin_C  Σ_k [(1 - C_k(e_j))² + C_k(e_k)²]

    W_k, A_k   weights and alphas of learner k
    e_k, p_k   its features, and its probabilities at temperature T
    C_k        discriminator: 1 for features of the peer, 0 for its own learner's
    j          the peer of k: the next learner in a circle

Deviations:
    arXiv:2002.01775. Features are the pooled ones before the classifier and C_k has two layers; the
    paper compares feature maps by small convolutions. With three or more learners, logits are
    distilled from the next learner in the circle, like the features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tutelage.checks import at_least, known_choices, positive
from tutelage.methods.group import Group
from tutelage.multilevel import Level, Order
from tutelage.problem import Make, Problem
from tutelage.transfer import divergence
from tutelage.virtual import hold


@dataclass(frozen=True)
class AFD:
    """Learners make their features indistinguishable from their peers'."""

    learners: int = 2
    """Size of the group, K."""
    peer_weight: float = 1.0
    """Weight of the peer's probabilities, λ."""
    adversary_weight: float = 1.0
    """Weight of deceiving the discriminator, β."""
    temperature: float = 3.0
    """Temperature of the probabilities, T."""
    hidden: int = 64
    """Units of a discriminator."""
    order: Order = "alphas-first"
    """What trains first in an iteration: levels-first or alphas-first."""

    def __post_init__(self) -> None:
        at_least(2, learners=self.learners)
        at_least(1, hidden=self.hidden)
        at_least(0, peer_weight=self.peer_weight, adversary_weight=self.adversary_weight)
        positive(temperature=self.temperature)
        known_choices(self)

    def __call__(self, make: Make) -> Problem:
        """Make the three-level problem."""
        group = Group.of(make, self.learners)

        def discriminate(s, batch):
            features = [net.embed(w, a, batch.train.x) for net, w, a in group.each(s.W, s.A)]
            return tell_apart(s.C, features, features)

        def learn(s, batch):
            x, y, _ = batch.train
            answers = group.answers(s.W, s.A, x)
            logits = [answer.logits for answer in answers]
            peers = [hold(z) for z in turned(logits)]
            pairs = zip(logits, peers, strict=True)
            teaching = sum(divergence(z, peer, self.temperature) for z, peer in pairs)
            loss = group.total(logits, y) + self.peer_weight * teaching
            deceived = deceive(s.C, [answer.features for answer in answers])
            return loss + self.adversary_weight * deceived, {"train": logits}

        return Problem(
            variables={
                "C": discriminators(group, self.hidden),
                "W": group.weights(),
                "A": group.alphas(),
            },
            levels=[
                Level("C", discriminate),
                Level("W", learn),
                Level("A", group.validate, optimiser="alphas"),
            ],
            learners=group.learners("W", "A"),
            order=self.order,
        )


def discriminators(group: Group, hidden: int) -> list[dict]:
    """Initialise a discriminator's weights for every learner."""
    return [
        {
            "inner": group.linear(group.features, hidden),
            "outer": group.linear(hidden, 1),
        }
        for _ in group.nets
    ]


def judge(c, features):
    """Rate (B, 1) features (B, D): 1 for the peer's, 0 for the learner's own."""
    inner = F.leaky_relu(F.linear(features, c["inner"]["weight"], c["inner"]["bias"]), 0.2)
    return F.linear(inner, c["outer"]["weight"], c["outer"]["bias"])


def tell_apart(C, students, teachers):
    """Return the loss () of discriminators, on every learner's features and its peer's."""
    losses = [
        (1 - judge(c, peer)).square().mean() + judge(c, own).square().mean()
        for c, own, peer in zip(C, students, turned(teachers), strict=True)
    ]
    return torch.stack(losses).sum()


def deceive(C, features):
    """Return the loss () of learners by their discriminators."""
    losses = [(1 - judge(c, own)).square().mean() for c, own in zip(C, features, strict=True)]
    return torch.stack(losses).sum()


def turned(learners):
    """List the peer of every learner: the next one in a circle."""
    return [*learners[1:], learners[0]]
