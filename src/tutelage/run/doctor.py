"""The state of an installation: versions, hardware, room, and a step whose result is known."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from tutelage import cpus
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.multilevel import hypergradient
from tutelage.problem import Method
from tutelage.run.machine.threads import restored
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.relaxation import BoundAlphas
from tutelage.searches.base import Relaxing
from tutelage.spaces.base import Size, Space
from tutelage.trees import leaves, tree_map
from tutelage.virtual import Exact, Rate

NEEDED: Final = ("tutelage", "torch", "numpy", "scipy", "pillow", "matplotlib", "safetensors")
OPTIONAL: Final = (
    *("triton", "onnx", "onnxruntime", "onnxscript", "timm", "submitit", "nats_bench"),
    *("pyarrow", "huggingface_hub", "tensorboard", "wandb", "mlflow"),
)
GIB: Final = 2**30
LEAST_DISK: Final = 1.0
"""GiB that a run's directory and a small data set need."""
KNOWN: Final[Mapping[str, float]] = {
    "loss": 2.2422145335694728,
    "norm": 0.15440631446768707,
    "projection": -0.046344181417973716,
}
"""The result of `known_step` in float64 with torch 2.13 on a CPU."""
TOLERANCE: Final = 1e-8
"""Largest relative difference from it: other kernels sum in another order."""


class Finding(NamedTuple):
    """A line of the examination."""

    what: str
    text: str
    right: bool = True


class Stepped(NamedTuple):
    """The parts of the known step."""

    method: Method
    search: Relaxing
    space: Space


def examine(parts: Stepped, folder: Path) -> Iterator[Finding]:
    """Yield what is found, line by line.

    Args:
        parts: Those of the known step.
        folder: Where runs would be written.
    """
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("packages", ", ".join(f"{name} {version(name)}" for name in NEEDED))
    yield Finding("optional", _optional())
    yield Finding("processor", f"{cpus.cpu_name()}, {os.cpu_count()} CPUs")
    busy = "" if (idle := cpus.idle()) is None else f", {idle:.1f} of them idle"
    text = f"torch has {torch.get_num_threads()}, {cpus.usable()} CPUs are usable{busy}"
    yield Finding("threads", text)
    yield from _devices()
    yield Finding("memory", _memory())
    free = shutil.disk_usage(folder).free / GIB
    enough = free >= LEAST_DISK
    text = f"{free:.1f} GiB free in {folder}{'' if enough else ': a run may need more'}"
    yield Finding("disk", text, enough)
    for name in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        with restored(1):  # threads of a busy machine wait for one another
            stepped = known_step(parts, torch.device(name))
        yield _compared(name, stepped)


def _optional() -> str:
    found = []
    for name in OPTIONAL:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found) or "none"


def _devices() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = f"torch is built for {built}, and sees none" if built else "torch is built for CPUs"
        yield Finding("GPU", f"none: {why}")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding("GPU", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")


def _memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        free, total = (sizes[name] / 2**20 for name in ("MemAvailable", "MemTotal"))
    except (OSError, LookupError, ValueError):  # not Linux
        return "unknown on this system"
    return f"{free:.1f} of {total:.1f} GiB free"


def _compared(device: str, found: Mapping[str, float]) -> Finding:
    """Compare the known step with its stored result."""
    far = max(abs(found[name] - x) / abs(x) for name, x in KNOWN.items())
    what = f"known step on {device}"
    if far <= TOLERANCE:  # not where it is NaN
        return Finding(what, f"as stored, to {far:.0e}")
    text = f"differs from the stored result by {far:.1e} of it: do not rely on runs"
    return Finding(what, text, False)


def known_step(parts: Stepped, device: torch.device) -> dict[str, float]:
    """Compute an exact hypergradient of a tiny supernet in float64; nothing in it is random.

    Returns:
        The top loss, the norm of the hypergradient, and its product with a fixed vector.
    """
    maker = Maker(
        bind=lambda space: BoundAlphas(parts.search, space, device),
        spaces=[parts.space],
        size=Size(channels=4, cells=1, classes=3, image_channels=1),
        clock=Clock(),
        epochs=1,
        device=device,
        amp=None,
    )
    problem = parts.method(maker)
    waves = _waves(device)
    variables = {
        name: tree_map(lambda x: 0.3 * next(waves)(x), tree)
        for name, tree in problem.variables.items()
    }
    batches = _Batches(*(_batch(k, next(waves), device) for k in range(3)))
    rates = {level.variable: Rate(0.1) for level in problem.levels if level.optimiser != "alphas"}
    found = hypergradient(problem.levels, variables, batches, rates, Exact())
    gradient = torch.cat([x.flatten() for x in leaves(found.gradient)])
    fixed = torch.cos(torch.arange(len(gradient), dtype=torch.float64, device=device))
    return {
        "loss": float(found.losses[problem.levels[-1].name]),
        "norm": float(gradient.norm()),
        "projection": float(gradient @ fixed),
    }


class _Batches(NamedTuple):
    train: Batch
    valid: Batch
    unlabelled: Batch


def _waves(device: torch.device) -> Iterator[_Wave]:
    place = 0
    while True:
        place += 1
        yield _Wave(place, device)


class _Wave(NamedTuple):
    """Fills a tensor with values that look random and are the same everywhere."""

    place: int
    device: torch.device

    def __call__(self, like: Tensor) -> Tensor:
        counted = torch.arange(like.numel(), dtype=torch.float64, device=self.device)
        return torch.sin(1.7 * self.place + 12.9898 * counted**1.1).reshape(like.shape)


def _batch(place: int, wave: _Wave, device: torch.device) -> Batch:
    x = wave(torch.empty(6, 1, 8, 8))
    y = torch.arange(place, place + 6, device=device) % 3
    return Batch(x, y, torch.arange(6, device=device))
