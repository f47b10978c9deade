"""The measured latency of a module: the time of its forward pass on a device.

A measurement is the mean of so many passes that together they take long enough for the clock. The
median of many measurements is kept, and the quartiles as their spread: on a busy machine a few of
them are much too long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil
from statistics import median, quantiles
from typing import Any, Final

import torch
from torch import nn

from tutelage import cpus
from tutelage.records.latencies import Place, Timing
from tutelage.run.cost.latency import place_here
from tutelage.run.machine.device import device_named
from tutelage.run.machine.threads import UNREST, restored
from tutelage.run.measure.memory import synchronise
from tutelage.run.networks.files import build
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import Genotype

WARM_UP: Final = 3
"""Passes that are not measured: the first ones allocate memory and choose algorithms."""
SHORTEST: Final = 2e-4
"""Seconds of a measurement, at least."""
MOST_PASSES: Final = 10_000
KEPT: Final = 28 * 2**20
"""Bytes that are allocated and freed before a measurement. Afterwards glibc's allocator keeps freed
memory of this size, of at most 32 MiB, for the next pass. Without, a fresh process gave the memory
of a block back after each pass: it took twice as long as the same block in a network."""
CLOCKS: Final[Mapping[str, Callable[[], float]]] = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
}
"""Clocks: of the wall, and of the time that this process had a CPU."""


@dataclass(frozen=True)
class Timer:
    """Measures calls."""

    clock: Callable[[], float] = time.perf_counter
    """Returns seconds."""
    repeats: int = 1000
    """Measurements, at most."""
    least: int = 10
    """Measurements, at least."""
    seconds: float = 0.5
    """Time for which measurements go on: a single moment may be a busy one."""

    def measure(self, call: Callable[[], object], wait: Callable[[], object]) -> Timing:
        """Measure a call.

        Args:
            call: What is measured.
            wait: Waits until the device has done what it was asked for.
        """
        for _ in range(WARM_UP - 1):
            call()
        once = self._seconds(call, wait, 1)
        passes = min(MOST_PASSES, max(1, ceil(SHORTEST / once))) if once > 0 else MOST_PASSES
        found: list[float] = []
        while len(found) < self.repeats:
            if len(found) >= self.least and passes * sum(found) >= self.seconds:
                break
            found.append(self._seconds(call, wait, passes) / passes)
        first, _, third = quantiles(found, n=4, method="inclusive")
        return Timing(1000 * median(found), (1000 * first, 1000 * third), len(found))

    def _seconds(
        self, call: Callable[[], object], wait: Callable[[], object], passes: int
    ) -> float:
        wait()
        start = self.clock()
        for _ in range(passes):
            call()
        wait()
        return self.clock() - start


def timer_of(clock: str, device: torch.device) -> Timer:
    """Return a timer by a clock.

    Raises:
        ValueError: It is the CPU's clock, and more than one thread or a GPU computes.
    """
    threads = torch.get_num_threads()
    if clock == "cpu" and (device.type != "cpu" or threads > 1):
        on = "a GPU" if device.type != "cpu" else f"{threads} threads"
        raise ValueError(
            f"clock = 'cpu' with {on}: it adds up the time of all threads and knows no GPU, so "
            "give --clock wall, or --device cpu --threads 1"
        )
    return Timer(CLOCKS[clock])


def disturbed(device: torch.device) -> str:
    """Say that other processes use the CPUs; empty: they do not, or it is unknown."""
    needed = torch.get_num_threads() if device.type == "cpu" else 1
    idle = cpus.idle()
    if idle is None or idle + UNREST >= needed:
        return ""
    return (
        f"other processes use the CPUs: {idle:.1f} are idle and {needed} needed, so latencies are "
        "longer and less certain than on an idle machine; --clock cpu leaves their time out"
    )


@torch.no_grad()
def latency_of(
    make: Callable[[], nn.Module], shape: Sequence[int], device: torch.device, timer: Timer
) -> Timing:
    """Measure the forward pass of a module in evaluation mode.

    Args:
        make: Builds the module.
        shape: The shape (B, C, H, W) of its input, which is random.
        device: The device that computes.
        timer: Measures.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        module = make().to(device).eval()
        x = torch.randn(*shape, device=device)
    torch.empty(KEPT, dtype=torch.uint8).fill_(0)
    return timer.measure(partial(module, x), partial(synchronise, device))


@dataclass(frozen=True)
class Measured:
    """The latency of a network at one batch size."""

    place: Place
    time: Timing

    def as_dict(self) -> dict[str, Any]:
        """Return what `describe --json` prints."""
        return asdict(self.place) | asdict(self.time)

    def as_text(self) -> str:
        """Return a line of what `describe` prints."""
        batch, (first, third) = self.place.batch, self.time.quartiles
        each = f", {self.time.median / batch:.4g} ms each" if batch > 1 else ""
        return (
            f"latency {self.time.median:>20.4g} ms for {batch} image{'s' * (batch > 1)}{each}; "
            f"quartiles {first:.4g} to {third:.4g} ms of {self.time.repeats} measurements"
        )


def measured(
    genotype: Genotype,
    size: Size,
    side: int,
    batches: Sequence[int],
    device: str = "auto",
    threads: int | None = None,
    clock: str = "wall",
) -> Iterator[Measured]:
    """Measure the latency of a genotype's network at several batch sizes.

    Args:
        genotype: The architecture.
        size: The size of its network, which has no auxiliary head.
        side: Side of the images, in pixels.
        batches: Numbers of images.
        device: The device: auto, cpu or cuda.
        threads: Threads that compute on the CPU; None: as many as torch has.
        clock: The clock: wall or cpu.

    Raises:
        ValueError: There is no such device, or the clock is not for it.
    """
    on = device_named(device)
    with restored(threads):
        timer = timer_of(clock, on)
        if clock == "wall" and (note := disturbed(on)):
            print(note, file=sys.stderr)
        for batch in batches:
            shape = (batch, size.image_channels, side, side)
            found = latency_of(partial(build, genotype, size), shape, on, timer)
            yield Measured(place_here(on, batch, clock), found)
