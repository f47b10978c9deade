"""The commands that make tables: of a benchmark, and of this device's latencies.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tutelage.checks import at_least, known_choices, within
from tutelage.commands.arguments import Clock
from tutelage.config import MOST_THREADS, Device, Stem
from tutelage.parts import make_part


def table_build(
    *,
    csv: Annotated[
        tuple[Path, ...],
        Parameter(
            help="CSV files of the benchmark and of latencies, plain or as .xz or .gz.",
            consume_multiple=True,
            negative=(),
            show_default=False,
        ),
    ] = (),
    nats: Annotated[
        Path | None,
        Parameter(help="NATS-Bench's files of the topology or the size space, instead of CSV."),
    ] = None,
    transnas: Annotated[
        Path | None, Parameter(help="The file of TransNAS-Bench-101, .pth, instead of CSV.")
    ] = None,
    trust_pickle: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Unpickle the topology files of --nats, which runs any code that is in them.",
        ),
    ] = False,
    out: Annotated[Path, Parameter(help="File to write.")],
) -> None:
    """Make the table of a benchmark from CSV files or the files of its authors."""
    if transnas and (csv or nats or trust_pickle):
        raise ValueError("a table of --transnas FILE is made from that file alone")
    if not transnas and nats is None and (trust_pickle or not csv):
        raise ValueError(
            "a table is made from --csv FILE, from --nats PATH, where the topology space needs "
            "--trust-pickle, or from --transnas FILE"
        )
    from tutelage.benchmark import nats_size
    from tutelage.benchmark.build import build, check_out

    if transnas:
        from tutelage.benchmark import transnas as by_authors

        check_out(out)
        by_authors.build(transnas, out)
    elif nats and nats_size.is_size(nats):
        check_out(out)
        nats_size.build(nats, out)
    elif nats:
        from tutelage.benchmark.nats import build_from_api

        build_from_api(nats, out, trust_pickle=trust_pickle, latency_files=csv)
    else:
        build(csv, out)
    print(f"Table: {out}; read it with: tutelage query GENOTYPE --table {out}")


@dataclass(frozen=True)
class Asked:
    """The networks whose operations are measured, and the conditions."""

    channels: int | None = None
    """Channels of the final network's first cell or of a chain's stem; not set: the space's
    default."""
    cells: int | None = None
    """Its cells; not set: the space's default; of a chain its layers."""
    classes: int = 10
    """Classes of the images."""
    image_channels: int = 3
    """1 for grey images, 3 for colour."""
    stem: Stem = "cifar"
    """Stem and head, as for `tutelage retrain`: cifar or imagenet."""
    side: tuple[int, ...] = (32,)
    """Side of the images in pixels, or their height and width."""
    batch_size: int = 1
    """Images of a forward pass."""
    networks: int = 5
    """Whole networks to measure beside the operations: what they take more is the part that every
    network has."""
    threads: int | None = None
    """Threads that compute on a CPU; not set: as many as torch takes."""
    device: Device = "auto"
    """Device; auto: CUDA if there is one."""
    clock: Clock = "wall"
    """Clock: wall, or cpu, the time that the process had a CPU: for one thread beside busy
    processes."""

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, networks=self.networks)
        known_choices(self)
        if not 1 <= len(self.side) <= 2:
            raise ValueError(f"side has {len(self.side)} numbers: give one, or height and width")
        at_least(1, side=min(self.side))
        if self.threads is not None:
            within(1, MOST_THREADS, threads=self.threads)


def latency_command(space: dict[str, Any], asked: Asked, out: Path) -> None:
    """Measure a table of latencies, or what is missing in one.

    Raises:
        ValueError: The space has no networks of this size, or the file was measured under other
            conditions.
    """
    from tutelage.run.cost.latency import Target
    from tutelage.run.machine.device import device_named
    from tutelage.run.machine.threads import restored
    from tutelage.run.measure.latency import disturbed
    from tutelage.run.measure.latency_table import measure_table
    from tutelage.spaces.base import Size

    made = make_part("space", space)
    sizes = made.sizes
    size = Size(
        channels=sizes.final_channels if asked.channels is None else asked.channels,
        cells=sizes.final_cells if asked.cells is None else asked.cells,
        classes=asked.classes,
        image_channels=asked.image_channels,
        stem=asked.stem,
    )
    target = Target(made, size, (asked.side[0], asked.side[-1]))
    device = device_named(asked.device)
    with restored(asked.threads):
        if asked.clock == "wall" and (note := disturbed(device)):
            print(note, file=sys.stderr)
        found = measure_table(
            out,
            target,
            batch=asked.batch_size,
            networks=asked.networks,
            device=device,
            clock=asked.clock,
        )
    print(f"{found}\nTable: {out}; use it with: tutelage search --latency-table {out}")
