"""The measurement of a table of latencies: every operation at every shape, and whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Final

import numpy as np
import torch

from tutelage.benchmark.ranking import correlations
from tutelage.files import write_bytes
from tutelage.records.latencies import Latencies, NetworkRow, OperationRow, Place
from tutelage.run.cost.latency import Key, LatencyTable, Target, key_of, place_here
from tutelage.run.cost.table import costs_of
from tutelage.run.measure.latency import Timer, latency_of, timer_of
from tutelage.spaces.base import Slot
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Encoding, genotype, sample

TRIES: Final = 100
"""Samples for each network, after which a small space is exhausted."""


@dataclass(frozen=True)
class Agreement:
    """Predicted latencies of a size's networks beside the measured ones, in milliseconds."""

    fixed: float
    """The part that every network has."""
    predicted: Sequence[float]
    flops: Sequence[float]
    measured: Sequence[float]

    def as_lines(self) -> dict[str, str]:
        """Describe how well the sums of operations predict networks, and how well FLOPs do."""
        x, y = np.asarray(self.predicted), np.asarray(self.measured)
        error = float((np.abs(x - y) / y).mean())
        return {
            "prediction": f"{correlated(x, y)}; mean error {100 * error:.1f} %; "
            f"{self.fixed:.4g} ms beside the operations",
            "by FLOPs": correlated(np.asarray(self.flops), y),
        }


def correlated(x: np.ndarray, y: np.ndarray) -> str:
    """Describe how predictions correlate with measurements, in ranks and linearly."""
    x = x.round(9)  # sums of the same numbers in another order are equal
    if len(x) < 3:
        return "too few networks for a correlation"
    tau, rho = correlations(x, y)
    if tau is None or rho is None:
        return "all equal"
    linear = float(np.corrcoef(x, y)[0, 1])
    return f"Kendall's tau {tau:.3f}, Spearman's rho {rho:.3f}, linear {linear:.3f}"


class Measurement:
    """A table in progress: every row is written as soon as it is measured.

    Attributes:
        content: What is measured so far.
    """

    def __init__(self, path: Path, target: Target, place: Place) -> None:
        """Read what an earlier measurement has written.

        Raises:
            ValueError: It was measured elsewhere or under other conditions, or is damaged.
        """
        self.path, self.target, self.content = path, target, Latencies(place)
        if path.exists():
            self.content = LatencyTable.read(path).content
            if found := self.content.place.differences(place):
                raise ValueError(
                    f"{path} was measured under other conditions: {'; '.join(found)}: give "
                    "another --out, or the same --device, --threads, --clock and --batch-size"
                )
        if not path.parent.is_dir():
            raise ValueError(f"{path.parent} is no folder: make it, or give another --out")

    def operations(self) -> dict[Key, tuple[Slot, str]]:
        """Return the operations of the space, each shape once."""
        space = self.target.space
        return {
            key_of(space, slot, name): (slot, name)
            for slot in space.slots(self.target.size, self.target.image)
            for name in space.operations[slot.group][slot.edge]
        }

    def missing(self) -> list[tuple[Slot, str]]:
        """List the operations that are not measured yet."""
        known = {(x.space, x.operation, x.arguments, x.shape) for x in self.content.operations}
        return [place for key, place in self.operations().items() if key not in known]

    def networks(self) -> list[NetworkRow]:
        """List the measured networks of the size."""
        return [row for row in self.content.networks if self.target.holds(row)]

    def run(self, networks: int, device: torch.device, timer: Timer) -> None:
        """Measure what is missing.

        Args:
            networks: Whole networks, sampled uniformly.
            device: The device that computes.
            timer: Measures.
        """
        space, place = self.target.space, self.content.place
        for slot, name in self.missing():
            make, shape = partial(slot.make, name, *slot.arguments), (place.batch, *slot.shape)
            time = latency_of(make, shape, device, timer)
            row = OperationRow(*key_of(space, slot, name), time)
            self._keep(replace(self.content, operations=[*self.content.operations, row]))
        known = [row.genotype for row in self.networks()]
        new = [each for each in self.sampled(networks) if each.to_dict() not in known]
        for found in new[: max(0, networks - len(known))]:
            self._measure(found, device, timer)

    def _measure(self, found: Genotype, device: torch.device, timer: Timer) -> None:
        space, size, image = self.target
        shape = (self.content.place.batch, size.image_channels, *image)
        time = latency_of(partial(space.network, found, size), shape, device, timer)
        row = NetworkRow(space.name, asdict(size), image, found.to_dict(), time)
        self._keep(replace(self.content, networks=[*self.content.networks, row]))

    def sampled(self, count: int) -> list[Genotype]:
        """Sample different architectures, uniformly and always the same ones."""
        space, found = self.target.space, dict[Encoding, None]()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            for _ in range(TRIES * count):
                found.setdefault(sample(space))
                if len(found) == count:
                    break
        return [genotype(space, encoding) for encoding in found]

    def _keep(self, content: Latencies) -> None:
        self.content = content
        write_bytes(self.path, content.as_text().encode())

    def agreement(self) -> Agreement:
        """Compare the sums of operations with the measured networks of the size."""
        table, rows = LatencyTable(self.path, self.content), self.networks()
        costs = costs_of(*self.target, table)
        found = [costs.of(Genotype.from_dict(row.genotype)) for row in rows]
        return Agreement(
            costs.fixed.latency,
            [cost.latency for cost in found],
            [cost.flops for cost in found],
            [row.time.median for row in rows],
        )

    def as_text(self) -> str:
        """Describe the finished table."""
        place, found = self.content.place, set(self.operations())
        rows = [
            x.time
            for x in self.content.operations
            if (x.space, x.operation, x.arguments, x.shape) in found
        ]
        whole = [row.time.median for row in self.networks()]
        every = [*rows, *(row.time for row in self.networks())]
        spread = median(each.spread for each in every)
        low, high = min(x.median for x in rows), max(x.median for x in rows)
        lines = {
            "device": f"{place.as_text()}, batches of {place.batch}",
            "operations": f"{len(rows)}, {low:.3g} to {high:.3g} ms",
            "networks": f"{len(whole)} sampled, {min(whole):.4g} to {max(whole):.4g} ms, "
            f"{fmean(whole):.4g} on average",
            "spread": f"{100 * spread:.1f} % of the median between the quartiles, in a typical row",
            **self.agreement().as_lines(),
        }
        return "\n".join(f"{name:14}{text}" for name, text in lines.items())


def measure_table(
    path: Path,
    target: Target,
    *,
    batch: int,
    networks: int,
    device: torch.device,
    clock: str = "wall",
) -> str:
    """Measure a table of latencies, or what is missing in one; return what it says.

    Args:
        path: The file, which has every row that is measured if this is interrupted.
        target: The space, and the size of its networks.
        batch: Images of a forward pass.
        networks: Whole networks to measure.
        device: The device that computes.
        clock: The clock: wall or cpu.

    Raises:
        ValueError: The file was measured under other conditions, the space has no networks of this
            size, or the clock is not for the device.
    """
    timer = timer_of(clock, device)
    measurement = Measurement(path, target, place_here(device, batch, clock))
    left = len(measurement.missing())
    print(f"{left} operations to measure, and up to {networks} networks", flush=True)
    measurement.run(networks, device, timer)
    return measurement.as_text()
