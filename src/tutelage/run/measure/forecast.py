"""The memory of a search at any batch size, from the traces of its steps at two small ones.

The bytes of all tensors are linear in the batch size. Beside them there are bytes that do not grow
(the interpreter, libraries, kernels' workspaces), as measured at the small sizes. On a CPU there
are also empty places between the tensors, which grow: the allocator itself is asked for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from tutelage.run.measure.allocator import taken
from tutelage.run.measure.live import Trace, allocations_at, kept_at, peak_at


class Traced(NamedTuple):
    """The traced steps of a search at one batch size."""

    batch: int
    traces: list[Trace]
    """One of every section."""
    extra: int = 0
    """Bytes beside the tensors: workspace of kernels, and on a CPU all else in the process."""


@dataclass(frozen=True)
class Forecast:
    """Predicts the memory of a search at a batch size."""

    low: Traced
    high: Traced
    growth: float = 0.0
    """Bytes for each image above the larger size that lie empty between the tensors."""

    def at(self, batch: int) -> int:
        """Predict the most memory in use at a batch size, in bytes."""
        return max(peak for peak, _ in self._sections(batch)) + self._extra(batch)

    def graph(self, batch: int) -> int:
        """Predict how many bytes more CUDA graphs keep, beside steps that are not replayed."""
        return self.needed(batch) - self.at(batch)

    def needed(self, batch: int) -> int:
        """Predict the memory in use and what CUDA graphs keep, in bytes."""
        return max(map(sum, self._sections(batch))) + self._extra(batch)

    def on_cpu(self, batch: int) -> Forecast:
        """Ask the allocator for the empty places at a batch size, of the section with the peak."""
        if batch <= self.high.batch or not self.high.traces:
            return self
        pair = max(self._pairs(), key=lambda each: peak_at(each[0], each[1], batch))
        here, there = (_empty(*pair, size) for size in (self.high.batch, batch))
        if here is None or there is None:
            return self
        return replace(self, growth=max(0, there - here) / (batch - self.high.batch))

    def _extra(self, batch: int) -> int:
        grown = round(self.growth * max(0, batch - self.high.batch))
        return max(self.low.extra, self.high.extra) + grown

    def _pairs(self) -> list[tuple[tuple[int, Trace], tuple[int, Trace]]]:
        """Return the traces of every section at both sizes."""
        pairs = zip(self.low.traces, self.high.traces, strict=True)
        return [((self.low.batch, a), (self.high.batch, b)) for a, b in pairs]

    def _sections(self, batch: int) -> list[tuple[int, int]]:
        """Predict for every section its peak, and what a program of its step keeps."""
        return [(peak_at(*pair, batch), kept_at(*pair, batch)) for pair in self._pairs()]

    def largest(self, memory: float, most: int) -> int:
        """Find the largest batch size within a number of bytes: `most`, or a multiple of 8.

        It is 0 if not even 8 images fit.
        """
        if self.needed(most) <= memory:
            return most
        fits, fails = 0, most // 8 + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if self.needed(8 * middle) <= memory else (fits, middle)
        return 8 * fits


def _empty(low: tuple[int, Trace], high: tuple[int, Trace], batch: int) -> int | None:
    """Return what the allocator takes at a batch size beyond the tensors; None: it is unknown."""
    allocations = allocations_at(low, high, batch)
    found = taken(*allocations) if allocations else None
    return None if found is None else found - peak_at(low, high, batch)
