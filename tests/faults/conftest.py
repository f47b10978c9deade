"""The campaign's sizes, its figures, and the runs that nothing disturbs."""

from __future__ import annotations

import os
from collections import Counter

import damage_runs
import kept
import processes
import pytest
import runs

from teachers import teacher_file

collect_ignore = ["site"]  # for the processes of studies alone
SIZES = ("few", "sample", "all")
NAME = "faults"


@pytest.fixture(scope="session")
def amount():
    """Return the one of three numbers that FAULTS asks for: few, sample or all."""
    size = os.environ.get("FAULTS", "few")
    if size not in SIZES:
        raise ValueError(f"FAULTS = {size}: must be {', '.join(SIZES)}")
    return lambda *numbers: numbers[SIZES.index(size)]


_spent = [0.0]


@pytest.fixture(autouse=True)
def figures(request):
    """Count what a test does, also of one that fails, and the CPU seconds since the one before."""
    counted = Counter()
    yield counted
    now = processes.spent()
    counted["CPU seconds"] += now - _spent[0]
    _spent[0] = now
    part = request.node.path.stem.removeprefix("test_")
    request.node.user_properties.append((NAME, [part, dict(counted)]))


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # a worker takes what the process that started it found
        kept.begin()


def pytest_collection_modifyitems(config, items):
    done = [item for item in items if item.nodeid in kept.passed()]
    items[:] = [item for item in items if item not in done]
    config.hook.pytest_deselected(items=done)


def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # the process that started it has the report too
    kept.note(report.nodeid, report.outcome)
    found = [value for name, value in report.user_properties if name == NAME]
    if report.when == "teardown" and found:
        kept.add(report.nodeid, *found[0])


def pytest_sessionfinish(session, exitstatus):
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and kept.passed():
        session.exitstatus = pytest.ExitCode.OK  # all was done before


def pytest_terminal_summary(terminalreporter):
    if lines := list(kept.table()):
        terminalreporter.section("campaign of faults")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def given(tmp_path_factory):
    """What commands need that must be made first: a teacher, and a pool of two networks."""
    return {runs.TEACHER: teacher_file()}


@pytest.fixture(scope="session")
def pool(given, tmp_path_factory):
    """The commands' words with a finished search of an ensemble among them."""
    out = tmp_path_factory.mktemp("pool") / "run"
    ended = runs.finish("search nes", out, given)
    assert ended.code == 0, ended.error
    return {**given, "<pool>": out}


@pytest.fixture(scope="session")
def whole(given, tmp_path_factory):
    """Return a run by its name that nothing disturbs; made once."""
    made = {}

    def make(name, words):
        if name not in made:
            out = tmp_path_factory.mktemp("whole") / "run"
            ended = runs.finish(name, out, words)
            assert ended.code == 0, f"{name}: {ended.error}"
            made[name] = out
        return made[name]

    return make


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    """Scenes of a search and its retraining; not to be written to."""
    return {each.name: each for each in damage_runs.searches(tmp_path_factory.mktemp("searched"))}


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    """All scenes; not to be written to."""
    return damage_runs.scenes(tmp_path_factory.mktemp("scenes"))
