"""Runs the tests that are marked `cuda`, for `gpu.py`."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIRST = "test_kernels.py"
"""These tests come first: what the kernels compute has run on no other device."""
PROCESSES = 4
CORES = 8
"""From so many cores on, the tests run in several processes."""
OUTCOMES = "PASSED|FAILED|ERROR|SKIPPED"


def tests(options: argparse.Namespace, seconds: float) -> Iterator[dict[str, Any]]:
    """Run the tests; where the time is up, count those that have ended."""
    path, note = options.scratch / "tests.txt", ""
    with path.open("w") as file:
        try:
            ended = subprocess.run(
                command(),
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": searched()},
                stdout=file,
                stderr=file,
                timeout=seconds,
                check=False,
            )
            if ended.returncode not in (0, 1):
                raise RuntimeError(f"pytest ended with {ended.returncode}: {tail(path)}")
        except subprocess.TimeoutExpired:
            note = f"not all: stopped after {seconds:.0f} s"
    ends = outcomes(path.read_text())
    counts = Counter(how for _, how in ends)
    yield {
        "what": "tests marked cuda",
        "key": "tests",
        "passed": counts["PASSED"],
        "failed": counts["FAILED"] + counts["ERROR"],
        "skipped": counts["SKIPPED"],
        "names": [name for name, how in ends if how in ("FAILED", "ERROR")],
        "note": note,
    }


def command() -> list[str]:
    """Return the command that runs the tests, in several processes where there are cores."""
    marked = [p for p in sorted((ROOT / "tests").glob("test_*.py")) if "mark.cuda" in p.read_text()]
    marked.sort(key=lambda path: path.name != FIRST)
    flags = ["-vv", "--color=no", "-m", "cuda", "-p", "no:cacheprovider"]
    if find_spec("xdist") and (os.cpu_count() or 1) >= CORES:
        flags += ["-n", str(PROCESSES)]
    return [sys.executable, "-u", "-m", "pytest", *flags, *map(str, marked)]


def searched() -> str:
    """Return where Python searches modules: this package first, then where it searches now."""
    return os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))


def outcomes(text: str) -> list[tuple[str, str]]:
    """List the tests that have ended and how, from what pytest prints in one process or several.

    >>> outcomes("tests/test_a.py::test_b PASSED [ 50%]")
    [('tests/test_a.py::test_b', 'PASSED')]
    >>> outcomes("[gw1] [ 50%] FAILED tests/test_a.py::test_b[a case] ")
    [('tests/test_a.py::test_b[a case]', 'FAILED')]
    """
    alone = re.findall(rf"^(\S+::.+?) ({OUTCOMES})", text, re.MULTILINE)
    several = re.findall(
        rf"^\[gw\d+\] \[ *\d+%\] ({OUTCOMES}) (\S+::.*?)[ \t]*$", text, re.MULTILINE
    )
    return alone + [(name, how) for how, name in several]


def tail(path: Path) -> str:
    """Return the end of a file."""
    return path.read_text()[-500:]
