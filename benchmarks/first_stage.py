"""Does teaching continue? PAMKD on the digits with and without its first stage, over seeds.

    python benchmarks/first_stage.py runs/first-stage [--size batch-224] [--plot FILE.svg]

reads what the study first_stage.toml has run. PAMKD's ablation No-1st (its section 4.8): where the
weights that are compared are those that are taught, making the two learners equally good is a way
to have nothing to learn, and the paper sees them meet. Measured in every epoch: the gate, open for
either learner in turn as batches fall out; how far the learners' validation losses are apart over
the whole epoch; and the loss that passes the gate, which is plotted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from tutelage.report.figures.plots import Axis, Line, curves
from tutelage.report.figures.theme import SERIES, to_svg
from tutelage.study.jobs import run_directories

ROWS = {"with the first stage": "joint", "without (No-1st)": "none"}
SIZES = ("batch-64", "batch-224")


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
    """Print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--size", choices=SIZES, default=SIZES[0])
    parser.add_argument("--plot", type=Path, help="write the plot here, as SVG")
    options = parser.parse_args()
    runs = run_directories(options.study)
    lines = []
    for place, (row, stage) in enumerate(ROWS.items()):
        courses = [course(folder) for folder in runs[f"{options.size},first_stage={stage}"]]
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
