"""What a search is made of: the parts that its settings name, joined, with its images."""

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
    """What a search is made of, the same in all of its phases."""

    settings: Run
    """Every setting of the parts too, so that later defaults change nothing."""
    method: Method
    search: Search
    space: Space
    """With what the search asks of it."""
    size: Size
    """Of the first phase's supernets."""
    streams: Streams
    budget: Budget | None = None
    """The limits to the final network; None: there are none."""

    @property
    def device(self) -> torch.device:
        """Where all is computed."""
        return self.streams.train.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.streams.train.data.images.shape

    @property
    def pictures(self) -> Pictures:
        """The images as a teacher that was trained already must have seen them."""
        data = self.streams.train.data
        return Pictures(data.images.shape, data.mean, data.std)

    @property
    def images(self) -> dict[str, int]:
        """How many images each half has."""
        streams = self.streams
        return {"train": len(streams.train.subset), "valid": len(streams.valid.subset)}

    @cached_property
    def phases(self) -> list[Stretch]:
        """The search's phases among the epochs."""
        return stretches(self.search.needs(self.space).phases, self.settings.epochs)

    @cached_property
    def costs(self) -> Costs:
        """What each choice adds to the final network."""
        if self.budget:
            return self.budget.costs
        final = final_size(self.settings, self.space, self.size.classes, self.shape[0])
        return costs_of(self.space, final, self.shape[1:])

    def flops(self, genotype: Genotype) -> float:
        """Count the FLOPs of an architecture."""
        return self.costs.of(genotype).flops
