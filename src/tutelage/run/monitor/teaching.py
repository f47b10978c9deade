"""What teaching does to a learner: right before it was taught, and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from tutelage.batch import Batch
from tutelage.problem import Learner, pick
from tutelage.virtual import Tree


class Stages(NamedTuple):
    """How many of the same images a learner names right before and after it was taught."""

    first: int
    """With the weights of its first stage."""
    taught: int
    """With those that its peers have taught."""
    changed: int
    """Images that one of the two has right, and the other wrong."""
    images: int

    @property
    def accuracies(self) -> dict[str, float]:
        """Both as shares of the images."""
        return {"first": self.first / self.images, "taught": self.taught / self.images}

    @property
    def warning(self) -> str:
        """Say that teaching has spoilt the learner; nothing where that may be chance.

        Of the images that changed, a half would be lost by chance, give or take twice the standard
        deviation (McNemar's test).
        """
        if self.first - self.taught <= 2 * self.changed**0.5:
            return ""
        first, taught = (100 * x for x in self.accuracies.values())
        return (
            f"its peers' teaching spoils it: {taught:.1f} % of {self.images} validation images "
            f"right, {first:.1f} % before it was taught (collective failure)"
        )


@torch.no_grad()
def two_stages(learner: Learner, variables: Mapping[str, Tree], batches: Sequence[Batch]) -> Stages:
    """Compare a learner that was taught with itself before: PAMKD's Figure 1, as it happens."""
    net, alphas = learner.net, pick(variables, learner.alphas)
    counts = torch.zeros(3, dtype=torch.int64)
    for x, y, _ in batches:
        before, after = (
            (net(pick(variables, path), alphas, x).argmax(1) == y).cpu()
            for path in (learner.drafts[0], learner.weights)
        )
        counts += torch.stack([before.sum(), after.sum(), (before != after).sum()])
    first, taught, changed = counts.tolist()
    return Stages(first, taught, changed, images=sum(len(batch.y) for batch in batches))
