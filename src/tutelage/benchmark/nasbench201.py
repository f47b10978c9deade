"""The table of NAS-Bench-201: all 15,625 cells of the space, trained and tested.

Dong, Yang: NAS-Bench-201: extending the scope of reproducible neural architecture search. ICLR
2020, arXiv:2001.00326. `tutelage.benchmark.build` makes the file; here it is memory-mapped and one
record is read. The file has a header, which is a line of JSON, and then the records in the order of
`position`. Nothing in this file imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.formats import from_json
from tutelage.spaces.genotype import NASBENCH201_OPERATIONS, Genotype

FORMAT = "tutelage nasbench201 table"
VERSION = 1
MAGIC = f'{{"format": "{FORMAT}"'.encode()
LONGEST_HEADER = 1 << 16

COUNT = len(NASBENCH201_OPERATIONS) ** 6
"""Architectures of the space, five operations on six edges: 15,625."""

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16": "ImageNet16-120"}
EPOCHS = (12, 200)
PARTS = ("valid", "test")
ACCURACIES = tuple(f"{data}_{part}_{n}" for data in DATA for part in PARTS for n in EPOCHS)
COSTS = (
    "parameters",
    "parameters_reported",
    "flops",
    "flops_reported",
    "flops_imagenet16_reported",
)


@dataclass(frozen=True)
class Answer:
    """NAS-Bench-201's entry for one architecture."""

    architecture: str
    """NAS-Bench-201's string."""
    index: int
    """The number of the architecture in the official files."""
    seeds: int
    """Training runs over which the figures of 200 epochs are means."""
    accuracy: Mapping[str, float]
    """Percent by data_part_epochs, as cifar10_valid_200."""
    rank: Mapping[str, int]
    """By the same names: 1 for the best of 15,625 architectures; equal ones share a rank."""
    parameters: int
    """Parameters of this architecture's own network for CIFAR-10."""
    parameters_reported: int
    """Parameters that the benchmark reports: in 150 rows those of an isomorphic cell."""
    flops: int
    """FLOPs of this architecture's own network for one CIFAR-10 image."""
    flops_reported: int
    """FLOPs that the benchmark reports for one CIFAR-10 image; see above."""
    flops_imagenet16_reported: int
    """FLOPs that the benchmark reports for one ImageNet16-120 image."""
    seconds: Mapping[str, float]
    """Simulated training time of 200 epochs by data set; CIFAR-10's on half of the images."""
    latency: Mapping[str, float]
    """Milliseconds by device and batch size; empty if the table was made without them."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `query --json` prints."""
        return asdict(self)

    def as_text(self) -> str:
        """Return what `query` prints."""
        lines = [self.architecture, f"index {self.index} of {COUNT:,}, {self.seeds} seeds", ""]
        lines += ["accuracy              12 epochs     rank    200 epochs     rank"]
        for data, title in DATA.items():
            for part in PARTS:
                names = [f"{data}_{part}_{epochs}" for epochs in EPOCHS]
                figures = (f"{self.accuracy[each]:9.2f} % {self.rank[each]:8,}" for each in names)
                lines.append(
                    f"{title if part == 'valid' else '':14}  {part:5}{'   '.join(figures)}"
                )
        times = (f"{title} {self.seconds[data]:,.0f} s" for data, title in DATA.items())
        lines += [
            "",
            f"parameters  {_cost(self.parameters, self.parameters_reported)}",
            f"FLOPs       {_cost(self.flops, self.flops_reported)}",
            f"training    {', '.join(times)}",
        ]
        if self.latency:
            lines += ["", "latency in milliseconds"]
        devices = [f"{device:14}{value:9.2f}" for device, value in self.latency.items()]
        lines += ["   ".join(devices[i : i + 3]) for i in range(0, len(devices), 3)]
        return "\n".join(lines)


