"""OKDDip: online knowledge distillation with diverse peers.  Chen et al., AAAI 2020.

    min_A   Σ_k  L(W_k*, A_k; D_val)
    s.t.    W* = argmin_W  Σ_k L(W_k, A_k) + α r(epoch) (Σ_i T² KL(p_mi ‖ p_i)          Eq. 5
                                                          + T² KL(p_m ‖ p_leader))      Eq. 6

    W_k, A_k   weights and alphas of learner k; the last one is the leader
    z_mi       Σ_j a_ij z_j, the target of auxiliary peer i                             Eq. 3
    a_ij       softmax_j (Q e_i)ᵀ(K e_j): attention over the peers, itself too          Eq. 4
    z_m        mean of the auxiliary peers' logits
    r          exp(-5 (1 - epoch / ramp)²) up to `ramp` epochs, then 1

Deviations:
    arXiv:1912.00350. With two learners, one auxiliary peer would attend only to itself and teach
    nothing, so both are attention peers and `leader` is off.
    As in the release, the targets are not detached, Q and K have no bias, and the ramp is the
    release's. Equation numbers are counted in the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tutelage.checks import at_least, known_choices, positive
from tutelage.methods.group import Group, ramped
from tutelage.multilevel import Level, Order
from tutelage.problem import Make, Problem
from tutelage.transfer import divergence


@dataclass(frozen=True)
class OKDDip:
    """Peers imitate one another by attention; a leader imitates their mean."""

    learners: int = 2
    """Size of the group including the leader, K."""
    leader: bool = True
    """Whether the last of three or more learners imitates the others' mean; never of two."""
    peer_weight: float = 1.0
    """Weight of the teaching loss, α."""
    temperature: float = 3.0
    """Temperature of the probabilities, T."""
    reduction: int = 8
    """Features for each dimension of the attention."""
    ramp: int = 80
    """Epochs in which the teaching loss grows to its full weight."""
    order: Order = "alphas-first"
    """What trains first in an iteration: levels-first or alphas-first."""

    def __post_init__(self) -> None:
        at_least(1, learners=self.learners, reduction=self.reduction)
        at_least(0, peer_weight=self.peer_weight, ramp=self.ramp)
        positive(temperature=self.temperature)
        known_choices(self)

    def __call__(self, make: Make) -> Problem:
        """Make the two-level problem."""
        group = Group.of(make, self.learners)
        peers = self.learners - 1 if self.leader and self.learners > 2 else self.learners

        def learn(s, batch):
            x, y, _ = batch.train
            *W, attention = s.W
            answers = group.answers(W, s.A, x)
            logits = [answer.logits for answer in answers]
            z = torch.stack(logits[:peers])
            e = torch.stack([answer.features for answer in answers[:peers]])
            a = attend(e, attention["query"], attention["key"])
            z_m = torch.einsum("bij,jbc->ibc", a, z)  # Eq. 3
            teaching = sum(divergence(z[i], z_m[i], self.temperature) for i in range(peers))
            for follower in logits[peers:]:
                teaching = teaching + divergence(follower, z.mean(0), self.temperature)  # Eq. 6
            r = ramped(make.clock, self.ramp)
            attended = a.new_zeros(self.learners, self.learners)
            attended[:peers, :peers] = a.detach().mean(0)
            loss = group.total(logits, y) + self.peer_weight * r * teaching  # Eq. 5
            return loss, {"train": logits, "attention": attended}

        width = max(1, group.features // self.reduction)
        attention = {
            name: group.linear(group.features, width, bias=False)["weight"]
            for name in ("query", "key")
        }
        return Problem(
            variables={"W": [*group.weights(), attention], "A": group.alphas()},
            levels=[Level("W", learn), Level("A", group.validate, optimiser="alphas")],
            learners=group.learners("W", "A"),
            order=self.order,
        )


def attend(e, query, key):
    """Return attention (B, i, j) of peer i to peer j, from features (K, B, D) (Eq. 4)."""
    return torch.einsum("ibd,jbd->bij", e @ query.T, e @ key.T).softmax(2)
