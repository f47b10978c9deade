"""Does teaching continue? PAMKD on the digits with and without its first stage, over seeds.

    python benchmarks/first_stage.py --out runs/first-stage [--seeds 3] [--plot FILE.svg]
    python benchmarks/first_stage.py --out runs/first-stage-224 --batch-size 224

PAMKD's ablation No-1st (its section 4.8): where the weights that are compared are those that are
taught, making the two learners equally good is a way to have nothing to learn, and the paper sees
them meet. Measured in every epoch: the gate, open for either learner in turn as batches fall out;
how far the learners' validation losses are apart over the whole epoch; and the loss that passes the
gate, which is plotted. λ = 1, as in that ablation. What is finished is not run again, what was
stopped continues.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from runs import search, together
from tutelage.report.figures.plots import Axis, Line, curves
from tutelage.report.figures.theme import SERIES, to_svg

ROWS = {"with the first stage": "joint", "without (No-1st)": "none"}
COMMON = (
    "--method pamkd --search darts --space nasbench201 --data digits --via first-order "
    "--peer-weight 1 --channels 4 --cells 1 --log-every 1000"
)
SIZES = {64: "--epochs 30 --batch-size 64", 224: "--epochs 60 --batch-size 224"}
"""By images of a batch; of 224, two batches are the whole validation half."""


def folder_of(out: Path, row: str, seed: int) -> Path:
    """Name the run directory of one row and seed."""
    return out / f"{ROWS[row]}-{seed}"


def course(folder: Path) -> list[tuple[float, float, float]]:
    """Read every epoch's mean gate, difference of the losses, and mean loss that passes."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = []
    for row in (row for row in rows if row["event"] == "epoch"):
        (_, first), (second, _) = row["teaching"]["gate"]  # of learner 0 from 1, of 1 from 0
        (_, one), (two, _) = row["teaching"]["transfer"]
        # the gates are max(0, d) and max(0, -d) of every batch, so their means differ by d's mean
        found.append((first + second, abs(first - second), first * one + second * two))
    return found


def main() -> None:
    """Run what is missing, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, choices=SIZES, default=64)
    parser.add_argument("--plot", type=Path, help="write the plot here, as SVG")
    options = parser.parse_args()

    def run(row: str, seed: int) -> None:
        folder = folder_of(options.out, row, seed)
        size = SIZES[options.batch_size].split()
        search(folder, [*COMMON.split(), *size, "--first-stage", ROWS[row], f"--seed={seed}"])
        print(f"{folder}: done", flush=True)

    jobs = [(row, seed) for seed in range(options.seeds) for row in ROWS]
    together(run, jobs, options.jobs)
    lines = []
    for place, row in enumerate(ROWS):
        courses = [course(folder_of(options.out, row, seed)) for seed in range(options.seeds)]
        for quantity, name in enumerate(("gate", "difference over the epoch", "loss that passes")):
            cells = []
            for part in (slice(0, 5), slice(-5, None)):
                means = [statistics.mean(x[quantity] for x in each[part]) for each in courses]
                spread = statistics.stdev(means) if len(means) > 1 else 0.0
                cells.append(f"{statistics.mean(means):.4f} ± {spread:.4f}")
            print(f"| {row} | {name} | {' | '.join(cells)} |")
        for each in courses:
            y = [passing for _, _, passing in each]
            lines.append(Line(row, range(1, len(y) + 1), y, SERIES[place]))
    if options.plot:
        label = "loss that passes PAMKD's gate over epochs, with and without the first stage"
        figure = curves(lines, Axis("epoch"), shown=(0.0, 0.1))
        options.plot.write_text(to_svg(figure, label), encoding="utf-8")


if __name__ == "__main__":
    main()
