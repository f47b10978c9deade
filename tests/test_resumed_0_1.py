"""A run of release 0.1 that goes on, wherever it is killed."""

from __future__ import annotations

import json

import pytest
import torch

from tutelage.multilevel import Report
from tutelage.records import metrics
from tutelage.records.rows import (
    SEARCH,
    EpochRow,
    StepRow,
)
from tutelage.run.job import checkpoint, loop
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.metrics_file import MetricsFile
from tutelage.run.supernet.metrics import Meter, entries, measured


class Toy:
    """Work whose losses are numbers of its step, summed up by a meter."""

    epochs, steps = 3, 3

    def __init__(self):
        self.epoch, self.step, self.meter = 0, 0, Meter()

    @property
    def done(self):
        return self.epoch * self.steps + self.step

    def advance(self):
        loss = torch.tensor(1 / (self.done + 3), dtype=torch.float64)
        terms = {"validate": {"learn": loss}}
        report = Report({"learn": loss}, [{"gate": loss.expand(2, 2)}], terms)
        self.meter.add(*measured(report, None))
        self.step += 1

    def check(self):
        self.meter.check(self.epoch, self.step)

    def check_state(self):
        pass

    def row(self, event):
        values = self.meter.last if event == "step" else self.meter.means
        common = {"epoch": self.epoch, "step": self.step, **entries(values)}
        more = {"arch_weights": [{"normal": [[1.0]]}]}
        return StepRow(**common) if event == "step" else EpochRow(**common, **more)

    def fields(self):
        return {}

    def end_epoch(self):
        row = self.row("epoch")
        self.epoch, self.step = self.epoch + 1, 0
        self.meter.clear()
        return row

    def state(self):
        return {"epoch": self.epoch, "step": self.step, "meter": self.meter.state()}

    def restore(self, state):
        self.epoch, self.step = state["epoch"], state["step"]
        self.meter.restore(state["meter"])


class KilledError(BaseException):
    """What ends a process at once."""


def go(path, resume=False):
    with (RunDirectory.open if resume else RunDirectory.create)(
        path, **({"write": True} if resume else {"settings": {}})
    ) as directory:
        loop.run(Toy(), directory, log_every=1, save_every=0.0, title="toy", resume_with="again")


def killed_before(patch, count, torn):
    """Kill before so many writes are done; a torn row leaves its first half behind."""
    done = [0]

    def counted(whole):
        def write(self, *given):
            if done[0] == count:
                if torn and whole is append:
                    with self.path.open("ab") as file:
                        file.write(given[0][: len(given[0]) // 2])
                raise KilledError
            done[0] += 1
            return whole(self, *given)

        return write

    append = MetricsFile._append
    for owner, name in (
        (MetricsFile, "_append"),
        (MetricsFile, "cut"),
        (RunDirectory, "write_text"),
    ):
        patch.setattr(owner, name, counted(getattr(owner, name)))
    patch.setattr(checkpoint, "save", counted(checkpoint.save))


def as_old_names(place):
    """Name a place of a meter as 0.1 did."""
    kind, *rest = place
    kind = {"matrices": "teaching", "learners": "learner"}.get(kind, kind)
    return "/".join(map(str, (kind, *rest)))


def of_before(path, monkeypatch):
    """Leave a run of 0.1, killed in its second epoch while it wrote rows after a checkpoint.

    Returns:
        Its rows before the checkpoint.
    """
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        stop_after(patch, steps=5)
        go(path)
    text = (path / "metrics.jsonl").read_text()
    head, *rest = text.splitlines(keepends=True)
    assert json.loads(head) == metrics.HEAD
    old = "".join(rest).replace("arch_weights", "mix")
    (path / "metrics.jsonl").write_text(old)
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS):
        content = torch.load(path / name, weights_only=True)
        state = content["state"]
        state["metrics_size"] = len(
            text[len(head) : state["metrics_size"]].replace("arch_weights", "mix")
        )
        meter = state["work"]["meter"]
        state["work"]["meter"] = {
            part: {as_old_names(place): x for place, x in values.items()}
            for part, values in meter.items()
        }
        torch.save({**content, "version": 1}, path / name)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "epoch": 1, "step": 3, "loss": {"learn": 7.0}}\n{"eve')
    return old.encode()


def stop_after(patch, steps):
    advance = Toy.advance

    def until(self):
        if self.done == steps:
            raise KilledError
        advance(self)

    patch.setattr(Toy, "advance", until)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The rows of a run that nothing interrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    go(path)
    return RunDirectory(path).metrics.read(SEARCH)


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("writes", range(20))
def test_a_run_of_0_1_goes_on_wherever_it_is_killed(tmp_path, monkeypatch, whole, writes, torn):
    run = tmp_path / "run"
    old = of_before(run, monkeypatch)
    assert b"format" not in old and b"mix" in old
    with monkeypatch.context() as patch:
        killed_before(patch, writes, torn)
        try:
            go(run, resume=True)
        except KilledError:
            pass
        else:
            assert writes > 16  # all writes of the rest of the run
    go(run, resume=True)
    text = (run / "metrics.jsonl").read_bytes()
    assert RunDirectory(run).metrics.read(SEARCH) == whole
    head = metrics.line_of(metrics.HEAD)
    assert text.startswith(old + head) and text.count(head) == 1


def test_a_run_of_0_1_goes_on_from_its_checkpoint_before(tmp_path, monkeypatch, whole):
    run = tmp_path / "run"
    of_before(run, monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_before(patch, 6, torn=False)  # rows and a checkpoint of the present form
        go(run, resume=True)
    assert torch.load(run / checkpoint.NEWEST, weights_only=True)["version"] == 2
    (run / checkpoint.NEWEST).write_bytes(b"")
    assert torch.load(run / checkpoint.PREVIOUS, weights_only=True)["version"] == 1
    go(run, resume=True)
    assert RunDirectory(run).metrics.read(SEARCH) == whole
