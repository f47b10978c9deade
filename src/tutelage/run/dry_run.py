"""A dry run: the parameters, time and memory of a search, from a few of its steps.

Steps are traced at two small batch sizes first: the bytes of all tensors after every operation
predict the memory at any batch size. Time is measured at the requested batch size if the memory
suffices for it. If not, time is extended linearly from the small ones, and the same traces of a
changed search say which change makes it fit. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from tutelage.config import Run
from tutelage.data.halves import halves
from tutelage.extras import Notice
from tutelage.parts import make_part
from tutelage.run.conditions import conditions
from tutelage.run.cost.table import Cost, Costs, final_size
from tutelage.run.machine import threads
from tutelage.run.measure.forecast import Forecast
from tutelage.run.measure.memory import available
from tutelage.run.measure.result import FILLED, Change, Dry
from tutelage.run.measure.scoring import measure_scoring
from tutelage.run.measure.steps import measure, trace
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.setup import Setup
from tutelage.run.supernet.state import Searching
from tutelage.spaces.base import ArchWeights, Space

STEPS = 4
"""Steps that are timed, after a first one that is not timed."""


def dry_run(settings: Run) -> Dry:
    """Measure a few steps of a search; write nothing.

    Raises:
        ValueError: As a search does.
    """
    with conditions(settings, repeatable=True):
        return _measured(settings)


def _measured(settings: Run) -> Dry:
    parts = joined(settings)
    threads.settle(parts.elements)
    device, shape = parts.device, parts.train.images.shape
    setup = parts.setup(halves(settings, parts.train))
    images = len(setup.streams.train.subset)
    asked = min(settings.batch_size, images)

    def searching(changed: Setup, batch: int) -> Searching:
        torch.manual_seed(settings.seed)
        own = replace(changed, streams=changed.streams.of(batch))
        return Searching(own, parts.strategy(own))

    final = final_size(setup.settings, setup.space, setup.size.classes, shape[0])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        first = searching(setup, asked)
        first.strategy.check(first.view())
        notice = first.phase.problem.extra(Notice)
        dry = Dry(
            final,
            shape,
            extremes(setup.space, setup.costs),
            asked,
            images,
            first.steps,
            memory=available(device),
            notice=notice.text if notice else "",
            unit="layers" if setup.space.stages else "cells",
            threads=threads.present(),
        )
        trains = first.epochs > 0
        del first  # it holds memory
        return _filled(dry, setup, searching) if trains else dry


def _filled(dry: Dry, setup: Setup, searching: Callable[[Setup, int], Searching]) -> Dry:
    """Predict the memory, and measure the time at the requested batch size, if that fits."""
    low, high, asked = batches(dry.batch)

    def forecast(changed: Setup) -> Forecast:
        small, larger = (trace(searching(changed, each), asked) for each in (low, high))
        found = Forecast(small, larger)
        return found.on_cpu(asked) if setup.device.type == "cpu" else found

    asked_for = forecast(setup)
    dry = replace(dry, forecast=asked_for)
    room = FILLED * dry.memory
    try:
        if dry.predicted + dry.graph <= room:
            dry = replace(dry, measured=(measure(searching(setup, asked), STEPS),))
    except RuntimeError as error:  # torch raises this on every device: out of memory
        if "memory" not in str(error):
            raise
    if not dry.fits:
        small = tuple(measure(searching(setup, each), 1) for each in (low, high))
        found = tuple(_changes(setup, asked_for, dry.batch, room, forecast))
        dry = replace(dry, measured=small, changes=found)
    if any(section.paths for section in dry.measured[-1].sections):
        view = searching(setup, dry.measured[-1].batch).view()
        dry = replace(dry, scoring=measure_scoring(view, STEPS))
    return dry


def _changes(
    setup: Setup,
    asked: Forecast,
    batch: int,
    room: float,
    forecast: Callable[[Setup], Forecast],
) -> Iterator[Change]:
    """Predict what a search needs without graphs, if it recomputes, and with fewer learners."""
    settings = setup.settings
    if asked.graph(batch):
        yield Change("--graph off", asked.at(batch))
    if settings.via == "exact" and not settings.recompute:
        less = replace(setup, settings=replace(settings, recompute=True))
        yield Change("--recompute", forecast(less).needed(batch))
    for learners in range(settings.method.get("learners", 0) - 1, 1, -1):
        table = settings.method | {"learners": learners}
        try:
            method = make_part("method", table)
        except ValueError:  # with fewer, its other settings do not fit
            return
        fewer = replace(setup, method=method, settings=replace(settings, method=table))
        peak = forecast(fewer).needed(batch)
        yield Change(f"--learners {learners}", peak)
        if peak <= room:
            return


def batches(asked: int) -> list[int]:
    """Return an eighth (at least 2) and a quarter (at least 3) of a batch size, then itself."""
    low = max(2, asked // 8)
    return [low, max(low + 1, asked // 4), asked]


def extremes(space: Space, costs: Costs) -> tuple[Cost, Cost, Cost]:
    """Return the lowest cost, the cost of equal architecture weights, and the highest one."""
    table = costs.table(space)
    even = ArchWeights({group: torch.ones(shape) for group, shape in space.choices.items()})

    def extreme(sign: int) -> Cost:
        found = {}
        for place, name in enumerate(Cost._fields):
            by = {group: sign * x[..., place] for group, x in table.operations.items()}
            found[name] = getattr(costs.of(space.genotype(ArchWeights(by))), name)
        return Cost(**found)

    params, flops, latency = table.expected(even).tolist()
    return extreme(-1), Cost(round(params), round(flops), latency), extreme(1)
