"""Settings: one dataclass of dataclasses for a search, one for a retraining.

Nothing here imports torch, so that help, listings and checks are fast. A setting's docstring is its
help on the command line. Every class refuses a bad value when it is constructed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage.checks import at_least, known_choices, positive, within
from tutelage.renamed import keywords
from tutelage.searches.evolution import Evolution

Precision = Literal["fp32", "ieee", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
Graph = Literal["auto", "on", "off"]
Kernels = Literal["auto", "off"]
Statistics = Literal["batch", "rank"]
Divide = Literal["images", "learners"]
Log = tuple[Literal["tensorboard", "csv", "wandb", "mlflow"], ...]
MOST_THREADS = 1024
"""More than the CPUs of any machine; OpenMP ends the process if the system refuses threads."""


@dataclass(frozen=True)
class Data:
    """Which images, and how they are augmented."""

    name: str = "digits"
    """Data set: digits, cifar10, cifar100, or a path of images: a folder by class, CSV, Parquet."""
    root: Path | None = None
    """Folder that holds the data set's files."""
    download: bool = False
    """Download the data set into the root if it is missing."""
    unlabelled: str = "train"
    """Images to pseudo-label: another data set (under the same root) or folder, train for the
    training half, or rest for images that sample leaves out."""
    unlabelled_sample: float = 1.0
    """Share of the training images that unlabelled = rest takes, at most what sample leaves."""
    train_fraction: float = 0.5
    """Share of the training images that train weights; the others train the alphas."""
    stratified: bool = False
    """Divide every class by that share, instead of all images at once."""
    validation: Literal["half", "folder"] = "half"
    """Images that train the alphas: half, what the share leaves of the training images; folder,
    those of a folder's val part, beside train and test, while all of train trains weights."""
    balanced: bool = False
    """Sample every class equally often in training and for the alphas: an epoch has as many images
    as before, those of a small class several times."""
    held_out: int = 0
    """Training images, sampled uniformly, that are the test set instead of the data set's own and
    that neither a search nor a retraining trains on; 0: none."""
    sample: float = 1.0
    """Share of every class' training images that a search uses; a retraining uses all."""
    resolution: int | None = None
    """Side of the images in pixels; a folder's images are resized and cropped to it."""
    colour: Literal["auto", "grey", "rgb"] = "auto"
    """Read a folder's images as grey or RGB; auto: as they are; all must be the same."""
    white: int = 65_535
    """Value that becomes 255 in a folder's images of 16 bits, 4095 for a camera of 12 bits."""
    label_column: str | None = None
    """Column of the labels in a CSV or Parquet file; not set: found by its name."""
    crop: int | None = None
    """Padding of the random crop in pixels; not set: the data set's default."""
    flip: bool | None = None
    """Flip half of the images left to right; not set: the data set's default."""
    cutout: int = 0
    """Side of the square that is cut out, in pixels; 0: none."""
    rescale: float = 0.0
    """Smallest share of an image's area that a random window keeps before it is resized to the
    resolution, 0.08 on ImageNet; 0: no windows."""
    jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation, 0.4 on ImageNet; 0: none."""
    centre: float = 1.0
    """Share of the side that a centre crop keeps of a folder's images without augmentation, 0.875
    on ImageNet, which is 224 of 256 pixels."""
    memory: Literal["auto", "load", "stream"] = "auto"
    """Read a folder into memory, or decode it batch by batch; auto: up to 2 GiB into memory, unless
    rescale or centre need more of an image than the resolution."""

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction < 1:
            raise ValueError(
                f"train_fraction = {self.train_fraction}: must be strictly between 0 and 1"
            )
        known_choices(self)
        if self.validation == "folder" and self.stratified:
            raise ValueError(
                "stratified with validation = 'folder': no images are divided, give one of them"
            )
        at_least(0, cutout=self.cutout, jitter=self.jitter)
        within(0, 1, rescale=self.rescale)
        if not 0 < self.centre <= 1:
            raise ValueError(f"centre = {self.centre}: must be above 0 and at most 1")
        at_least(0, held_out=self.held_out)
        within(1, 65_535, white=self.white)
        self._check_samples()
        if self.crop is not None:
            at_least(0, crop=self.crop)
        if self.resolution is not None:
            at_least(1, resolution=self.resolution)

    def _check_samples(self) -> None:
        for name in ("sample", "unlabelled_sample"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} = {value}: must be above 0 and at most 1")
        if self.unlabelled != "rest":
            if self.unlabelled_sample < 1:
                raise ValueError(
                    f"unlabelled_sample = {self.unlabelled_sample} with unlabelled = "
                    f"{self.unlabelled!r}: only 'rest' is sampled, give --unlabelled rest"
                )
        elif self.sample == 1:
            raise ValueError(
                "unlabelled = 'rest' with sample = 1.0: no images are left out, give --data.sample "
                "below 1"
            )
        elif self.sample + self.unlabelled_sample > 1 + 1e-9:  # 0.7 + 0.3 is above 1
            raise ValueError(
                f"unlabelled_sample = {self.unlabelled_sample}: sample = {self.sample} leaves "
                f"{1 - self.sample:.6g} of the training images, which is the most"
            )


def once_balanced(data: Data, class_weights: str) -> None:
    """Refuse to correct unequal classes twice.

    Raises:
        ValueError: Classes are sampled equally often, and weigh unequally.
    """
    if data.balanced and class_weights == "balanced":
        raise ValueError(
            "class_weights = 'balanced' with data.balanced: each makes classes count equally, give "
            "one of them"
        )


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


@keywords(form="stem")
@dataclass(frozen=True)
class Retrain:
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
    stem: Literal["cifar", "imagenet"] = "cifar"
    """Stem and head: cifar keeps the image's resolution, imagenet divides it by 8, in chains by 2.
    """
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
    device: Device = "auto"
    """Device; auto: CUDA if there is one."""
    precision: Precision = "fp32"
    """Precision of the forward passes: fp32, in which convolutions on CUDA may round their factors
    to TF32; ieee, fp32 without that; or bf16."""
    graph: Graph = "auto"
    """Run the training step as one CUDA graph; auto: on CUDA, if it can be recorded; on: refuse a
    CPU; off: run one operation at a time."""
    kernels: Kernels = "auto"
    """Fused kernels on a GPU: auto, where Triton compiles for it; off, torch's operations alone."""
    statistics: Statistics = "batch"
    """With several processes, what batch normalisation measures: batch, the images of all, so that
    a run equals that of one process; rank, each process's own, which exchanges less."""
    deterministic: bool | None = None
    """Require deterministic algorithms of a GPU, so that equal runs on the same card have equal
    files; not set: no for a retraining; on a CPU it changes nothing."""
    threads: int | None = None
    """Threads that compute, and that decode images; not set: the number of usable idle CPUs, and
    fewer for small feature maps; a run that resumes keeps its number."""
    log_every: int = 50
    """Steps between two logged ones."""
    save_every: float = 5.0
    """Minutes between two checkpoints; every epoch ends with one."""
    log: Log = ()
    """Trackers that get the rows of metrics.jsonl too: tensorboard, csv, wandb, mlflow."""

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, batch_size=self.batch_size, log_every=self.log_every)
        at_least(0, seed=self.seed, clip=self.clip, save_every=self.save_every)
        at_least(0, weight_decay=self.weight_decay, warm_up=self.warm_up)
        at_least(0, warm_up_lr=self.warm_up_lr, randaugment=self.randaugment)
        at_least(0, linear_tail=self.linear_tail)
        at_least(0, randaugment_std=self.randaugment_std)
        at_least(0, mixup=self.mixup, cutmix=self.cutmix)
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
        if self.linear_tail and self.schedule != "linear":
            raise ValueError(
                f"linear_tail = {self.linear_tail} with schedule = {self.schedule!r}: only "
                "'linear' has a tail"
            )
        if self.linear_tail >= self.epochs:
            raise ValueError(
                f"linear_tail = {self.linear_tail}: must be below the {self.epochs} epochs in all"
            )
        known_choices(self)


