"""EnNAS: neural architecture search via ensemble-based knowledge distillation.

Anonymous, submitted to ICLR 2022 (OpenReview G9M4FU8Ggo).

    t   = Σ_i w_i z_i,   Σ_i w_i = 1                                               Eq. 1
    w   = argmin_w  CE(wᵀ Z, y)                                                     Eq. 2
    L_i = CE(z_i, y) + λ τ² KL(p ‖ q_i)                                             Eq. 3

    z_i, Z   logits of the i-th of m sub-networks sampled for a batch, and all of them
    t, p     the teacher's logits, and its probabilities softmax(t / τ)
    q_i      a student's probabilities softmax(z_i / τ)
    w        weights of the sub-networks in the teacher, solved again for every batch
    W        the supernet's weights, which all sub-networks share

With `--search diverse-paths` the sub-networks are sampled by their diversity (Eq. 4 and 5), with
`--search single-path` independently (the paper's "w/o DS").

Deviations:
    The paper gives neither τ nor λ; with 1 its formula and its definitions of p and q agree.
    It solves Eq. 2 with ECOS on logits, and requires only that w sums to one. Here also w >= 0, so
    that a bad sub-network does not disturb w (`sign = "any"` removes this condition).
    The sub-networks' losses are summed for one step of W, whose gradient is clipped as a whole, if
    at all; the paper's Algorithm 1 updates one after the other, and names no clipping. Its line 2,
    the selection of a teacher, is not described in the text.
    The share of the training set that an epoch samples is printed with one digit only; 1 / m
    gives as many passes as for a single path.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

from tutelage.checks import at_least, known_choices, positive, within
from tutelage.ensembling import Sign, ensemble_weights
from tutelage.extras import Answers, Probe, Share
from tutelage.multilevel import Level
from tutelage.problem import Learner, Make, Problem
from tutelage.renamed import keywords
from tutelage.transfer import divergence

TEACHER = (
    "Their teacher is their ensemble, weighted to fit a training batch. On training batches its "
    "accuracy is measured on the labels that it was fitted to, so its gap is larger there."
)


@keywords(taught_weight="teaching_weight")
@dataclass(frozen=True)
class EnNAS:
    """Sampled sub-networks are taught by their optimal ensemble."""

    students: int = field(default=4, metadata={"quick": 2})
    """Sub-networks for each batch, m."""
    temperature: float = 1.0
    """Temperature of teacher and students, τ."""
    teaching_weight: float = 1.0
    """Weight of the teaching loss, λ."""
    warmup: float = 1 / 6
    """Share of the epochs before the ensemble teaches (20 of 120 in the paper)."""
    share: float = 0.0
    """Share of the training images in an epoch; 0: 1 / m."""
    ensemble: Literal["optimal", "mean"] = "optimal"
    """The teacher's weights w: those that fit the batch best (Eq. 2), or 1 / m."""
    sign: Sign = "nonnegative"
    """Range of w: nonnegative, or any, from -10."""
    one_at_a_time: bool = False
    """Keep one sub-network's maps at a time: less memory, a third more time."""

    def __post_init__(self) -> None:
        at_least(1, students=self.students)
        at_least(0, teaching_weight=self.teaching_weight)
        positive(temperature=self.temperature)
        within(0, 1, warmup=self.warmup, share=self.share)
        known_choices(self)

    def __call__(self, make: Make) -> Problem:
        """Make the problem of one level.

        Raises:
            ValueError: The search samples no sub-networks, or cannot sample `m`.
        """
        net, m, cross_entropy = make.supernet(), self.students, make.cross_entropy
        net.paths(m)  # raises now rather than in the first step

        def logits_of(W, path, x):
            """Logits (B, C) of a sub-network."""
            if self.one_at_a_time and torch.is_grad_enabled():
                return checkpoint(net.under, W, path, x, use_reentrant=False)[0]
            return net.under(W, path, x)[0]

        def weights(z, y):
            """Weights of the sub-networks, w (m,), from detached logits (m, B, C)."""
            if self.ensemble == "mean":
                return z.new_full((m,), 1 / m)
            return ensemble_weights(z, y, self.sign)  # Eq. 2

        def learn(s, batch):
            x, y, _ = batch.train
            z = torch.stack([logits_of(s.W, path, x) for path in net.paths(m)])
            loss = torch.stack([cross_entropy(z_i, y) for z_i in z]).sum()
            teaches = make.clock.epoch >= self.warmup * make.clock.epochs
            known = z.detach()
            w = weights(known, y)
            t = torch.einsum("m,mbc->bc", w, known)  # Eq. 1
            if teaches:
                teaching = [divergence(z_i, t, self.temperature) for z_i in z]
                loss = loss + self.teaching_weight * torch.stack(teaching).sum()  # Eq. 3
            return loss, {"students": known, "teacher": t}

        @torch.no_grad()
        def probe(variables, fitted, judged):
            paths = net.paths(m)
            z = torch.stack([logits_of(variables["W"], path, fitted.x) for path in paths])
            w = weights(z, fitted.y)
            z = torch.stack([logits_of(variables["W"], path, judged.x) for path in paths])
            return Answers(z, torch.einsum("m,mbc->bc", w, z))

        return Problem(
            variables={"W": net.weights(), "A": net.alphas()},
            levels=[Level("W", learn)],
            learners=[Learner(net, ("W",), ("A",))],
            extras=[Share(self.share or 1 / m), Probe(probe, TEACHER)],
        )
