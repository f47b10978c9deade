"""Signals, clocks that go back, and two processes in one run: each ends as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import runs
from processes import Command, run
from test_kills import states

SOME = ("search single", "search ennas", "search pdarts", "retrain")
SIGNALS = [("SIGTERM",), ("SIGINT",), ("SIGHUP",), ("SIGINT", "SIGINT")]
HELD = "is being written by process"


def well_ended(ended, sent):
    """Whether a run ended as a supervisor expects of one that got these signals."""
    numbers = {signal.Signals[name] for name in sent}
    if ended.code == 0 or ended.code in {-number for number in numbers}:
        # it was done, or had not begun to work, or was about to end
        return ended.error == "" or (ended.code < 0 and ended.sentence)
    return ended.code in {128 + number for number in numbers} and ended.sentence


def stopped(ended, sent, figures, what):
    """Count the signals; return how a run did not end as it should."""
    figures["signals"] += len(sent)
    figures["tracebacks"] += ended.traceback
    return [] if well_ended(ended, sent) else [f"{what}: exit {ended.code}, {ended.error[-300:]}"]


def judged(name, out, undisturbed, given, figures, what):
    """Finish a run; return what went wrong."""
    ended = runs.finish(name, out, given)
    different = runs.differences(undisturbed, out) if ended.code == 0 else [ended.error[-300:]]
    figures["tracebacks"] += ended.traceback
    figures["lost"] += bool(different)
    return [f"{what}: {different}"] if different else []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SOME)
def test_signals_at_the_writes(name, tmp_path, whole, given, amount, figures):
    undisturbed, out = whole(name, given), tmp_path / "run"
    choose, points, wrong = random.Random(name), states(name, out, given), []
    for place in range(amount(2, 6, 32)):
        sent, point = SIGNALS[place % len(SIGNALS)], choose.choice(points)
        faults = {
            "FAULT_UNDER": out,
            "FAULT_SIGNAL": ",".join(f"{each}:{point.number + k}" for k, each in enumerate(sent)),
        }
        ended = run(runs.words(name, runs.fresh(out), given), tmp_path, faults)
        at = f"{'+'.join(sent)} {point.what} (point {point.number})"
        wrong += stopped(ended, sent, figures, at)
        wrong += judged(name, out, undisturbed, given, figures, at)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SOME)
def test_signals_at_random_moments(name, tmp_path, whole, given, amount, figures):
    undisturbed, out = whole(name, given), tmp_path / "run"
    choose, wrong = random.Random(name), []
    began = time.monotonic()
    runs.finish(name, runs.fresh(out), given)
    seconds = time.monotonic() - began
    for place in range(amount(1, 4, 20)):
        sent, moment = SIGNALS[place % len(SIGNALS)], choose.uniform(0, seconds)
        command = Command(runs.words(name, runs.fresh(out), given), tmp_path)
        command.waits_for(command.err.exists)  # before that no command listens
        time.sleep(moment)
        for each in sent:
            command.kill(signal.Signals[each])
            time.sleep(choose.uniform(0, 0.05))
        ended = command.end()
        at = f"{'+'.join(sent)} after {moment:.2f} s"
        wrong += stopped(ended, sent, figures, at)
        wrong += judged(name, out, undisturbed, given, figures, at)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["search single", "search ennas", "retrain"])
def test_clocks_that_go_back_change_nothing(name, tmp_path, whole, given, amount, figures):
    """At every reading, from session to session, and of the files."""
    undisturbed, out = whole(name, given), tmp_path / "run"
    choose, wrong = random.Random(name), []
    for seconds in (0.5, 86400.0, 1e9)[: amount(1, 2, 3)]:
        points = states(name, out, given, FAULT_CLOCK=seconds)  # fewer checkpoints are due
        faults = {
            "FAULT_CLOCK": seconds,
            "FAULT_UNDER": out,
            "FAULT_KILL": choose.choice(points).number,
        }
        killed = run(runs.words(name, runs.fresh(out), given), tmp_path, faults)
        assert killed.code == -9, killed.error
        for each in out.rglob("*"):
            moment = choose.uniform(0, 4e9)  # from 1970 to 2096
            os.utime(each, (moment, moment))
        faults = {"FAULT_CLOCK": seconds}
        ended = run(runs.words(name, out, given), tmp_path, faults)
        figures["clocks set back"] += 1
        figures["tracebacks"] += ended.traceback
        if ended.code:
            wrong.append(f"{seconds} s: {ended.error[-300:]}")
        wrong += judged(name, out, undisturbed, given, figures, f"{seconds} s")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["search single", "retrain"])
def test_two_processes_in_one_run(name, tmp_path, whole, given, amount, figures):
    """One of them works, the other is refused in a sentence or comes later."""
    undisturbed, out = whole(name, given), tmp_path / "run"
    choose, wrong, refused = random.Random(name), [], 0
    for place in range(amount(1, 3, 10)):
        runs.fresh(out)
        first = Command(runs.words(name, out, given), tmp_path)
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        if place % 2 == 0:  # the first holds the run, and stands still while the second comes
            first.waits_for((out / "split.npz" if "search" in name else out / ".lock").exists)
            first.kill(signal.SIGSTOP)
        else:
            time.sleep(choose.uniform(0, 0.3))
        second = Command(runs.words(name, out, given), other).end()
        first.kill(signal.SIGCONT)
        ended = first.end()
        figures["pairs of processes"] += 1
        for each in (ended, second):
            figures["tracebacks"] += each.traceback
            told = HELD in each.error or "holds a run" in each.error
            refused += each.code == 1
            if each.code and not (each.code == 1 and each.sentence and told):
                wrong.append(f"pair {place}: exit {each.code}, {each.error[-300:]}")
        if ended.code and second.code:
            wrong.append(f"pair {place}: neither worked")
        wrong += judged(name, out, undisturbed, given, figures, f"pair {place}")
    assert not wrong, "\n".join(wrong)
    assert refused
