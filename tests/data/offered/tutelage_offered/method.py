"""Alone: one learner whose loss has a factor."""

from dataclasses import dataclass

import torch.nn.functional as F

from tutelage import Learner, Level, Problem


@dataclass(frozen=True)
class Alone:
    """One learner."""

    loss_factor: float = 1.0
    """Factor of the loss of the weights."""

    def __call__(self, make):
        """Make the two-level problem."""
        net = make.supernet()

        def learn(s, batch):
            return self.loss_factor * F.cross_entropy(net(s.w, s.A, batch.train.x), batch.train.y)

        def validate(s, batch):
            return F.cross_entropy(net(s.w, s.A, batch.valid.x), batch.valid.y)

        return Problem(
            variables={"w": net.weights(), "A": net.alphas()},
            levels=[Level("w", learn), Level("A", validate, optimiser="alphas")],
            learners=[Learner(net, ("w",), ("A",))],
        )
