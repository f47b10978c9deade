"""The monitors: functions that measure every learner after an epoch.

A monitor that is more than one line has a file of its own in this folder. It imports `subject`,
which says what a monitor gets, and not this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage.batch import Batch
from tutelage.config import Run
from tutelage.run.monitor.collapse import cell_gradients, entropy, layer_alignment, skips
from tutelage.run.monitor.curvature import dominant_eigenvalue, sharpness
from tutelage.run.monitor.subject import Subject, Value
from tutelage.spaces.base import one_hot


class Monitor(NamedTuple):
    """A diagnostic of a learner, measured after an epoch; `MONITORS` lists all."""

    names: tuple[str, ...]
    """Its entries in metrics.jsonl; None where they are not measured or not finite."""
    measure: Callable[[Subject], Mapping[str, Value]]
    every: str = ""
    """The setting that gives the number of epochs between two measurements, 0: never; empty: it is
    measured after every epoch."""


def alignment(subject: Subject) -> dict[str, float]:
    """Measure how far the gradients of a group's cells agree; empty where cells are not counted."""
    if not subject.cells:
        return {}
    gradients = cell_gradients(subject.loss, subject.arch, subject.cells)
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
        every="eigenvalue_every",
    ),
    Monitor(
        ("sharpness",),
        lambda s: {"sharpness": sharpness_of(s)},
        every="sharpness_every",
    ),
    Monitor(("gap", "one_hot_accuracy"), discretised, every="gap_every"),
)
"""All monitors; a new line here adds one.

Of those that a setting turns on, the eigenvalue takes about the time of twenty steps, sharpness
that of one step, and the gap two forward passes of every validation image.
"""

OF_ALPHAS = (*(each.every for each in MONITORS if each.every), "stop")
"""Settings of diagnostics that need alphas which train."""


def refuse_measures(settings: Run, why: str) -> None:
    """Refuse settings of diagnostics in a search that has nothing for them.

    Args:
        settings: Those of the search.
        why: What it lacks, the end of the message.

    Raises:
        ValueError: There is such a setting.
    """
    for name in OF_ALPHAS:
        if (value := getattr(settings, name)) not in (0, "never"):
            raise ValueError(f"{name} = {value!r}: it measures alphas, and {why}; leave it out")


def measured(subject: Subject) -> dict[str, Any]:
    """Measure a learner by all monitors that are due after the epoch.

    Raises:
        ValueError: A monitor gives an entry that its line does not name.
    """
    found: dict[str, Any] = {}
    settings, done = subject.view.setup.settings, subject.view.epoch + 1
    for monitor in MONITORS:
        every = getattr(settings, monitor.every) if monitor.every else 1
        values = monitor.measure(subject) if every and done % every == 0 else {}
        for name in values:
            if name not in monitor.names:
                raise ValueError(
                    f"a monitor gives the entry {name!r}, and its line in MONITORS has only "
                    f"{', '.join(monitor.names)}: add it there"
                )
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
