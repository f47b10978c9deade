"""How well the architecture gradient of a bf16 forward pass agrees with that of fp32.

    python benchmarks/precision.py --device cpu
    python benchmarks/precision.py --data cifar10 --root DIR --device cuda --channels 16 --cells 8

A whole search runs in fp32. At every `--every`-th step the hypergradient is computed three times at
the same weights, momentum and alphas: in fp32; with bf16 forward passes (`--precision bf16`) on the
same images; and in fp32 on the images of another step. The table has the cosine of the first with
the second, and as a measure beside it, of the first with the third: how far one batch differs from
another. All architecture weights count as one vector.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage.config import Alphas, Data, Run
from tutelage.data.streams import LazyBatches, halves_of
from tutelage.multilevel import hypergradient, tops
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.optimizers import virtual_rate
from tutelage.run.supernet.state import Searching
from tutelage.trees import leaves

CASES = (
    ("single", "exact"),
    ("single", "finite-difference"),
    ("single", "first-order"),
    ("sgl", "exact"),
)
"""Methods and rules that are measured."""
TOY = "--channels 4 --cells 3 --epochs 1 --limit-batches 2 --batch-size 8 --every 1"
SHORT = "--epochs 1 --limit-batches 12"


class Point(NamedTuple):
    """One measurement in a search."""

    epoch: int
    bf16: float
    """Cosine of the gradients in fp32 and with bf16 forward passes."""
    batch: float
    """Cosine of the gradients on two batches, both in fp32."""


def searching(settings: Run) -> Searching:
    """Begin a search without a run directory."""
    parts = joined(settings)
    torch.manual_seed(settings.seed)
    setup = parts.setup(halves_of(parts.settings, parts.train))
    return Searching(setup, parts.strategy(setup))


def gradient(made: Searching, at: Searching, step: int) -> Tensor:
    """Return the hypergradient of the losses of one search at the variables of another.

    Args:
        made: The search whose losses are differentiated: its precision counts.
        at: The search whose variables, momentum and clock are used.
        step: The step of the epoch whose images are read.
    """
    made.epoch, made.step = at.epoch, at.step
    made.set_clock()
    torch.manual_seed(at.done)
    levels, rates = made.phase.levels(at.epoch), at.rates()
    rates = {name: virtual_rate(made.setup.settings, rate) for name, rate in rates.items()}
    unrolled = rates if at.via.unrolls or at.phase.problem.order == "levels-first" else {}
    batch = LazyBatches(at.setup.streams, at.epoch, step)
    variables, velocities = at.phase.variables, at.phase.velocities
    found = hypergradient(levels, variables, batch, unrolled, at.via, velocities)
    return torch.cat([leaf.flatten() for leaf in leaves(found.gradient)]).double()


def measured(fp32: Searching, bf16: Searching, every: int) -> Iterator[Point]:
    """Run the fp32 search to its end; yield a point at every `every`-th step."""

    def cosine(x: Tensor, y: Tensor) -> float:
        return float(x @ y / (x.norm() * y.norm()))

    while fp32.epoch < fp32.epochs:
        levels = fp32.phase.levels(fp32.epoch)
        if fp32.done % every == 0 and tops(levels) and levels[-1].optimiser == "alphas":
            step = fp32.step
            exact = gradient(fp32, fp32, step)
            rounded, other = gradient(bf16, fp32, step), gradient(fp32, fp32, step + fp32.steps)
            yield Point(fp32.epoch, cosine(exact, rounded), cosine(exact, other))
        fp32.advance()
        if fp32.step == fp32.steps:
            fp32.check()
            fp32.end_epoch()


def settings_of(method: str, via: str, arguments: argparse.Namespace, precision: str) -> Run:
    """Return the settings of a case."""
    given: dict[str, Any] = {"fp32": "fp32", "bf16": "bf16"}
    return Run(
        method={"name": method},
        search={"name": arguments.search},
        space={"name": arguments.space},
        data=Data(arguments.data, arguments.root),
        alphas=Alphas(lr=arguments.alphas_lr),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        limit_batches=arguments.limit_batches,
        channels=arguments.channels,
        cells=arguments.cells,
        via=via,  # type: ignore[arg-type]
        seed=arguments.seed,
        device=arguments.device,
        precision=given[precision],
    )


def rows(method: str, via: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for every epoch of a case, and one for the whole search."""
    fp32, bf16 = (searching(settings_of(method, via, arguments, p)) for p in ("fp32", "bf16"))
    points = list(measured(fp32, bf16, arguments.every))
    for epoch in [*dict.fromkeys(point.epoch for point in points), None]:
        here = [point for point in points if epoch in (point.epoch, None)]
        yield {
            "method": method,
            "via": via,
            "epoch": "all" if epoch is None else epoch + 1,
            "points": len(here),
            "bf16_median": median(point.bf16 for point in here),
            "bf16_lowest": min(point.bf16 for point in here),
            "batch_median": median(point.batch for point in here),
        }


def measure(device: str, tiny: bool) -> Iterator[dict[str, Any]]:
    """Measure every case, one after another.

    Args:
        device: cuda: some steps of one epoch, as a GPU is there for minutes; cpu: whole searches.
        tiny: Toy size, to see that it runs.
    """
    size = SHORT if device == "cuda" else ""
    arguments = parser().parse_args(["--device", device, *(TOY if tiny else size).split()])
    for case in CASES:
        yield from rows(*case, arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("--data", default="digits")
    made.add_argument("--root", type=Path)
    made.add_argument("--space", default="darts")
    made.add_argument("--search", default="darts")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--channels", type=int, default=8)
    made.add_argument("--cells", type=int, default=4)
    made.add_argument("--epochs", type=int, default=5)
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--limit-batches", type=int)
    made.add_argument("--alphas-lr", type=float, default=3e-3)
    made.add_argument("--every", type=int, default=4)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--cases", nargs="*", default=[f"{m}:{v}" for m, v in CASES])
    return made


def table(found: Sequence[dict[str, Any]]) -> str:
    """Write rows as a table of Markdown."""
    lines = [
        "| method, rule | epoch | points | bf16: median | lowest | another batch: median |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        figures = " | ".join(f"{row[x]:.4f}" for x in ("bf16_median", "bf16_lowest"))
        lines.append(
            f"| {row['method']}, {row['via']} | {row['epoch']} | {row['points']} | {figures} | "
            f"{row['batch_median']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the cases that the command line names, and print the table."""
    arguments = parser().parse_args()
    for case in arguments.cases:
        print(table(list(rows(*case.split(":"), arguments))), flush=True)


if __name__ == "__main__":
    main()
