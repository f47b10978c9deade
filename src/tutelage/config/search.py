"""Settings of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage.checks import at_least, positive
from tutelage.config.data import Data, once_balanced
from tutelage.config.machine import Divide, Machine, Stem
from tutelage.config.optimisers import Alphas, Weights
from tutelage.config.retrain import Retrain
from tutelage.renamed import keywords
from tutelage.searches.evolution import Evolution


@keywords(form="stem")
@dataclass(frozen=True)
class Run(Machine):
    """All settings of a search; written to run.toml verbatim."""

    method: dict[str, Any] = field(default_factory=lambda: {"name": "single"})
    """Who teaches whom: a name and the method's settings."""
    search: dict[str, Any] = field(default_factory=lambda: {"name": "darts"})
    """How choices are relaxed: a name and the search's settings."""
    space: dict[str, Any] = field(default_factory=lambda: {"name": "darts"})
    """What can be built: a name and the space's settings."""
    data: Data = field(default_factory=Data)
    weights: Weights = field(default_factory=Weights)
    alphas: Alphas = field(default_factory=Alphas)
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
    stem: Stem = "cifar"
    """Stem: cifar keeps the image's resolution, imagenet divides it by 8, in chains by 2, in
    resnet by 4."""
    via: Literal["exact", "finite-difference", "first-order"] = "exact"
    """How the hypergradient passes through a virtual step."""
    radius: float = 0.01
    """Step length of the finite difference in weight space."""
    sides: Literal[1, 2] = 2
    """Finite difference: 2 for a central one; 1 for a forward one, which needs half the
    additional passes."""
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
    divide: Divide = "images"
    """With several processes, what each computes: images, its share of every batch; learners, some
    of the method's networks on whole batches, which exchange only logits and features."""
    table: Path | None = None
    """Table of NAS-Bench-201 or NAS-Bench-Macro, or folder of NAS-Bench-301's surrogate, looked up
    after every epoch of a relaxed search, and at the end of others; never used for selection."""
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
    retrain: Retrain = field(default_factory=Retrain)
    """The training of this run's result by `tutelage retrain`."""
    quick: dict[str, str] = field(default_factory=dict)
    """The settings that a quick look changed: from which value to which; empty: none."""
    row: str | None = None
    """The paper's row that the settings began from, PAPER/TABLE/ROW."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        at_least(0, seed=self.seed)
        for name in ("channels", "cells", "limit_batches"):
            if (value := getattr(self, name)) is not None:
                at_least(1, **{name: value})
        at_least(0, eigenvalue_every=self.eigenvalue_every, stop_from=self.stop_from)
        at_least(0, sharpness_every=self.sharpness_every, gap_every=self.gap_every)
        positive(sharpness_radius=self.sharpness_radius)
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
