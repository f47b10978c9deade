"""The command line: its help and listings, and its verbs from a search to a page."""

import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from commands import BRIEF
from tutelage.recipes import read_recipe
from tutelage.spaces.published import PUBLISHED

# Help -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("--help", "Neural architecture search"),
        ("list", "sgl-darts-cifar10"),
        ("--version", version("tutelage")),
    ],
)
def test_help_and_listings_answer_without_what_is_slow_to_import(line, shown):
    code = (
        "import sys; from tutelage.cli import main\n"
        f"try: main({line.split()})\n"
        "finally: assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown in done.stdout
    assert done.stderr == ""


def test_alone_it_prints_the_help(tutelage):
    assert tutelage("") == tutelage("--help")
    code, out, _ = tutelage("")
    assert code == 0
    for verb in ("search", "retrain", "report", "describe", "draw", "export", "list"):
        assert re.search(rf"^│ {verb} +[A-Z]", out, re.MULTILINE)


def test_the_help_of_a_search_has_its_parts_flags_in_order(tutelage, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = tutelage("search --method sgl --recipe digits-demo --help")
    assert code == 0
    assert re.findall(r"^╭─ (.*?) ─*╮$", out, re.MULTILINE) == [
        "Run",
        "Parts",
        "Of --method sgl",
        "Of --search darts",
        "Data",
        "Machine, and what it writes",
        "Weights, by SGD",
        "Alphas, by Adam",
        "Evolution, for searches that sample paths",
        "Retraining, for `tutelage retrain`",
    ]
    flags = re.findall(r"^│ (--[\w.-]+)", out, re.MULTILINE)
    assert len(flags) == len(set(flags))
    assert {"--learners", "--peer-weight", "--init", "--data-root", "--weights.lr"} <= set(flags)
    epochs = read_recipe("digits-demo")[0]["epochs"]
    assert "Weight of the peers' labels, λ in stage II. [default: 1.0]" in out
    assert re.search(rf"--epochs INT +Epochs of the search. \[default: {epochs}\]", out)
    assert "__" not in out and "Any" not in out and "None" not in out


def test_the_help_of_every_verb_describes_every_flag(tutelage, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    for verb in ("retrain", "report", "papers", "study", "describe", "draw", "export", "list"):
        code, out, _ = tutelage(f"{verb} --help")
        assert code == 0
        assert re.match(rf"Usage: tutelage {verb} .*\n\n[A-Z].*\.\n", out)
        lines = re.findall(r"^│ [ *]*((?:--|[A-Z]).*?) *│$", out, re.MULTILINE)
        assert lines
        for line in lines:
            assert re.match(r"\S+( --\S+| [A-Z]+(\.\.\.)?)?  +[\dA-Z]\S* \S+", line), line


def test_list_one_kind(tutelage):
    code, out, _ = tutelage("list methods")
    assert code == 0
    assert re.match(r"methods\n  single +No teaching", out)
    assert "cifar10" not in out


# The verbs, for real ----------------------------------------------------------------------------


def test_describe_says_the_papers_number_in_json(tutelage):
    code, out, _ = tutelage("describe DARTS_V2 --channels 36 --cells 20 --classes 10 --json")
    found = json.loads(out)
    assert code == 0
    assert found["params"] == 3_349_342
    assert list(found) == [
        "genotype",
        "size",
        "side",
        "params",
        "params_with_auxiliary",
        "flops",
    ]
    assert list(found["size"]) == ["channels", "cells", "classes", "image_channels", "stem"]
    assert found["genotype"] == PUBLISHED["DARTS_V2"].to_dict()


def test_from_a_search_to_a_page(run, tutelage, refused, here):
    """Retrain with the default cutout, again, report, draw, and refuse an export of nothing."""
    code, out, error = tutelage(f"retrain run {BRIEF}")
    assert (code, error) == (0, "")
    assert re.search(r"test error \d+\.\d+ % on 599 images", out)
    settings = (here / "run" / "retrain" / "run.toml").read_text()
    assert settings.count("cutout = 4\n") == 2  # half of the digits' side, for data and retrain
    for again in ("run", "run/retrain"):  # a retraining's own folder names it too
        code, out, _ = tutelage(f"retrain {again} {BRIEF}")
        assert (code, out.split(":")[0]) == (0, "run/retrain is finished")
    refused(f"retrain run {BRIEF} --cutout 3", r"retrain.cutout = 3 \(was 4\)")
    code, out, _ = tutelage("report run")
    assert (code, out) == (0, "Report: run/report.html\n")
    assert "test error" in (here / "run" / "report.html").read_text()
    code, out, _ = tutelage("draw run --out cells.svg")
    assert (code, out) == (0, "Drawing: cells.svg\n")
    assert "<svg" in (here / "cells.svg").read_text()
    code, out, _ = tutelage("describe run --channels 4 --cells 3")
    assert code == 0 and "normal\n" in out


def test_retrain_a_published_genotype(tutelage, here):
    code, _, error = tutelage(f"retrain DARTS_V2 --data digits {BRIEF} --out net --cutout 0")
    assert (code, error) == (0, "")
    assert json.loads((here / "net" / "result.json").read_text())["test_images"] == 599
    assert "cutout = 0\n" in (here / "net" / "run.toml").read_text()


def test_the_program_itself_ends_with_a_sentence():
    """Through the installed entry, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", "retrain", "DARTS_V3", "--out", "x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"tutelage: unknown genotype [^\n]+\n", done.stderr)
