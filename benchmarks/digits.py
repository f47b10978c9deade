"""Test accuracy on the digits of what every method finds, over seeds at equal settings.

    python benchmarks/digits.py --out runs/digits [--seeds 5] [--jobs 2]

Every method runs with the settings of the recipe digits-demo, its own settings at their defaults;
`random` draws an architecture and trains nothing. Each run is `tutelage search` and `tutelage
retrain` on one thread. What is finished is not run again, what was stopped goes on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tutelage.report.read import read_run
from tutelage.report.tables import as_text, comparison

ROWS = {
    "single": ["--method", "single"],
    "sgl": ["--method", "sgl"],
    "lbt": ["--method", "lbt"],
    "random": ["--method", "single", "--search", "random"],
}


def tutelage(*words: str) -> None:
    """Run a command of the package on one thread, its output kept back unless it fails."""
    command = [sys.executable, "-m", "tutelage", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr}")


def run(out: Path, row: str, seed: int) -> None:
    """Search and retrain one row with one seed."""
    folder = out / f"{row}-{seed}"
    if (folder / "retrain" / "result.json").exists():
        return
    if not (folder / "genotype.json").exists():
        if (folder / "run.toml").exists():
            tutelage("search", "--resume", str(folder))
        else:
            words = ["--recipe", "digits-demo", *ROWS[row], "--seed", str(seed)]
            tutelage("search", *words, "--retrain.seed", str(seed), "--out", str(folder))
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
    with ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(run, options.out, *job) for job in jobs]:
            future.result()
    runs = [read_run(options.out / f"{row}-{seed}") for row, seed in jobs]
    print(as_text(comparison(runs)))


if __name__ == "__main__":
    main()
