"""Long runs, large folders and many runs: reading takes time that grows with them, not faster."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from tutelage.records.metrics import BEGINNING, HEAD, line_of, version_of
from tutelage.records.rows import EpochRow, LearnerScores, StepRow
from tutelage.report.page import write_report
from tutelage.report.runs.read import MOST_STEPS, read_run
from written_runs import write_search

exhaustive = [pytest.mark.slow, pytest.mark.exhaustive]


def steps(run, count, epochs):
    """Replace a run's rows by many steps, in so many epochs."""
    scores = [LearnerScores(train_loss=1.5, valid_loss=2.5)] * 2
    with (run / "metrics.jsonl").open("wb") as file:
        file.write(line_of(HEAD))
        for k in range(count):
            epoch, step = divmod(k, count // epochs)
            row = StepRow(epoch=epoch, step=step + 1, loss={"W": 1.0}, learners=scores)
            file.write(line_of(row))
            if step + 1 == count // epochs:
                ended = EpochRow(epoch=epoch, step=step + 1, learners=scores)
                file.write(line_of(ended))


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_report_keeps_a_bounded_number_of_steps(tmp_path, epochs, monkeypatch):
    monkeypatch.setattr("tutelage.report.runs.read.MOST_STEPS", 100)
    run, count = write_search(tmp_path / "run", epochs=1), 1000
    steps(run, count, epochs)
    files = read_run(run).search
    kept = files.of("step")
    assert 50 <= len(kept) <= 100
    assert not files.notes and files.epochs_done == epochs
    places = [row.epoch * (count // epochs) + row.step - 1 for row in kept]
    assert places == list(range(0, count, places[1]))  # evenly, from the first to the last
    assert files.rows[-1].event == "epoch"  # in the order of the file


@pytest.mark.slow
@pytest.mark.exhaustive
def test_reading_100_000_rows_takes_bounded_memory(tmp_path):
    run = write_search(tmp_path / "run", epochs=1)
    peaks = []
    for count in (2 * MOST_STEPS, 100_000):
        steps(run, count, 4)
        tracemalloc.start()
        try:
            read_run(run)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_report_of_100_000_rows_takes_seconds(tmp_path):
    run = write_search(tmp_path / "run", epochs=1)
    steps(run, 100_000, 4)
    began = time.process_time()
    write_report([run], tmp_path / "page.html")
    assert time.process_time() - began < 60
    assert (tmp_path / "page.html").stat().st_size < 2**22


def test_the_version_at_the_end_is_found_without_reading_all_rows():
    row = line_of(StepRow(step=1))
    later = BEGINNING + b' "format": "tutelage metrics", "version": 1}\n'
    assert version_of(line_of(HEAD) + row * 3) == 2
    assert version_of(line_of(HEAD) + row + later + row) == 1
    assert version_of(row * 3) == version_of(b"") == 1
    assert version_of(b" " + line_of(HEAD)) == 1  # not at the beginning of a line


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=exhaustive)])
def test_foreign_files_in_a_run_are_not_opened(tmp_path, count, monkeypatch):
    run = write_search(tmp_path / "run", epochs=2)
    alone = read_run(run)
    for k in range(count):
        (run / f"{'member-' if k % 2 else 'note '}{k}.txt").write_bytes(b"\xff")
    opened = []
    reader = type(run).open

    def opening(self, *given, **named):
        opened.append(self.name)
        return reader(self, *given, **named)

    monkeypatch.setattr(type(run), "open", opening)
    began = time.process_time()
    found = read_run(run)
    assert time.process_time() - began < 20
    assert found.search == alone.search
    assert sorted(opened) == ["environment.json", "genotype.json", "metrics.jsonl", "run.toml"]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_comparison_of_200_runs_grows_with_their_number(tmp_path):
    runs = [
        write_search(tmp_path / str(k), seed=k % 2, batch_size=256 + k // 2, epochs=2)
        for k in range(200)
    ]
    spent = []
    for count in (25, 200):
        began = time.process_time()
        write_report(runs[:count], tmp_path / "page.html")
        spent.append(time.process_time() - began)
    assert spent[1] < 16 * spent[0]  # eight times as many; their square would be 64
    assert (tmp_path / "page.html").read_text().count("<tr>") == 1 + 100  # two seeds a row
