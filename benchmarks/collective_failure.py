"""Collective failure, PAMKD's Figure 1 in small: does a bad learner spoil its peers?

    python benchmarks/collective_failure.py runs/failure [--plot FILE.svg]

reads what the study collective_failure.toml has run.

Three learners search in NAS-Bench-201 on CIFAR-10. The second one is handicapped: three times in
four it is shown the wrong image. Every learner has weights V of a first stage, trained alone, and
weights W of a second one, which the objectives of MKD, KDCL, AFD or PAMKD teach from all V.
Reported is how W differs from V in accuracy on the validation half, for every learner; below zero
it was spoiled.
Of the validation half as many images count as an epoch sees, 1,200 in the reduced study.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from tutelage import PAMKD
from tutelage.report.figures.theme import LIGHT, SERIES, new_figure, styled, to_svg
from tutelage.study.jobs import run_directories

OBJECTIVES = {"MKD": "mkd", "KDCL": "kdcl", "AFD": "afd", "PAMKD": "pamkd"}
"""Names, and configurations of the study."""
HANDICAPPED = 1


@dataclass(frozen=True)
class OneHandicapped(PAMKD):
    """PAMKD, or another objective of its second stage, where the second learner sees badly."""

    def __call__(self, make):
        """Make the problem with a net that sees its neighbour's image in three places of four."""
        problem = super().__call__(make)
        net = problem.learners[HANDICAPPED].net
        see = net.forward

        def forward(weights, alphas, x):
            right = (torch.arange(len(x), device=x.device) % 4 == 0).view(-1, 1, 1, 1)
            return see(weights, alphas, torch.where(right, x, x.roll(1, 0)))

        net.forward = forward
        return problem


def scores(folder: Path) -> list[dict[str, float]]:
    """Read what every learner reached on the whole validation half."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return next(row["learners"] for row in rows if row["event"] == "end")


def main() -> None:
    """Print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--plot", type=Path, help="write the plot here, as SVG")
    options = parser.parse_args()
    runs = run_directories(options.study)
    found = {name: [scores(x) for x in runs[own]] for name, own in OBJECTIVES.items()}
    gains = {
        name: [
            [100 * (each["valid_accuracy"] - each["first_accuracy"]) for each in learners]
            for learners in runs
        ]
        for name, runs in found.items()
    }
    for name, runs in found.items():
        alone = [[100 * each["first_accuracy"] for each in learners] for learners in runs]
        cells = [spread(column) for column in zip(*alone, strict=True)]
        cells += [spread(column, signed=True) for column in zip(*gains[name], strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.plot:
        options.plot.write_text(drawing(gains), encoding="utf-8")


def drawing(gains: dict[str, list[list[float]]]) -> str:
    """Draw what teaching changed for every learner: a dot a seed, a line their mean."""
    with styled():
        figure = new_figure(460, 240)
        axes = figure.add_axes((0.1, 0.14, 0.88, 0.7))
        axes.axhline(0, color=LIGHT["muted"], linewidth=1)
        for place, seeds in enumerate(gains.values()):
            for learner, values in enumerate(zip(*seeds, strict=True)):
                x, colour = place + 0.22 * (learner - 1), SERIES[learner]
                label = f"learner {learner}" + (", handicapped" * (learner == HANDICAPPED))
                axes.scatter([x] * len(values), values, s=14, color=colour, label=label)
                mean = statistics.mean(values)
                axes.plot([x - 0.08, x + 0.08], [mean, mean], color=colour, linewidth=2)
        axes.set_xticks(range(len(gains)), list(gains))
        axes.set_ylabel("taught less alone, points")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[:3], labels[:3], loc="upper left", ncols=3, bbox_to_anchor=(0.08, 1))
    return to_svg(figure, "change of validation accuracy by teaching, by objective and learner")


def spread(values: tuple[float, ...], signed: bool = False) -> str:
    """Write mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{'+' if signed else ''}.2f} ± {deviation:.2f}"


if __name__ == "__main__":
    main()
