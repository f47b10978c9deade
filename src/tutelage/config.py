"""Settings: one dataclass of dataclasses for a search, one for a retraining.

Nothing here imports torch, so that help, listing and checking are instant. A setting's docstring is
its help on the command line. Every class refuses a bad value when it is constructed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage.checks import at_least, one_of, positive, within
from tutelage.renamed import keywords
from tutelage.searches.evolution import Evolution

Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
MOST_THREADS = 1024
"""More than any machine has CPUs; OpenMP ends the process where the system refuses it threads."""


@dataclass(frozen=True)
class Data:
    """Which images, and how they are augmented."""

    name: str = "digits"
    """Data set: digits, cifar10, cifar100, or the path of a folder of images by class."""
    root: Path | None = None
    """Folder that holds the data set's files."""
    download: bool = False
    """Fetch the data set into the root where it is missing."""
    unlabelled: str = "train"
    """Images to pseudo-label: another data set (under the same root) or folder, or train for the
    training half."""
    train_fraction: float = 0.5
    """Share of the training set whose images train weights; the rest trains the alphas."""
    resolution: int | None = None
    """Side of the images in pixels; a folder's images are resized and cropped to it."""
    colour: Literal["auto", "grey", "rgb"] = "auto"
    """Read a folder's images as grey or RGB; auto: as they are, which must be all alike."""
    crop: int | None = None
    """Padding of the random crop in pixels; not set: the data set's own."""
    flip: bool | None = None
    """Flip half of the images left to right; not set: the data set's own."""
    cutout: int = 0
    """Side of the square that is cut out, in pixels; 0: none."""
    rescale: float = 0.0
    """Smallest share of an image's area that a random window keeps before it is brought to the
    resolution, 0.08 on ImageNet; 0: no windows."""
    jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation, 0.4 on ImageNet; 0: none."""
    centre: float = 1.0
    """Share of the side that is kept of a folder's images where they are not varied, 0.875 on
    ImageNet, which is 224 of 256 pixels."""
    memory: Literal["auto", "load", "stream"] = "auto"
    """Read a folder into memory, or decode it batch by batch; auto: up to 2 GiB into memory, unless
    rescale or centre want more of an image than the resolution."""

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction < 1:
            raise ValueError(
                f"train_fraction = {self.train_fraction}: must lie strictly between 0 and 1"
            )
        one_of(("auto", "grey", "rgb"), colour=self.colour)
        one_of(("auto", "load", "stream"), memory=self.memory)
        at_least(0, cutout=self.cutout, jitter=self.jitter)
        within(0, 1, rescale=self.rescale)
        if not 0 < self.centre <= 1:
            raise ValueError(f"centre = {self.centre}: must be above 0 and at most 1")
        if self.crop is not None:
            at_least(0, crop=self.crop)
        if self.resolution is not None:
            at_least(1, resolution=self.resolution)


@dataclass(frozen=True)
class Weights:
    """How network weights descend: SGD with momentum, and a rate that falls."""

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
    """When the learning rate moves on."""

    def __post_init__(self) -> None:
        positive(lr=self.lr)
        at_least(0, lr_min=self.lr_min, weight_decay=self.weight_decay, clip=self.clip)
        within(0, 1, momentum=self.momentum)
        one_of(("epoch", "step"), anneal=self.anneal)
        one_of(("cosine", "linear"), schedule=self.schedule)


@dataclass(frozen=True)
class Alphas:
    """How alphas descend: Adam."""

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


@keywords(form="stem")
@dataclass(frozen=True)
class Retrain:
    """Every setting of a retraining; DARTS' evaluation on CIFAR by default."""

    epochs: int = 600
    """Epochs of training from scratch."""
    batch_size: int = 96
    """Images of a batch."""
    limit_batches: int | None = None
    """Stop every epoch after so many batches."""
    channels: int | None = None
    """Channels of the first cell, or of a chain's stem, which its other widths follow; not set: the
    space's own, 36 in darts and 16 in nasbench201."""
    cells: int | None = None
    """Cells of the network; not set: the space's own, 20 in darts and 5 a stage in nasbench201; a
    chain has as many layers as its depths say."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """Stem and head: cifar keeps the image's resolution, imagenet divides it by 8, in chains by 2.
    """
    optimiser: Literal["sgd", "rmsprop"] = "sgd"
    """How weights descend: SGD, or RMSProp as TensorFlow computes it."""
    lr: float = 0.025
    """Learning rate at the start, or after the warm-up."""
    momentum: float = 0.9
    """Momentum of the optimiser."""
    weight_decay: float = 3e-4
    """Weight decay, added to the gradient."""
    norm_decay: bool = True
    """Decay also biases and the weights of BatchNorm."""
    nesterov: bool = False
    """SGD: Nesterov's rule for the momentum."""
    rmsprop_decay: float = 0.9
    """RMSProp: decay of the mean square of the gradient."""
    rmsprop_epsilon: float = 1e-3
    """RMSProp: added to the mean square, inside the root."""
    schedule: Literal["cosine", "linear", "step"] = "cosine"
    """How the learning rate falls: along a cosine or a line to 0, or by steps."""
    step_factor: float = 0.97
    """Schedule step: what each step multiplies the learning rate by."""
    step_epochs: float = 2.4
    """Schedule step: epochs between two steps."""
    anneal: Literal["epoch", "step"] = "epoch"
    """When the learning rate moves on: after every epoch, or after every step of the optimiser."""
    warm_up: float = 0.0
    """Epochs in which the learning rate first grows along a line, while the schedule counts on."""
    warm_up_lr: float = 1e-6
    """Learning rate at which the warm-up begins."""
    clip: float = 5.0
    """Largest norm of the gradient; 0: no clipping."""
    ema: float = 0.0
    """Decay, a step, of an average of the weights, which is then what is tested and saved, 0.9999
    in the papers; 0: no average."""
    label_smoothing: float = 0.0
    """Share of the label spread over all classes."""
    dropout: float = 0.0
    """Share of the features that dropout zeroes before the classifier."""
    auxiliary: float | None = None
    """Weight of the auxiliary head's loss; 0: no such head; not set: 0.4 where the space's networks
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
    """Probability with which a sampled operation is carried out."""
    erasing: float = 0.0
    """Probability that a random rectangle of an image is replaced by noise."""
    seed: int = 0
    """Seed of every random number."""
    device: Device = "auto"
    """Where to compute; auto: CUDA where there is one."""
    precision: Precision = "fp32"
    """Numbers of the forward passes."""
    threads: int | None = None
    """Threads that compute, and that decode images; not set: as many as the CPUs that are usable
    and idle, and fewer for small maps; a run that resumes keeps its number."""
    log_every: int = 50
    """Steps between two logged ones."""
    save_every: float = 5.0
    """Minutes between two checkpoints; every epoch ends with one."""

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, batch_size=self.batch_size, log_every=self.log_every)
        at_least(0, seed=self.seed, clip=self.clip, save_every=self.save_every)
        at_least(0, weight_decay=self.weight_decay, warm_up=self.warm_up)
        at_least(0, warm_up_lr=self.warm_up_lr, randaugment=self.randaugment)
        at_least(0, randaugment_std=self.randaugment_std)
        minima = {"channels": 1, "cells": 1, "limit_batches": 1, "cutout": 0, "auxiliary": 0}
        for name, minimum in minima.items():
            if (value := getattr(self, name)) is not None:
                at_least(minimum, **{name: value})
        if self.threads is not None:
            within(1, MOST_THREADS, threads=self.threads)
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
        one_of(("sgd", "rmsprop"), optimiser=self.optimiser)
        one_of(("cosine", "linear", "step"), schedule=self.schedule)
        one_of(("epoch", "step"), anneal=self.anneal)
        one_of(("cifar", "imagenet"), stem=self.stem)
        one_of(("fp32", "bf16"), precision=self.precision)
        one_of(("auto", "cpu", "cuda"), device=self.device)


@keywords(form="stem")
@dataclass(frozen=True)
class Run:
    """Every setting of a search; written to run.toml verbatim."""

    method: dict[str, Any] = field(default_factory=lambda: {"name": "single"})
    """Who teaches whom: a name and the method's own settings."""
    search: dict[str, Any] = field(default_factory=lambda: {"name": "darts"})
    """How choices are relaxed: a name and the search's own settings."""
    space: dict[str, Any] = field(default_factory=lambda: {"name": "darts"})
    """What can be built: a name and the space's own settings."""
    data: Data = Data()
    weights: Weights = Weights()
    alphas: Alphas = Alphas()
    epochs: int = 50
    """Epochs of the search."""
    batch_size: int = 64
    """Images of a batch, for every stream of data."""
    limit_batches: int | None = None
    """Stop every epoch after so many batches."""
    channels: int | None = None
    """Channels of the supernet's first cell, or of a chain's stem, which its other widths follow;
    not set: the space's own, 16 in darts."""
    cells: int | None = None
    """Cells of the supernet, in nasbench201 of each of its stages; not set: the search's or the
    space's own, 8 in darts and 5 in nasbench201; a chain has as many layers as its depths say."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """Stem: cifar keeps the image's resolution, imagenet divides it by 8, in chains by 2."""
    via: Literal["exact", "finite-difference", "first-order"] = "exact"
    """How the hypergradient passes a virtual step."""
    radius: float = 0.01
    """Length of the finite difference's step in weight space."""
    sides: Literal[1, 2] = 2
    """Finite difference: 2 for a central one; 1 for a forward one, which costs half."""
    recompute: bool = False
    """Exact: evaluate losses again for their product; saves memory, costs time."""
    virtual: Literal["sgd", "plain"] = "sgd"
    """The virtual step: SGD's own, with momentum, decay and clipping, or the plain gradient."""
    max_params: float | None = None
    """Most parameters that the final network may have, in millions, without an auxiliary head."""
    max_flops: float | None = None
    """Most FLOPs of the final network on one image, in millions; each is a multiplication with its
    addition, as papers count."""
    budget_weight: float = 1.0
    """Weight, in the loss of the alphas, of the share by which an expected cost exceeds its limit
    (max-params, max-flops); 0: limits act only where the architecture is derived."""
    seed: int = 0
    """Seed of every random number."""
    device: Device = "auto"
    """Where to compute; auto: CUDA where there is one."""
    precision: Precision = "fp32"
    """Numbers of the forward passes."""
    threads: int | None = None
    """Threads that compute, and that decode images; not set: as many as the CPUs that are usable
    and idle, and fewer for small maps; a run that resumes keeps its number."""
    log_every: int = 50
    """Steps between two logged ones."""
    save_every: float = 5.0
    """Minutes between two checkpoints; every epoch ends with one."""
    table: Path | None = None
    """Results of NAS-Bench-201 or NAS-Bench-Macro, asked after every epoch in that space; never
    for selection."""
    eigenvalue_every: int = 0
    """Epochs between two measurements of the dominant eigenvalue of the validation loss's Hessian
    in the alphas; 0: never."""
    sharpness_every: int = 0
    """Epochs between two measurements of the sharpness in the alphas: by how much the validation
    loss rises at a small distance, uphill (SAM); 0: never."""
    sharpness_radius: float = 0.05
    """That distance, over all alphas together."""
    gap_every: int = 0
    """Epochs between two measurements of the discretisation gap: the supernet's accuracy on the
    validation half, less that with what is derived alone, at the same weights; 0: never."""
    stop: Literal["never", "eigenvalue", "skips"] = "never"
    """When to stop early: as the eigenvalue grows (R-DARTS), or at two skip connections in the
    normal cell (DARTS+)."""
    stop_from: int = 10
    """First epoch whose architecture may be kept by an early stop: fresh alphas say little."""
    ranked: int = 0
    """Architectures, sampled uniformly, whose accuracies in the supernet of a sampling search are
    compared with the table's (--table) in the end: how well one ranks the other; 0: none."""
    evolution: Evolution = field(default_factory=Evolution)
    """How an architecture is found among the paths of a trained supernet."""
    retrain: Retrain = Retrain()
    """How `tutelage retrain` trains what this run finds."""
    quick: dict[str, str] = field(default_factory=dict)
    """What a quick look has made small, by setting: from which value to which; empty: nothing."""

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, batch_size=self.batch_size, log_every=self.log_every)
        at_least(0, seed=self.seed, save_every=self.save_every)
        for name in ("channels", "cells", "limit_batches"):
            if (value := getattr(self, name)) is not None:
                at_least(1, **{name: value})
        if self.threads is not None:
            within(1, MOST_THREADS, threads=self.threads)
        at_least(0, eigenvalue_every=self.eigenvalue_every, stop_from=self.stop_from)
        at_least(0, sharpness_every=self.sharpness_every, gap_every=self.gap_every)
        positive(sharpness_radius=self.sharpness_radius)
        one_of(("never", "eigenvalue", "skips"), stop=self.stop)
        if self.stop == "eigenvalue" and not self.eigenvalue_every:
            raise ValueError(
                "stop = 'eigenvalue' with eigenvalue_every = 0: it is never measured, give "
                "--eigenvalue-every 1"
            )
        for name in ("max_params", "max_flops"):
            if (value := getattr(self, name)) is not None:
                positive(**{name: value})
        at_least(0, budget_weight=self.budget_weight, ranked=self.ranked)
        if self.ranked == 1:
            raise ValueError("ranked = 1: a ranking needs two architectures or more, or 0 for none")
        if self.ranked and not self.table:
            raise ValueError(
                f"ranked = {self.ranked} without a table: give the file of true accuracies, --table"
            )
        positive(radius=self.radius)
        one_of(("exact", "finite-difference", "first-order"), via=self.via)
        if self.sides not in (1, 2):
            raise ValueError(f"sides = {self.sides}: must be 1 or 2")
        one_of(("sgd", "plain"), virtual=self.virtual)
        one_of(("cifar", "imagenet"), stem=self.stem)
        one_of(("fp32", "bf16"), precision=self.precision)
        one_of(("auto", "cpu", "cuda"), device=self.device)
