"""Commands of the package, run by studies: on one thread each, and resumed where they stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def tutelage(*words: str) -> None:
    """Run a command of the package, its output kept back unless it fails."""
    command = [sys.executable, "-m", "tutelage", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr}")


def search(folder: Path, words: Sequence[str]) -> None:
    """Search into a folder, unless that is done."""
    if (folder / "genotype.json").exists():
        return
    if (folder / "run.toml").exists():
        tutelage("search", "--resume", str(folder))
    else:
        tutelage("search", *words, "--out", str(folder))


def together(function: Callable[..., None], jobs: Sequence[tuple[Any, ...]], count: int) -> None:
    """Call a function with every job's arguments, so many at a time."""
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(function, *job) for job in jobs]:
            future.result()
