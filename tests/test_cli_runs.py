"""Run directories under the command line: nothing overwritten, nothing lost, resumed to the bit."""

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from commands import BRIEF, SMALL, TINY, content
from tutelage.run.job import checkpoint
from tutelage.run.job.signals import ENDING
from tutelage.run.strategies import assemble
from tutelage.run.supernet.state import Searching
from tutelage.trees import leaves


@pytest.fixture(params=ENDING, ids=lambda number: number.name)
def stopped(here, tutelage, monkeypatch, request):
    """A search that a signal stopped at its third step, in the second epoch."""
    advance, steps = Searching.advance, itertools.count(1)

    def pressed(self):
        if next(steps) == 3:
            os.kill(os.getpid(), request.param)
        advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Searching, "advance", pressed)
        code, _, error = tutelage(f"search {TINY} --out run")
    assert code == 128 + request.param
    assert (
        f"{request.param.name} came: saved at epoch 1, step 1; resume with tutelage search "
        "--resume run" in error
    )
    return here / "run"


def test_what_is_already_there_is_not_overwritten(refused, run, here):
    (here / "other").mkdir()
    (here / "other" / "thesis.tex").write_text("x")
    before = content(here)
    refused(f"search {BRIEF} --out run", "run holds a run: resume with --resume, or give another")
    refused(f"search {BRIEF} --out other", "other is not empty and no run to --resume")
    refused(f"search {BRIEF} --out other/thesis.tex", "thesis.tex is a file: give another --out")
    refused(f"search {BRIEF} --out other/thesis.tex/run", "other/thesis.tex/run: Not a directory")
    refused(f"retrain DARTS_V2 {BRIEF} --out other", "other is not empty and no run to --resume")
    refused(
        "search --resume run --out other", "--out other with --resume run: a run resumes in its"
    )
    assert content(here) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="a folder is never unwritable for root")
def test_a_folder_without_permission(refused, here):
    (here / "locked").mkdir(mode=0o500)
    refused(f"search {BRIEF} --out locked/run", "locked/run: Permission denied")


