"""The memory of a search at any batch size, from the traces of its steps at two small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tutelage.run.measure.live import Trace, peak_at


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
        low, high = self.low, self.high
        tensors = max(
            peak_at((low.batch, a), (high.batch, b), batch)
            for a, b in zip(low.traces, high.traces, strict=True)
        )
        return tensors + max(low.extra, high.extra)

    def largest(self, memory: float, most: int) -> int:
        """Find the largest batch size within a number of bytes: `most`, or a multiple of 8.

        It is 0 if not even 8 images fit.
        """
        if self.at(most) <= memory:
            return most
        fits, fails = 0, most // 8 + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if self.at(8 * middle) <= memory else (fits, middle)
        return 8 * fits
