import errno
import io
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tutelage.config import Retrain, Run
from tutelage.data.splits import save_split
from tutelage.files import write_bytes
from tutelage.records.rows import SEARCH, StepRow
from tutelage.run.job import checkpoint
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.environment import git_commit
from tutelage.run.job.progress import Progress
from tutelage.run.job.settings import changed_settings, plain
from tutelage.run.job.signals import ENDING, Interrupts
from tutelage.run.machine.device import gpu_memory, reset_gpu_memory


@pytest.fixture
def directory(tmp_path):
    with RunDirectory.create(tmp_path / "run", {"epochs": 3}) as created:
        yield created


@pytest.fixture
def file_size_limit():
    """Let no file grow beyond so many bytes: the system's own refusal, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_settings_survive_toml(tmp_path):
    settings = plain(Run(method={"name": "sgl", "learners": 2}, epochs=7))
    with RunDirectory.create(tmp_path / "run", settings) as directory:
        assert directory.settings() == settings
    assert "limit_batches" not in settings  # None has no TOML form
    assert settings["method"] == {"name": "sgl", "learners": 2}


def test_paths_are_text_in_settings(tmp_path):
    settings = plain(replace(Run(), data=replace(Run().data, root=Path("some/where"))))
    assert settings["data"]["root"] == "some/where"


def test_create_refuses_a_run_and_a_foreign_folder(tmp_path):
    RunDirectory.create(tmp_path / "run", {}).close()
    with pytest.raises(ValueError, match=r"holds a run: resume with --resume, or .* another --out"):
        RunDirectory.create(tmp_path / "run", {})
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("...")
    with pytest.raises(ValueError, match="not empty and no run"):
        RunDirectory.create(tmp_path / "thesis", {})
    with pytest.raises(ValueError, match="is a file"):
        RunDirectory.create(tmp_path / "thesis" / "chapter.tex", {})


def test_create_takes_an_empty_folder_and_what_a_killed_creation_left(tmp_path):
    (tmp_path / ".run.toml.partial").write_text("half")
    (tmp_path / ".lock").write_text("1")
    with RunDirectory.create(tmp_path, {"seed": 1}) as directory:
        assert directory.settings() == {"seed": 1}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "run.toml"]


def test_open_says_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="is no run: it has no run"):
        RunDirectory.open(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        RunDirectory.open(tmp_path / "nothing")


def test_damaged_settings_are_named(directory):
    (directory.path / "run.toml").write_bytes(b"epochs = [3\xff")
    with pytest.raises(ValueError, match=r"run.toml is damaged"):
        directory.settings()


def test_damaged_sessions_are_put_aside(directory):
    (directory.path / "environment.json").write_bytes(b"{3\xff")
    directory.begin_session(1, 2)
    assert (directory.path / "environment.damaged.json").read_bytes() == b"{3\xff"
    [session] = directory.read_json("environment.json")["sessions"]
    assert (session["from_epoch"], session["from_step"]) == (1, 2)


def test_changed_settings_are_named_with_both_values():
    before = plain(Run())
    now = plain(replace(Run(), epochs=60, limit_batches=2, weights=replace(Run().weights, lr=0.1)))
    assert changed_settings(before, before) == []
    assert sorted(changed_settings(before, now)) == [
        "epochs = 60 (was 50)",
        "limit_batches = 2 (was not set)",
        "weights.lr = 0.1 (was 0.025)",
    ]
    assert changed_settings(now, before)[0] == "weights.lr = 0.025 (was 0.1)"


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path):
    with RunDirectory.create(tmp_path / "run", {}):
        with pytest.raises(ValueError, match=f"being written by process {os.getpid()}"):
            RunDirectory.open(tmp_path / "run", write=True)
        RunDirectory.open(tmp_path / "run")
    RunDirectory.open(tmp_path / "run", write=True).close()


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
    code = f"""