def test_a_refused_write_names_the_file(refused, here, monkeypatch):
    def denied(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", denied)
    refused(f"search {BRIEF} --out run", "run: Permission denied", code=1)


def test_changed_settings_are_named_on_resume(refused, run, here):
    before = content(here)
    line = "search --resume run --epochs 3 --weights.lr 0.5"
    refused(line, r"run was begun with other settings: .*lr = 0\.5 \(was 0\.025\)")
    refused(line, r"epochs = 3 \(was 2\)")
    refused("search --resume run --method sgl", r"method.name = sgl \(was single\)")
    assert content(here) == before


def test_a_damaged_run_toml_is_named(refused, run, here):
    os.truncate(here / "run" / "run.toml", 40)
    before = content(here)
    refused("search --resume run", r"run/run\.toml is damaged")
    refused("retrain run", r"run/run\.toml is damaged")
    assert content(here) == before


@pytest.mark.parametrize("deep", ["a." * 5000 + "a = 1", "a = " + "[" * 5000])
def test_settings_that_are_nested_too_deep_are_damaged(refused, tutelage, run, here, deep):
    with (here / "run" / "run.toml").open("a") as file:
        file.write(f"[deep]\n{deep}\n")
    refused("search --resume run", r"run/run\.toml is damaged: it is nested more than 64 levels")
    code, _, _ = tutelage("report run")
    assert code == 0
    (here / "own.toml").write_text(deep)
    refused("search --recipe own.toml --out other", r"recipe own\.toml is not TOML: it is nested")


def test_a_search_ends_in_spite_of_a_damaged_row(run, here, tutelage):
    (here / "run" / "genotype.json").unlink()
    rows = here / "run" / "metrics.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b'"epoch": 0', b'"epoch": x'))
    code, _, _ = tutelage("search --resume run")
    assert code == 0 and (here / "run" / "genotype.json").exists()


def test_ctrl_c_saves_and_resuming_ends_as_if_never_stopped(stopped, finished, tutelage):
    code, out, error = tutelage("search --resume run")
    assert (code, error) == (0, "")
    assert "Found: run/genotype.json" in out
    ended, expected = content(stopped), content(finished)
    for name in ("metrics.jsonl", "genotype.json"):
        assert ended[name] == expected[name]


def test_ctrl_c_before_the_first_step(refused, here, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(assemble, "read", interrupted)
    refused("search --out run", "^tutelage: interrupted$", code=130)
    assert not (here / "run").exists()


def test_ctrl_c_again_while_the_process_ends():
    """Python's own handler would print a traceback in an atexit callback."""
    code = (
        "import atexit, os, signal, sys; from tutelage.cli import main; "
        "atexit.register(os.kill, os.getpid(), signal.SIGINT); "
        "sys.argv = ['tutelage', 'list', 'searches']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and done.stderr == ""
    assert "darts" in done.stdout


def test_a_run_that_has_not_ended_is_not_retrained(stopped, refused):
    before = content(stopped)
    refused("retrain run", r"run has no genotype\.json: a search writes it when it ends")
    refused("describe run", r"run has no genotype\.json")
    assert content(stopped) == before


@pytest.mark.parametrize("kept", [0, 5000])
def test_truncated_checkpoints(stopped, refused, tutelage, kept):
    os.truncate(stopped / checkpoint.NEWEST, kept)
    code, out, _ = tutelage("search --resume run")  # from the one before
    assert code == 0
    assert f"{checkpoint.NEWEST} is truncated or no checkpoint: resuming from" in out
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS):
        os.truncate(stopped / name, kept)
    before = content(stopped)
    refused("search --resume run", "checkpoint.pt is truncated .*no earlier one to resume from")
    assert content(stopped) == before


def test_a_foreign_checkpoint(stopped, refused, tutelage):
    """Of a torch.save of something else, and of a run of another size."""
    (stopped / checkpoint.PREVIOUS).unlink()
    torch.save({"model": torch.zeros(3)}, stopped / checkpoint.NEWEST)
    before = content(stopped)
    refused("search --resume run", "checkpoint.pt is not a checkpoint of this package")
    assert content(stopped) == before
    wider = BRIEF.replace("--channels 2", "--channels 3")
    assert tutelage(f"search {wider} --out other")[0] == 0
    shutil.copy("other/checkpoint.pt", stopped / checkpoint.NEWEST)
    before = content(stopped)
    refused("search --resume run", r"the checkpoint in run is another run's: .*channels = 2")
    assert content(stopped) == before


def test_a_full_disk(stopped, refused, tutelage):
    """A limit on the size of files stands in for a full disk: the writes fail half-way."""
    before = content(stopped)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (stopped / checkpoint.NEWEST).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        refused("search --resume run", r"no room for run/checkpoint.*: everything written .*safe")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    after = content(stopped)
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS, "run.toml", "split.npz"):
        assert after[name] == before[name]
    assert after["metrics.jsonl"].startswith(before["metrics.jsonl"])
    assert not any(name.endswith(".partial") for name in after)
    assert tutelage("search --resume run")[0] == 0


@pytest.mark.parametrize(
    ("line", "sentence", "state"),
    [
        # in first order no virtual step meets the numbers before the real one
        (
            f"search {SMALL} --epochs 1 --via first-order --weights.lr 1e30 --weights.clip 0",
            r"loss of level '\w+' is (nan|inf)",
            "variables",
        ),
        (
            f"retrain DARTS_V2 {SMALL} --epochs 1 --lr 1e30 --clip 0",
            "the loss is (nan|inf)",
            "network",
        ),
    ],
    ids=["search", "retrain"],
)
def test_a_loss_that_is_no_number(line, sentence, state, refused, here):
    line += " --limit-batches 9 --save-every 0 --log-every 1 --out run"
    refused(line, rf"{sentence}.* at epoch 0, step \d")
    rows = (here / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in rows and "Infinity" not in rows
    stored = checkpoint.load(here / "run")["work"]  # the last good one is kept
    assert stored["step"] == json.loads(rows.splitlines()[-1])["step"] >= 1
    assert all(bool(torch.isfinite(x).all()) for x in leaves(stored[state]))
