"""Does teaching go on? PAMKD on the digits with and without its first stage, over seeds.

    python benchmarks/first_stage.py --out runs/first-stage [--seeds 3] [--plot FILE.svg]

PAMKD's ablation No-1st (its section 4.8): where the weights that are compared are those that are
taught, making the learners equally good is a way to have nothing to learn, and the paper sees them
meet. Plotted over epochs: the difference of the learners' losses on the validation batches, which
is the open gate, and the loss that passes it. λ = 1, as in that ablation. What is finished is not
run again, what was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from runs import search, together
from tutelage.report.figures import SERIES, to_svg
from tutelage.report.plots import Axis, Line, curves

ROWS = {"with the first stage": "joint", "without (No-1st)": "none"}
COMMON = (
    "--method pamkd --search darts --space darts --data digits --via first-order --peer-weight 1 "
    "--channels 4 --cells 3 --epochs 40 --batch-size 64 --log-every 1000"
)


def folder_of(out: Path, row: str, seed: int) -> Path:
    """Name the run directory of one row and seed."""
    return out / f"{ROWS[row]}-{seed}"


def course(folder: Path) -> list[tuple[float, float]]:
    """Read, for every epoch, the mean open gate and the mean loss that passes it."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = []
    for row in (row for row in rows if row["event"] == "epoch"):
        gate, transfer = row["teaching"]["gate"], row["teaching"]["transfer"]
        pairs = [(k, j) for k in range(len(gate)) for j in range(len(gate)) if j != k]
        found.append(
            (
                sum(gate[k][j] for k, j in pairs),
                sum(gate[k][j] * transfer[k][j] for k, j in pairs),
            )
        )
    return found


def main() -> None:
    """Run what is missing, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="write the plot here, as SVG")
    options = parser.parse_args()

    def run(row: str, seed: int) -> None:
        folder = folder_of(options.out, row, seed)
        search(folder, [*COMMON.split(), "--first-stage", ROWS[row], "--seed", str(seed)])
        print(f"{folder}: done", flush=True)

    jobs = [(row, seed) for seed in range(options.seeds) for row in ROWS]
    together(run, jobs, options.jobs)
    lines = []
    for place, row in enumerate(ROWS):
        courses = [course(folder_of(options.out, row, seed)) for seed in range(options.seeds)]
        for quantity, name in enumerate(("open gate", "loss that passes")):
            cells = []
            for part in (slice(0, 5), slice(-5, None)):
                means = [statistics.mean(x[quantity] for x in each[part]) for each in courses]
                spread = statistics.stdev(means) if len(means) > 1 else 0.0
                cells.append(f"{statistics.mean(means):.4f} ± {spread:.4f}")
            print(f"| {row} | {name} | {' | '.join(cells)} |")
        for each in courses:
            y = [gate for gate, _ in each]
            lines.append(Line(row, range(1, len(y) + 1), y, SERIES[place]))
    if options.plot:
        label = "open gate of PAMKD over epochs, with and without the first stage"
        figure = curves(lines, Axis("epoch"), log=True)
        options.plot.write_text(to_svg(figure, label), encoding="utf-8")


if __name__ == "__main__":
    main()
