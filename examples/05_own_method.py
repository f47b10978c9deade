"""A method of one's own: deep mutual learning (Zhang et al., CVPR 2018) as a two-level problem."""

from dataclasses import dataclass

import tutelage
from tutelage import Learner, Level, Problem
from tutelage.transfer import pseudo_label


@dataclass(frozen=True)
class Mutual:
    """Two learners imitate each other."""

    weight: float = 1.0
    """Weight of the peer's predictions."""

    def __call__(self, make):
        """Make the two-level problem."""
        pair, cross_entropy = [make.supernet(), make.supernet()], make.cross_entropy

        def learn(s, batch):
            x, y, _ = batch.train
            a, b = (net(w, A, x) for net, w, A in zip(pair, s.W, s.A, strict=True))
            teaching = pseudo_label(a, b.detach()) + pseudo_label(b, a.detach())
            return cross_entropy(a, y) + cross_entropy(b, y) + self.weight * teaching

        def validate(s, batch):
            x, y, _ = batch.valid
            logits = [net(w, A, x) for net, w, A in zip(pair, s.W, s.A, strict=True)]
            return sum(cross_entropy(z, y) for z in logits), {"valid": logits}

        variables = {"W": [net.weights() for net in pair], "A": [net.alphas() for net in pair]}
        levels = [Level("W", learn), Level("A", validate, optimiser="alphas")]
        return Problem(variables, levels, [Learner(pair[k], ("W", k), ("A", k)) for k in (0, 1)])


if __name__ == "__main__":
    toy = {"channels": 2, "cells": 3, "epochs": 1, "limit_batches": 2, "batch_size": 8}
    print(tutelage.search(Mutual(0.5), out="mutual", **toy).genotype.as_text())
