"""The work of the command that measures a table of latencies, after its flags are read.

Nothing here imports torch before the command needs it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutelage.checks import at_least, known_choices, within
from tutelage.config import MOST_THREADS, Device
from tutelage.parts import make_part


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
    stem: Literal["cifar", "imagenet"] = "cifar"
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
    clock: Literal["wall", "cpu"] = "wall"
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
