"""Runs whose reports the site shows: python docs/gallery.py FOLDER."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

SMALL = (
    "--space nasbench201 --data digits --channels 4 --cells 1 --epochs 4 --limit-batches 6 "
    "--batch-size 32 --via first-order --threads 1"
)
RUNS = {
    "sgl": (
        "Two learners label data for each other",
        f"search --method sgl --search darts {SMALL} --out {{}}",
        "retrain {} --epochs 4 --channels 8 --cells 1 --limit-batches 8",
    ),
    "pamkd": (
        "Only the better of two learners teaches",
        f"search --method pamkd --search pcdarts {SMALL} --out {{}}",
    ),
    "sd-darts": (
        "A supernet is taught by its past; curvature and sharpness are measured",
        f"search --method sd-darts {SMALL} --eigenvalue-every 1 --sharpness-every 1 --out {{}}",
    ),
    "ennas": (
        "Sampled paths are taught by their ensemble, then evolution searches among them",
        "search --method ennas --search single-path --space nasbench-macro --data digits --quick "
        "--out {}",
    ),
}
"""Reports by name: what they show, and the commands that make the run."""


def make(folder: Path) -> None:
    """Make every run that is missing below a folder, and its report."""
    for name, (_, *commands) in RUNS.items():
        out = folder / name
        if (out / "report.html").exists():
            continue
        for command in (*commands, "report {}"):
            words = shlex.split(command.format(shlex.quote(str(out))))
            subprocess.run([sys.executable, "-m", "tutelage", *words], check=True)


def page() -> str:
    """Write the list of reports, as Markdown."""
    parts = []
    for name, (about, *commands) in RUNS.items():
        lines = "\n".join(
            f"tutelage {each.format(f'runs/{name}')}" for each in (*commands, "report {}")
        )
        parts.append(
            f"## {about}\n\n[Open the report](gallery/{name}.html)\n\n```bash\n{lines}\n```\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
