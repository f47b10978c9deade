"""No teaching: one learner.  With the DARTS search, DARTS itself.

Liu, Simonyan, Yang: DARTS: differentiable architecture search. ICLR 2019, arXiv:1806.09055.

    min_A   L(w*(A), A; D_val)                                              Eq. 3
    s.t.    w*(A) = argmin_w  L(w, A; D_train)                              Eq. 4

Second order is `--via exact` or, the paper's own approximation, `--via finite-difference`; first
order is `--via first-order`. Alphas move first, as in the paper's Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.checks import known_choices, within
from tutelage.multilevel import Level, Order
from tutelage.problem import Learner, Make, Problem


@dataclass(frozen=True)
class Single:
    """One learner, without teaching."""

    order: Order = "alphas-first"
    """What trains first in an iteration: levels-first or alphas-first."""
    label_smoothing: float = 0.0
    """Label smoothing of the weights' loss: share spread over all classes; 0.1 in SPOS."""

    def __post_init__(self) -> None:
        known_choices(self)
        within(0, 1, label_smoothing=self.label_smoothing)

    def __call__(self, make: Make) -> Problem:
        """Make the two-level problem."""
        net, cross_entropy = make.supernet(), make.cross_entropy

        def learn(s, batch):  # Eq. 4
            x, y, _ = batch.train
            logits = net(s.w, s.A, x)
            return cross_entropy(logits, y, self.label_smoothing), {"train": [logits]}

        def validate(s, batch):  # Eq. 3
            x, y, _ = batch.valid
            logits = net(s.w, s.A, x)
            return cross_entropy(logits, y), {"valid": [logits]}

        return Problem(
            variables={"w": net.weights(), "A": net.alphas()},
            levels=[Level("w", learn), Level("A", validate, optimiser="alphas")],
            learners=[Learner(net, ("w",), ("A",))],
            order=self.order,
        )
