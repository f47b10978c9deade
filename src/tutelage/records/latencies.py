"""A table of latencies: the file that `tutelage latency` writes, as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, Final

from tutelage.records.typed import finite, known_version, typed

LATENCIES: Final = {"format": "tutelage latencies", "version": 1}
"""The first entries of the file."""


@dataclass(frozen=True)
class Timing:
    """The time of a forward pass, in milliseconds, over repeated measurements."""

    median: float
    quartiles: tuple[float, float]
    """The first and the third one: half of the measurements lie between them."""
    repeats: int
    """Measurements."""

    def __post_init__(self) -> None:
        for value in (self.median, *self.quartiles):
            if not (value >= 0 and isfinite(value)):
                raise ValueError(f"a time of {value} ms: must be a number of at least 0")

    @property
    def spread(self) -> float:
        """The distance of the quartiles, as a share of the median."""
        return (self.quartiles[1] - self.quartiles[0]) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Place:
    """Where and how latencies are measured: what they depend on beside the network."""

    device: str
    """cpu or cuda."""
    name: str
    """The processor's or the card's name, as its driver or the system gives it."""
    threads: int
    """Threads that compute on the CPU."""
    batch: int
    """Images of a forward pass."""
    torch: str
    """The version of torch."""
    clock: str = "wall"
    """wall, or cpu: the time that the process had a CPU."""

    def differences(self, other: Place) -> list[str]:
        """Describe what differs from another place.

        >>> here = Place("cpu", "A", 1, 1, "2.6")
        >>> here.differences(Place("cpu", "B", 1, 8, "2.6"))
        ["name 'A', not 'B'", 'batch 1, not 8']
        """
        pairs = ((x.name, getattr(self, x.name), getattr(other, x.name)) for x in fields(self))
        return [f"{name} {own!r}, not {theirs!r}" for name, own, theirs in pairs if own != theirs]

    def flags(self) -> str:
        """Return the flags of `tutelage latency` that measure here in the same way."""
        return (
            f"--batch-size {self.batch} --threads {self.threads} --device {self.device} "
            f"--clock {self.clock}"
        )

    def as_text(self) -> str:
        """Describe the place, without the batch."""
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        clock = "" if self.clock == "wall" else f", by the {self.clock} clock"
        return f"{self.name} ({self.device}), {threads}, torch {self.torch}{clock}"


@dataclass(frozen=True)
class OperationRow:
    """An operation at a shape."""

    space: str
    """The name of its space."""
    operation: str
    arguments: str
    """Those it is built from, such as channels and stride, as text."""
    shape: tuple[int, int, int]
    """Channels, height and width of its input."""
    time: Timing


@dataclass(frozen=True)
class NetworkRow:
    """A whole network."""

    space: str
    size: dict[str, int | str]
    """Its channels, cells, classes, channels of images and stem."""
    image: tuple[int, int]
    """Height and width of the images."""
    genotype: dict[str, Any]
    """As `Genotype.from_dict` reads it."""
    time: Timing


@dataclass(frozen=True)
class Latencies:
    """The content of the file."""

    place: Place
    operations: list[OperationRow] = field(default_factory=list)
    networks: list[NetworkRow] = field(default_factory=list)

    @classmethod
    def read(cls, found: Any) -> Latencies:
        """Read the content of the file.

        Raises:
            ValueError: It is of another kind, or of a newer release.
        """
        known_version(found, LATENCIES["version"])
        if found.get("format") != LATENCIES["format"]:
            raise ValueError("it is no table of latencies: `tutelage latency` writes one")
        return typed(found, cls)

    def as_text(self) -> str:
        """Return the content of the file: JSON, with a line for each row."""
        begin = json.dumps({**LATENCIES, "place": finite(self.place)}, indent=1)
        parts = [begin.removesuffix("\n}")]
        for name in ("operations", "networks"):
            rows = ",\n  ".join(json.dumps(finite(row)) for row in getattr(self, name))
            parts.append(f' "{name}": [\n  {rows}\n ]')
        return ",\n".join(parts) + "\n}\n"