@keywords(form="stem")
@dataclass(frozen=True)
class Run:
    """All settings of a search; written to run.toml verbatim."""

    method: dict[str, Any] = field(default_factory=lambda: {"name": "single"})
    """Who teaches whom: a name and the method's settings."""
    search: dict[str, Any] = field(default_factory=lambda: {"name": "darts"})
    """How choices are relaxed: a name and the search's settings."""
    space: dict[str, Any] = field(default_factory=lambda: {"name": "darts"})
    """What can be built: a name and the space's settings."""
    data: Data = Data()
    weights: Weights = Weights()
    alphas: Alphas = Alphas()
    epochs: int = 50
    """Epochs of the search."""
    batch_size: int = 64
    """Images in a batch, for every stream of data."""
    limit_batches: int | None = None
    """Stop every epoch after so many batches."""
    class_weights: Literal["equal", "balanced"] = "equal"
    """Weights of the classes in the losses of labels: balanced, inversely proportional to their
    images."""
    channels: int | None = None
    """Channels of the supernet's first cell, or of a chain's stem, with which its other widths
    scale; not set: the space's default, 16 in darts."""
    cells: int | None = None
    """Cells of the supernet, in nasbench201 of each stage; not set: the search's or the space's
    default, 8 in darts and 5 in nasbench201; a chain's depths set its layers."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """Stem: cifar keeps the image's resolution, imagenet divides it by 8, in chains by 2."""
    via: Literal["exact", "finite-difference", "first-order"] = "exact"
    """How the hypergradient passes through a virtual step."""
    radius: float = 0.01
    """Step length of the finite difference in weight space."""
    sides: Literal[1, 2] = 2
    """Finite difference: 2 for a central one; 1 for a forward one, at half the time."""
    recompute: bool = False
    """Exact: evaluate losses again for the product; less memory, more time."""
    virtual: Literal["sgd", "momentum", "plain"] = "sgd"
    """The virtual step: sgd, that of the real one; momentum, with momentum and decay but without
    clipping and Nesterov's rule, as in DARTS' code; or plain, the gradient alone."""
    max_params: float | None = None
    """Most parameters that the final network may have, in millions, without an auxiliary head."""
    max_flops: float | None = None
    """Most FLOPs of the final network on one image, in millions; each is a multiplication with its
    addition, as papers count."""
    max_latency: float | None = None
    """Longest forward pass of the final network, in milliseconds, predicted by a table of measured
    latencies (latency-table)."""
    latency_table: Path | None = None
    """Table of this device's latencies, as `tutelage latency` measures it for the final network."""
    budget_weight: float = 1.0
    """Weight, in the loss of the alphas, of the share by which an expected cost exceeds its limit
    (max-params, max-flops, max-latency); 0: limits apply only in the derivation."""
    seed: int = 0
    """Seed of every random number."""
    device: Device = "auto"
    """Device; auto: CUDA if there is one."""
    precision: Precision = "fp32"
    """Precision of the forward passes: fp32, in which convolutions on CUDA may round their factors
    to TF32; ieee, fp32 without that; or bf16, too coarse for a finite difference."""
    kernels: Kernels = "auto"
    """Fused kernels on a GPU: auto, where Triton compiles for it; off, torch's operations alone."""
    divide: Divide = "images"
    """With several processes, what each computes: images, its share of every batch; learners, some
    of the method's networks on whole batches, which exchange only logits and features."""
    statistics: Statistics = "batch"
    """With several processes, what batch normalisation measures: batch, the images of all, so that
    a run equals that of one process; rank, each process's own, which exchanges less."""
    deterministic: bool | None = None
    """Require deterministic algorithms of a GPU, so that equal runs on the same card have equal
    files; not set: yes for a search; on a CPU it changes nothing."""
    graph: Graph = "auto"
    """Run steps whose operations never change as one CUDA graph; auto: on CUDA, if a step can be
    recorded; on: refuse a CPU; off: run one operation at a time."""
    threads: int | None = None
    """Threads that compute, and that decode images; not set: the number of usable idle CPUs, and
    fewer for small feature maps; a run that resumes keeps its number."""
    log_every: int = 50
    """Steps between two logged ones."""
    save_every: float = 5.0
    """Minutes between two checkpoints; every epoch ends with one."""
    log: Log = ()
    """Trackers that get the rows of metrics.jsonl too: tensorboard, csv, wandb, mlflow."""
    table: Path | None = None
    """Table of NAS-Bench-201 or NAS-Bench-Macro, or folder of NAS-Bench-301's surrogate, looked up
    after every epoch in that space; never used for selection."""
    eigenvalue_every: int = 0
    """Epochs between two measurements of the dominant eigenvalue of the validation loss's Hessian
    in the alphas; 0: never."""
    sharpness_every: int = 0
    """Epochs between two measurements of the sharpness in the alphas: the rise of the validation
    loss at a small distance along its gradient (SAM); 0: never."""
    sharpness_radius: float = 0.05
    """The distance for the sharpness, over all alphas together."""
    gap_every: int = 0
    """Epochs between two measurements of the discretisation gap: the supernet's accuracy on the
    validation half, minus that of the derived architecture at the same weights; 0: never."""
    stop: Literal["never", "eigenvalue", "skips"] = "never"
    """When to stop early: if the eigenvalue grows (R-DARTS), or at two skip connections in the
    normal cell (DARTS+)."""
    stop_from: int = 10
    """First epoch whose architecture may be kept by an early stop: initial alphas mean little."""
    ranked: int = 0
    """Architectures, sampled uniformly, to rank at the end: their accuracies in the supernet of a
    sampling search are compared with those of the table (--table); 0: none."""
    evolution: Evolution = field(default_factory=Evolution)
    """The search for an architecture among the paths of a trained supernet."""
    retrain: Retrain = Retrain()
    """The training of this run's result by `tutelage retrain`."""
    quick: dict[str, str] = field(default_factory=dict)
    """The settings that a quick look changed: from which value to which; empty: none."""
    row: str | None = None
    """The paper's row that the settings began from, PAPER/TABLE/ROW."""

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
        known_choices(self)
        if self.stop == "eigenvalue" and not self.eigenvalue_every:
            raise ValueError(
                "stop = 'eigenvalue' with eigenvalue_every = 0: the eigenvalue is never measured, "
                "give --eigenvalue-every 1"
            )
        self._check_latency()
        for name in ("max_params", "max_flops", "max_latency"):
            if (value := getattr(self, name)) is not None:
                positive(**{name: value})
        at_least(0, budget_weight=self.budget_weight, ranked=self.ranked)
        if self.ranked == 1:
            raise ValueError("ranked = 1: a ranking needs two architectures or more, or 0 for none")
        if self.ranked and not self.table:
            raise ValueError(
                f"ranked = {self.ranked} without a table: give the file of true accuracies, --table"
            )
        once_balanced(self.data, self.class_weights)
        positive(radius=self.radius)
        if self.divide == "learners" and self.via == "exact":
            raise ValueError(
                "divide = 'learners' with via = 'exact': a second derivative needs all learners "
                "on every process, so use --divide images, or --via finite-difference or "
                "first-order"
            )

    def _check_latency(self) -> None:
        if self.latency_table:
            return
        advice = "measure one with tutelage latency, and give it as --latency-table FILE"
        if self.max_latency is not None:
            raise ValueError(
                f"max_latency = {self.max_latency} without a table of latencies: {advice}"
            )
        if self.evolution.objectives == "accuracy-latency":
            raise ValueError(
                f"evolution.objectives = 'accuracy-latency' without a table of latencies: {advice}"
            )
