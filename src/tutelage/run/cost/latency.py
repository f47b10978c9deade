"""A table of measured latencies, as costs of the final network.

The latency of a network is predicted as a sum, as its parameters and FLOPs are: the median of every
operation that it keeps, and a fixed term. The fixed term is the mean, over the table's whole
networks of that size, of what was measured of them minus the sum of their operations. It stands for
stem, preprocessing, additions and classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Final, NamedTuple

import torch

from tutelage.config import Run
from tutelage.formats import read_json
from tutelage.records.latencies import Latencies, NetworkRow, Place
from tutelage.run.machine.device import name_of
from tutelage.spaces.base import Image, Size, Slot, Space, nodes
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.page import definition

FILE: Final = "latencies.json"
"""A run's copy of its table, by which it resumes."""


class Target(NamedTuple):
    """The networks whose latencies are in question: those of a space at one size."""

    space: Space
    size: Size
    image: Image

    @property
    def of_page(self) -> bool:
        """Whether the space is one of a page of TOML."""
        return definition(self.space) is not None

    def flags(self) -> str:
        """Return the flags of `tutelage latency` that measure it; a page is called PAGE.toml."""
        size = self.size
        side = " ".join(map(str, dict.fromkeys(self.image)))
        space = "PAGE.toml" if self.of_page else self.space.name
        return (
            f"--space {space} --channels {size.channels} --cells {size.cells} "
            f"--classes {size.classes} --image-channels {size.image_channels} "
            f"--stem {size.stem} --side {side}"
        )

    def places(self, genotype: Genotype) -> Iterator[tuple[Slot, str]]:
        """Yield every place of a genotype's network with its operation."""
        slots = list(self.space.slots(self.size, self.image))
        for group, _, kept in nodes(genotype):
            for edge, name in kept:
                yield from ((s, name) for s in slots if (s.group, s.edge) == (group, edge))

    def holds(self, row: NetworkRow) -> bool:
        """Tell whether a measured network is one of these."""
        same = row.size == asdict(self.size) and row.image == tuple(self.image)
        return same and row.space == self.space.name


Key = tuple[str, str, str, tuple[int, int, int]]
"""Space, operation, arguments and shape of a row."""


def key_of(space: Space, slot: Slot, name: str) -> Key:
    """Return what identifies an operation at a place in a table; one of one's own by its name."""
    plain = [str(each) for each in slot.arguments if each != _own(space)]
    return space.name, name, ", ".join(plain), slot.shape


def _own(space: Space) -> object:
    """Return the operations of one's own that a space hands to its places."""
    return getattr(space, "own", None)


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Measured latencies, in milliseconds."""

    path: Path
    """The file, for messages."""
    content: Latencies

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """Read a file of `tutelage latency`.

        Raises:
            ValueError: It is damaged, or another kind of file; the message names it.
            OSError: It cannot be opened.
        """
        found = read_json(path)
        try:
            content = Latencies.read(found)
            for row in content.networks:
                Genotype.from_dict(row.genotype)
            return cls(path, content)
        except ValueError as error:
            raise ValueError(f"{path} is not usable: {error}") from error

    @cached_property
    def _operations(self) -> dict[Key, float]:
        rows = self.content.operations
        return {(x.space, x.operation, x.arguments, x.shape): x.time.median for x in rows}

    def of(self, target: Target, slot: Slot, name: str) -> float:
        """Return the latency of an operation at a place.

        Raises:
            ValueError: The table does not have it; the message says how to measure it.
        """
        key = key_of(target.space, slot, name)
        if key not in self._operations:
            shape = " x ".join(map(str, slot.shape))
            raise self._lacks(target, f"the operation {name} ({key[2]}) at {shape}")
        return self._operations[key]

    def sum_of(self, target: Target, genotype: Genotype) -> float:
        """Add up the latencies of the operations of a genotype's network."""
        return sum(self.of(target, *place) for place in target.places(genotype))

    def fixed(self, target: Target) -> float:
        """Return the part of the latency that every network of this size has.

        Raises:
            ValueError: The table has no network of this size, or not its operations.
        """
        rows = [row for row in self.content.networks if target.holds(row)]
        if not rows:
            raise self._lacks(target, "any network of this size")
        genotypes = (Genotype.from_dict(row.genotype) for row in rows)
        sums = [self.sum_of(target, genotype) for genotype in genotypes]
        return fmean(row.time.median - x for row, x in zip(rows, sums, strict=True))

    def _lacks(self, target: Target, what: str) -> ValueError:
        name = target.space.name
        own = (
            f"where PAGE.toml stands for the page of the space {name}"
            if target.of_page
            else "and the space's own flags if it has any"
        )
        return ValueError(
            f"{self.path} lacks {what}: add it with tutelage latency {target.flags()} "
            f"{self.content.place.flags()} --out {self.path}, {own}"
        )

    def refuse_other_device(self) -> None:
        """Refuse a table of a device that this machine does not have.

        Raises:
            ValueError: It was measured on another processor or card.
        """
        place = self.content.place
        here = names(place.device)
        if place.name not in here:
            there = " and ".join(here) or f"no {place.device} device"
            raise ValueError(
                f"{self.path} was measured on {place.name} ({place.device}), and this machine has "
                f"{there}: latencies of one device say little about another one, measure here "
                "with tutelage latency, or search on that machine"
            )


def names(kind: str) -> list[str]:
    """Return the names of this machine's devices of a kind, cpu or cuda."""
    count = torch.cuda.device_count() if kind == "cuda" else int(kind == "cpu")
    return [name_of(torch.device(kind, index)) for index in range(count)]


def latencies_of(settings: Run, run: Path | None = None) -> LatencyTable | None:
    """Read the table of the settings; of a run that resumes, its copy; None: there is none.

    Args:
        settings: The settings of a search.
        run: The directory of a run that resumes, which may be on another machine by now.

    Raises:
        ValueError: It is damaged, or was measured on a device that this machine does not have.
        OSError: It cannot be opened.
    """
    if not settings.latency_table:
        return None
    if run and (run / FILE).is_file():
        return LatencyTable.read(run / FILE)
    table = LatencyTable.read(Path(settings.latency_table))
    table.refuse_other_device()
    return table


def place_here(device: torch.device, batch: int, clock: str) -> Place:
    """Describe this device as it computes now."""
    threads = torch.get_num_threads()
    return Place(device.type, name_of(device), threads, batch, str(torch.__version__), clock)
