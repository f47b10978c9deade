"""One-shot methods on NAS-Bench-Macro, whose true accuracies are known: SPOS, EnNAS, Cream.

    python benchmarks/nasbench_macro.py runs/macro --table FILE [--plot FILE.svg]

reads what the study nasbench_macro.toml has run: figures that `tutelage report` does not have, and
EnNAS' Figures 1 and 2.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from tutelage.benchmark.table import open_table, true_accuracy
from tutelage.report.figures.theme import LIGHT, SERIES, new_figure, styled, to_svg
from tutelage.spaces.published import resolve
from tutelage.study.jobs import run_directories

ROWS = {"spos": "SPOS", "ennas-without-ds": "EnNAS w/o DS", "ennas": "EnNAS", "cream": "Cream"}
"""Configurations of the study, and their titles."""
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
    """Average a probe over seeds, epoch by epoch; NaN where there is no teacher (yet)."""
    return [
        statistics.mean(each.get(name, nan) for each in probes)
        for probes in zip(*courses, strict=True)
    ]


def draw(
    ends: Mapping[str, Sequence[Mapping[str, Any]]],
    courses: Mapping[str, Sequence[Sequence[Mapping[str, float]]]],
    known: Sequence[float],
) -> str:
    """Draw EnNAS' Figures 1 and 2, means over seeds, and how good what is found truly is.

    Args:
        ends: Of every row and seed the end of the search.
        courses: Of every row and seed the probes by epoch.
        known: The true accuracy of every architecture, in percent.
    """
    with styled():
        figure = new_figure(920, 270)
        left, middle, right = (
            figure.add_axes((x, 0.15, 0.265, 0.62)) for x in (0.045, 0.385, 0.725)
        )
        for place, (colour, row) in enumerate(zip(SERIES, courses, strict=False)):
            for axes, probe, style in (
                (left, "students_accuracy", "-"),
                (left, "teacher_accuracy", "--"),
                (middle, "logit_distance", "-"),
            ):
                mean = mean_course(courses[row], probe)
                scale = 1 if probe == "logit_distance" else 100
                epochs, y = range(1, len(mean) + 1), [scale * each for each in mean]
                label = row if style == "-" else None
                axes.plot(epochs, y, style, color=colour, label=label)
            found = [end["table"][0]["cifar10_test"] for end in ends[row]]
            right.scatter([place] * len(found), found, s=16, color=colour)
            mean_found = statistics.mean(found)
            right.plot([place - 0.2, place + 0.2], [mean_found] * 2, color=colour)
        for accuracy, name in ((max(known), "best"), (statistics.median(known), "median")):
            right.axhline(accuracy, color=LIGHT["muted"], linewidth=1, linestyle=":")
            right.text(len(ends) - 0.55, accuracy, name, va="bottom", ha="right", size=8)
        right.set_xticks(range(len(ends)), list(ends), size=8)
        right.set_xlim(-0.5, len(ends) - 0.5)
        for axes, title in (
            (left, "students (line) and teacher (dashed), %"),
            (middle, "distance of two students' logits"),
            (right, "true accuracy of what is found, %"),
        ):
            axes.set_title(title)
            axes.tick_params(length=0)
        left.set_xlabel("epoch")
        middle.set_xlabel("epoch")
        figure.legend(*left.get_legend_handles_labels(), loc="upper left", ncols=len(ends))
    return to_svg(figure, "accuracies and distances over epochs, and true accuracies, by method")


def main() -> None:
    """Print the table, draw the plots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--plot", type=Path, help="draw what came out, as SVG")
    options = parser.parse_args()
    ends: dict[str, list[dict[str, Any]]] = {}
    courses: dict[str, list[list[dict[str, float]]]] = {}
    for name, runs in run_directories(options.study).items():
        read_rows = [read(folder) for folder in runs]
        ends[ROWS[name]], courses[ROWS[name]] = ([each[k] for each in read_rows] for k in range(2))
    print(f"| | {' | '.join(ends)} |")
    print(f"|---|{'---|' * len(ends)}")
    for name, figure in FIGURES.items():
        print(f"| {name} | {' | '.join(cell([figure(x) for x in ends[r]]) for r in ends)} |")
    if options.plot:
        table = open_table(options.table)
        names = map("".join, itertools.product("012", repeat=8))
        known = [true_accuracy(table, resolve(name)) for name in names]
        options.plot.write_text(draw(ends, courses, known), encoding="utf-8")


if __name__ == "__main__":
    main()
