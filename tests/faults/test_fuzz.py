"""Texts, files and command lines at random: no traceback, no hang, nothing written if refused.

The cases are those of a seed, FAULT_SEED in the environment; hypothesis shrinks one that fails and
prints the line that repeats it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import signal
import traceback
import warnings
from pathlib import Path

import fuzzing
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from commands import content
from tutelage import cli
from tutelage.run import dry_run, retrain, search
from tutelage.study import local

SEED = int(os.environ.get("FAULT_SEED", 0))
SECONDS = 120
pytestmark = pytest.mark.timeout(7200)


class WorkedError(BaseException):
    """Stands for the work of a command that was accepted."""


class HangError(BaseException):
    """A command took too long."""


def work(*given, **more):
    raise WorkedError


def hang(*given):
    raise HangError(f"more than {SECONDS} s")


def called(words):
    """Call a command up to its work; return its status and its error: a text, or a traceback."""
    output, error = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
            cli.main(words)
    except WorkedError:
        return 0, ""
    except SystemExit as end:
        return end.code or 0, error.getvalue()
    except BaseException:
        return 1, traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return 0, error.getvalue()


@pytest.fixture
def fuzz(here, amount, figures, monkeypatch):
    """Return what checks a function of one case, as often as the campaign's size asks for."""
    for of, name in (
        (search, "run"),
        (retrain.loop, "run"),
        (dry_run, "dry_run"),
        (local.Local, "work"),
    ):
        monkeypatch.setattr(of, name, work)

    def checked(kind, strategy, words, cases):
        """Check cases of a kind; of them some must be accepted, or only refusals are tested."""
        figures[f"(seed {SEED})"] = 1
        places, accepted = itertools.count(), f"{kind} accepted"

        @seed(SEED)
        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            print_blob=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def one(case):
            place = here / str(next(places))
            place.mkdir()
            os.chdir(place)
            line = words(case)
            before = content(place)
            code, error = called(line)
            figures[kind] += 1
            figures[accepted] += code == 0
            figures["tracebacks"] += "Traceback" in error
            assert code == 0 or re.fullmatch(r"tutelage: [^\n]+\n", error), (line, error)
            if code:
                assert content(place) == before, f"{line} has written files: {error}"

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as a user's process shows them
            one()
        assert 50 * figures[accepted] >= figures[kind], f"{accepted}: {figures[accepted]}"

    return checked


def test_genotypes(fuzz, amount):
    def words(case):
        text = case.decode(errors="replace").replace("\x00", "")
        if len(case) % 2:
            Path("genotype.json").write_bytes(case)
            return ["describe", "genotype.json"]
        return ["describe", text, "--channels", "2", "--cells", "3"]

    fuzz("genotypes", fuzzing.GENOTYPES, words, amount(30, 300, 2500))


def test_recipes(fuzz, amount):
    def words(case):
        Path("recipe.toml").write_bytes(case)
        return ["search", "--recipe", "recipe.toml", "--out", "run"]

    fuzz("recipes", fuzzing.recipes(), words, amount(20, 200, 2000))


def test_tables(fuzz, amount, tmp_path_factory):
    def words(case):
        kind, content = case
        Path("table").write_bytes(content)
        if kind == "csv":
            return ["table", "build", "--csv", "table", "--out", "made"]
        return ["query", {"json": "11111111", "built": "64:32:16:8:40"}[kind], "--table", "table"]

    fuzz("tables", fuzzing.tables(tmp_path_factory.mktemp("tables")), words, amount(30, 300, 2500))


def test_headers_of_images(fuzz, amount):
    def words(case):
        name, changed = case
        for kind in ("a", "b"):
            folder = Path("images/train", kind)
            folder.mkdir(parents=True)
            for file, sound in fuzzing.SOUND:
                (folder / file).write_bytes(sound)
        Path("images/train/a", f"changed-{name}").write_bytes(changed)
        flags = "--channels 2 --cells 3 --batch-size 2 --via first-order --out run"
        return ["search", "--data", "images", *flags.split()]

    fuzz("images", fuzzing.images(), words, amount(15, 150, 1000))


def test_command_lines(fuzz, amount):
    fuzz("command lines", fuzzing.lines(), list, amount(60, 400, 2000))
