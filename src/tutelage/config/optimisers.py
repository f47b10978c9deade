"""Settings of the optimisers of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tutelage.checks import at_least, known_choices, positive, within


@dataclass(frozen=True)
class Weights:
    """How network weights are trained: SGD with momentum, and a falling learning rate."""

    lr: float = 0.025
    """Initial learning rate of the weights."""
    lr_min: float = 0.001
    """Learning rate at the end."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How the learning rate falls."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 3e-4
    """Weight decay of SGD."""
    clip: float = 5.0
    """Largest norm of a learner's gradient; 0: no clipping."""
    nesterov: bool = False
    """Nesterov's rule for the momentum."""
    anneal: Literal["epoch", "step"] = "epoch"
    """When the learning rate changes."""
    warm_up: int = 0
    """Epochs at the start in which the learning rate grows, from epoch to epoch by equal parts, up
    to its initial value; the schedule counts them."""

    def __post_init__(self) -> None:
        positive(lr=self.lr)
        at_least(0, lr_min=self.lr_min, weight_decay=self.weight_decay, clip=self.clip)
        at_least(0, warm_up=self.warm_up)
        within(0, 1, momentum=self.momentum)
        known_choices(self)


@dataclass(frozen=True)
class Alphas:
    """How alphas are trained: Adam."""

    lr: float = 3e-4
    """Learning rate of the alphas."""
    beta1: float = 0.5
    """Decay of Adam's first moment."""
    beta2: float = 0.999
    """Decay of Adam's second moment."""
    weight_decay: float = 1e-3
    """Weight decay of Adam, added to the gradient."""
    clip: float = 0.0
    """Largest norm of the alphas' gradient; 0: no clipping."""

    def __post_init__(self) -> None:
        positive(lr=self.lr)
        at_least(0, weight_decay=self.weight_decay, clip=self.clip)
        within(0, 1, beta1=self.beta1, beta2=self.beta2)
