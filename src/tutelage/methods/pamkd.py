"""PAMKD: performance-aware mutual knowledge distillation.  Xie, Du, CVPR 2022.

    min_A   Σ_k  L(W_k*, A_k; D_val)                                              stage III, Eq. 5
    s.t.    W* = argmin_W  Σ_k  L(W_k, A_k; D_train)                               stage II, Eq. 4
                           + λ Σ_{j≠k}  d_kj Σ_{X≻Y|V_j*}  h_kj(X, Y)
            V* = argmin_V  Σ_k  L(V_k, A_k; D_train)                                stage I, Eq. 1

    d_kj = max(0, L(V_k*, A_k; D_val) - L(V_j*, A_j; D_val))                                 Eq. 6
    h_kj = max(0, ε - (s(X; V_j*) - s(Y; V_j*)) (s(X; W_k) - s(Y; W_k)))                     Eq. 7

    A_k, V_k, W_k   alphas and two sets of weights of learner k
    X, Y            groups of R images of D_val;  X ≻ Y | V_j: V_j finds X more alike than Y
    s(X; V)         smallest cosine between the embeddings of two images of X                Eq. 2

Deviations:
    The text replaces "negative of the multiplication of the two indicator functions" by the
    product of their hinges. That product is minimised here, since h falls where W_k agrees.
    The paper does not say how groups are sampled. Here they are a random partition of the
    validation batch at every evaluation of stage II, with all ordered pairs. Embeddings are the
    features before the classifier. Without the first stage W replaces V everywhere, also in
    derivatives: this is the degenerate problem that the paper warns of. With `second_stage` other
    than scrutiny, V teaches W by another method's objective (2nd-MKD, 2nd-KDCL, and AFD of its
    Figure 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tutelage.checks import at_least, known_choices, within
from tutelage.extras import AfterStep
from tutelage.methods.afd import deceive, discriminators, tell_apart
from tutelage.methods.group import Group
from tutelage.methods.kdcl import combine
from tutelage.methods.mkd import teach
from tutelage.multilevel import Level, Order
from tutelage.problem import Make, Problem
from tutelage.transfer import Knowledge, divergence, knowledge
from tutelage.trees import Tree, detach


@dataclass(frozen=True)
class PAMKD:
    """The better learner teaches the worse one which images are similar."""

    learners: int = 2
    """Size of the group, K."""
    peer_weight: float = 0.5
    """Weight of the teaching loss, λ."""
    margin: float = 0.01
    """Margin of the hinge on two groups' similarities, ε."""
    group_size: int = 5
    """Images in a group, R."""
    reduction: Literal["sum", "mean"] = "sum"
    """Sum or average over pairs of groups."""
    knowledge: Knowledge = "groups"
    """The knowledge that is taught: groups (the paper), or another of its Figure 2."""
    gate_memory: float = 0.0
    """Share of a running mean, starting at 0, in the compared losses; 0: only the batch's."""
    first_stage: Literal["joint", "none"] = "joint"
    """Stage I: joint (the paper), or none: W is compared and teaches (No-1st)."""
    second_stage: Literal["scrutiny", "mkd", "kdcl", "afd"] = "scrutiny"
    """Objective of stage II: scrutiny (the paper), or that of another method."""
    own_term: Literal["second-order", "first-order"] = "second-order"
    """Whether A_k is differentiated through its own W_k'; through its teaching it always is."""
    order: Order = "levels-first"
    """What trains first in an iteration: levels-first (Algorithm 1) or alphas-first."""

    def __post_init__(self) -> None:
        at_least(1, learners=self.learners)
        at_least(2, group_size=self.group_size)
        at_least(0, peer_weight=self.peer_weight, margin=self.margin)
        within(0, 1, gate_memory=self.gate_memory)
        known_choices(self)
        if self.first_stage == "none" and self.second_stage != "scrutiny":
            raise ValueError(
                f"second_stage = {self.second_stage!r} with first_stage = 'none': that is method "
                f"{self.second_stage} itself"
            )
        if self.second_stage == "afd" and self.learners == 1:
            raise ValueError("second_stage = 'afd' with learners = 1: there is no peer to deceive")

    def __call__(self, make: Make) -> Problem:
        """Make the three-level problem."""
        group = Group.of(make, self.learners)
        first = self.first_stage == "joint"

        def learn_alone(s, batch):  # Eq. 1
            x, y, _ = batch.train
            return group.total(group(s.V, s.A, x), y)

        def scrutinise(s, batch):  # second term of Eq. 4
            u, y, _ = batch.valid
            own = s.A if self.own_term == "second-order" else detach(s.A)
            students = group.answers(s.W, own, u)
            teachers = group.answers(s.V if first else s.W, s.A_peers, u)
            losses = torch.stack([group.cross_entropy(teacher.logits, y) for teacher in teachers])
            seen = losses
            if self.gate_memory:
                seen = self.gate_memory * s.losses + (1 - self.gate_memory) * losses
            d = (seen.unsqueeze(1) - seen.unsqueeze(0)).relu()  # Eq. 6, (K, K)
            transfer = knowledge(
                self.knowledge,
                len(u),
                group_size=self.group_size,
                margin=self.margin,
                reduction=self.reduction,
                device=u.device,
            )
            h = teach(students, teachers, transfer)  # Eq. 7 summed over pairs, (K, K)
            logits = [teacher.logits for teacher in teachers]
            notes = {"gate": d, "transfer": h, "labels": (logits, y), "losses": losses}
            return (d * h).sum(), notes

        def imitate(s, batch):  # other methods' objectives, V for the teachers
            x, y, _ = batch.train
            own = s.A if self.own_term == "second-order" else detach(s.A)
            students = group.answers(s.W, own, x)
            teachers = group.answers(s.V, s.A_peers, x)
            logits = [teacher.logits for teacher in teachers]
            notes = {"labels": (logits, y)}
            if self.second_stage == "kdcl":
                ensemble = combine(torch.stack(logits), y, "linear")
                return sum(divergence(each.logits, ensemble) for each in students), notes
            teaching = teach(students, teachers, knowledge("divergence", len(x)))
            loss = teaching.sum()
            if self.second_stage == "afd":
                loss = loss + deceive(s.C, [each.features for each in students])
            return loss, notes | {"transfer": teaching}

        def learn_together(s, batch):  # Eq. 4
            x, y, _ = batch.train
            logits = group(s.W, s.A if self.own_term == "second-order" else detach(s.A), x)
            loss, notes = group.total(logits, y), {"train": logits}
            if self.learners > 1:
                teaching, more = (scrutinise if self.second_stage == "scrutiny" else imitate)(
                    s, batch
                )
                loss, notes = loss + self.peer_weight * teaching, notes | more
            return loss, notes

        def discriminate(s, batch):  # of AFD
            alphas = s.A if self.own_term == "second-order" else detach(s.A)
            students = group.answers(s.W, alphas, batch.train.x)
            teachers = group.answers(s.V, alphas, batch.train.x)
            features = [[each.features for each in side] for side in (students, teachers)]
            return tell_apart(s.C, *features)

        def remember(variables, batch, notes):
            now = next(noted["losses"] for noted in notes if "losses" in noted)
            kept = self.gate_memory * variables["losses"]
            variables["losses"] = kept + (1 - self.gate_memory) * now

        variables: dict[str, Tree] = {"W": group.weights(), "A": group.alphas()}
        levels = [
            Level("W", learn_together, aliases={"A_peers": "A"}),
            Level("A", group.validate, optimiser="alphas"),  # Eq. 5
        ]
        if self.second_stage == "afd":
            variables["C"] = discriminators(group, 64)
            levels = [Level("C", discriminate), *levels]
        if first and self.learners > 1:
            variables["V"] = group.weights()
            levels = [Level("V", learn_alone), *levels]
        if self.gate_memory:
            variables["losses"] = group.like.new_zeros(self.learners)
        return Problem(
            variables,
            levels,
            learners=group.learners("W", "A", drafts="V" if "V" in variables else ""),
            order=self.order,
            extras=[AfterStep(remember)] if self.gate_memory and self.learners > 1 else [],
        )
