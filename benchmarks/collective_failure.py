"""Collective failure, PAMKD's Figure 1 in small: does a bad learner spoil its peers?

    python benchmarks/collective_failure.py --data-root DIR --out runs/failure [--seeds 3]
    python benchmarks/collective_failure.py ... --full     # the paper's size; a GPU's work

Three learners search in NAS-Bench-201 on CIFAR-10. The second one is handicapped: three times in
four it is shown the wrong image. Every learner has weights V of a first stage, trained alone, and
weights W of a second one, which the objectives of MKD, KDCL, AFD or PAMKD teach from all V.
Reported is how W differs from V in accuracy on the validation half, for every learner; below zero
it was spoiled.

Reduced, a supernet has 4 channels and 1 cell a stage and sees 150 batches of 40 images; of the
validation half as many images count as an epoch sees, 1,200. What is finished is not run again,
what was stopped resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from runs import search, together
from tutelage import PAMKD
from tutelage.report.figures.theme import LIGHT, SERIES, new_figure, styled, to_svg

OBJECTIVES = {
    "MKD": ["--second-stage", "mkd", "--peer-weight", "1"],
    "KDCL": ["--second-stage", "kdcl", "--peer-weight", "1"],
    "AFD": ["--second-stage", "afd", "--peer-weight", "1"],
    "PAMKD": ["--second-stage", "scrutiny", "--peer-weight", "0.5"],
}
HANDICAPPED = 1
COMMON = (
    "--method collective_failure:OneHandicapped --learners 3 --search darts --space nasbench201 "
    "--data cifar10 --via first-order"
)
REDUCED = "--channels 4 --cells 1 --epochs 5 --limit-batches 30 --batch-size 40 --log-every 30"
FULL = "--channels 16 --cells 5 --epochs 50 --batch-size 64"


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


def folder_of(out: Path, name: str, seed: int) -> Path:
    """Name the run directory of one objective and seed."""
    return out / f"{name.lower()}-{seed}"


def scores(folder: Path) -> list[dict[str, float]]:
    """Read what every learner reached on the whole validation half."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return next(row["learners"] for row in rows if row["event"] == "end")


def main() -> None:
    """Run what is missing, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--plot", type=Path, help="write the plot here, as SVG")
    options = parser.parse_args()
    size = FULL if options.full else REDUCED
    common = [*COMMON.split(), "--data-root", options.data_root, *size.split()]
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))

    def run(name: str, seed: int) -> None:
        search(folder_of(options.out, name, seed), [*common, *OBJECTIVES[name], f"--seed={seed}"])
        print(f"{folder_of(options.out, name, seed)}: done", flush=True)

    names = list(OBJECTIVES)
    jobs = [(name, seed) for seed in range(options.seeds) for name in names]
    together(run, jobs, options.jobs)
    seeds = range(options.seeds)
    found = {name: [scores(folder_of(options.out, name, seed)) for seed in seeds] for name in names}
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
