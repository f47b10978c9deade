"""Runs that the campaign disturbs: one of every method, and what is not a plain search."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from inject import DIARIES
from processes import Ended, run

from tutelage.parts import PARTS
from tutelage.run.job import checkpoint

TINY = "--device cpu --limit-batches 2 --log-every 1 --save-every 0".split()
RELAXED = [*TINY, *"--epochs 2 --batch-size 4 --channels 2 --cells 3 --via first-order".split()]
NARROW = [*RELAXED[: RELAXED.index("--cells")], *"--cells 1 --via first-order".split()]
NARROW += ["--space", "nasbench201"]
"""Steps of NAS-Bench-201's cell cost a fourth of those of DARTS' cells."""
EVOLVED = [
    *TINY,
    *"--epochs 2 --batch-size 20 --space nasbench-macro".split(),
    *"--widths 4 6 --depths 2 2 --strides 2 2".split(),
    *"--evolution.population 3 --evolution.generations 2 --evolution.parents 2".split(),
    *"--evolution.images 20 --evolution.judged 20".split(),
]
TEACHER = "<teacher>"
OWN = {
    "single": RELAXED,
    "lbt": [*NARROW, "--student", "DARTS_V1"],
    "pamkd": [*NARROW, "--group-size", "2"],
    "nes": [*NARROW, "--learners", "2", "--members", "2"],
    "ennas": [*EVOLVED, "--search", "diverse-paths", "--students", "2"],
    "cream": [*EVOLVED, "--search", "single-path", "--board", "3"],
    "dna": [
        *TINY,
        *"--epochs 2 --batch-size 4".split(),
        *f"--search single-path --space dna --teacher {TEACHER}".split(),
        *"--widths 4 4 6 6 8 8 --depths 1 1 1 1 1 1 --stem-channels 4 --first 0 --last 0".split(),
        *EVOLVED[-10:],
    ],
}
"""Methods that need settings of their own, or another search."""
RETRAIN = [*TINY, *"--epochs 2 --batch-size 16 --channels 4 --cells 3 --drop-path 0.3".split()]
SEARCHES = {
    f"search {name}": ["--method", name, *OWN.get(name, NARROW)] for name in PARTS["method"]
}
SEARCHES["search pdarts"] = [
    *("--search", "pdarts", "--deeper", "0", "1"),
    *("--epochs", "3"),
    *TINY,
    *RELAXED[-8:],
]
SEARCHES["search gdas"] = ["--search", "gdas", *RELAXED]
SEARCHES["search prdarts"] = ["--search", "prdarts", *RELAXED]
RETRAININGS = {
    "retrain": ["retrain", "DARTS_V2", "--data", "digits", *RETRAIN],
    "retrain ensemble": ["retrain", "<pool>", *RETRAIN],
}
NAMES = [*SEARCHES, *RETRAININGS]


def words(name: str, out: Path, given: Mapping[str, Path]) -> list[str]:
    """Return the command that begins a run, or goes on with it, as a user would."""
    if name in RETRAININGS:
        line = [*RETRAININGS[name], "--out", str(out)]
    elif (out / "run.toml").exists():
        line = ["search", "--resume", str(out)]
    else:
        line = ["search", *SEARCHES[name], "--out", str(out)]
    return [str(given[word]) if word in given else word for word in line]


def narrow(words: list[str]) -> list[str]:
    """Let a relaxed search in DARTS' space be one in NAS-Bench-201's, whose steps cost a fourth."""
    if words[0] != "search" or "--method" not in words or "--space" in words:
        return words
    cells = words.index("--cells")
    return [*words[:cells], "--cells", "1", *words[cells + 2 :], "--space", "nasbench201"]


def finish(name: str, out: Path, given: Mapping[str, Path]) -> Ended:
    """Begin a run or go on with it, undisturbed."""
    return run(words(name, out, given), out.parent)


def content(folder: Path) -> dict[str, Any]:
    """Return what two equal runs have the same: every file but diaries and older checkpoints."""
    left_out = (*DIARIES, checkpoint.PREVIOUS)
    return {
        str(path.relative_to(folder)): checkpoint.load(path.parent)["work"]
        if path.name == checkpoint.NEWEST
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def same(one: Any, other: Any) -> bool:
    """Compare files and the tensors of checkpoints, to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and bool(
            one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def differences(one: Path, other: Path) -> list[str]:
    """Name the files in which two runs differ."""
    a, b = content(one), content(other)
    return [
        name
        for name in sorted(a | b)
        if name not in a or name not in b or not same(a[name], b[name])
    ]


def fresh(out: Path) -> Path:
    """Return a folder's name that holds nothing."""
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    return out
