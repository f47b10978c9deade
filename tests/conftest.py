"""Fixtures of more than one file: the command line as a user meets it, and finished runs."""

import re
import shutil
import signal

import pytest
import torch

from commands import TINY
from ensembles import pool
from retraining import train
from tutelage import cli
from tutelage.run.job.signals import ENDING
from tutelage.run.search import search_run

torch.set_num_threads(1)  # tests are many tiny operations, which threads only slow down

for number in ENDING:  # tests send them; under nohup, and behind an &, some are ignored
    if signal.getsignal(number) == signal.SIG_IGN:
        own = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if own else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _seed():
    """Let a test draw the same numbers alone and after others."""
    torch.manual_seed(0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder of the test's own, so that commands read as a user types them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tutelage(here, capsys):
    """Call the command line; return its exit code and what it wrote to the two streams."""

    def call(line, *more):
        capsys.readouterr()
        try:
            cli.main([*line.split(), *more])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(tutelage):
    """Call the command line with a mistake; check the form of its answer and that it says this."""

    def call(line, pattern, *more, code=None):
        status, _, error = tutelage(line, *more)
        assert re.fullmatch(r"tutelage: [^\n]+\n", error), error
        assert re.search(pattern, error), error
        assert status == code if code else status in (1, 2)

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished search of one learner and two epochs; not to be written to."""
    path = tmp_path_factory.mktemp("finished") / "run"
    with pytest.raises(SystemExit) as end:
        cli.main([*f"search {TINY}".split(), "--out", str(path)])
    assert not end.value.code
    return path


@pytest.fixture
def run(finished, here):
    """A copy of a finished search, as `run` in the test's folder."""
    return shutil.copytree(finished, here / "run")


@pytest.fixture(scope="session")
def retrained(tmp_path_factory):
    """A training that nothing interrupted; not to be written to."""
    out = tmp_path_factory.mktemp("retrained") / "whole"
    train(out)
    return out


@pytest.fixture(scope="session")
def searched_pool(tmp_path_factory):
    """A finished search of an ensemble, of two epochs; not to be written to."""
    return search_run(pool(save_every=0.0), tmp_path_factory.mktemp("nes") / "run")