import time
from pathlib import Path
from tutelage.run.job.directory import RunDirectory
directory = RunDirectory.create(Path({str(tmp_path / "run")!r}), {{}})
print("locked", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(ValueError, match=f"process {process.pid}"):
            RunDirectory.open(tmp_path / "run", write=True)
        process.kill()
    RunDirectory.open(tmp_path / "run", write=True).close()


def test_the_directory_needs_no_torch():
    modules = "tutelage.run.job.directory, tutelage.run.job.progress"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_rows_are_cut_to_the_size_that_a_checkpoint_recorded(directory):
    directory.metrics.append(StepRow(epoch=1, step=1, loss={"learn": 0.1}))
    size = directory.metrics.size()
    directory.metrics.append(StepRow(epoch=1, step=2, loss={"learn": 0.2}))
    whole = (directory.path / "metrics.jsonl").read_bytes()
    directory.metrics.cut(size)
    assert [row.step for row in directory.metrics.read(SEARCH)] == [1]
    directory.metrics.append(StepRow(epoch=1, step=2, loss={"learn": 0.2}))
    assert (directory.path / "metrics.jsonl").read_bytes() == whole
    with pytest.raises(ValueError, match="rows were taken out"):
        directory.metrics.cut(len(whole) + 1)


def test_rows_skip_a_half_written_one_and_name_a_damaged_one(directory):
    directory.metrics.append(StepRow(step=1))
    with (directory.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": ')
    assert directory.metrics.read(SEARCH) == [StepRow(step=1)]
    with (directory.path / "metrics.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is damaged"):
        directory.metrics.read(SEARCH)


def test_numbers_that_json_lacks_are_text_that_float_reads(directory):
    norms = {"direct": -math.inf, "W": 1.5}
    directory.metrics.append(StepRow(loss={"learn": math.nan}, gradient={"validate": norms}))
    text = (directory.path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["gradient"]["validate"] == {
        "direct": "-Infinity",
        "W": 1.5,
    }
    assert float(json.loads(text)["gradient"]["validate"]["direct"]) == -math.inf
    (row,) = directory.metrics.read(SEARCH)
    assert row.gradient["validate"] == norms and math.isnan(row.loss["learn"])


@pytest.mark.parametrize("when", ["fsync", "limit"])
def test_a_full_disk_leaves_the_old_file(directory, file_size_limit, monkeypatch, when):
    directory.write_json("genotype.json", {"old": True})
    if when == "fsync":

        def refuse(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", refuse)
    else:
        file_size_limit(1000)
    with pytest.raises(ValueError, match="everything written before is safe") as caught:
        directory.write_json("genotype.json", {"new": "x" * 5000})
    file_size_limit(resource.RLIM_INFINITY)
    assert "\n" not in str(caught.value)
    assert directory.read_json("genotype.json") == {"old": True}
    assert not list(directory.path.glob(".*.partial"))


def test_a_full_disk_leaves_whole_rows(directory, file_size_limit):
    directory.metrics.append(StepRow(step=1))
    file_size_limit(directory.metrics.size() + 5)
    with pytest.raises(ValueError, match="its rows and the last checkpoint are safe"):
        directory.metrics.append(StepRow(step=2))
    file_size_limit(resource.RLIM_INFINITY)
    directory.metrics.append(StepRow(step=2))
    assert [row.step for row in directory.metrics.read(SEARCH)] == [1, 2]


def test_other_file_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "nowhere" / "file", b"")


def test_sessions_add_up(directory):
    directory.begin_session(0, 0)
    directory.save_session()
    with RunDirectory(directory.path) as again:
        again.begin_session(2, 17, gpu="some GPU")
        time.sleep(0.2)
        again.save_session()
    first, second = json.loads((directory.path / "environment.json").read_text())["sessions"]
    assert (first["from_epoch"], first["from_step"]) == (0, 0)
    assert (second["from_epoch"], second["from_step"]) == (2, 17)
    assert second["seconds"] >= 0.2
    assert torch.__version__.startswith(second["versions"]["torch"].split("+")[0])
    assert second["hardware"]["gpu"] == "some GPU"
    assert second["started"].endswith("+00:00")


def test_the_largest_memory_of_a_gpu_is_kept_of_each_session(directory, monkeypatch):
    """As on a machine with two GPUs, of which the second is used."""
    peaks = {0: 0, 1: 0}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda index: peaks.update({index: 0})
    )
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    reset_gpu_memory()
    directory.begin_session(0, 0, peak=gpu_memory)  # on a CPU
    directory.save_session()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    directory.begin_session(1, 0, peak=gpu_memory)
    peaks[1] = 3 * 2**30
    directory.save_session()
    reset_gpu_memory()  # a ranking has begun a session of its own
    assert gpu_memory() == 0
    peaks[1] = 2**30
    directory.save_session()
    directory.begin_session(2, 0)
    found = json.loads((directory.path / "environment.json").read_text())["sessions"]
    assert [each["gpu_memory"] for each in found] == [None, 3 * 2**30, None]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_memory_of_a_true_gpu_is_kept(directory):
    torch.empty(2**22, device="cuda")  # before the measurement, and released
    reset_gpu_memory()
    before = gpu_memory()
    directory.begin_session(0, 0, peak=gpu_memory)
    torch.empty(2**20, device="cuda")
    directory.save_session()
    (found,) = json.loads((directory.path / "environment.json").read_text())["sessions"]
    assert found["gpu_memory"] == before + 2**22  # bytes: float32


def state(step):
    return {"step": step, "weights": {"a": torch.full((3,), float(step))}, "rng": [1, None, "x"]}


def test_a_checkpoint_comes_back_and_the_one_before_is_kept(tmp_path):
    assert not checkpoint.exists(tmp_path)
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    assert checkpoint.exists(tmp_path)
    loaded = checkpoint.load(tmp_path)
    assert loaded["step"] == 2
    assert loaded["rng"] == [1, None, "x"]
    assert torch.equal(loaded["weights"]["a"], torch.full((3,), 2.0))
    (tmp_path / "checkpoint.pt").unlink()
    assert checkpoint.load(tmp_path)["step"] == 1


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_falls_back(tmp_path, capsys, keep):
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    newest = tmp_path / "checkpoint.pt"
    content = newest.read_bytes()
    newest.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    assert checkpoint.load(tmp_path)["step"] == 1
    assert (
        "truncated or no checkpoint: resuming from checkpoint.previous" in capsys.readouterr().out
    )


def test_checkpoints_that_cannot_be_read_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"has no checkpoint\.pt"):
        checkpoint.load(tmp_path)
    newest = tmp_path / "checkpoint.pt"
    newest.write_bytes(b"a letter to my aunt")
    with pytest.raises(ValueError, match="truncated or no checkpoint, and there is no earlier"):
        checkpoint.load(tmp_path)
    torch.save({"state_dict": torch.ones(2)}, newest)
    with pytest.raises(ValueError, match="is not a checkpoint of this package"):
        checkpoint.load(tmp_path)
    with zipfile.ZipFile(newest, "w") as archive:
        archive.writestr("notes.txt", "not ours")
    with pytest.raises(ValueError, match="truncated or no checkpoint"):
        checkpoint.load(tmp_path)
    torch.save({"format": checkpoint.FORMAT, "version": 99, "state": {}}, newest)
    with pytest.raises(ValueError, match="version 99 and this release reads up to 2"):
        checkpoint.load(tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path):
    torch.save({"format": checkpoint.FORMAT, "version": 1, "state": Retrain()}, tmp_path / "c.pt")
    (tmp_path / "c.pt").rename(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="no checkpoint"):
        checkpoint.load(tmp_path)


def test_a_full_disk_leaves_the_checkpoints(tmp_path, file_size_limit):
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    file_size_limit(1000)
    with pytest.raises(ValueError, match="everything written before is safe"):
        checkpoint.save(tmp_path, state(3))
    file_size_limit(resource.RLIM_INFINITY)
    assert checkpoint.load(tmp_path)["step"] == 2
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_a_link_to_nowhere_is_named(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"run is a link to .*gone, which does not exist: give"):
        RunDirectory.create(tmp_path / "run", {})


def test_an_emptied_run_toml_is_told_in_a_sentence(tmp_path):
    RunDirectory.create(tmp_path / "run", {"epochs": 3}).close()
    (tmp_path / "run" / "run.toml").write_text("")
    with pytest.raises(ValueError, match=r"run\.toml is empty: the run's settings are lost"):
        RunDirectory.resume(tmp_path / "run", {"epochs": 3})


def test_a_full_disk_while_a_split_is_written_is_a_sentence(tmp_path, file_size_limit):
    file_size_limit(100)
    with pytest.raises(ValueError, match=r"no room for .*split\.npz"):
        save_split(tmp_path / "split.npz", torch.arange(50), torch.arange(50, 100))
    file_size_limit(resource.RLIM_INFINITY)
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_signal_stays_ignored():
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ENDING)
def test_signals_wait_for_the_step_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert interrupts.received is None
        os.kill(os.getpid(), number)
        assert interrupts.received == number.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_plain_progress_prints_at_most_one_line_in_ten_seconds():
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, soft_wrap=True, force_terminal=False)
    with Progress(1000, 400, "search", console=console, clock=clock) as progress:
        for done in range(401, 431):
            clock.now += 1
            progress.step(done, {"epoch": "3/50", "loss": "0.7 [1]"})
        progress.note("epoch 3: accuracy 0.5")
    lines = out.getvalue().splitlines()
    assert lines[0] == "search"
    assert lines[1] == "step 401/1000 | 9 min 59 s left | epoch 3/50 | loss 0.7 [1]"
    assert [line.split(" |")[0] for line in lines[1:4]] == [
        "step 401/1000",
        "step 411/1000",
        "step 421/1000",
    ]
    assert lines[4] == "epoch 3: accuracy 0.5"
    assert lines[5].startswith("step 430/1000 | 9 min 30 s left")
    assert len(lines) == 6


