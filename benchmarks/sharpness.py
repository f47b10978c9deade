"""SD-DARTS beside DARTS in NAS-Bench-201 on CIFAR-10: sharpness over epochs, and true accuracy.

    python benchmarks/sharpness.py --data-root DIR --table FILE --out runs/sharpness [--seeds 3]
    python benchmarks/sharpness.py ... --full        # the paper's size; a GPU's work

Reduced, a supernet has 8 channels and 1 cell a stage instead of 16 and 5, and searches 20 epochs on
1,920 of the 50,000 images in batches of 32, 600 steps instead of 19,550 of 64; the alphas'
learning rate is ten times higher, since they have a thirtieth of the steps. Every epoch passes all
of the images, since the past of an image is what teaches. All rows have the settings of the recipe
sd-darts-nasbench201 besides, DARTS too; half of the epochs warm up. The table is asked after every
epoch and never decides. What is finished is not run again, what was stopped resumes.

OUT/sharpness.md holds the figures, OUT/*.svg the trajectories, a colour a row, a line a seed.
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

from runs import search, together
from tutelage.config import Data
from tutelage.data.cifar import CIFAR10, read_cifar10
from tutelage.records.rows import Collapse, EpochRow
from tutelage.report.figures.plots import Axis, Line, Mark, by_epoch, curves, values
from tutelage.report.figures.theme import LIGHT, SERIES, to_svg
from tutelage.report.runs.benchmarks import NASBENCH201
from tutelage.report.runs.read import read_run
from tutelage.report.runs.record import RunFiles, at

ROWS = {
    "DARTS": ["--method", "single"],
    "SD-DARTS, K = 1": ["--window", "1"],
    "SD-DARTS, K = 2": ["--window", "2"],
    "SD-DARTS, K = 4": ["--window", "4"],
    "SD-DARTS, decayed average": ["--memory", "average"],
    "SD-DARTS, averaged weights": ["--memory", "weights"],
}
USUAL = list(ROWS)[:4]
REDUCED = (
    "--channels 8 --cells 1 --batch-size 32 --alphas.lr 3e-3 --log-every 60 "
    "--eigenvalue-every 1 --sharpness-every 1 --gap-every 5"
)
FULL = "--eigenvalue-every 1 --sharpness-every 1 --gap-every 5"
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


def stage(out: Path, row: str, seed: int) -> RunFiles:
    """Read the search of one row and seed."""
    found = read_run(folder_of(out, row, seed)).search
    if found is None:
        raise SystemExit(f"{folder_of(out, row, seed)} holds no search")
    return found


def folder_of(out: Path, row: str, seed: int) -> Path:
    """Name the run directory of one row and seed."""
    return out / f"{row.replace(',', '').replace(' = ', '').replace(' ', '-').lower()}-{seed}"


def figure(entry: str, quantity: str, row: EpochRow) -> float | None:
    """Read what an epoch's row says of the learner."""
    if entry == "table":
        return at(row.table, 0, {}).get(quantity)
    value = getattr(at(row.collapse, 0, Collapse()), quantity)
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


def write(out: Path, rows: Sequence[str], seeds: int) -> None:
    """Write the table and the plots."""
    found = {row: [stage(out, row, seed) for seed in range(seeds)] for row in rows}
    titles = [*(f"{name}, %" for name in NASBENCH201.tests.values()), "ranks", "skips"]
    titles += ["eigenvalue", "sharpness", "gap, points"]
    lines = [f"| search | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    lines += [f"| {row} | {' | '.join(table_row(each))} |" for row, each in found.items()]
    text = "\n".join(lines) + "\n"
    (out / "sharpness.md").write_text(text, encoding="utf-8")
    print(text)
    epochs = found[rows[0]][0].setting("epochs")
    axis = Axis("epoch", (Mark(epochs // 2 - 0.5, "the past teaches", LIGHT["ink"]),))
    for quantity, (caption, entry) in PLOTS.items():
        drawn = [
            Line(row, *measured(each, entry, quantity), SERIES[place % len(SERIES)])
            for place, (row, stages) in enumerate(found.items())
            for each in stages
        ]
        (out / f"{quantity}.svg").write_text(to_svg(curves(drawn, axis), caption), "utf-8")


def main() -> None:
    """Run what is missing, then write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=USUAL)
    parser.add_argument("--images", type=int, default=1_920, help="of the reduced study")
    parser.add_argument("--epochs", type=int, default=20, help="of the reduced study")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    root, size = options.data_root, FULL.split()
    if not options.full:
        root, size = options.out / "images", [*REDUCED.split(), "--epochs", str(options.epochs)]
        write_fewer(options.data_root, root, options.images)
    common = ["--recipe", "sd-darts-nasbench201", "--table", str(options.table), *size]
    common += ["--data-root", str(root)]

    def run(row: str, seed: int) -> None:
        folder = folder_of(options.out, row, seed)
        search(folder, [*common, *ROWS[row], "--seed", str(seed)])
        print(f"{folder}: done", flush=True)

    jobs = [(row, seed) for seed in range(options.seeds) for row in options.rows]
    together(run, jobs, options.jobs)
    write(options.out, options.rows, options.seeds)


if __name__ == "__main__":
    main()
