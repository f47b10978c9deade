"""SGL: small-group learning.  Du, Xie, 2020, arXiv:2012.12502.

    min_A   Σ_k  L(W_k*, A_k; D_val)                                                    stage III
    s.t.    W* = argmin_W  Σ_k  L(W_k, A_k; D_train)
                                + λ Σ_{j≠k} L(W_k, A_k; D_pl(D_u, V_j*(A_j)))            stage II
            V* = argmin_V  Σ_k  L(V_k, A_k; D_train)                                     stage I

    A_k        alphas of learner k                D_u    unlabelled images
    V_k, W_k   its two sets of weights            D_pl   D_u with learner j's predictions as labels

Deviations:
    The printed expansion of the hypergradient (Eq. 7 to 11) omits that A_j affects the labels that
    it generates directly, not only through V_j. `paths = "all"` is the gradient of the printed
    objective; `paths = "printed"` is the expansion.
    A finite difference has one radius for all learners together, in the paper one for each.
    The authors' release uses first order, trains alphas first, pretrains V and takes D_u from the
    training half: recipe `sgl-darts-cifar10-release`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tutelage.checks import at_least, known_choices
from tutelage.methods.group import Group
from tutelage.multilevel import Level, Order
from tutelage.problem import Make, Problem
from tutelage.transfer import pseudo_label
from tutelage.trees import detach


@dataclass(frozen=True)
class SGL:
    """A group of learners label data for one another."""

    learners: int = 2
    """Size of the group, K."""
    peer_weight: float = 1.0
    """Weight of the peers' labels, λ in stage II."""
    peers: Literal["sum", "mean"] = "sum"
    """Sum or average over a learner's peers."""
    labels: Literal["soft", "hard"] = "soft"
    """Pseudo-labels: the peer's probabilities, or its most likely class."""
    first_stage: Literal["joint", "none", "separate"] = "joint"
    """Stage I: joint (the paper); none: W labels (Eq. 12); separate: own alphas first (Eq. 13)."""
    pretrain: int = field(default=0, metadata={"quick": 1})
    """Epochs in which only stage I trains."""
    human_labels: bool = True
    """Train W on labelled images too; without: only on the peers' labels (Eq. 15)."""
    own_term: Literal["second-order", "first-order"] = "second-order"
    """Whether A_k is differentiated through its own W_k'; through its labels it always is."""
    paths: Literal["all", "printed"] = "all"
    """All paths of the hypergradient, or those of the paper's expansion."""
    order: Order = "levels-first"
    """What trains first in an iteration: levels-first (Algorithm 1) or alphas-first (release)."""

    def __post_init__(self) -> None:
        at_least(1, learners=self.learners)
        at_least(0, peer_weight=self.peer_weight, pretrain=self.pretrain)
        known_choices(self)
        if self.first_stage == "separate" and not self.pretrain:
            raise ValueError(
                "first_stage = 'separate' with pretrain = 0: give stage I epochs with --pretrain"
            )
        if self.first_stage == "none" and self.pretrain:
            raise ValueError(
                f"pretrain = {self.pretrain} with first_stage = 'none': there is no stage I"
            )
        if self.learners == 1 and not self.human_labels:
            raise ValueError(
                "human_labels = false with learners = 1: a single learner has no other labels"
            )

    def __call__(self, make: Make) -> Problem:
        """Make the three-level problem."""
        if self.pretrain >= make.epochs:
            raise ValueError(
                f"pretrain = {self.pretrain} of {make.epochs} epochs: leave epochs for the search"
            )
        group = Group.of(make, self.learners)
        share = self.peer_weight / (max(1, self.learners - 1) if self.peers == "mean" else 1)
        hard = self.labels == "hard"

        def learn_alone(s, batch):  # stage I, Eq. 1
            x, y, _ = batch.train
            alphas = s.B if self.first_stage == "separate" else s.A
            logits = group(s.V, alphas, x)
            return group.total(logits, y), {"train": logits}

        def validate_alone(s, batch):  # Eq. 13, if the stages are separate
            x, y, _ = batch.valid
            logits = group(s.V, s.B, x)
            return group.total(logits, y), {"valid": logits}

        def label(s, u):  # D_pl(D_u, V_j), detached
            if self.first_stage == "none":
                return group(s.W_labels, s.A_labels, u)
            if self.first_stage == "separate":
                return group(s.V, s.B, u)
            return group(s.V, detach(s.A_labels) if self.paths == "printed" else s.A_labels, u)

        def learn_together(s, batch):  # stage II
            (x, y, _), (u, truth, _) = batch.train, batch.unlabelled
            own = s.A if self.own_term == "second-order" else detach(s.A)
            logits = group(s.W, own, x)
            loss = group.total(logits, y) if self.human_labels else 0.0
            if self.learners == 1:
                return loss, {"train": logits}
            labels, mine = label(s, u), group(s.W, own, u)
            for k, j in group.pairs():
                loss = loss + share * pseudo_label(mine[k], labels[j], hard=hard)
            return loss, {"train": logits, "labels": (labels, truth)}

        variables = {"W": group.weights(), "A": group.alphas()}
        after = range(self.pretrain, make.epochs)
        levels = [
            Level("W", learn_together, epochs=after, aliases={"A_labels": "A", "W_labels": "W"}),
            Level("A", group.validate, epochs=after, optimiser="alphas"),  # stage III, Eq. 2
        ]
        if self.first_stage == "separate":
            before = range(self.pretrain)
            variables |= {"V": group.weights(), "B": group.alphas()}
            levels = [
                Level("V", learn_alone, epochs=before),
                Level("B", validate_alone, epochs=before, optimiser="alphas"),
                *levels,
            ]
        elif self.first_stage == "joint" and self.learners > 1:
            variables |= {"V": group.weights()}
            levels = [Level("V", learn_alone), *levels]
        return Problem(
            variables,
            levels,
            learners=group.learners(
                "W", "A", "V" if "V" in variables else "", "B" if "B" in variables else ""
            ),
            order=self.order,
        )
