"""MKD: deep mutual learning.  Zhang, Xiang, Hospedales, Lu, CVPR 2018, arXiv:1706.00384.

    min_A   Σ_k  L(W_k*, A_k; D_val)
    s.t.    W_k* = argmin_W  L(W_k, A_k; D_train) + λ T² Σ_{j≠k} KL(p_j ‖ p_k)       Eq. 6

    W_k, A_k   weights and alphas of learner k        p_k    its probabilities, T = 1

Deviations:
    The paper trains fixed networks; learners with alphas of their own, searched on the sum of the
    validation losses, are the adaptation that PAMKD compares with.
    The paper updates one network after another, each with its peers' latest logits; here all are
    updated at once. Peers' logits are detached: no derivative passes through them.
    For more than two learners the paper uses the mean over the peers, its release the sum, as here.
    OKDDip's code distils from the mean of the peers' logits at T = 3: `target = "mean"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tutelage.checks import at_least, known_choices, positive
from tutelage.methods.group import Group, held
from tutelage.multilevel import Level, Order
from tutelage.problem import Make, Problem
from tutelage.transfer import Answer, Knowledge, knowledge


@dataclass(frozen=True)
class MKD:
    """Learners imitate one another, whichever is better."""

    learners: int = 2
    """Size of the group, K."""
    peer_weight: float = 1.0
    """Weight of the teaching loss, λ."""
    temperature: float = 1.0
    """Temperature of the probabilities, T; the divergence is multiplied by T²."""
    target: Literal["peers", "mean"] = "peers"
    """Imitate every peer, or the mean of the peers' logits."""
    knowledge: Knowledge = "divergence"
    """The knowledge that is taught: divergence (the paper), or one of PAMKD's Figure 2."""
    order: Order = "alphas-first"
    """What trains first in an iteration: levels-first or alphas-first."""

    def __post_init__(self) -> None:
        at_least(1, learners=self.learners)
        at_least(0, peer_weight=self.peer_weight)
        positive(temperature=self.temperature)
        known_choices(self)
        if self.target == "mean" and self.knowledge not in ("divergence", "labels"):
            raise ValueError(
                f"target = 'mean' with knowledge = {self.knowledge!r}: a mean of logits teaches "
                "only probabilities, so use divergence or labels"
            )

    def __call__(self, make: Make) -> Problem:
        """Make the two-level problem."""
        group = Group.of(make, self.learners)

        def learn(s, batch):  # Eq. 6
            x, y, _ = batch.train
            answers = group.answers(s.W, s.A, x)
            logits = [answer.logits for answer in answers]
            transfer = knowledge(self.knowledge, len(x), temperature=self.temperature)
            teaching = teach(answers, [held(answer) for answer in answers], transfer, self.target)
            loss = group.total(logits, y) + self.peer_weight * teaching.sum()
            return loss, {"train": logits, "transfer": teaching}

        return Problem(
            variables={"W": group.weights(), "A": group.alphas()},
            levels=[Level("W", learn), Level("A", group.validate, optimiser="alphas")],
            learners=group.learners("W", "A"),
            order=self.order,
        )


def teach(students, teachers, transfer, target="peers"):
    """Return the teaching loss (K, K) of every learner k from every peer j."""
    count = len(students)
    teaching = students[0].logits.new_zeros(count, count)
    for k, student in enumerate(students):
        peers = [j for j in range(count) if j != k]
        if target == "mean" and peers:
            mean = torch.stack([teachers[j].logits for j in peers]).mean(0)
            teaching[k, peers] = transfer(student, Answer(mean, mean, {})) / len(peers)
            continue
        for j in peers:
            teaching[k, j] = transfer(student, teachers[j])
    return teaching
