"""What a search is watched for, epoch by epoch: signs of collapse, and what a table knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import replace
from math import isfinite, nan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from tutelage.benchmark.table import Table
from tutelage.config import Run
from tutelage.problem import Learner, Part, pick
from tutelage.run.monitor.collapse import cell_gradients, entropy, layer_alignment, skips
from tutelage.run.monitor.curvature import dominant_eigenvalue, sharpness
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


def looked_up(table: Table, genotype: Genotype) -> dict[str, Any]:
    """Return what the table says of an architecture: percent, and its rank on CIFAR-10's test."""
    answer = table.query(genotype)
    return {**answer.accuracy, "rank": answer.rank[table.ranked_by]}


@torch.no_grad()
def accuracy(logits: Callable[[Tensor], Tensor], parts: Iterable[Part]) -> float:
    """Return the share of images whose label is the class with the largest logit."""
    right = [(logits(part.x).argmax(1) == part.y) for part in parts]
    return float(torch.cat(right).double().mean())
