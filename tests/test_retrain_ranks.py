"""A retraining on several processes is the one on one process, whatever network and images."""

from __future__ import annotations

import json

import pytest

from faulty import together
from photographs import make_photographs
from tutelage import cli

SMALL = (
    "--channels 4 --cells 1 --batch-size 8 --epochs 1 --limit-batches 2 --auxiliary 0 --cutout 2 "
    "--threads 1 --device cpu --out"
)


@pytest.fixture
def processes(tmp_path):
    """Retrain in two processes, which wait for one another for 20 seconds."""
    return lambda line: together(tmp_path / "said", 2, f"retrain {line}", PATIENCE="20")


def alone(line):
    """Retrain in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main(["retrain", *line.split()])
    assert not end.value.code


def result(run):
    return json.loads((run / "result.json").read_text(encoding="utf-8"))


def test_images_on_disk_are_tested_on_two_processes(processes, tmp_path):
    """The pictures in predictions.npz are read by the process that writes them, alone."""
    root = make_photographs(tmp_path / "photographs", count=10)
    data = f"--data {root} --data.resolution 8 --data.memory stream"
    line = f"DARTS_V2 {data} {SMALL}"
    ends = processes(f"{line} {tmp_path / 'two'}")
    assert [end.status for end in ends] == [0, 0], ends
    alone(f"{line} {tmp_path / 'one'}")
    assert (tmp_path / "two" / "predictions.npz").is_file()
    assert result(tmp_path / "two").keys() == result(tmp_path / "one").keys()
