"""SIGKILL to ranks of torchrun: resumed on any number of them, a run ends as on one process."""

from __future__ import annotations

import random
import shutil

import pytest
import runs
from processes import SECONDS

from compared import same
from faulty import LOST, Torchrun, together

ROUNDING = 1e-6
"""In double precision; a retraining's loss is one of float32."""
SAMPLE = ("retrain",)
MARKED = [
    pytest.param(name, marks=[] if name in SAMPLE else [pytest.mark.exhaustive])
    for name in runs.NAMES
]


def times(name):
    """Return before which step one rank ends, and before which all end after resuming.

    Runs have four steps; an evolution goes on with its candidates, an ensemble with other members.
    """
    return (6, 2) if "--evolution.population" in runs.SEARCHES.get(name, ()) else (3, 2)


def begun(name, out, given):
    """Return the command that begins a run or goes on with it, of a small space if it may be."""
    return runs.narrow(runs.words(name, out, given))


def launch(words, folder, count, torchrun=False, **faults):
    """Run a command on so many ranks; return whether all succeeded, and their sentences."""
    line = " ".join(words)
    faults = {key: str(value) for key, value in faults.items()}
    if torchrun:
        with Torchrun(folder, count, line, **faults) as job:
            ends = [job.end(SECONDS)]
    else:
        ends = together(folder, count, line, limit=SECONDS, **faults)
    assert not any("Traceback" in end.error for end in ends if not torchrun), ends
    return not any(end.status for end in ends), [each for end in ends for each in end.said]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MARKED)
def test_one_rank_then_all_killed_and_resumed_on_one_and_four(
    name, tmp_path, given, amount, figures, request
):
    """A rank of two ends, and the others say so; all of two end; the rest is done by 1 and 4."""
    given = request.getfixturevalue("pool") if name == "retrain ensemble" else given
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done, sentences = launch(begun(name, whole, given), tmp_path / "said", 1, FLOAT64=1)
    assert done, sentences
    torchrun = amount(False, False, True)
    one, every = times(name)
    for number, fault in enumerate((f"1:{one}:kill", f"*:{every}:kill")):
        said = tmp_path / f"said-{number}"
        under = torchrun and number == 0  # its start takes longer than all else
        done, sentences = launch(begun(name, killed, given), said, 2, under, FAULT=fault, FLOAT64=1)
        assert not done
        assert [text[: len(LOST)] for text in sentences] == [LOST] or number == 1, sentences
        figures["kills"] += 1 if number == 0 else 2
    for count in (1, 4):
        run = tmp_path / f"on-{count}"
        shutil.copytree(killed, run)
        done, sentences = launch(begun(name, run, given), said, count, FLOAT64=1)
        assert done, sentences
        furthest = same(run, whole, ROUNDING)
        figures[f"({name} on {count}: {furthest:.1g} from the run on one process)"] += 1


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", runs.NAMES)
def test_ranks_killed_at_random_and_resumed_on_as_many_end_the_same(
    name, tmp_path, given, amount, figures, request
):
    """Rank 0 at a point of its writes or any rank at a step; the same bits on as many ranks."""
    given = request.getfixturevalue("pool") if name == "retrain ensemble" else given
    undisturbed, out, said = tmp_path / "whole", tmp_path / "run", tmp_path / "said"
    log = tmp_path / "points"
    faults = {"FAULT_UNDER": undisturbed, "FAULT_LIST": log}
    done, sentences = launch(begun(name, undisturbed, given), said, 2, **faults)
    assert done, sentences
    choose, lost = random.Random(name), []
    points = len(log.read_text().splitlines())
    for number in range(amount(1, 2, 4)):
        if number % 2:
            faults = {"FAULT": f"{choose.randint(0, 1)}:{choose.randint(1, 4)}:kill"}
        else:
            faults = {"FAULT_UNDER": out, "FAULT_KILL": choose.randint(1, points)}
        done, sentences = launch(begun(name, runs.fresh(out), given), said, 2, **faults)
        assert not done and len(sentences) <= 1, sentences
        done, sentences = launch(begun(name, out, given), said, 2)
        different = runs.differences(undisturbed, out) if done else sentences
        figures["kills"] += 1
        figures["lost"] += bool(different)
        lost += [f"{faults}: {different}"] if different else []
    assert not lost, "\n".join(lost)
