"""Every example runs as it stands, in an empty folder, and prints what it promises."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
PRINTS = {
    "01_genotype": r"parameters +3,349,342\n(.|\n)*logits: \(2, 5\)",
    "02_hypergradient": r"on paper +(\S+)\nExact +\1\nFiniteDifference +\S+\nFirstOrder +0\.0+\n",
    "03_search_retrain_load": r"kept learner [01](.|\n)*test error \S+ %\nnoise is taken for \d",
    "04_rules_on_relu": r"(radius +\S+: relative error \d+\.\d\d\n){3}",
    "05_own_method": r"normal\n  2 = (.|\n)*reduce\n  2 = ",
    "06_own_search": r"normal\n  2 = (.|\n)*reduce\n  2 = ",
    "07_own_images": r"normal\n  2 = (.|\n)*reduce\n  2 = ",
    "08_compare_seeds": r"sgl × darts(.|\n)*\(n = 2\)(.|\n)*page: comparison.html",
    "09_own_space": r"logits: \(2, 10\)\nparameters +[\d,]+\n(.|\n)*loaded: \(2, 10\)",
}
"""Every example, and a pattern of its output."""
SLOW = ("03_search_retrain_load", "04_rules_on_relu", "08_compare_seeds", "09_own_space")


def test_every_example_is_listed():
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(PRINTS)


def test_examples_are_short():
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 55, path.name


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow) if x in SLOW else x for x in PRINTS]
)
def test_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(PRINTS[name], printed), printed
