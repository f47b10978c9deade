"""What a search is watched for, epoch by epoch: signs of collapse, and what a table knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from math import isfinite, nan
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from tutelage.benchmark.table import Table
from tutelage.config import Run
from tutelage.problem import Learner, Part, pick
from tutelage.run.monitor.curvature import (
    accuracy,
    cell_gradients,
    dominant_eigenvalue,
    entropy,
    layer_alignment,
    sharpness,
    skips,
)
from tutelage.run.monitor.early_stopping import Stop, by_eigenvalue, by_skips
from tutelage.searches.base import Relaxing
from tutelage.spaces.base import Mix, Space, one_hot
from tutelage.spaces.genotype import Genotype
from tutelage.virtual import Tree


def due(settings: Run, epoch: int) -> set[str]:
    """Name the costlier quantities that are measured after an epoch, counted from 0."""
    every = {
        "eigenvalue": settings.eigenvalue_every,
        "sharpness": settings.sharpness_every,
        "gap": settings.gap_every,
    }
    return {name for name, epochs in every.items() if epochs and (epoch + 1) % epochs == 0}


def watched(
    learner: Learner,
    search: Relaxing,
    space: Space,
    variables: Mapping[str, Tree],
    genotype: Genotype,
    valid: Part,
    held_out: Callable[[], Iterable[Part]],
    wanted: Set[str],
    radius: float,
) -> dict[str, Any]:
    """Measure one learner on validation data.

    The network is probed at the expected mix: noise of a sampled one would be measured as well.

    Args:
        learner: Who is measured.
        search: How its alphas make a mix.
        space: What its supernet can build.
        variables: All variables of the search.
        genotype: What is read off now.
        valid: A batch, on which all but the gap is measured.
        held_out: Gives all images that the gap is measured on.
        wanted: What to measure beside what costs little: `eigenvalue`, some twenty steps' price;
            `sharpness`, a step's; `gap`, two forward passes of every image.
        radius: Of the sharpness.

    Returns:
        Of each cell: `skips`, `entropy`, `alignment`; and `eigenvalue`, `sharpness`, `gap` and
        `one_hot_accuracy`, None where not measured.
    """
    net, alphas = learner.net, pick(variables, learner.alphas)
    weights = pick(variables, learner.weights)
    auxiliary = net.mix(alphas).auxiliary

    def expected(alphas: Tree) -> Mix:
        return replace(search.expected(alphas), auxiliary=auxiliary)

    def logits(mix: Mix, x: Tensor) -> Tensor:
        return functional_call(net.module, weights, (x, mix))[0]

    def loss(mix: Mix) -> Tensor:
        return F.cross_entropy(logits(mix, valid.x), valid.y)

    def loss_at(alphas: Tree) -> Tensor:
        return loss(expected(alphas))

    mix = expected(alphas)
    gradients = cell_gradients(loss, mix)
    found: dict[str, float] = {}
    if "eigenvalue" in wanted:
        found["eigenvalue"] = dominant_eigenvalue(loss_at, alphas)
    if "sharpness" in wanted:
        found["sharpness"] = sharpness(loss_at, alphas, radius)
    if "gap" in wanted:
        chosen = one_hot(space, genotype, like=next(iter(mix.operations.values())))
        found |= gap(lambda x: logits(mix, x), lambda x: logits(chosen, x), held_out)
    costly = ("eigenvalue", "sharpness", "gap", "one_hot_accuracy")
    return {
        "skips": skips(genotype),
        "entropy": entropy(mix.operations),
        "alignment": {group: layer_alignment(g) for group, g in gradients.items() if g},
        **{name: x if isfinite(x := found.get(name, nan)) else None for name in costly},
    }


def gap(
    mixed: Callable[[Tensor], Tensor],
    discrete: Callable[[Tensor], Tensor],
    held_out: Callable[[], Iterable[Part]],
) -> dict[str, float]:
    """Measure what discretisation loses: the accuracy of a mix less that of its architecture.

    Both are a supernet with the same weights, as functions of images (B, C, H, W).
    """
    with torch.random.fork_rng():  # some spaces draw noise
        before, after = (accuracy(logits, held_out()) for logits in (mixed, discrete))
    return {"gap": before - after, "one_hot_accuracy": after}


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
    def sign(self) -> str:
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
def two_stages(learner: Learner, variables: Mapping[str, Tree], parts: Sequence[Part]) -> Stages:
    """Compare a learner that was taught with itself before: PAMKD's Figure 1, as it happens."""
    net, alphas = learner.net, pick(variables, learner.alphas)
    counts = torch.zeros(3, dtype=torch.int64)
    for x, y, _ in parts:
        before, after = (
            (net(pick(variables, path), alphas, x).argmax(1) == y).cpu()
            for path in (learner.drafts[0], learner.weights)
        )
        counts += torch.stack([before.sum(), after.sum(), (before != after).sum()])
    first, taught, changed = counts.tolist()
    return Stages(first, taught, changed, images=sum(len(part.y) for part in parts))


def looked_up(table: Table, genotype: Genotype) -> dict[str, Any]:
    """Return what the table says of an architecture: percent, and its rank on CIFAR-10's test."""
    answer = table.query(genotype)
    return {**answer.accuracy, "rank": answer.rank[table.ranked_by]}


def stop_now(history: list[list[dict[str, Any]]], rule: str, start: int) -> Stop | None:
    """Apply a rule of early stopping to every learner; the first that it stops, stops the search.

    Args:
        history: What was measured after every epoch, of every learner.
        rule: never, eigenvalue or skips.
        start: The first epoch whose architecture may be kept.
    """
    for learner in range(len(history[-1])):
        if rule == "eigenvalue":
            stop = by_eigenvalue(column(history, learner, "eigenvalue"), start=start)
        elif rule == "skips":
            counts = [skips.get("normal", 0) for skips in column(history, learner, "skips")]
            stop = by_skips(counts, start=start)
        else:
            stop = None
        if stop:
            return stop
    return None


def column(history: list[list[dict[str, Any]]], learner: int, name: str) -> list[Any]:
    """Return one learner's value after every epoch."""
    return [epoch[learner][name] for epoch in history]
