"""The setup of a search: the parts that its settings name, its phases, and its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.config import Run
from tutelage.data.balance import class_weights
from tutelage.data.streams import Streams
from tutelage.problem import Method
from tutelage.run.cost.budget import Budget
from tutelage.run.cost.table import Costs, costs_of, final_size
from tutelage.run.networks.teacher import Pictures
from tutelage.searches.base import Phase, Search
from tutelage.spaces.base import Size, Space
from tutelage.spaces.genotype import Genotype


class Stretch(NamedTuple):
    """A phase among the epochs of its search."""

    phase: Phase
    start: int
    """Its first epoch."""
    epochs: int
    """How many it has."""
    initialised: int
    """The epoch in which the weights were initialised, in this phase or in an earlier one."""
    span: int
    """The number of epochs for which those weights train."""

    @property
    def thaw(self) -> int:
        """The first epoch whose steps train the alphas."""
        return self.start + round(self.phase.frozen * self.epochs)


def stretches(phases: Sequence[Phase], epochs: int) -> list[Stretch]:
    """Divide epochs among phases, evenly.

    Raises:
        ValueError: There are fewer epochs than phases.
    """
    if epochs < len(phases):
        raise ValueError(
            f"epochs = {epochs}: the search has {len(phases)} phases, so give at least as many"
        )
    starts = [epochs * index // len(phases) for index in range(len(phases) + 1)]
    fresh = [s for s, phase in zip(starts, phases, strict=False) if not phase.carries] + [epochs]
    found = []
    for index, phase in enumerate(phases):
        initialised = max(s for s in fresh if s <= starts[index])
        span = min(s for s in fresh if s > starts[index]) - initialised
        length = starts[index + 1] - starts[index]
        found.append(Stretch(phase, starts[index], length, initialised, span))
    return found


@dataclass(frozen=True)
class Setup:
    """The setup of a search, the same in all of its phases."""

    settings: Run
    """All settings, including those of the parts, so that later defaults change nothing."""
    method: Method
    search: Search
    space: Space
    """The space, changed as the search needs it."""
    size: Size
    """Size of the first phase's supernets."""
    streams: Streams
    budget: Budget | None = None
    """The limits on the final network; None: there are none."""

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self.streams.train.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.streams.train.data.images.shape

    @property
    def pictures(self) -> Pictures:
        """The images' shape and normalisation, for a pretrained teacher."""
        data = self.streams.train.data
        return Pictures(data.images.shape, data.mean, data.std)

    @property
    def images(self) -> dict[str, int]:
        """How many images each half has."""
        streams = self.streams
        return {"train": len(streams.train.subset), "valid": len(streams.valid.subset)}

    @cached_property
    def class_weights(self) -> Tensor | None:
        """Weights of the classes (C,), of the images of both halves; None: equal."""
        if self.settings.class_weights == "equal":
            return None
        train, valid = self.streams.train, self.streams.valid
        labels = train.data.images.labels[torch.cat([train.subset, valid.subset])]
        return class_weights(labels, self.size.classes).to(self.device)

    @cached_property
    def phases(self) -> list[Stretch]:
        """The phases of the search, with their epochs."""
        return stretches(self.search.needs(self.space).phases, self.settings.epochs)

    @cached_property
    def costs(self) -> Costs:
        """The cost that each choice adds to the final network."""
        if self.budget:
            return self.budget.costs
        final = final_size(self.settings, self.space, self.size.classes, self.shape[0])
        return costs_of(self.space, final, self.shape[1:])

    def flops(self, genotype: Genotype) -> float:
        """Count the FLOPs of an architecture."""
        return self.costs.of(genotype).flops
