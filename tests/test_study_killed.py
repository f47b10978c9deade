"""Studies of true runs, ended at random and finished: each run is as if nothing had ended it.

Three times a study of searches and retrainings is ended while it works: by SIGKILL with all of its
processes, as when a machine is switched off, by SIGTERM, and by SIGINT.
"""

import csv
import json
import math
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass

import pytest

from tutelage.study import process
from tutelage.study.jobs import prepare
from tutelage.study.reading import read_study
from tutelage.study.status import standing

BASE = """
about = "Is one taught by another better?"
baseline = "single"
[base]
via = "first-order"
channels = 2
cells = 3
batch_size = 4
limit_batches = 3
epochs = 3
log_every = 1
threads = 1
retrain = { epochs = 2, limit_batches = 2, channels = 2, cells = 3, batch_size = 4, threads = 1 }
[configurations.single]
method.name = "single"
[configurations.sgl]
method.name = "sgl"
"""
MORE = """
[configurations.sd-darts]
method = { name = "sd-darts", warmup = 0.0, memory = "weights" }
[configurations.random]
method.name = "single"
search.name = "random"
then = []
"""
COMPARED = ("metrics.jsonl", "genotype.json", "retrain/metrics.jsonl", "retrain/result.json")
"""What a run says, without times."""
WAIT = 3600
"""Seconds after which a study is taken to hang."""


@dataclass
class Ended:
    """What happened to a study."""

    when: list[str]
    """The signal, and how much was done by then."""
    finished: dict[str, dict]
    """The files of every run that was complete at one of the ends, by name."""


def alone(file, folder, tutelage):
    """Run the same commands one after another, each without an end, in this process."""
    jobs = prepare(read_study(file), folder)
    for job in jobs:
        while step := job.step():
            code, _, error = tutelage("", *step.words)
            assert code == 0, error
    return jobs


def rows(folder):
    """Count all rows that the runs of a study have written."""
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("metrics.jsonl"))


def files(job):
    """Return the content of a run and of what is beside it, and when each file was written."""
    paths = [*job.run.rglob("*"), job.log, job.folder / f"seed-{job.seed}.json"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths if path.is_file()}


def end(study, number):
    """End a study; by SIGKILL with all processes at one moment."""
    if number == signal.SIGKILL:
        study.send_signal(signal.SIGSTOP)  # it must not see that its children end
        listed = ["ps", "-o", "pid=", "--ppid", str(study.pid)]
        for pid in subprocess.run(listed, capture_output=True, text=True).stdout.split():
            os.kill(int(pid), signal.SIGKILL)
    study.send_signal(number)
    written, _ = study.communicate(timeout=WAIT)
    expected = -number if number == signal.SIGKILL else 128 + number
    assert study.returncode == expected, written


def wait_for_rows(study, out, wanted):
    while rows(out) < wanted:
        assert study.poll() is None
        time.sleep(0.02)


def wait_for_the_end_of(jobs):
    """Wait for processes that were killed: the system takes their memory first."""
    while any(job.claimed() for job in jobs):
        time.sleep(0.02)


def begun(file, out):
    words = [*process.COMMAND, "study", str(file), "--out", str(out), "--jobs", "2"]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, preexec_fn=heed, **piped)


def heed():
    """Take SIGINT as at a terminal: what a script starts in its background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended_at_random(file, out, total, draw):
    """End a study three times at random, finish it, and return what happened."""
    found = Ended([], {})
    for number in draw.sample((signal.SIGKILL, signal.SIGTERM, signal.SIGINT), 3):
        study, now = begun(file, out), rows(out)
        wanted = now + 1 + draw.random() * 0.5 * (total - now)
        wait_for_rows(study, out, wanted)
        time.sleep(draw.random())
        end(study, number)
        jobs = prepare(read_study(file), out)
        wait_for_the_end_of(jobs)
        done = [job for job in jobs if job.step() is None]
        found.when.append(f"{number.name} with {len(done)} of {len(jobs)} runs done")
        assert all(files(job) == found.finished.get(job.name, files(job)) for job in done)
        found.finished |= {job.name: files(job) for job in done}
        assert len(done) < len(jobs)
        assert {standing(job).state for job in jobs} <= {"done", "waiting"}
    study = begun(file, out)
    written, _ = study.communicate(timeout=WAIT)
    assert study.returncode == 0, written
    return found


def area(function, low, high, count=20_000):
    """Simpson's rule."""
    width = (high - low) / count
    inner = sum((4 if i % 2 else 2) * function(low + i * width) for i in range(1, count))
    return width / 3 * (function(low) + inner + function(high))