def test_live_progress_shows_every_value_and_the_time_left():
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with Progress(10, 0, "search sgl", console=console, clock=clock) as progress:
        clock.now = 30.0
        progress.step(5, {"W1": "loss 0.51", "normal": "sep_conv_3x3 0"})
        progress.note("a note")
    shown = out.getvalue()
    for text in (
        "search sgl",
        "50.0 %",
        "30 s left",
        "W1",
        "loss 0.51",
        "sep_conv_3x3 0",
        "a note",
    ):
        assert text in shown


def test_a_changed_byte_in_a_checkpoint_is_noticed(tmp_path, capsys):
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, {"weights": torch.arange(1000.0)})
    content = (tmp_path / "checkpoint.pt").read_bytes()
    at = content.index(torch.tensor([500.0, 501.0]).numpy().tobytes())
    (tmp_path / "checkpoint.pt").write_bytes(content[:at] + b"!" + content[at + 1 :])
    assert checkpoint.load(tmp_path)["step"] == 1
    assert "resuming from checkpoint.previous.pt" in capsys.readouterr().out


def test_going_on_refuses_changed_settings_and_lets_go_of_the_lock(tmp_path):
    RunDirectory.create(tmp_path / "run", {"epochs": 3, "data": {"root": "here"}}).close()
    with pytest.raises(
        ValueError, match=r"begun with other settings: epochs = 4 \(was 3\); resume"
    ):
        RunDirectory.resume(tmp_path / "run", {"epochs": 4})
    moved = {"epochs": 3, "data": {"root": "there"}, "device": "cuda"}  # where, not what
    with RunDirectory.resume(tmp_path / "run", moved) as directory:
        assert directory.settings()["data"] == {"root": "here"}


def test_a_checkout_gives_its_commit():
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (root / ".git").exists():
        assert git_commit() is None
    else:
        assert git_commit().removesuffix("-dirty") == done.stdout.strip()
