"""The memory of a search at any batch size, from the traces of its steps at two small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tutelage.run.measure.live import Trace, kept_at, peak_at


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

    def at(self, batch: int) -> int:
        """Predict the most memory in use at a batch size, in bytes."""
        return max(peak for peak, _ in self._sections(batch)) + self._extra

    def graph(self, batch: int) -> int:
        """Predict how many bytes more CUDA graphs keep, beside steps that are not replayed."""
        return self.needed(batch) - self.at(batch)

    def needed(self, batch: int) -> int:
        """Predict the memory in use and what CUDA graphs keep, in bytes."""
        return max(map(sum, self._sections(batch))) + self._extra

    @property
    def _extra(self) -> int:
        return max(self.low.extra, self.high.extra)

    def _sections(self, batch: int) -> list[tuple[int, int]]:
        """Predict for every section its peak, and what a program of its step keeps."""
        pairs = zip(self.low.traces, self.high.traces, strict=True)
        ends = [((self.low.batch, a), (self.high.batch, b)) for a, b in pairs]
        return [(peak_at(*pair, batch), kept_at(*pair, batch)) for pair in ends]

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
