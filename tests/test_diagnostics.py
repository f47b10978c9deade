"""What a search logs of itself after every epoch, and how it stops early."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from test_search import KilledError, killed_at, run_toml, same_runs
from tutelage.report.runs.read import read_run
from tutelage.report.sections.monitor import collapse
from tutelage.run.monitor import measured as monitors
from tutelage.run.monitor.early_stopping import stop_now
from tutelage.run.search import search_run
from tutelage.spaces.genotype import Genotype
from written_runs import read_rows


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--space nasbench201 --stop skips", "'nasbench201' has none, but cell; give --stop eigen"),
        ("--space nasbench-macro --stop skips", "'nasbench-macro' has none, but chain"),
        ("--search random --stop skips", "stop = 'skips': it measures alphas, and a random search"),
        ("--search random --stop eigenvalue --eigenvalue-every 1", "eigenvalue_every = 1: it meas"),
        ("--search random --gap-every 2", "gap_every = 2: it measures alphas, and a random search"),
        ("--search random --sharpness-every 2", "sharpness_every = 2: .*nothing .*; leave it out"),
        (
            "--search random --ranked 9 --table x",
            "ranked = 9: only searches that sample paths rank",
        ),
        ("--search single-path --gap-every 2", "gap_every = 2: .*paths and has no alphas"),
    ],
)
def test_diagnostics_that_would_have_no_effect_are_refused(line, sentence, refused):
    refused(f"search {line} --out run", sentence)


def rows(path):
    return read_rows(path)


def epochs(path):
    return [row for row in rows(path) if row["event"] == "epoch"]


@pytest.fixture
def skipping():
    """In S2 an edge is a skip or a convolution, so nearly every cell has two skips."""
    return run_toml(space={"name": "s2"}, stop="skips", stop_from=1, epochs=5, save_every=0.0)


def test_a_search_stops_at_skips_and_keeps_what_the_rule_names(skipping, tmp_path):
    found = search_run(skipping, tmp_path / "run")
    seen = epochs(tmp_path / "run")
    assert [row["epoch"] for row in seen] == [0, 1]
    assert "stopped" not in seen[0] and seen[1]["stopped"]["epoch"] == 1
    assert seen[1]["collapse"][0]["skips"]["normal"] >= 2
    assert found.genotype == Genotype.from_dict(seen[1]["genotype"][0])
    again = search_run(skipping, tmp_path / "run", resume=True)
    assert again.genotype == found.genotype and epochs(tmp_path / "run") == seen


def test_stopping_early_survives_a_kill(skipping, tmp_path, monkeypatch):
    search_run(skipping, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, 3)  # in the epoch after which it stops
        search_run(skipping, tmp_path / "killed")
    search_run(skipping, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")


def test_the_eigenvalue_is_measured_every_so_many_epochs(tmp_path):
    search_run(run_toml(space={"name": "s4"}, eigenvalue_every=2, epochs=2), tmp_path / "run")
    first, second = (row["collapse"][0] for row in epochs(tmp_path / "run"))
    assert first["eigenvalue"] is None and math.isfinite(second["eigenvalue"])
    for measured in (first, second):
        assert measured["skips"] == {"normal": 0, "reduce": 0}  # S4 has none
        assert all(0 < x <= 1 for x in measured["entropy"].values())
        assert all(-1 <= x <= 1 for x in measured["alignment"].values())


def test_a_rule_stops_at_the_first_learner_that_it_stops():
    calm, steep = [1.0] * 20, [1.0] * 14 + [4.0] * 6
    history = [[{"eigenvalue": a}, {"eigenvalue": b}] for a, b in zip(calm, steep, strict=True)]
    assert stop_now(history, "eigenvalue", 10).epoch == 12
    assert stop_now(history, "eigenvalue", 13) is None
    assert stop_now([each[:1] for each in history], "eigenvalue", 10) is None
    assert stop_now(history, "never", 10) is None
    assert stop_now(history, "eigenvalue", 10, since=14) is None, (
        "those before are another supernet's"
    )


def test_stopping_by_an_eigenvalue_that_is_never_measured_is_refused():
    with pytest.raises(ValueError, match="give --eigenvalue-every 1"):
        run_toml(stop="eigenvalue")


def test_probing_changes_nothing_of_the_search(tmp_path):
    """The probes draw nothing and move nothing: weights and alphas are those of a run without."""
    settings = run_toml(space={"name": "s4"})
    search_run(settings, tmp_path / "plain")
    search_run(replace(settings, eigenvalue_every=1), tmp_path / "probed")
    one, two = rows(tmp_path / "plain"), rows(tmp_path / "probed")
    assert [row.get("loss") for row in one] == [row.get("loss") for row in two]
    assert torch.tensor(one[-2]["arch_weights"][0]["normal"]).equal(
        torch.tensor(two[-2]["arch_weights"][0]["normal"])
    )


def test_a_monitor_is_a_function_and_a_line(tmp_path, monkeypatch):
    """What a new monitor measures is logged for every learner, and plotted under its name."""

    def strongest(subject):
        operations = subject.arch.operations
        return {"strongest": {group: float(w.max()) for group, w in operations.items()}}

    added = (*monitors.MONITORS, monitors.Monitor(("strongest",), strongest))
    monkeypatch.setattr(monitors, "MONITORS", added)
    search_run(run_toml(epochs=2), tmp_path / "run")
    for row in epochs(tmp_path / "run"):
        (found,) = row["collapse"]
        assert {*found["strongest"]} == {"normal", "reduce"}
        assert list(found)[:3] == ["skips", "entropy", "alignment"]
    (plotted,) = [
        x for x in collapse(read_run(tmp_path / "run").search) if x.caption == "strongest"
    ]
    assert plotted.caption == "strongest"


def test_an_entry_that_no_line_names_is_refused(tmp_path, monkeypatch):
    wrong = monitors.Monitor(("strongest",), lambda subject: {"largest": 1.0})
    monkeypatch.setattr(monitors, "MONITORS", (*monitors.MONITORS, wrong))
    with pytest.raises(ValueError, match=r"entry 'largest', and its line .* has only strongest"):
        search_run(run_toml(epochs=1), tmp_path / "run")


@pytest.mark.parametrize("monitor", monitors.MONITORS, ids=lambda monitor: monitor.names[0])
def test_a_search_with_a_monitor_is_the_search_without_it(monitor, tmp_path, monkeypatch):
    """What it measures is in the rows as numbers, and it moves and samples nothing of the search.

    A monitor that is added to `MONITORS` is tested here without another line.
    """

    def watched(subject):
        before = torch.get_rng_state()
        found = monitor.measure(subject)
        assert torch.equal(before, torch.get_rng_state()), "torch.random.fork_rng() is missing"
        return found

    read = monitors.Monitor(("skips", "eigenvalue"), lambda subject: {"skips": {}})  # by warnings
    for name, more in (("without", ()), ("with", (monitor._replace(measure=watched, every=""),))):
        monkeypatch.setattr(monitors, "MONITORS", (read, *more))
        search_run(run_toml(epochs=2, space={"name": "s4"}), tmp_path / name)  # s4 has noise
    for one, two in zip(epochs(tmp_path / "without"), epochs(tmp_path / "with"), strict=True):
        for name in ("loss", "gradient", "arch_weights", "genotype", "learners"):
            assert one[name] == two[name]
        for name in monitor.names:
            found = two["collapse"][0][name]
            values = found.values() if isinstance(found, dict) else [found]
            assert values and all(math.isfinite(value) for value in values)
