"""How the variables of a search are trained: weights at a falling rate, alphas by Adam."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

import torch

from tutelage.config import Alphas, Run, Weights
from tutelage.multilevel import Level
from tutelage.trees import Tree, leaves
from tutelage.virtual import Exact, FiniteDifference, FirstOrder, Rate, Via

KEPT: Final = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of every tensor."""


def rule(settings: Run) -> Via:
    """Return the rule of the settings for the derivative of a virtual step."""
    rules: dict[str, Via] = {
        "exact": Exact(settings.recompute),
        "finite-difference": FiniteDifference(settings.radius, settings.sides),
        "first-order": FirstOrder(),
    }
    return rules[settings.via]


def rate(weights: Weights, level: Level, epoch: float, epochs: int) -> Rate:
    """Return the step size of a level's variable after `epoch` epochs, which may be a fraction."""
    lr = weights.lr
    if level.schedule == "cosine":
        own = level.epochs or range(epochs)
        trained = epoch - own.start
        if 0 <= trained < weights.warm_up:
            lr = lr * (math.floor(trained) + 1) / weights.warm_up
        else:
            gone = trained / len(own)
            cosine = (1 + math.cos(math.pi * gone)) / 2
            share = cosine if weights.schedule == "cosine" else 1 - gone
            lr = weights.lr_min + (lr - weights.lr_min) * share
    clip = weights.clip if level.clip else 0.0
    return Rate(lr, weights.momentum, weights.weight_decay, clip, weights.nesterov)


def virtual_rate(settings: Run, rate: Rate) -> Rate:
    """Return the step size of a variable's virtual step, given that of its real one."""
    rates = {
        "sgd": rate,
        "momentum": rate._replace(clip=0.0, nesterov=False),
        "plain": Rate(rate.lr),
    }
    return rates[settings.virtual]


def check_shared(levels: Sequence[Level]) -> None:
    """Refuse levels that train one variable at different rates in the same epochs.

    They step it one after the other, as one optimiser would: with one rate and one momentum.

    Raises:
        ValueError: Two such levels differ in schedule, clip or epochs.
    """
    weights = [level for level in levels if level.optimiser == "weights"]
    for first, second in combinations(weights, 2):
        ranges = [level.epochs for level in (first, second) if level.epochs is not None]
        apart = len(ranges) == 2 and not set(ranges[0]) & set(ranges[1])
        if first.variable != second.variable or apart:
            continue
        for name in ("schedule", "clip", "epochs"):
            one, other = getattr(first, name), getattr(second, name)
            if one != other:
                raise ValueError(
                    f"levels {first.name} and {second.name} train {first.variable} with {name} = "
                    f"{one!r} and {other!r}: a variable has one rate, so give both the same"
                )


def adams(
    alphas: Alphas, levels: Sequence[Level], variables: Mapping[str, Tree]
) -> dict[str, torch.optim.Adam]:
    """Make an Adam optimiser for every variable that levels train by it."""
    names = dict.fromkeys(level.variable for level in levels if level.optimiser == "alphas")
    device = next((x.device.type for name in names for x in leaves(variables[name])), "cpu")
    return {
        name: torch.optim.Adam(
            leaves(variables[name]),
            fused=True,  # one operation, which a CUDA graph can repeat
            capturable=device == "cuda",
            lr=alphas.lr,
            betas=(alphas.beta1, alphas.beta2),
            weight_decay=alphas.weight_decay,
        )
        for name in names
    }


def move(optimiser: torch.optim.Adam, variable: Tree, gradient: Tree, clip: float) -> None:
    """Let Adam update a variable in place, with the gradient's norm clipped; 0: no clipping."""
    tensors = leaves(variable)
    for alphas, g in zip(tensors, leaves(gradient), strict=True):
        alphas.grad = g.clone()
    if clip:
        torch.nn.utils.clip_grad_norm_(tensors, clip)
    optimiser.step()