def two_sided(t, freedom):
    """P(|T| >= t) of Student's t, from its density."""
    constant = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
    constant /= math.sqrt(freedom * math.pi)
    within = area(lambda x: constant * (1 + x * x / freedom) ** (-(freedom + 1) / 2), 0, t)
    return 1 - 2 * within


def quantile(freedom):
    """The 97.5 % quantile of Student's t, by halving."""
    low, high = 0.0, 20.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > 0.05 else (low, middle)
    return low


def mean_and_deviation(values):
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1))


def paired(errors, baseline):
    """The paired t test: the mean difference, its deviation over seeds, and the p value.

    The p value is None where all differences are equal: nothing is tested.
    """
    differences = [own - base for own, base in zip(errors, baseline, strict=True)]
    apart, spread = mean_and_deviation(differences)
    n = len(differences)
    p = two_sided(abs(apart) / (spread / math.sqrt(n)), n - 1) if spread else None
    return apart, spread, p


def recomputed(errors, baseline, others):
    """A row of the report from the test errors in per cent, by definition alone."""
    n = len(errors)
    mean, deviation = mean_and_deviation(errors)
    apart, spread, p = paired(errors, baseline)
    half = quantile(n - 1) / math.sqrt(n)
    ps = [own for own in (paired(x, baseline)[2] for x in others) if own is not None]
    smaller = sorted(own for own in ps if own < p)  # Holm: the smallest counts as often as there
    steps = [(1 + len(ps) - place) * each for place, each in enumerate([*smaller, p])]  # are tests
    return {
        "n": n, "pairs": n, "mean": mean, "sd": deviation,
        "low": mean - half * deviation, "high": mean + half * deviation,
        "difference": apart,
        "difference_low": apart - half * spread, "difference_high": apart + half * spread,
        "p": p, "p_holm": min(1, max(steps)), "effect": apart / spread,
    }  # fmt: skip


def checked(here, tutelage, text, seed):
    """End a study at random, compare each run with the same one alone, and a row by hand."""
    file, out = here / "question.toml", here / "out"
    file.write_text(text)
    whole = alone(file, here / "alone", tutelage)
    found = ended_at_random(file, out, rows(here / "alone"), random.Random(seed))
    jobs = prepare(read_study(file), out)
    for job, other in zip(jobs, whole, strict=True):
        for name in COMPARED:
            own, same = job.run / name, other.run / name
            assert own.exists() == same.exists(), own
            assert not own.exists() or own.read_bytes() == same.read_bytes(), own
        assert files(job) == found.finished.get(job.name, files(job)), job.name
    assert tutelage(f"report {out}")[0] == 0
    errors = {
        name: [
            100 * json.loads((job.run / "retrain/result.json").read_text())["test_error"]
            for job in jobs
            if job.configuration == name
        ]
        for name in {job.configuration for job in jobs if job.then}
    }
    with (out / "report.csv").open() as table:
        row = next(x for x in csv.DictReader(table) if x["configuration"] == "sgl")
    sgl, baseline = errors.pop("sgl"), errors.pop("single")
    by_hand = recomputed(sgl, baseline, errors.values())
    assert row["measure"] == "test error (%)"
    assert {key: float(row[key]) for key in by_hand} == pytest.approx(by_hand, rel=1e-5)
    print(*found.when, f"sgl: {by_hand}", sep="\n")
    return found


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(WAIT)
def test_four_runs_ended_three_times(here, tutelage):
    checked(here, tutelage, f"[study]\nseeds = [1, 2]\n{BASE}", seed=1)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(2 * WAIT)
def test_twenty_four_runs_ended_three_times(here, tutelage):
    found = checked(here, tutelage, f"[study]\nseeds = [1, 2, 3, 4, 5, 6]\n{BASE}{MORE}", seed=2)
    assert len(found.finished) >= 4  # some were complete before, and stayed as they were
