"""Bounds of the house: what a running search holds, who sees it, and which words are used."""

from __future__ import annotations

import ast
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import tutelage
from test_search import TINY, work_of
from tutelage.methods.single import Single

ROOT = Path(tutelage.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
OLD = (
    r"multiply_adds|multiply-adds|read_off|[Rr]eads? off|\bMix\b|[Gg]enes\b|go_on|_exam\b|"
    r"\bWatching\b"
)
"""Words of 0.1 that have been replaced."""
READERS = ("renamed.py", "records/lift.py")
"""Files that read what 0.1 wrote, and so name it."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_a_search_holds_little(tmp_path, monkeypatch):
    work = work_of(TINY, tmp_path, monkeypatch, Single())
    work.advance()
    assert len(vars(work)) <= 15
    state = ROOT / "run" / "supernet" / "state.py"
    assert len(state.read_text(encoding="utf-8").splitlines()) < 200


def test_a_view_is_frozen(tmp_path, monkeypatch):
    view = work_of(TINY, tmp_path, monkeypatch, Single()).view()
    with pytest.raises(FrozenInstanceError):
        view.epoch = 1
    with pytest.raises(FrozenInstanceError):
        view.setup.settings = None


def test_what_shows_or_keeps_a_search_sees_a_view_alone():
    """Only the verbs, and what measures steps, hold a running search itself."""
    holders = {
        relative(path) for path in FILES if "run.supernet.state" in path.read_text(encoding="utf-8")
    }
    assert holders == {"run/search.py", "run/dry_run.py", "run/measure/steps.py"}


def test_nobody_compares_the_kind_of_a_search():
    """What differs between the kinds is a strategy, or an entry of a table by kind."""
    kinds = {"relaxed", "one-shot", "random"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                named = {str(x.value) for x in sides if isinstance(x, ast.Constant)}
                assert not kinds & named, relative(path)


@pytest.mark.parametrize("path", [x for x in FILES if relative(x) not in READERS], ids=relative)
def test_replaced_words_stay_away(path):
    """But for the texts by which modules answer to the names of 0.1."""
    lines = path.read_text(encoding="utf-8").splitlines()
    answers = re.compile(r"old_name\(|@keywords\(")
    assert not [x for x in lines if re.search(OLD, x) and not answers.search(x)]
