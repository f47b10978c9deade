"""What a dry run finds: the parameters, time and memory of a search, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tutelage.run.cost.table import Cost
from tutelage.run.machine.threads import Threads
from tutelage.run.measure.forecast import Forecast
from tutelage.run.measure.scoring import Scoring
from tutelage.run.measure.steps import Measured, Section
from tutelage.spaces.base import Size

FILLED = 0.9
"""Share of the memory that a search may use."""
GIB = 2**30


class Change(NamedTuple):
    """A change of the settings, and the memory that the search then needs."""

    flags: str
    """What to add to the command."""
    peak: int
    """Most memory in use at the requested batch size, in bytes, predicted."""


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
    """Measurements at the requested batch size, or at two smaller ones where it does not fit; empty
    for a search that trains nothing."""
    forecast: Forecast | None = None
    """The prediction of the memory; None for a search that trains nothing."""
    changes: tuple[Change, ...] = ()
    """Where the requested batch size does not fit: changes that need less memory."""
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
        """Most memory in use at the requested batch size, in bytes, measured or predicted."""
        return self.measured[0].peak if self.fits else self.predicted

    @property
    def predicted(self) -> int:
        """The same, predicted from smaller batches."""
        return self.forecast.at(self.batch) if self.forecast else 0

    @property
    def graph(self) -> int:
        """Bytes that CUDA graphs keep beside that, predicted; 0: no step is recorded."""
        return self.forecast.graph(self.batch) if self.forecast else 0

    @property
    def seconds(self) -> float:
        """Time of all steps of the search."""
        return sum(x.seconds * len(x.epochs) * self.steps for x in self.sections)

    @property
    def largest(self) -> int:
        """The largest batch size that fits, a multiple of 8; all images if even those fit."""
        if not self.forecast:
            return self.images
        most = self.images if self.fits else max(0, self.batch - 1) // 8 * 8
        return self.forecast.largest(FILLED * self.memory, most)

    def as_text(self) -> str:
        """Return what `tutelage search --dry-run` prints."""
        shape = " x ".join(map(str, self.image))
        lines = [
            f"final network: {self.final.channels} channels, {self.final.cells} "
            f"{self.unit}, no auxiliary head",
            _entry("parameters", _range([cost.params for cost in self.costs])),
            _entry("FLOPs", _range([cost.flops for cost in self.costs])),
            *self._latency(),
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

    def _latency(self) -> list[str]:
        """Describe the latency of the final network, where there is a table."""
        low, even, high = (cost.latency for cost in self.costs)
        text = f"{low:.4g} to {high:.4g} ms; {even:.4g} expected of equal architecture weights"
        return [_entry("latency", text)] * bool(even)

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
        beside = f", predicted {self.predicted / GIB:.2f}" if self.fits else ""
        beside = beside or f": a batch of {self.batch} does not fit"
        most = f"{self.largest} images" if self.largest else "fewer than 8 images"
        most = "all images" if self.largest == self.images else most
        room = FILLED * self.memory
        return [
            "memory",
            *([_entry("of the method", self.notice)] if self.notice else []),
            _entry("peak", f"{self._about}{share}{beside}"),
            *([_entry("of a graph", f"up to {self.graph / GIB:.2f} GiB more")] * (self.graph > 0)),
            *(
                _entry("would fit" if peak <= room else "no fit", f"{flags}: {peak / GIB:.2f} GiB")
                for flags, peak in self.changes
            ),
            _entry("largest batch", f"{most}, which fill {FILLED:.0%} of the memory at most"),
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
