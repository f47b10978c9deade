"""The monitors: functions that measure every learner after an epoch, and their input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import isfinite
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from tutelage.batch import Batch
from tutelage.config import Run
from tutelage.problem import Learner, pick
from tutelage.run.monitor.collapse import cell_gradients, entropy, layer_alignment, skips
from tutelage.run.monitor.curvature import dominant_eigenvalue, sharpness
from tutelage.run.supernet.view import View
from tutelage.searches.base import Relaxing
from tutelage.spaces.base import ArchWeights, one_hot
from tutelage.spaces.genotype import Genotype
from tutelage.virtual import Tree


@dataclass(frozen=True)
class Subject:
    """A learner after an epoch, the input of monitors: at fixed weights, on validation images.

    Its network is evaluated with the expected architecture weights, since the noise of sampled ones
    would be measured too.
    """

    view: View
    learner: Learner
    genotype: Genotype
    """The architecture that would be derived now."""
    valid: Batch
    """A batch."""

    @property
    def alphas(self) -> Tree:
        """The learner's alphas."""
        return pick(self.view.variables, self.learner.alphas)

    @cached_property
    def arch(self) -> ArchWeights:
        """The expected architecture weights."""
        return self.expected(self.alphas)

    @cached_property
    def _auxiliary(self) -> float:
        """The present weight of DARTS-'s auxiliary skip beside all operations."""
        return cast(float, self.learner.net.relax(self.alphas).auxiliary)

    def expected(self, alphas: Tree) -> ArchWeights:
        """Return the expected architecture weights of alphas."""
        search = cast(Relaxing, self.view.setup.search)
        return replace(search.expected(alphas), auxiliary=self._auxiliary)

    def logits(self, arch: ArchWeights, x: Tensor) -> Tensor:
        """Return logits (B, C) of images for architecture weights."""
        module, weights = self.learner.net.module, self.view.weights(self.learner)
        return cast(Tensor, functional_call(module, weights, (x, arch))[0])

    def loss(self, arch: ArchWeights) -> Tensor:
        """Return the loss () of the batch for architecture weights."""
        return F.cross_entropy(self.logits(arch, self.valid.x), self.valid.y)

    def loss_at(self, alphas: Tree) -> Tensor:
        """Return the loss () of the batch for the expected architecture weights of alphas."""
        return self.loss(self.expected(alphas))


Value = float | Mapping[str, float]
"""A number, or a number for every group of cells."""


class Monitor(NamedTuple):
    """A diagnostic of a learner, measured after an epoch; `MONITORS` lists all."""

    names: tuple[str, ...]
    """Its entries in metrics.jsonl; None where they are not measured or not finite."""
    measure: Callable[[Subject], Mapping[str, Value]]
    every: Callable[[Run], int] = lambda settings: 1
    """It is measured every so many epochs; 0: never."""


def alignment(subject: Subject) -> dict[str, float]:
    """Measure how far the gradients of a group's cells agree, for every group."""
    gradients = cell_gradients(subject.loss, subject.arch)
    return {group: layer_alignment(g) for group, g in gradients.items() if g}


def discretised(subject: Subject) -> dict[str, float]:
    """Measure the accuracy that discretisation loses, on all validation images."""
    like = next(iter(subject.arch.operations.values()))
    chosen = one_hot(subject.view.space_of(subject.learner), subject.genotype, like)
    mixed, discrete = (partial(subject.logits, arch) for arch in (subject.arch, chosen))
    return gap(mixed, discrete, subject.view.validation)


def sharpness_of(subject: Subject) -> float:
    """Measure the rise of the loss at the distance in the settings."""
    radius = subject.view.setup.settings.sharpness_radius
    return sharpness(subject.loss_at, subject.alphas, radius)


MONITORS = (
    Monitor(("skips",), lambda s: {"skips": skips(s.genotype)}),
    Monitor(("entropy",), lambda s: {"entropy": entropy(s.arch.operations)}),
    Monitor(("alignment",), lambda s: {"alignment": alignment(s)}),
    Monitor(
        ("eigenvalue",),
        lambda s: {"eigenvalue": dominant_eigenvalue(s.loss_at, s.alphas)},
        every=lambda settings: settings.eigenvalue_every,
    ),
    Monitor(
        ("sharpness",),
        lambda s: {"sharpness": sharpness_of(s)},
        every=lambda settings: settings.sharpness_every,
    ),
    Monitor(("gap", "one_hot_accuracy"), discretised, every=lambda settings: settings.gap_every),
)
"""All monitors; a new line here adds one.

Of those that a setting turns on, the eigenvalue takes about the time of twenty steps, sharpness
that of one step, and the gap two forward passes of every validation image.
"""


def measured(subject: Subject) -> dict[str, Any]:
    """Run all monitors that are due after the epoch."""
    found: dict[str, Any] = {}
    settings, done = subject.view.setup.settings, subject.view.epoch + 1
    for monitor in MONITORS:
        every = monitor.every(settings)
        values = monitor.measure(subject) if every and done % every == 0 else {}
        found |= {name: _known(values.get(name)) for name in monitor.names}
    return found


def _known(value: Value | None) -> Value | None:
    """Return None for a number that is not finite."""
    return value if isinstance(value, Mapping) or (value is not None and isfinite(value)) else None


def gap(
    mixed: Callable[[Tensor], Tensor],
    discrete: Callable[[Tensor], Tensor],
    held_out: Callable[[], Iterable[Batch]],
) -> dict[str, float]:
    """Measure the accuracy of the supernet minus that of its derived architecture.

    Both are functions of images (B, C, H, W): a supernet with the same weights.
    """
    with torch.random.fork_rng():  # some spaces add random noise
        before, after = (accuracy(logits, held_out()) for logits in (mixed, discrete))
    return {"gap": before - after, "one_hot_accuracy": after}


@torch.no_grad()
def accuracy(logits: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> float:
    """Return the share of images whose label is the class with the largest logit."""
    right = [(logits(batch.x).argmax(1) == batch.y) for batch in batches]
    return float(torch.cat(right).double().mean())