class Table:
    """The file that `tutelage table build` writes; a query reads one record of it.

    Attributes:
        spaces: Name of its only space.
        caveat: Empty, because its figures were measured.
        ranked_by: Name of the accuracy that results of searches are ranked by.
        path: The file.
        devices: Names of the devices with known latencies.
        sources: Names of the files that the table was made from.
    """

    spaces = ("nasbench201",)
    caveat = ""
    ranked_by = "cifar10_test_200"

    def __init__(self, path: Path | str) -> None:
        """Map the file.

        Raises:
            ValueError: it is missing, not a table, of another version, or cut short.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{path} is no file: make it with `tutelage table build`")
        with self.path.open("rb") as file:
            line = file.readline(LONGEST_HEADER)
        self.devices, self.sources = self._header(line)
        dtype = layout(self.devices)
        size, needed = self.path.stat().st_size, len(line) + COUNT * dtype.itemsize
        if size != needed:
            raise ValueError(
                f"{path} has {size:,} bytes where its header asks for {needed:,}: it is cut short "
                "or damaged, make it again with `tutelage table build`"
            )
        self._records = np.memmap(self.path, dtype, "r", offset=len(line), shape=(COUNT,))

    def query(self, genotype: Genotype) -> Answer:
        """Look up an architecture.

        Raises:
            ValueError: it is of another space.
        """
        record = self._records[position(genotype)]
        return Answer(
            architecture=genotype.to_nasbench201(),
            index=int(record["index"]),
            seeds=int(record["seeds"]),
            accuracy=_named(ACCURACIES, record["accuracy"]),
            rank=_named(ACCURACIES, record["rank"]),
            **_named(COSTS, record["cost"]),
            seconds=_named(DATA, record["seconds"]),
            latency=_named(self.devices, record["latency"]),
        )

    def _header(self, line: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return devices and sources from the first line."""
        again = "make it again with `tutelage table build`"
        if not line.startswith(MAGIC):
            raise ValueError(f"{self.path} is no table of NAS-Bench-201: {again}")
        try:
            content = from_json(line)
            version, devices, sources = (content[key] for key in ("version", "devices", "sources"))
            if not all(type(each) is list for each in (devices, sources)):
                raise ValueError("no lists of names")
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{self.path} is cut short or damaged: {again}") from None
        if version != VERSION:
            newer = type(version) is int and version > VERSION
            raise ValueError(
                f"{self.path} is of version {version!r}, and this Tutelage reads {VERSION}: "
                + ("read it with the newer one that made it" if newer else again)
            )
        return tuple(map(str, devices)), tuple(map(str, sources))


def position(genotype: Genotype) -> int:
    """Number an architecture: its operations, edge by edge, as digits of base five.

    Raises:
        ValueError: it is of another space.

    >>> text = "|none~0|+|none~0|none~1|+|none~0|skip_connect~1|nor_conv_1x1~2|"
    >>> position(Genotype.from_nasbench201(text))
    7
    """
    if genotype.space != "nasbench201":
        raise ValueError(
            f"the genotype is of the space {genotype.space!r}: the table holds nasbench201's cells"
        )
    place = 0
    for operation, _ in (pair for node in genotype.cells["cell"].nodes for pair in node):
        place = place * len(NASBENCH201_OPERATIONS) + NASBENCH201_OPERATIONS.index(operation)
    return place


def header(devices: Sequence[str], sources: Sequence[str]) -> bytes:
    """Write the table's first line, padded so that the records begin at a multiple of 64 bytes."""
    content = {"format": FORMAT, "version": VERSION, "devices": [*devices], "sources": [*sources]}
    line = json.dumps(content).encode()
    return line.ljust(-(-(len(line) + 1) // 64) * 64 - 1) + b"\n"


def layout(devices: Sequence[str]) -> np.dtype[np.void]:
    """Return the data type of one record."""
    return np.dtype(
        [
            ("index", "<u2"),
            ("seeds", "<u2"),
            ("accuracy", "<f8", len(ACCURACIES)),
            ("rank", "<u2", len(ACCURACIES)),
            ("cost", "<u4", len(COSTS)),
            ("seconds", "<f8", len(DATA)),
            ("latency", "<f8", (len(devices),)),
        ]
    )


def _named(names: Iterable[str], values: np.ndarray) -> dict[str, Any]:
    return dict(zip(names, values.tolist(), strict=True))


def _cost(own: int, reported: int) -> str:
    """Write an architecture's own cost, and the benchmark's if it differs."""
    return f"{own:,}" + ("" if own == reported else f" (the benchmark reports {reported:,})")
