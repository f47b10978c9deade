"""A run of several processes is as safe as one of one process: faults, refusals, resuming."""

from __future__ import annotations

import json
import math
import os
import shutil

import pytest

import tutelage.cli as cli
from faulty import together

PARTS = "--space nasbench201 --channels 2 --cells 1 --batch-size 8 --device cpu --threads 1"
SEARCH = f"search {PARTS} --limit-batches 2 --epochs 3 --out"


def call(line):
    with pytest.raises(SystemExit) as end:
        cli.main(line.split())
    assert not end.value.code


def close(a, b):
    """Compare rows of metrics.jsonl: numbers to rounding, everything else exactly."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return a == b


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same(run, whole):
    """Whether a run ended as one of one process that nothing interrupted."""
    assert (run / "genotype.json").read_text() == (whole / "genotype.json").read_text()
    for mine, its in zip(rows(run), rows(whole), strict=True):
        assert close(mine, its), (mine, its)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    call(f"{SEARCH} {out}")
    return out


def test_a(whole, tmp_path):
    import time
    t = time.time()
    ends = together(tmp_path / "said", 2, f"{SEARCH} {tmp_path / 'run'}", FAULT="1:4:kill")
    print(time.time() - t, ends)
    t = time.time()
    ends = together(tmp_path / "said", 2, f"search --resume {tmp_path / 'run'}")
    print(time.time() - t, ends)
    same(tmp_path / "run", whole)
    assert 0
