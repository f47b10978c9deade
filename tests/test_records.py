"""Records: types, versions and damage of what a run writes and a report reads."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from test_report import report
from tutelage.records import metrics
from tutelage.records.results import RESULT, Environment, Members, Origin, Result, Session
from tutelage.records.rows import (
    CANDIDATES,
    SEARCH,
    TRAINING,
    Candidate,
    Cost,
    Costs,
    EndRow,
    EnsembleScores,
    EpochRow,
    LearnerScores,
    Probe,
    RankingScores,
    StageAccuracies,
    StepRow,
    Stopped,
    Teaching,
    TrainingRow,
)
from tutelage.records.typed import finite, present, typed
from tutelage.report.runs.read import read_run
from tutelage.run.job.directory import RunDirectory

DATA = Path(__file__).parent / "data"
OLD = DATA / "run-0.1"
"""What release 0.1 wrote: sgl in nasbench201, retrained."""

CANDIDATE = Candidate(
    event="epoch",
    epoch=2,
    step=6,
    encoding=[0, 2, 1],
    accuracy=0.5,
    params=1_000,
    flops=20_000,
    table={"cifar10_test": 91.5, "rank": 12.0},
    front=[Candidate(encoding=[1, 1, 1], score=-0.25, params=1, flops=2, given=True)],
)
SCORES = LearnerScores(train_loss=2.0, valid_accuracy=0.25, first_loss=1.5)
COMMON = {
    "epoch": 1,
    "step": 2,
    "loss": {"V": 1.5, "teacher_exam": 0.25},
    "learners": [SCORES, LearnerScores()],
    "gradient": {"validate": {"learn: A_labels": 0.125}},
    "teaching": Teaching(gate=[[0.0, 0.5], [None, 0.0]], agreement=0.75, gap=0.125),
    "lr": {"W": 0.025},
}
ROWS = [
    (StepRow(**COMMON), SEARCH),
    (
        EpochRow(
            **COMMON,
            phase=1,
            operations=[{"normal": ["none", "skip"]}, {"normal": [["none"], ["skip"]]}],
            arch_weights=[{"normal": [[0.25, 0.75]]}] * 2,
            genotype=[{"format": "tutelage genotype", "version": 1}] * 2,
            cost=[Costs(Cost(1.5, 2.5), Cost(1, 2))],
            collapse=[
                {
                    "skips": {"normal": 3},
                    "entropy": {"normal": 0.5},
                    "alignment": {},
                    "eigenvalue": 0.125,
                }
            ],
            warnings=["the normal cell has 3 skip connections"],
            stages=[StageAccuracies(0.5, 0.25)],
            table=[{"cifar10_test_200": 90.0, "rank": 7.0}],
            stopped=Stopped("enough", 0),
        ),
        SEARCH,
    ),
    (
        EpochRow(
            sampled=[{"chain": [[0.5, 0.5]]}],
            samples=[{"chain": [4]}],
            probe=Probe(0.5, 1.5, 0.75, 0.25),
        ),
        SEARCH,
    ),
    (
        EndRow(
            learners=[SCORES],
            kept=0,
            ensemble=EnsembleScores([1, 0], 1.5, 0.5),
            ranking=RankingScores(count=5, tau=0.5, by_flops=RankingScores(count=5, rho=0.25)),
            evolution=CANDIDATE.front[0],
            table=[{"rank": 3.0}],
        ),
        SEARCH,
    ),
    (TrainingRow("step", 1, 2, 2.0, 0.5, 0.025, 0.1), TRAINING),
    (CANDIDATE, CANDIDATES),
]


WRONG = '{"sessions": 3, "about": 3, "test_error": "low"}'


def lines(*rows, head=True):
    return b"".join(map(metrics.line_of, ([metrics.HEAD] if head else []) + list(rows)))


def nested(depth):
    return '{"event": "epoch", "cost": ' + "[" * depth + "]" * depth + "}"


# Types ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "types"), ROWS)
def test_a_row_comes_back_as_it_was(row, types):
    rows, damage = metrics.read(lines(row), types)
    assert (rows, damage) == ([row], []) and type(rows[0]) is type(row)


@pytest.mark.parametrize(
    "record",
    [
        Result("digits", 1, 0, 10, 20, {"cells": {}}, 0.25, 0.75, 1.5, 599, [0.5, 0.25]),
        Origin(1, 6, 1.5, 0.5, 1.25, 0.25, 0.5, -0.25),
        Environment([Session("now", 1.5, 0, 0, {"torch": None}, None, {"cores": 2}, 1, "so", "x")]),
        Members.read({"members": [{"learner": 1, "genotype": {}}], "valid_accuracy": 0.5}),
    ],
)
def test_other_records_come_back_as_they_were(record):
    text = json.dumps(finite(record), allow_nan=False)
    assert typed(json.loads(text), type(record)) == record


def test_keys_stand_in_the_order_of_fields_and_what_has_no_value_is_left_out():
    row = finite(ROWS[0][0])
    assert list(row) == "event epoch step loss learners gradient teaching lr".split()
    assert row["learners"] == [{"train_loss": 2.0, "valid_accuracy": 0.25, "first_loss": 1.5}, {}]
    assert list(present(StepRow())) == "event epoch step loss learners gradient lr".split()
    assert (
        "warnings" not in present(EpochRow()) and present(EpochRow(warnings=[]))["warnings"] == []
    )


def test_numbers_that_json_lacks_come_back():
    row = TrainingRow(train_loss=math.inf, train_accuracy=-math.inf, lr=math.nan)
    text = metrics.line_of(row).decode()
    assert json.loads(text, parse_constant=pytest.fail)["train_loss"] == "Infinity"
    (found,), damage = metrics.read(lines(row), TRAINING)
    assert (found.train_loss, found.train_accuracy) == (math.inf, -math.inf)
    assert math.isnan(found.lr) and not damage


def test_unknown_keys_are_passed_over():
    line = b'{"event": "end", "kept": 1, "of tomorrow": [1], "learners": [{"luck": 1}]}\n'
    rows, damage = metrics.read(lines() + line, SEARCH)
    assert rows == [EndRow(learners=[LearnerScores()], kept=1)] and not damage


def test_records_need_no_torch():
    code = "import sys, tutelage.records.metrics, tutelage.records.results; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "Expecting value"),
        ("{ cut", "Expecting property name"),
        ("3", "it holds 3: must be an object"),
        ("[1]", "must be an object"),
        ('"text"', "it holds text: must be an object"),
        ("{}", "its event is None: must be step, epoch, end"),
        ('{"event": ["epoch"]}', "its event is"),
        ('{"event": "epoch", "epoch": "one"}', r"Expected `int`.* - at `\$\.epoch`"),
        ('{"event": "epoch", "learners": {}}', r"at `\$\.learners`"),
        (
            '{"event": "epoch", "learners": [{"train_loss": []}]}',
            r"`\$\.learners\[0\]\.train_loss`",
        ),
        ('{"event": "epoch", "mix": [{"normal": [0.5]}]}', r"`\$\.arch_weights\[0\]"),
        ('{"event": "step", "loss": {"V": "low"}}', r"at `\$\.loss"),
        ('{"event": "epoch", "epoch": 1' + "0" * 400 + "}", ""),
        ('{"event": "epoch", "loss": {"V": 1' + "0" * 400 + "}}", ""),
        ('{"event": "epoch", "epoch": 1' + "0" * 9000 + "}", ""),
        (nested(500), ""),
        (nested(100_000), ""),
        ("[" * 100_000, ""),
        ('{"a":' * 100_000, ""),
    ],
)
def test_a_damaged_line_is_told_by_its_number(tmp_path, line, reason):
    good = lines(StepRow(step=1), head=False)
    rows, damage = metrics.read(good + line.encode() + b"\n" + good, SEARCH)
    assert rows == [StepRow(step=1)] * 2
    ((number, said),) = damage
    assert number == 2 and re.search(reason, said)
    run = shutil.copytree(OLD, tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    (note,) = read_run(run).search.notes
    assert note.startswith(f"{run / 'metrics.jsonl'}: 1 damaged row left out: line 8 (")
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 8 is damaged"):
        RunDirectory(run).metrics.read(SEARCH)


def test_bytes_that_are_no_text_are_a_damaged_line():
    _, damage = metrics.read(b'{"event": "st\xffep"}\n', SEARCH)
    assert [number for number, _ in damage] == [1]


def test_of_many_damaged_lines_the_first_are_told(tmp_path):
    run = shutil.copytree(OLD, tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("x\n" * 1000)
    (note,) = read_run(run).search.notes
    assert "1000 damaged rows left out: line 8 (" in note
    assert "line 10 (" in note and "line 11" not in note and note.endswith("997 more")


def test_a_last_line_without_an_end_is_being_written():
    whole = lines(StepRow(step=1), StepRow(step=2))
    for size in range(len(lines(StepRow(step=1))), len(whole) - 1):
        assert metrics.read(whole[:size], SEARCH) == ([StepRow(step=1)], [])


@pytest.mark.parametrize("name", ["result.json", "environment.json", "genotype.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "7", WRONG])
def test_other_files_of_other_types_are_noted(tmp_path, name, text):
    run = shutil.copytree(OLD, tmp_path / "run")
    (run / "retrain" / name).write_text(text)
    (note,) = read_run(run).retraining.notes
    assert name in note
    assert "Tutelage report" in report(tmp_path, run).html


# Versions ---------------------------------------------------------------------------------------


def test_the_first_line_says_the_version(tmp_path):
    with RunDirectory.create(tmp_path / "run", {}) as directory:
        directory.metrics.cut(0)
        directory.metrics.begin()
        directory.metrics.begin()
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert text == '{"event": "format", "format": "tutelage metrics", "version": 2}\n'


def test_a_newer_version_is_refused(tmp_path):
    run = shutil.copytree(OLD, tmp_path / "run")
    newer = metrics.line_of({**metrics.HEAD, "version": 3})
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(newer + lines(StepRow(), head=False))
    sentence = "version 3 and this release reads up to 2: use the release that wrote it"
    with pytest.raises(ValueError, match=sentence):
        RunDirectory(run).metrics.begin()
    with pytest.raises(ValueError, match=sentence):
        RunDirectory(run).metrics.read(SEARCH)
    with pytest.raises(ValueError, match=sentence):
        Result.read({**RESULT, "version": 3})
    stage = read_run(run).search
    assert sentence in stage.notes[0] and len(stage.rows) == 7  # what stands before it is shown


def test_a_version_that_is_no_number_is_damage():
    head = metrics.line_of({**metrics.HEAD, "version": "two"})
    rows, damage = metrics.read(head + lines(StepRow(), head=False), SEARCH)
    assert rows == [StepRow()] and "must be a whole number" in damage[0].reason
    assert metrics.version_of(head) == 1  # a run that resumes writes another
    assert metrics.version_of(metrics.BEGINNING + b"[" * 100_000) == 1


def test_msgspec_reads_what_records_write():
    """The types are those that msgspec knows: their JSON schema can be made."""
    for kind in (StepRow, EpochRow, EndRow, TrainingRow, Candidate, Result, Origin, Environment):
        assert msgspec.json.schema(kind)
