"""Test accuracy on the digits of what every method finds, over seeds at equal settings.

    python benchmarks/digits.py --out runs/digits [--seeds 5] [--jobs 2]

Every method runs with the settings of the recipe digits-study, its own settings at their defaults;
`random` draws an architecture and trains nothing. Each run is `tutelage search` and `tutelage
retrain` on one thread. What is finished is not run again, what was stopped resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runs import search, together, tutelage
from tutelage.report.runs.read import read_run
from tutelage.report.runs.tables import as_text, comparison

ROWS = {
    "single": ["--method", "single"],
    "sgl": ["--method", "sgl"],
    "lbt": ["--method", "lbt"],
    "random": ["--method", "single", "--search", "random"],
}


def run(out: Path, row: str, seed: int) -> None:
    """Search and retrain one row with one seed."""
    folder = out / f"{row}-{seed}"
    if (folder / "retrain" / "result.json").exists():
        return
    seeds = ["--seed", str(seed), "--retrain.seed", str(seed)]
    search(folder, ["--recipe", "digits-study", *ROWS[row], *seeds])
    tutelage("retrain", str(folder))
    print(f"{folder}: done", flush=True)


def main() -> None:
    """Run what is missing, then print the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    jobs = [(row, seed) for seed in range(options.seeds) for row in ROWS]
    together(run, [(options.out, *job) for job in jobs], options.jobs)
    runs = [read_run(options.out / f"{row}-{seed}") for row, seed in jobs]
    print(as_text(comparison(runs)))


if __name__ == "__main__":
    main()
