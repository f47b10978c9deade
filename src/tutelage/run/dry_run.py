"""A dry run: the parameters, time and memory of a search, from a few of its steps.

Steps are measured at small batch sizes first. They are measured at the requested batch size if
memory suffices, predicted as linear in the batch size. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tutelage.config import Run
from tutelage.data.streams import halves_of
from tutelage.extras import Notice
from tutelage.run.cost.table import Cost, Costs, final_size
from tutelage.run.job import deterministic, threads
from tutelage.run.job.device import device_named
from tutelage.run.job.threads import Threads
from tutelage.run.measure.memory import available
from tutelage.run.measure.steps import Measured, Scoring, Section, measure, measure_scoring
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.state import Searching
from tutelage.spaces.base import ArchWeights, Size, Space

STEPS = 4
"""Steps that are timed, after a first one that is not timed."""
FILLED = 0.9
"""Share of the memory that a search may use."""
GIB = 2**30


@dataclass(frozen=True)
class Dry:
    """The parameters, time and memory of a search."""

    final: Size
    """Size of the final network."""
    image: tuple[int, int, int]
    """Channels, height and width of the images."""
    costs: tuple[Cost, Cost, Cost]
    """Costs of the final network: lowest, expected with equal architecture weights, highest."""
    batch: int = 0
    """The requested batch size, or the number of images where it is lower."""
    images: int = 0
    """Images that train weights: no batch is larger."""
    steps: int = 0
    """Steps of an epoch."""
    measured: tuple[Measured, ...] = ()
    """Measurements by batch size; empty for a search that trains nothing."""
    memory: int = 0
    """Bytes that the search may take."""
    notice: str = ""
    """The method's notice, such as how much memory it takes."""
    unit: str = "cells"
    """What the final network's size counts: cells, or a chain's layers."""
    scoring: Scoring | None = None
    """What follows the epochs of a search that samples paths."""
    threads: Threads | None = None
    """The device that computed."""

    @property
    def fits(self) -> bool:
        """Tell whether the requested batch size was measured."""
        return any(each.batch == self.batch for each in self.measured)

    @property
    def sections(self) -> list[Section]:
        """The sections, with the time of a step at the requested batch size."""
        if self.fits:
            return next(each.sections for each in self.measured if each.batch == self.batch)
        low, high = self.measured
        return [
            one._replace(
                seconds=line((low.batch, one.seconds), (high.batch, two.seconds), self.batch)
            )
            for one, two in zip(low.sections, high.sections, strict=True)
        ]

    @property
    def peak(self) -> int:
        """Most memory in use at the requested batch size, in bytes."""
        return next(
            (each.peak for each in self.measured if each.batch == self.batch),
            predicted(self.measured, self.batch),
        )

    @property
    def seconds(self) -> float:
        """Time of all steps of the search."""
        return sum(x.seconds * len(x.epochs) * self.steps for x in self.sections)

    @property
    def largest(self) -> int:
        """The largest batch size that fits, a multiple of 8; all images if even those fit."""
        low, high = self.measured[-2:]
        most = self.images if self.fits else self.batch - 1
        slope = (high.peak - low.peak) / (high.batch - low.batch)
        room = FILLED * self.memory - high.peak
        if slope > 0:
            most = min(most, high.batch + int(room / slope))
        return most if most == self.images else max(0, most // 8 * 8)

    def as_text(self) -> str:
        """Return what `tutelage search --dry-run` prints."""
        shape = " x ".join(map(str, self.image))
        lines = [
            f"final network: {self.final.channels} channels, {self.final.cells} "
            f"{self.unit}, no auxiliary head",
            _entry("parameters", _range([cost.params for cost in self.costs])),
            _entry("FLOPs", _range([cost.flops for cost in self.costs])),
            _entry("", f"on one {shape} image"),
        ]
        if not self.measured:
            return "\n".join([*lines, "search: an architecture is sampled, nothing trains"])
        lines += [f"search: {self.steps} steps of {self.batch} images an epoch"]
        for section in self.sections:
            lines += self._section(section)
        whole = f"{self._about}{duration(self.seconds)}, validation and checkpoints not counted"
        lines += [_entry("all epochs", whole)]
        if self.threads:
            lines += [_entry("threads", f"{self.threads.number} ({self.threads.because})")]
        lines += [*self._scored(), *self._memory()]
        return "\n".join(lines)

    @property
    def _about(self) -> str:
        return "" if self.fits else "about "

    def _section(self, section: Section) -> list[str]:
        per_epoch = duration(section.seconds * self.steps)
        several = f"{section.paths} sub-networks" if section.paths > 1 else "sub-network"
        through = f" through the {several} of a batch" if section.paths else ""
        forward = f"{section.flops:,} forward, for one image{through}"
        return [
            f"  epochs {section.epochs[0] + 1} to {section.epochs[-1] + 1}: "
            f"{', '.join(section.levels)}",
            _entry("parameters", f"{section.params:,}; {section.trained:,} in all networks"),
            _entry("FLOPs", forward),
            _entry(
                "time", f"{self._about}{duration(section.seconds)} a step, {per_epoch} an epoch"
            ),
        ]

    def _scored(self) -> list[str]:
        """Describe what follows the epochs of a search that samples paths."""
        if not self.scoring:
            return []
        fitted, judged, seconds, ranked, evolved = self.scoring
        images = f"{fitted:,} for BatchNorm, " if fitted else ""
        lines = []
        for what, count in (("ranking", ranked), ("evolution", evolved)):
            if count:
                whole = f"{self._about}{duration(seconds)} each, {duration(seconds * count)} in all"
                lines += [
                    f"{what}: {count:,} architectures, scored in the supernet",
                    _entry("images of each", f"{images}{judged:,} that judge"),
                    _entry("time", whole),
                ]
        return lines

    def _memory(self) -> list[str]:
        share = f"{self.peak / GIB:.2f} GiB of {self.memory / GIB:.2f} GiB"
        too_much = "" if self.fits else f": a batch of {self.batch} does not fit"
        batches = " and ".join(str(each.batch) for each in self.measured[-2:])
        most = f"about {self.largest} images" if self.largest else "fewer than 8 images"
        most = "all images" if self.largest == self.images else most
        return [
            "memory",
            *([_entry("of the method", self.notice)] if self.notice else []),
            _entry("peak", f"{self._about}{share}{too_much}"),
            _entry("largest batch", f"{most}, estimated from batches of {batches}"),
        ]


def _entry(name: str, text: str) -> str:
    return f"    {name:<15}{text}"


def _range(numbers: Sequence[int]) -> str:
    low, even, high = numbers
    return f"{low:,} to {high:,}; {even:,} expected of equal architecture weights"


def duration(seconds: float) -> str:
    """Write a time in its natural unit.

    >>> [duration(x) for x in (0.0123, 42, 300, 20_000, 500_000)]
    ['0.012 s', '42 s', '5.0 min', '5.6 h', '5.8 days']
    """
    if seconds < 90:
        return f"{seconds:.2g} s"
    for limit, unit, name in ((5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86_400:.1f} days"


def line(low: tuple[float, float], high: tuple[float, float], at: float) -> float:
    """Evaluate the straight line through two points; 0 where it would be negative."""
    slope = (high[1] - low[1]) / (high[0] - low[0])
    return max(0.0, high[1] + slope * (at - high[0]))


def predicted(measured: Sequence[Measured], batch: int) -> int:
    """Predict the memory of a batch size, linearly from the last two that were measured."""
    low, high = measured[-2:]
    return int(line((low.batch, low.peak), (high.batch, high.peak), batch))


# Measuring --------------------------------------------------------------------------------------


def dry_run(settings: Run) -> Dry:
    """Measure a few steps of a search; write nothing.

    Raises:
        ValueError: As a search does.
    """
    device = device_named(settings.device)
    with (
        threads.restored(settings.threads),
        deterministic.required(settings.deterministic, device, default=True),
    ):
        return _measured(settings)


def _measured(settings: Run) -> Dry:
    parts = joined(settings)
    threads.settle(parts.elements)
    device, shape = parts.device, parts.train.images.shape
    memory = available(device)
    setup = parts.setup(halves_of(settings, parts.train))
    images = len(setup.streams.train.subset)
    asked = min(settings.batch_size, images)

    def searching(batch: int) -> Searching:
        torch.manual_seed(settings.seed)
        own = replace(setup, streams=setup.streams.of(batch))
        return Searching(own, parts.strategy(own))

    final = final_size(setup.settings, setup.space, setup.size.classes, shape[0])
    costs = extremes(setup.space, setup.costs)
    measured: list[Measured] = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        first = searching(asked)
        first.strategy.check(first.view())
        notice = first.phase.problem.extra(Notice)
        steps, trains = first.steps, first.epochs > 0
        del first  # it holds memory
        for batch in batches(asked) if trains else ():
            if len(measured) > 1 and predicted(measured, batch) > FILLED * memory:
                break
            try:
                measured.append(measure(searching(batch), STEPS if batch == asked else 1))
            except RuntimeError as error:  # torch raises this on every device: out of memory
                if len(measured) < 2 or "memory" not in str(error):
                    raise
                break
        scoring = None
        if any(section.paths for each in measured for section in each.sections):
            scoring = measure_scoring(searching(measured[-1].batch).view(), STEPS)
    return Dry(
        final,
        shape,
        costs,
        asked,
        images,
        steps,
        tuple(measured),
        memory,
        notice=notice.text if notice else "",
        unit="layers" if setup.space.stages else "cells",
        scoring=scoring,
        threads=threads.present(),
    )


def batches(asked: int) -> list[int]:
    """List the batch sizes to measure: an eighth and a quarter of the requested one, and it."""
    return sorted({max(2, asked // 8), max(3, asked // 4), asked})


def extremes(space: Space, costs: Costs) -> tuple[Cost, Cost, Cost]:
    """Return the lowest cost, the cost of equal architecture weights, and the highest one."""
    table = costs.table(space)
    even = ArchWeights({group: torch.ones(shape) for group, shape in space.choices.items()})

    def extreme(sign: int) -> Cost:
        by = [{g: sign * x[..., each] for g, x in table.operations.items()} for each in range(2)]
        return Cost(*(costs.of(space.genotype(ArchWeights(w)))[each] for each, w in enumerate(by)))

    return extreme(-1), Cost(*map(round, table.expected(even).tolist())), extreme(1)
