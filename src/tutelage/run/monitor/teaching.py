"""The effect of teaching on a learner: its accuracy before it was taught, and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from tutelage.batch import Batch
from tutelage.problem import Learner, pick
from tutelage.trees import Tree


class Stages(NamedTuple):
    """How many of the same images a learner classifies correctly before and after it was taught."""

    first: int
    """With the weights of its first stage."""
    taught: int
    """With the weights after its peers have taught it."""
    changed: int
    """Images that one of the two classifies correctly and the other does not."""
    images: int

    @property
    def accuracies(self) -> dict[str, float]:
        """Both accuracies, as shares of the images."""
        return {"first": self.first / self.images, "taught": self.taught / self.images}

    @property
    def warning(self) -> str:
        """Warn that teaching has made the learner worse; empty where that may be chance.

        By chance, half of the images that changed would become wrong, within twice the standard
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
    """Compare a learner before and after it was taught: PAMKD's Figure 1, during the search."""
    net, alphas = learner.net, pick(variables, learner.alphas)
    counts = torch.zeros(3, dtype=torch.int64)
    for x, y, _ in batches:
        seed, right = int(torch.randint(2**62, ())), []
        for path in (learner.drafts[0], learner.weights):
            torch.manual_seed(seed)  # a search that samples runs the same operations of both
            right.append((net(pick(variables, path), alphas, x).argmax(1) == y).cpu())
        before, after = right
        counts += torch.stack([before.sum(), after.sum(), (before != after).sum()])
    first, taught, changed = counts.tolist()
    return Stages(first, taught, changed, images=sum(len(batch.y) for batch in batches))
