"""How the weights of a retraining are trained: optimiser, learning rate and weight average."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, final

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tutelage.config import Retrain
from tutelage.run.training.descent import Descent
from tutelage.run.training.rmsprop import RMSProp
from tutelage.run.training.sgd import SGD


def optimiser(network: nn.Module, settings: Retrain) -> Descent:
    """Make the optimiser of a network's weights."""
    groups = parameter_groups(network, settings.norm_decay)
    common: dict[str, Any] = {
        "lr": settings.lr,
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimiser == "sgd":
        return SGD(groups, **common, nesterov=settings.nesterov)
    return RMSProp(groups, **common, decay=settings.rmsprop_decay, epsilon=settings.rmsprop_epsilon)


def parameter_groups(network: nn.Module, norm_decay: bool) -> list[dict[str, Any]]:
    """Divide the weights into groups with and without decay; biases and BatchNorm's have none."""
    weights = list(network.parameters())
    if norm_decay:
        return [{"params": weights}]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1]},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]


def rate(settings: Retrain, epoch: float) -> float:
    """Return the learning rate after so many epochs, which may be a fraction.

    The schedule counts from epoch 0, so the warm-up replaces its first epochs, as in all releases.
    """
    if epoch >= settings.warm_up:
        return scheduled(settings, epoch)
    share = min(1.0, (math.floor(epoch) + 1) / settings.warm_up)
    match settings.warm_up_rule:
        case "line":
            grown = epoch / settings.warm_up
            return settings.warm_up_lr + grown * (settings.lr - settings.warm_up_lr)
        case "shares":
            return settings.lr * share
        case "scaled":
            return scheduled(settings, epoch) * share


def scheduled(settings: Retrain, epoch: float) -> float:
    """Return the learning rate without a warm-up after so many epochs, which may be a fraction.

    A line with a tail of n epochs falls towards 0 at the tail's beginning, but not below its value
    one epoch earlier; in the tail it falls from there to 0 (`adjust_lr` in P-DARTS' release).
    """
    match settings.schedule:
        case "cosine":
            return settings.lr * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
        case "linear" if settings.linear_tail:
            before = settings.epochs - settings.linear_tail
            tail = min(1.0, (settings.epochs - epoch) / settings.linear_tail) / before
            return settings.lr * max(1 - epoch / before, tail)
        case "linear":
            return settings.lr * (1 - epoch / settings.epochs)
        case "step":
            return settings.lr * settings.step_factor ** (epoch // settings.step_epochs)


@final
class Average:
    """A network whose weights and buffers are exponential averages of another's over its steps.

    As in TensorFlow the decay begins lower, at (1 + n) / (10 + n) after n steps, so that the
    initial weights lose their share also in a short training. Integer buffers are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = deepcopy(network).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, done: int) -> None:
        """Update the average after a step; `done` steps were taken before it."""
        average, current = self.network.state_dict(), network.state_dict()
        real = [name for name, value in current.items() if value.is_floating_point()]
        blend = get_ema_multi_avg_fn(min(self.decay, (1 + done) / (10 + done)))
        blend([average[name] for name in real], [current[name] for name in real], done)
        for name in average.keys() - real:
            average[name].copy_(current[name])
