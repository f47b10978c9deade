"""The tutorials run as they are written: every block of code and every command, in their order."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tutelage.cli import main

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(python|bash|toml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = ("--data-root", "--table")
"""What needs images or tables to be downloaded: such commands only parse, in test_docs.py."""


def commands(code: str) -> list[list[str]]:
    """The commands of a block that run without anything else."""
    lines = code.replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words for words in split if words and not set(ELSEWHERE) & set(words)]


def run(words: list[str]) -> None:
    """Run a command, which must end without a complaint."""
    assert words[0] == "tutelage", words
    try:
        main(words[1:])
    except SystemExit as end:
        assert not end.code, words


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "tutorials").glob("*.md")), ids=lambda p: p.stem
)
def test_a_tutorial_runs_as_it_is_written(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = ModuleType("tutorial")  # of the classes that a tutorial writes
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(code, str(page), "exec"), vars(module))
        elif language == "toml":
            Path("question.toml").write_text(code, encoding="utf-8")
        else:
            for words in commands(code):
                if words[1] != "study" and words[-1] != "runs/question":
                    run(words)
