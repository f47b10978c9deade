"""Settings of a retraining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tutelage.checks import at_least, positive, within
from tutelage.config.machine import Machine, Stem
from tutelage.renamed import keywords


@keywords(form="stem")
@dataclass(frozen=True)
class Retrain(Machine):
    """All settings of a retraining; by default DARTS' evaluation on CIFAR."""

    start: str | None = None
    """Trained network whose weights a retraining begins with, its file or directory; the classifier
    is new where the classes are others; not set: it begins with random weights."""
    epochs: int = 600
    """Epochs of training."""
    batch_size: int = 96
    """Images in a batch."""
    limit_batches: int | None = None
    """Stop every epoch after so many batches."""
    channels: int | None = None
    """Channels of the first cell, or of a chain's stem, with which its other widths scale; not set:
    the space's default, 36 in darts and 16 in nasbench201."""
    cells: int | None = None
    """Cells of the network; not set: the space's default, 20 in darts and 5 in each stage of
    nasbench201; a chain's depths set its layers."""
    stem: Stem = "cifar"
    """Stem and head: cifar keeps the image's resolution, imagenet divides it by 8, in chains by 2,
    in resnet by 4."""
    optimiser: Literal["sgd", "rmsprop"] = "sgd"
    """Optimiser of the weights: SGD, or RMSProp as TensorFlow computes it."""
    lr: float = 0.025
    """Learning rate at the start, or after the warm-up."""
    momentum: float = 0.9
    """Momentum of the optimiser."""
    weight_decay: float = 3e-4
    """Weight decay, added to the gradient."""
    norm_decay: bool = True
    """Apply weight decay also to biases and the weights of BatchNorm."""
    nesterov: bool = False
    """SGD: Nesterov's rule for the momentum."""
    rmsprop_decay: float = 0.9
    """RMSProp: decay of the mean square of the gradient."""
    rmsprop_epsilon: float = 1e-3
    """RMSProp: added to the mean square, inside the root."""
    schedule: Literal["cosine", "linear", "step"] = "cosine"
    """How the learning rate falls: along a cosine or a line to 0, or by steps."""
    step_factor: float = 0.97
    """Schedule step: factor on the learning rate at each step."""
    step_epochs: float = 2.4
    """Schedule step: epochs between two steps."""
    linear_tail: int = 0
    """Schedule linear: last epochs, which together lower the rate by as much as one before; 5 in
    the releases on ImageNet, 0: none."""
    anneal: Literal["epoch", "step"] = "epoch"
    """When the learning rate changes: after every epoch, or after every step of the optimiser."""
    warm_up: float = 0.0
    """Epochs at the start in which the learning rate grows; the schedule counts them."""
    warm_up_rule: Literal["line", "shares", "scaled"] = "line"
    """How it grows: line, from warm_up_lr to the initial rate; shares, from epoch to epoch by equal
    shares of the initial rate (PC-DARTS, DrNAS); scaled, by equal shares of the schedule's rate
    (P-DARTS, DARTS-, PR-DARTS, SGL)."""
    warm_up_lr: float = 1e-6
    """Warm-up by a line: learning rate at its start."""
    clip: float = 5.0
    """Largest norm of the gradient; 0: no clipping."""
    ema: float = 0.0
    """Decay per step of an average of the weights, which is then tested and saved, 0.9999 in the
    papers; 0: no average."""
    label_smoothing: float = 0.0
    """Share of the label spread over all classes."""
    class_weights: Literal["equal", "balanced"] = "equal"
    """Weights of the classes in the loss: balanced, inversely proportional to their images."""
    validate: int = 0
    """Training images, sampled uniformly, that are not trained on and that the network is measured
    on after every epoch; 0: none, or with data.validation = folder those of its val part."""
    dropout: float = 0.0
    """Share of the features that dropout zeroes before the classifier."""
    auxiliary: float | None = None
    """Weight of the auxiliary head's loss; 0: no such head; not set: 0.4 if the space's networks
    have one."""
    drop_path: float = 0.2
    """Probability of dropping a path in the last epoch, growing linearly from 0."""
    cutout: int | None = None
    """Side of the square that is cut out, in pixels; 0: none; not set: 16, and on images below 32
    pixels half their side."""
    randaugment: int = 0
    """Operations that RandAugment samples for every image, 2 in the papers; 0: none."""
    randaugment_magnitude: float = 9.0
    """Mean strength of RandAugment's operations, from 0 to 10."""
    randaugment_std: float = 0.5
    """Standard deviation of that strength."""
    randaugment_probability: float = 0.5
    """Probability that a sampled operation is applied."""
    erasing: float = 0.0
    """Probability that a random rectangle of an image is replaced by noise."""
    mixup: float = 0.0
    """Both parameters of the beta distribution of mixup's shares, 0.2 on ImageNet; 0: no mixup."""
    cutmix: float = 0.0
    """The same of CutMix, 1 in its paper; with both, each batch has one of them; 0: no CutMix."""
    seed: int = 0
    """Seed of every random number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        at_least(0, seed=self.seed, clip=self.clip)
        at_least(0, weight_decay=self.weight_decay, warm_up=self.warm_up)
        at_least(0, warm_up_lr=self.warm_up_lr, randaugment=self.randaugment)
        at_least(0, linear_tail=self.linear_tail)
        at_least(0, randaugment_std=self.randaugment_std)
        at_least(0, mixup=self.mixup, cutmix=self.cutmix, validate=self.validate)
        minima = {"channels": 1, "cells": 1, "limit_batches": 1, "cutout": 0, "auxiliary": 0}
        for name, minimum in minima.items():
            if (value := getattr(self, name)) is not None:
                at_least(minimum, **{name: value})
        positive(lr=self.lr, rmsprop_epsilon=self.rmsprop_epsilon)
        positive(step_factor=self.step_factor, step_epochs=self.step_epochs)
        within(0, 1, momentum=self.momentum, label_smoothing=self.label_smoothing)
        within(0, 1, rmsprop_decay=self.rmsprop_decay, erasing=self.erasing)
        within(0, 1, randaugment_probability=self.randaugment_probability)
        within(0, 10, randaugment_magnitude=self.randaugment_magnitude)
        for name in ("drop_path", "dropout", "ema"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} = {value}: must be at least 0 and below 1")
        if self.nesterov and self.optimiser != "sgd":
            raise ValueError(f"nesterov with optimiser = {self.optimiser!r}: only 'sgd' has it")
        if self.warm_up > self.epochs:
            raise ValueError(
                f"warm_up = {self.warm_up}: must be at most the {self.epochs} epochs in all"
            )
        if self.linear_tail and self.schedule != "linear":
            raise ValueError(
                f"linear_tail = {self.linear_tail} with schedule = {self.schedule!r}: only "
                "'linear' has a tail"
            )
        if self.linear_tail >= self.epochs:
            raise ValueError(
                f"linear_tail = {self.linear_tail}: must be below the {self.epochs} epochs in all"
            )
