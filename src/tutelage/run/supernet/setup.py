"""The setup of a search: the parts that its settings name, and its images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from tutelage.config import Run
from tutelage.data.streams import Streams
from tutelage.problem import Method
from tutelage.run.cost.budget import Budget
from tutelage.run.cost.table import Costs, costs_of, final_size
from tutelage.run.networks.teacher import Pictures
from tutelage.run.supernet.phases import Stretch, stretches
from tutelage.searches.base import Search
from tutelage.spaces.base import Size, Space
from tutelage.spaces.genotype import Genotype


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
