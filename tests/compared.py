"""How far two runs are from one another: in the numbers of their files, and in all else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

ROUNDING = 1e-3
"""The most by which sums in another order change a number of a short run in float32."""
SMALL = 0.1
"""Numbers below it are compared by their difference to this one."""
DIARY = "environment.json"


def difference(one: Any, other: Any) -> float:
    """Return the largest relative difference of two JSON values' numbers; infinity: other kinds.

    Whole numbers, texts and the shapes of lists and objects must be equal.
    """
    if isinstance(one, float) and isinstance(other, float):
        if one == other or (math.isnan(one) and math.isnan(other)):
            return 0.0
        found = abs(one - other) / max(abs(one), abs(other), SMALL)
        return found if math.isfinite(found) else math.inf
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return math.inf
        return max((difference(one[name], other[name]) for name in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return math.inf
        return max(map(difference, one, other), default=0.0)
    return 0.0 if type(one) is type(other) and one == other else math.inf


def records(run: Path) -> dict[str, Any]:
    """Read the JSON files of a run by their paths, without its diaries."""
    return {
        str(path.relative_to(run)): [json.loads(line) for line in path.read_text().splitlines()]
        if path.suffix == ".jsonl"
        else json.loads(path.read_text())
        for path in sorted(run.rglob("*.json*"))
        if path.name != DIARY
    }


def differences(run: Path, whole: Path) -> dict[str, float]:
    """Return the largest difference of each JSON file of two runs."""
    mine, its = records(run), records(whole)
    return {name: difference(mine.get(name), its.get(name)) for name in sorted(mine | its)}


def same(run: Path, whole: Path, most: float = ROUNDING) -> float:
    """Check that a run ended as another one, to rounding; return the largest difference."""
    found = differences(run, whole)
    assert max(found.values()) <= most, found
    return max(found.values())
