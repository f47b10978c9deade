"""One-shot methods on NAS-Bench-Macro, whose true accuracies are known: SPOS, EnNAS, Cream.

    python benchmarks/nasbench_macro.py --table FILE --data-root DATA --out runs/macro [--seeds 3]
    python benchmarks/nasbench_macro.py ... --channels 32 --epochs 120 --jobs 1     on a GPU

Every row trains a supernet on half of CIFAR-10's training images and evolves on the other half; the
table says how good what is found truly is, and how well the supernet ranks architectures that are
drawn uniformly. All rows go through as many forward passes in training: EnNAS teaches m = 3
sub-networks on a third of the images. With three operations in a layer, three sub-networks that
differ everywhere hold each operation once, so EnNAS' diversity has nothing to choose but that.
What is finished is not run again, what was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs import search, together
from tutelage.report.figures import SERIES, to_svg
from tutelage.report.plots import Axis, Line, curves

ROWS = {
    "SPOS": "--method single --search single-path",
    "EnNAS w/o DS": "--method ennas --search single-path --students 3",
    "EnNAS": "--method ennas --search diverse-paths --students 3",
    "Cream": "--method cream --search single-path --every 50",
}
COMMON = (
    "--space nasbench-macro --data cifar10 --batch-size 128 --weights.lr 0.1 --weights.lr-min 0 "
    "--weights.weight-decay 4e-5 --ranked 100 --evolution.population 20 --evolution.generations 5 "
    "--evolution.parents 5 --evolution.images 1000 --evolution.judged 1000 --log-every 1000"
)
FIGURES: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    "true accuracy, %": lambda end: end["table"][0]["cifar10_test"],
    "true rank of 6,561": lambda end: end["table"][0]["rank"],
    "Kendall's tau": lambda end: end["ranking"]["tau"],
    "Spearman's rho": lambda end: end["ranking"]["rho"],
    "best true rank of its top 10 of 100": lambda end: end["ranking"]["best_rank"],
    "supernet accuracy of what is found, %": lambda end: 100 * end["evolution"]["accuracy"],
    "students, %": lambda end: 100 * end["probe"]["students_accuracy"],
    "teacher, %": lambda end: percent(end["probe"].get("teacher_accuracy")),
    "gap, points": lambda end: percent(end["probe"].get("gap")),
    "distance of logits": lambda end: end["probe"]["logit_distance"],
}


def percent(share: float | None) -> float | None:
    """Return a share as percent; None of nothing."""
    return None if share is None else 100 * share


def folder_of(out: Path, row: str, seed: int) -> Path:
    """Name the run directory of one row and seed."""
    return out / f"{row.lower().replace(' ', '-').replace('/', '')}-{seed}"


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Read the end of a search, with the last epoch's probe, and all epochs' probes."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    probes = [row["probe"] for row in rows if row["event"] == "epoch"]
    return {**rows[-1], "probe": probes[-1]}, probes


def cell(values: Sequence[float | None]) -> str:
    """Write mean and standard deviation over seeds; of ranks, which no mean describes, them all."""
    known = [x for x in values if x is not None]
    if len(known) < len(values):
        return "-"
    if all(isinstance(x, int) for x in known):
        return ", ".join(f"{x:,}" for x in known)
    spread = statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{statistics.mean(known):.2f} ± {spread:.2f}"


def mean_course(courses: Sequence[Sequence[Mapping[str, float]]], name: str) -> list[float]:
    """Average a probe over seeds, epoch by epoch."""
    return [statistics.mean(each[name] for each in probes) for probes in zip(*courses, strict=True)]


def draw(courses: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], folder: Path) -> None:
    """Draw EnNAS' Figures 1 and 2: what teachers know, and how far students' logits are apart."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = {"teacher": "teacher_accuracy", "students": "students_accuracy"}
    plots["logits"] = "logit_distance"
    for name, probe in plots.items():
        lines = []
        for colour, (row, each) in zip(SERIES, courses.items(), strict=False):
            if probe in each[0][-1]:
                lines.append(each_line(row, each, probe, colour))
        label = f"{probe.replace('_', ' ')} over epochs, mean of {len(each)} seeds"
        figure = curves(lines, Axis("epoch"))
        (folder / f"macro-{name}.svg").write_text(to_svg(figure, label), encoding="utf-8")


def each_line(
    row: str, courses: Sequence[Sequence[Mapping[str, float]]], probe: str, colour: Any
) -> Line:
    """Make the line of one row, over the epochs in which there is a teacher where it needs one."""
    start = max(
        next(epoch for epoch, probes in enumerate(course) if probe in probes) for course in courses
    )
    y = mean_course([course[start:] for course in courses], probe)
    return Line(row, range(start + 1, start + 1 + len(y)), y, colour)


def main() -> None:
    """Run what is missing, print the table, draw the plots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--plots", type=Path, help="write the plots into this folder, as SVG")
    options = parser.parse_args()

    def run(row: str, seed: int) -> None:
        folder = folder_of(options.out, row, seed)
        words = [*COMMON.split(), *ROWS[row].split(), f"--seed={seed}", f"--table={options.table}"]
        words += [f"--data-root={options.data_root}"]
        words += [f"--channels={options.channels}", f"--epochs={options.epochs}"]
        search(folder, words)
        print(f"{folder}: done", flush=True)

    jobs = [(row, seed) for seed in range(options.seeds) for row in options.rows]
    together(run, jobs, options.jobs)
    ends: dict[str, list[dict[str, Any]]] = {}
    courses: dict[str, list[list[dict[str, float]]]] = {}
    for row in options.rows:
        read_rows = [read(folder_of(options.out, row, seed)) for seed in range(options.seeds)]
        ends[row], courses[row] = ([each[k] for each in read_rows] for k in range(2))
    print(f"| | {' | '.join(options.rows)} |")
    print(f"|---|{'---|' * len(options.rows)}")
    for name, figure in FIGURES.items():
        print(f"| {name} | {' | '.join(cell([figure(x) for x in ends[r]]) for r in ends)} |")
    if options.plots:
        draw(courses, options.plots)


if __name__ == "__main__":
    main()
