"""True accuracy of what every search finds in NAS-Bench-201 on CIFAR-10, over seeds.

    python benchmarks/nasbench201.py --data-root DIR --table FILE --out runs/nb201 [--seeds 3]
    python benchmarks/nasbench201.py ... --full        # the papers' size; a GPU's work

Reduced, a supernet has 8 channels and 1 cell a stage instead of 16 and 5, and sees 600 batches of
32 images instead of 19,550 of 64; the alphas' learning rate is ten times higher, since they have a
thirtieth of the steps. Everything else is the recipe of each search. Searches see training images
only; the table is asked when they have ended. What is finished is not run again, what was stopped
continues.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from runs import search, together
from tutelage.benchmark.nasbench201 import Table
from tutelage.spaces.genotype import Genotype

ROWS = {
    "DARTS, first order": ["--search", "darts", "--via", "first-order"],
    "DARTS, second order, exact": ["--search", "darts", "--via", "exact"],
    "DARTS, second order, finite difference": ["--search", "darts", "--via", "finite-difference"],
    "PC-DARTS": ["--search", "pcdarts", "--via", "first-order"],
    "DARTS-": ["--search", "darts-minus", "--via", "first-order"],
    "DrNAS": ["--search", "drnas", "--via", "first-order"],
    "GDAS": ["--search", "gdas", "--via", "first-order"],
    "random": ["--search", "random"],
}
COMMON = "--method single --space nasbench201 --data cifar10"
REDUCED = (
    "--channels 8 --cells 1 --epochs 10 --limit-batches 60 --batch-size 32 --alphas.lr 3e-3 "
    "--log-every 60"
)
FULL = "--channels 16 --cells 5 --epochs 50 --batch-size 64"
COLUMNS = [
    f"{data}_{half}_200"
    for data in ("cifar10", "cifar100", "imagenet16")
    for half in ("valid", "test")
]


def folder_of(out: Path, row: str, seed: int) -> Path:
    """Name the run directory of one row and seed."""
    return out / f"{row.replace(',', '').replace(' ', '-').lower()}-{seed}"


def main() -> None:
    """Run what is missing, then print what the table says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    size = FULL if options.full else REDUCED
    common = [*COMMON.split(), "--data-root", options.data_root, *size.split()]
    table = Table(options.table)

    def run(row: str, seed: int) -> None:
        folder = folder_of(options.out, row, seed)
        search(folder, [*common, *ROWS[row], "--seed", str(seed)])
        print(f"{folder}: done", flush=True)

    jobs = [(row, seed) for seed in range(options.seeds) for row in ROWS]
    together(run, jobs, options.jobs)
    for row in ROWS:
        answers = [
            table.query(Genotype.read(folder_of(options.out, row, seed) / "genotype.json"))
            for seed in range(options.seeds)
        ]
        cells = []
        for column in COLUMNS:
            values = [answer.accuracy[column] for answer in answers]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.2f} +- {spread:.2f}")
        ranks = ", ".join(str(answer.rank["cifar10_test_200"]) for answer in answers)
        print(f"| {row} | {' | '.join(cells)} | {ranks} |")
        for answer in answers:
            print(f"    {answer.architecture}")


if __name__ == "__main__":
    main()
