"""The campaign's figures by test, kept in a file so that a campaign that was stopped goes on.

FAULTS_KEPT names the file; without it, figures are kept until the end of the process. Tests that
have passed, by a file of the same sources and size, are not run again.

    python tests/faults/kept.py FILE

prints the figures so far.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_outcomes: dict[str, str] = {}
_rows: list[dict[str, Any]] = []


def file() -> Path | None:
    """The file that FAULTS_KEPT names."""
    name = os.environ.get("FAULTS_KEPT")
    return Path(name) if name else None


def sources() -> str:
    """Digest what decides the results: the sources, and the size and the seed of the campaign."""
    total = hashlib.sha256()
    for name in ("FAULTS", "FAULT_SEED"):
        total.update(f"{os.environ.get(name)};".encode())
    for folder in ("src/tutelage", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".toml", ".npz", ".json"):
                total.update(f"{path.relative_to(ROOT)};".encode() + path.read_bytes())
    return total.hexdigest()


def begin() -> None:
    """Take what an earlier campaign has done, unless it was of other sources."""
    if path := file():
        head = json.dumps({"sources": sources()}) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        found = path.read_text() if path.exists() else ""
        path.write_text(found[: found.rfind("\n") + 1] if found.startswith(head) else head)
        os.environ["FAULTS_KEPT"] = str(path.resolve())  # tests work in other folders
        os.environ["FAULTS_BEFORE"] = str(path.stat().st_size)  # also of workers that start later
        _rows.extend(before())


@cache
def before() -> tuple[dict[str, Any], ...]:
    """Read the rows that were in the file when the campaign began."""
    path, size = file(), int(os.environ.get("FAULTS_BEFORE", 0))
    return tuple(read(path.read_bytes()[:size])) if path else ()


def read(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, without one that was cut short."""
    return map(json.loads, content.split(b"\n")[1:-1])


@cache
def passed() -> set[str]:
    """List the tests that need not run again."""
    last = {row["test"]: row["outcome"] for row in before()}
    return {test for test, outcome in last.items() if outcome != "failed"}


def note(test: str, outcome: str) -> None:
    """Remember that a part of a test has failed, was skipped, or passed."""
    if _outcomes.get(test) != "failed":
        _outcomes[test] = outcome if outcome != "passed" else _outcomes.get(test, outcome)


def add(test: str, part: str, figures: dict[str, float]) -> None:
    """Keep the figures of a test at its end."""
    row = {"test": test, "outcome": _outcomes[test], "part": part, "figures": figures}
    _rows.append(row)
    if path := file():
        with path.open("a") as rows:
            rows.write(json.dumps(row) + "\n")


def table() -> Iterator[str]:
    """Yield a line for every part, with the sums of the last figures of its tests."""
    last = {row["test"]: row for row in _rows}
    parts: dict[str, Counter[str]] = {}
    for row in last.values():
        counted = parts.setdefault(row["part"], Counter())
        counted.update(row["figures"])
        counted[f"tests {row['outcome']}"] += 1
    for part, counted in sorted(parts.items()):
        shown = (
            what if what.startswith("(") else f"{value:,.0f} {what}"
            for what, value in counted.items()
        )
        yield f"{part}: {', '.join(shown)}"
    if last:
        minutes = sum(counted["CPU seconds"] for counted in parts.values()) / 60
        yield f"all: {minutes:.1f} CPU minutes"


if __name__ == "__main__":
    _rows.extend(read(Path(sys.argv[1]).read_bytes()))
    print(*table(), sep="\n")
