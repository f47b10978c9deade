"""What a paper's row costs on this device: parameters, FLOPs, steps, and hours from a few steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tutelage.config import Data, Retrain, Run
from tutelage.papers import Row
from tutelage.parts import from_table, make_part
from tutelage.recipes import layered
from tutelage.run.conditions import conditions
from tutelage.run.cost.count import SIDES, describe
from tutelage.run.dry_run import dry_run
from tutelage.run.machine.device import device_named
from tutelage.run.measure.memory import synchronise
from tutelage.run.measure.result import duration
from tutelage.run.networks.files import build
from tutelage.searches.random import Random
from tutelage.spaces.base import Size, Space
from tutelage.spaces.genotype import Genotype

IMAGES = {"cifar10": (50_000, 10), "cifar100": (50_000, 100), "imagenet": (1_281_167, 1_000)}
"""Training images and classes of the data sets that papers retrain on."""
BATCH = 8
"""Images of a measured training step; its time is extended linearly to the row's batch."""
STEPS = 2
"""Training steps that are timed, after a first one that is not timed."""


@dataclass(frozen=True)
class Training:
    """A retraining at its full size, of a random architecture of the space."""

    params: int
    flops: int
    """FLOPs of one image."""
    steps: int
    seconds: float
    """Time of a step."""


def print_costs(rows: Sequence[Row], root: Path | None) -> None:
    """Measure a few steps of each row's search and retraining, and print what they cost.

    Args:
        rows: Rows that run.
        root: Folder that holds the data sets' files.
    """
    for row in rows:
        print(row.name, flush=True)
        try:
            for line in costs(row, root):
                print(f"  {line}", flush=True)
        except ValueError as error:  # such as images that are not here
            print(f"  not measured: {error}", flush=True)


def costs(row: Row, root: Path | None) -> list[str]:
    """Describe what a row costs, in lines.

    Raises:
        ValueError: As a search does.
    """
    table = layered(row.search(), {"data": {"root": str(root)}} if root else {})
    settings = from_table(Run, table, "a search")
    lines = [f"search: {line}" for line in dry_run(settings).as_text().splitlines()]
    if "nasbench" in str(settings.space.get("name")):
        return lines
    retrain = layered(table.get("retrain", {}), row.retraining().get("retrain", {}))
    data = layered(table.get("data", {}), row.retraining().get("data", {}))
    found = training(
        make_part("space", settings.space),
        from_table(Retrain, retrain, "a retraining"),
        from_table(Data, data, "the data"),
    )
    whole = duration(found.steps * found.seconds)
    return [
        *lines,
        f"retraining: a random architecture has {found.params:,} parameters, {found.flops:,} FLOPs",
        f"retraining: {found.steps:,} steps of {duration(found.seconds)}, {whole} in all",
    ]


def training(space: Space, settings: Retrain, data: Data) -> Training:
    """Count and time the training of a random architecture, on images of noise."""
    device = device_named(settings.device)
    images, classes = IMAGES.get(data.name, (0, 0))
    if not images:
        raise ValueError(f"the retraining is on {data.name}, whose size is not known here")
    sizes = space.sizes
    size = Size(
        settings.channels or sizes.final_channels,
        settings.cells or sizes.final_cells,
        classes,
        3,
        settings.stem,
    )
    genotype: Genotype = Random().derive(space, Random().alphas(space))
    counted = describe(genotype, size)
    auxiliary = sizes.auxiliary if settings.auxiliary is None else settings.auxiliary
    with conditions(settings, repeatable=False):
        seconds = _seconds(genotype, size, auxiliary, device)
    steps = settings.epochs * -(-images // settings.batch_size)
    scaled = seconds * settings.batch_size / BATCH
    return Training(counted.params, counted.flops, steps, scaled)


def _seconds(genotype: Genotype, size: Size, auxiliary: float, device: torch.device) -> float:
    """Time a training step of a few images."""
    network: Any = build(genotype, size, auxiliary=auxiliary > 0)
    network = network.to(device, memory_format=torch.channels_last).train()
    rates = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
    x = torch.randn(BATCH, 3, SIDES[size.stem], SIDES[size.stem], device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.zeros(BATCH, dtype=torch.int64, device=device)
    began = 0.0
    for step in range(1 + STEPS):
        if step == 1:
            synchronise(device)
            began = time.perf_counter()
        rates.zero_grad()
        logits, other = network(x)
        loss = F.cross_entropy(logits, y)
        (loss if other is None else loss + auxiliary * F.cross_entropy(other, y)).backward()
        rates.step()
    synchronise(device)
    return (time.perf_counter() - began) / STEPS
