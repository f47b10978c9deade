"""Joins the method, the search, the space and the images that a run's settings name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.config import Run
from tutelage.data.images import Labelled
from tutelage.data.read import read
from tutelage.data.streams import streams_of
from tutelage.parts import make_part, part_settings
from tutelage.problem import Method
from tutelage.run.cost.budget import budget_of
from tutelage.run.cost.latency import LatencyTable, latencies_of
from tutelage.run.machine.device import device_named
from tutelage.run.machine.threads import elements
from tutelage.run.strategies.one_shot import OneShot
from tutelage.run.strategies.random import Random
from tutelage.run.strategies.relaxed import Relaxed
from tutelage.run.supernet.setup import Setup
from tutelage.run.supernet.strategy import Strategy
from tutelage.searches.base import Kind, Search
from tutelage.searches.needs import fit, size_of
from tutelage.spaces.base import Size, Space

STRATEGIES: Mapping[Kind, type[Relaxed] | type[OneShot] | type[Random]] = {
    "relaxed": Relaxed,
    "one-shot": OneShot,
    "random": Random,
}
"""How each kind of search is carried out."""


class Joined(NamedTuple):
    """All parts of a search except its batches."""

    settings: Run
    """All settings, including those of the parts, so that later defaults change nothing."""
    method: Method
    search: Search
    space: Space
    """The space, changed as the search needs it."""
    size: Size
    """Size of the first phase's supernets."""
    train: Labelled
    """The images of both halves, without those held out or left out."""
    device: torch.device
    strategy: Callable[[Setup], Strategy]
    """How the search is carried out."""
    latencies: LatencyTable | None
    """Measured latencies of operations; None: the settings have no table."""

    def setup(self, halves: tuple[Tensor, Tensor]) -> Setup:
        """Divide the images into the half for weights and the half for alphas.

        Raises:
            ValueError: The space's cheapest architecture costs more than the settings allow, or the
                table of latencies lacks an operation.
        """
        settings, search, space, train = self.settings, self.search, self.space, self.train
        classes, shape = self.size.classes, train.images.shape
        return Setup(
            settings=settings,
            method=self.method,
            search=search,
            space=space,
            size=self.size,
            streams=streams_of(settings, train, halves, self.device),
            budget=budget_of(settings, search, space, classes, shape, self.latencies),
        )

    @property
    def elements(self) -> int | None:
        """Count the elements of a batch's feature maps in the first cell; None: on a GPU."""
        if self.device.type != "cpu":
            return None
        return elements(self.settings.batch_size, self.size, self.train.images.shape)


def joined(settings: Run, run: Path | None = None) -> Joined:
    """Make the parts that the settings name, and read the images.

    Args:
        settings: The settings of a search.
        run: The directory of a run that resumes.

    Raises:
        ValueError: A setting or the data cannot be used, or the parts do not fit together.
    """
    device = device_named(settings.device)
    search: Search = make_part("search", settings.search)
    method = make_part("method", settings.method)
    asked = make_part("space", settings.space)
    space = fit(search, asked)
    strategy = STRATEGIES[search.kind]
    strategy.refuse(settings, space)
    settings = replace(
        settings,
        method=part_settings("method", method),
        search=part_settings("search", search),
        space=part_settings("space", asked),
    )
    train = read(settings.data, "search")
    channels, cells = size_of(search, space)
    size = Size(
        channels=settings.channels or channels,
        cells=settings.cells or cells,
        classes=len(train.classes),
        image_channels=train.images.shape[0],
        stem=settings.stem,
    )
    latencies = latencies_of(settings, run)
    return Joined(settings, method, search, space, size, train, device, strategy, latencies)
