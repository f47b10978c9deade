"""How the variables of a search descend: weights at a rate that falls, alphas by Adam."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from tutelage.config import Alphas, Run, Weights
from tutelage.multilevel import Level
from tutelage.virtual import Exact, FiniteDifference, FirstOrder, Rate, Tree, Via, leaves


def rule(settings: Run) -> Via:
    """Return the rule for the derivative of a virtual step that the settings name."""
    rules: dict[str, Via] = {
        "exact": Exact(settings.recompute),
        "finite-difference": FiniteDifference(settings.radius, settings.sides),
        "first-order": FirstOrder(),
    }
    return rules[settings.via]


def rate(weights: Weights, level: Level, epoch: float, epochs: int) -> Rate:
    """Return how a level's variable descends after so many epochs of all, maybe a fraction."""
    lr = weights.lr
    if level.schedule == "cosine":
        own = level.epochs or range(epochs)
        gone = (epoch - own.start) / len(own)
        cosine = (1 + math.cos(math.pi * gone)) / 2
        share = cosine if weights.schedule == "cosine" else 1 - gone
        lr = weights.lr_min + (lr - weights.lr_min) * share
    clip = weights.clip if level.clip else 0.0
    return Rate(lr, weights.momentum, weights.weight_decay, clip, weights.nesterov)


def adams(
    alphas: Alphas, levels: Sequence[Level], variables: Mapping[str, Tree]
) -> dict[str, torch.optim.Adam]:
    """Make an Adam for every variable that levels move by it."""
    names = dict.fromkeys(level.variable for level in levels if level.optimiser == "alphas")
    return {
        name: torch.optim.Adam(
            leaves(variables[name]),
            lr=alphas.lr,
            betas=(alphas.beta1, alphas.beta2),
            weight_decay=alphas.weight_decay,
        )
        for name in names
    }


def move(optimiser: torch.optim.Adam, variable: Tree, gradient: Tree, clip: float) -> None:
    """Let Adam move a variable in place, by a gradient of at most this norm; 0: of any."""
    tensors = leaves(variable)
    for alphas, g in zip(tensors, leaves(gradient), strict=True):
        alphas.grad = g.clone()
    if clip:
        torch.nn.utils.clip_grad_norm_(tensors, clip)
    optimiser.step()
