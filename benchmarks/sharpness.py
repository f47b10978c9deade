"""SD-DARTS beside DARTS in NAS-Bench-201 on CIFAR-10: sharpness over epochs, and true accuracy.

    python benchmarks/sharpness.py images --data-root DIR --out runs/images
    python benchmarks/sharpness.py show runs/sharpness

writes the images that the study sharpness.toml trains with, and reads what it has run.

sharpness.md in its folder holds the figures, *.svg the trajectories, a colour a row, a line a seed.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Sequence
from functools import partial
from math import nan
from pathlib import Path
from statistics import mean, stdev

import torch

from tutelage.config import Data
from tutelage.data.cifar import CIFAR10, read_cifar10
from tutelage.records.rows import EpochRow
from tutelage.report.figures.plots import Axis, Line, Mark, by_epoch, curves, values
from tutelage.report.figures.theme import LIGHT, SERIES, to_svg
from tutelage.report.runs.benchmarks import NASBENCH201
from tutelage.report.runs.read import read_run
from tutelage.report.runs.record import RunFiles, at
from tutelage.study.jobs import run_directories

ROWS = {
    "darts": "DARTS",
    "window-1": "SD-DARTS, K = 1",
    "window-2": "SD-DARTS, K = 2",
    "window-4": "SD-DARTS, K = 4",
    "decayed-average": "SD-DARTS, decayed average",
    "averaged-weights": "SD-DARTS, averaged weights",
}
"""Configurations of the study, and their titles."""
PLOTS = {
    "eigenvalue": ("Dominant eigenvalue of the validation loss in the alphas", "collapse"),
    "sharpness": ("Rise of the validation loss beside the alphas", "collapse"),
    "gap": ("Accuracy of the architecture weights less that of what is derived", "collapse"),
    "skips": ("Skip connections of the cell", "collapse"),
    "cifar10_test_200": ("CIFAR-10: true test accuracy of what would be derived (%)", "table"),
}
"""What is plotted: caption, and the entry of metrics.jsonl."""


def write_fewer(root: Path, out: Path, images: int) -> None:
    """Write the first images of CIFAR-10's training set as an archive of its own."""
    folder = out / CIFAR10.folder
    if (folder / CIFAR10.meta).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    train = read_cifar10(Data("cifar10", root), "train")
    parts = torch.arange(images).tensor_split(len(CIFAR10.train))
    for name, part in zip(CIFAR10.train, parts, strict=True):
        pixels = train.images.take(part).numpy().reshape(len(part), -1)
        batch = {"data": pixels, CIFAR10.labels: train.images.labels[part].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
    names = {CIFAR10.names: list(train.classes)}
    (folder / CIFAR10.meta).write_bytes(pickle.dumps(names, protocol=4))


def stage(folder: Path) -> RunFiles:
    """Read a search."""
    found = read_run(folder).search
    if found is None:
        raise SystemExit(f"{folder} holds no search")
    return found


def figure(entry: str, quantity: str, row: EpochRow) -> float | None:
    """Read what an epoch's row says of the learner."""
    if entry == "table":
        return at(row.table, 0, {}).get(quantity)
    value = at(row.collapse, 0, {}).get(quantity)
    return value.get("cell") if quantity == "skips" else value


def measured(found: RunFiles, entry: str, quantity: str) -> tuple[list[float], list[float]]:
    """Return the epochs in which a quantity was measured, and its values."""
    _, x, _ = by_epoch(found)
    y = values(found.epochs, partial(figure, entry, quantity))
    pairs = [(at, value) for at, value in zip(x, y, strict=True) if value == value]
    return [at for at, _ in pairs], [value for _, value in pairs]


def spread(numbers: Sequence[float], digits: int) -> str:
    """Write a mean and a sample standard deviation."""
    deviation = stdev(numbers) if len(numbers) > 1 else 0.0
    return f"{mean(numbers):.{digits}f} ± {deviation:.{digits}f}"


def table_row(found: Sequence[RunFiles]) -> list[str]:
    """Write what a row's seeds have found: at the end, and of sharpness the last five values."""

    def ends(entry: str, quantity: str, count: int = 1) -> list[float]:
        return [mean(measured(each, entry, quantity)[1][-count:] or [nan]) for each in found]

    ranks = ", ".join(f"{rank:.0f}" for rank in ends("table", "rank"))
    skips = ", ".join(f"{count:.0f}" for count in ends("collapse", "skips"))
    return [
        *(spread(ends("table", key), 2) for key in NASBENCH201.tests),
        ranks,
        skips,
        spread(ends("collapse", "eigenvalue", 5), 3),
        spread(ends("collapse", "sharpness", 5), 4),
        spread([100 * x for x in ends("collapse", "gap")], 1),
    ]


def write(out: Path) -> None:
    """Write the table and the plots."""
    found = {ROWS[name]: [stage(x) for x in runs] for name, runs in run_directories(out).items()}
    titles = [*(f"{name}, %" for name in NASBENCH201.tests.values()), "ranks", "skips"]
    titles += ["eigenvalue", "sharpness", "gap, points"]
    lines = [f"| search | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    lines += [f"| {row} | {' | '.join(table_row(each))} |" for row, each in found.items()]
    text = "\n".join(lines) + "\n"
    (out / "sharpness.md").write_text(text, encoding="utf-8")
    print(text)
    epochs = next(iter(found.values()))[0].setting("epochs")
    axis = Axis("epoch", (Mark(epochs // 2 - 0.5, "the past teaches", LIGHT["ink"]),))
    for quantity, (caption, entry) in PLOTS.items():
        drawn = [
            Line(row, *measured(each, entry, quantity), SERIES[place % len(SERIES)])
            for place, (row, stages) in enumerate(found.items())
            for each in stages
        ]
        (out / f"{quantity}.svg").write_text(to_svg(curves(drawn, axis), caption), "utf-8")


def main() -> None:
    """Write the images, or what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    images = verbs.add_parser("images", help="write fewer images of CIFAR-10")
    images.add_argument("--data-root", type=Path, required=True)
    images.add_argument("--out", type=Path, required=True)
    images.add_argument("--count", type=int, default=1_920)
    verbs.add_parser("show", help="write the table and the plots").add_argument("study", type=Path)
    options = parser.parse_args()
    if options.verb == "images":
        write_fewer(options.data_root, options.out, options.count)
    else:
        write(options.study)


if __name__ == "__main__":
    main()
