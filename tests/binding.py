"""Searches bound to spaces, as a supernet needs them."""

from __future__ import annotations

from functools import partial
from math import nan

import torch

from tutelage.clock import Clock
from tutelage.parts import make_part
from tutelage.run.cost.table import costs_of, final_size
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.relaxation import BoundAlphas, BoundPaths
from tutelage.run.supernet.penalty import without_alphas
from tutelage.run.supernet.setup import stretches
from tutelage.searches.needs import fit, size_of
from tutelage.spaces.base import Size
from tutelage.spaces.chain import Chain


def binder(search, flops=lambda genotype: nan):
    """What binds a search to the space of a supernet, on the CPU."""
    cpu = torch.device("cpu")
    if search.kind == "one-shot":
        return partial(BoundPaths, search, device=cpu, flops=flops)
    return partial(BoundAlphas, search, device=cpu)


def small(space, channels, stem, cells):
    """A size for a test: a chain has as many layers as it has, but few channels."""
    if isinstance(space, Chain):
        return Size(channels=4, cells=space.sizes.cells, stem=stem)
    return Size(channels, cells, stem=stem)


def final_costs(settings, space):
    side = settings.data.resolution or 32
    final = final_size(settings, space, classes=1000, image_channels=3)
    return costs_of(space, final, (side, side))


def problems(settings):
    """Yield the problem of every phase of a search, and whether the search samples.

    The networks have the settings' channels with one cell, or one a stage; chains are narrow.
    """
    search, method = make_part("search", settings.search), make_part("method", settings.method)
    space = fit(search, make_part("space", settings.space))
    phases, sampled = search.needs(space).phases, search.kind == "one-shot"
    for stretch in stretches(phases, settings.epochs):
        assert stretch.epochs == settings.epochs / len(phases)  # evenly, to the epoch
        varied = space.varied(partial=stretch.phase.partial or 1)
        if count := stretch.phase.operations:
            first = {g: [list(range(count))] * edges for g, (edges, _) in space.choices.items()}
            varied = varied.narrowed(first)
        size = small(space, settings.channels or size_of(search, space)[0], settings.stem, cells=1)
        images, bind = {"train": 2, "valid": 2}, binder(search)
        if sampled:
            costs = final_costs(settings, space)
            bind = binder(search, lambda found, costs=costs: costs.of(found).flops)
        cpu = torch.device("cpu")
        maker = Maker(bind, [varied], size, Clock(), stretch.span, cpu, None, images)
        problem = method(maker)
        yield without_alphas(problem) if sampled else problem, sampled
