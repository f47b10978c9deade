"""SGL: small-group learning.  Du, Xie, 2020, arXiv:2012.12502.

    min_A   Σ_k  L(W_k*, A_k; D_val)                                                    stage III
    s.t.    W* = argmin_W  Σ_k  L(W_k, A_k; D_train)
                                + λ Σ_{j≠k} L(W_k, A_k; D_pl(D_u, V_j*(A_j)))            stage II
            V* = argmin_V  Σ_k  L(V_k, A_k; D_train)                                     stage I

    A_k        alphas of learner k                D_u    unlabelled images
    V_k, W_k   its two sets of weights            D_pl   D_u with learner j's predictions as labels

Deviations:
    The printed expansion of the hypergradient (Eq. 7 to 11) leaves out that A_j acts on the labels
    it generates directly, not only through V_j. `paths = "all"` is the gradient of the printed
    objective; `paths = "printed"` is the expansion.
    A finite difference takes one radius for all learners together, the paper one for each.
    The authors' release uses first order, moves alphas first, pretrains V and takes D_u from the
    training half: recipe `sgl-darts-cifar10-release`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tutelage.checks import at_least, one_of
from tutelage.multilevel import Level, Order
from tutelage.problem import Learner, Make, Problem
from tutelage.transfer import cross_entropy, pseudo_label
from tutelage.virtual import detach


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
    pretrain: int = 0
    """Epochs in which only stage I trains."""
    human_labels: bool = True
    """Train W on labelled images too; without: on the peers' labels alone (Eq. 15)."""
    own_term: Literal["second-order", "first-order"] = "second-order"
    """Whether A_k is differentiated through its own W_k'; through its labels it always is."""
    paths: Literal["all", "printed"] = "all"
    """All paths of the hypergradient, or those of the paper's expansion."""
    order: Order = "levels-first"
    """Which move first in an iteration: levels-first (Algorithm 1) or alphas-first (release)."""

    def __post_init__(self) -> None:
        at_least(1, learners=self.learners)
        at_least(0, peer_weight=self.peer_weight, pretrain=self.pretrain)
        one_of(("sum", "mean"), peers=self.peers)
        one_of(("soft", "hard"), labels=self.labels)
        one_of(("joint", "none", "separate"), first_stage=self.first_stage)
        one_of(("second-order", "first-order"), own_term=self.own_term)
        one_of(("all", "printed"), paths=self.paths)
        one_of(("levels-first", "alphas-first"), order=self.order)
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
                "human_labels = false with learners = 1: a lone learner has no other labels"
            )

    def __call__(self, make: Make) -> Problem:
        """Make the three-level problem."""
        if self.pretrain >= make.epochs:
            raise ValueError(
                f"pretrain = {self.pretrain} of {make.epochs} epochs: leave some for the search"
            )
        group = [make.supernet() for _ in range(self.learners)]
        share = self.peer_weight / (max(1, self.learners - 1) if self.peers == "mean" else 1)
        hard = self.labels == "hard"

        def learn_alone(s, batch):  # stage I, Eq. 1
            x, y, _ = batch.train
            alphas = s.B if self.first_stage == "separate" else s.A
            logits = [net(v, a, x) for net, v, a in zip(group, s.V, alphas, strict=True)]
            return sum(cross_entropy(z, y) for z in logits), {"train": logits}

        def validate_alone(s, batch):  # Eq. 13, where the stages are separate
            x, y, _ = batch.valid
            logits = [net(v, b, x) for net, v, b in zip(group, s.V, s.B, strict=True)]
            return sum(cross_entropy(z, y) for z in logits), {"valid": logits}

        def label(s, u):  # D_pl(D_u, V_j): as data, whatever weights made it
            if self.first_stage == "none":
                teachers = zip(group, s.W_labels, s.A_labels, strict=True)
            elif self.first_stage == "separate":
                teachers = zip(group, s.V, s.B, strict=True)
            else:
                printed = self.paths == "printed"
                alphas = detach(s.A_labels) if printed else s.A_labels
                teachers = zip(group, s.V, alphas, strict=True)
            return [net(v, a, u) for net, v, a in teachers]

        def learn_together(s, batch):  # stage II
            (x, y, _), u = batch.train, batch.unlabelled.x
            own = s.A if self.own_term == "second-order" else detach(s.A)
            logits = [net(w, a, x) for net, w, a in zip(group, s.W, own, strict=True)]
            loss = sum(cross_entropy(z, y) for z in logits) if self.human_labels else 0.0
            if self.learners > 1:
                labels = label(s, u)
                mine = [net(w, a, u) for net, w, a in zip(group, s.W, own, strict=True)]
                for k, j in (
                    (k, j) for k in range(len(group)) for j in range(len(group)) if j != k
                ):
                    loss = loss + share * pseudo_label(mine[k], labels[j], hard=hard)
            return loss, {"train": logits}

        def validate(s, batch):  # stage III, Eq. 2
            x, y, _ = batch.valid
            logits = [net(w, a, x) for net, w, a in zip(group, s.W, s.A, strict=True)]
            return sum(cross_entropy(z, y) for z in logits), {"valid": logits}

        variables = {
            "W": [net.weights() for net in group],
            "A": [net.alphas() for net in group],
        }
        after = range(self.pretrain, make.epochs)
        levels = [
            Level("W", learn_together, epochs=after, aliases={"A_labels": "A", "W_labels": "W"}),
            Level("A", validate, epochs=after, optimiser="alphas"),
        ]
        if self.first_stage == "separate":
            before = range(self.pretrain)
            variables |= {
                "V": [net.weights() for net in group],
                "B": [net.alphas() for net in group],
            }
            levels = [
                Level("V", learn_alone, epochs=before),
                Level("B", validate_alone, epochs=before, optimiser="alphas"),
                *levels,
            ]
        elif self.first_stage == "joint" and self.learners > 1:
            variables |= {"V": [net.weights() for net in group]}
            levels = [Level("V", learn_alone), *levels]
        return Problem(
            variables,
            levels,
            learners=[
                Learner(
                    net,
                    ("W", k),
                    ("A", k),
                    drafts=(("V", k),) if "V" in variables else (),
                    rehearsals=(("B", k),) if "B" in variables else (),
                )
                for k, net in enumerate(group)
            ],
            order=self.order,
        )
