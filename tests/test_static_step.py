"""Steps as programs: equal to eager ones to the bit, and chosen by what a step does."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields, replace

import pytest
import torch

from test_contracts import CHANNELS, SMALL
from test_search import KilledError, killed_at, same_runs
from tutelage.config import Run
from tutelage.data.streams import halves_of
from tutelage.parts import PARTS, from_table, make_part
from tutelage.run.search import search_run
from tutelage.run.step.recorders import Again, chosen, recorder_of
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet import state
from tutelage.run.supernet.state import Searching
from tutelage.trees import leaves

CPU = torch.device("cpu")
RULES = ("exact", "finite-difference", "first-order")
RELAXED = [
    name for name in PARTS["search"] if make_part("search", {"name": name}).kind == "relaxed"
]
METHODS = [name for name in PARTS["method"] if name not in ("ennas", "dna")]
"""Those that train alphas; the two others sample paths."""
READING = {
    "kdcl": "it reads a value back",
    "cream": "it reads a value back",
}
"""What stays eager on every device, and why."""


def settings_of(method="single", search="darts", **more):
    """A search small enough for a test, in NAS-Bench-201's space if the search can be there.

    Settings that are none of a run are the method's.
    """
    own = {name: more.pop(name) for name in more.keys() - {each.name for each in fields(Run)}}
    cells = {"space": {"name": "nasbench201"}, "cells": 1}
    if search in ("pdarts", "prdarts"):
        cells = {"space": {"name": "darts"}, "cells": 3}
    table = {
        "method": {"name": method, **SMALL.get(method, {}), **own},
        "search": {"name": search, **SMALL.get(search, {})},
        "channels": CHANNELS.get(search, 2),
        "epochs": 3,
        "batch_size": 4,
        "limit_batches": 8,
        "device": "cpu",
        **cells,
    }
    return table | more


def searching(settings, recorder=None):
    """A search before its first step."""
    run = from_table(Run, settings, "a search")
    parts = joined(run)
    torch.manual_seed(run.seed)
    setup = parts.setup(halves_of(run, parts.train))
    return Searching(setup, parts.strategy(setup), recorder)


class Counted:
    """The recorder of a CPU, which counts what it is asked for."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def warm(self, call):
        return call()

    def record(self, call):
        self.recorded += 1

        def replay():
            self.replayed += 1
            call()

        return replay

    def clear(self):
        pass


def assert_same(one, other):
    """The same variables, momentum, optimisers' states and measurements, to the bit."""
    for mine, yours in zip(
        (one.phase.variables, one.phase.velocities),
        (other.phase.variables, other.phase.velocities),
        strict=True,
    ):
        assert mine.keys() == yours.keys()
        for x, y in zip(leaves(mine), leaves(yours), strict=True):
            assert torch.equal(x, y)
    for name, optimiser in one.phase.optimisers.items():
        states = zip(
            optimiser.state.values(), other.phase.optimisers[name].state.values(), strict=True
        )
        for x, y in states:
            assert all(torch.equal(x[key], y[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    one.check()
    other.check()
    assert one.row("step") == other.row("step")
    assert one.meter.means == other.meter.means


def advance(work):
    """Take a step; end the epoch after its last one."""
    work.advance()
    if work.step == work.steps:
        work.check()
        return work.end_epoch()
    return None


def side_by_side(settings, steps, recorder=None):
    """Take steps eagerly and as programs; they must be the same. Return the second search."""
    eager = searching(settings)
    static = searching(settings, recorder or Counted())
    for _ in range(steps):
        assert advance(eager) == advance(static)
        assert_same(eager, static)
    return static


# Identity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("via", RULES)
def test_static_steps_equal_eager_ones_to_the_bit(via):
    static = side_by_side(settings_of(via=via, limit_batches=6), 8)
    assert static.programs.recorder.recorded == 1
    assert static.programs.recorder.replayed == 4  # after one without momentum, one, and two
    assert static.programs.notices() == ["steps of learn, validate run as one program"]
    assert static.programs.notices() == []


REPEATED = {"drnas": "_sample_dirichlet", "pamkd": "randperm"}
"""What draws random numbers in a loss that a finite difference evaluates again."""
SEVERAL = [(method, "darts") for method in METHODS if method != "single"]
SEVERAL += [("single", search) for search in RELAXED if search != "darts"]
SAMPLED = ("gdas", "prdarts")
"""They read what they sampled, which is an operation on a GPU alone: `test_graphs.py` has them."""


@pytest.mark.slow
@pytest.mark.parametrize("via", RULES)
@pytest.mark.parametrize("pair", [x for x in SEVERAL if x[1] not in SAMPLED], ids="-".join)
def test_every_method_and_search(pair, via):
    method, search = pair
    static = side_by_side(settings_of(method, search, via=via, limit_batches=6), 7)
    said, reason = static.programs.notices(), READING.get(search, READING.get(method, ""))
    if reason:
        assert reason in said[0] and not static.programs.recorder.recorded
    elif via == "finite-difference" and (drawn := REPEATED.get(search, REPEATED.get(method))):
        assert f"a rule repeats random numbers: {drawn}" in said[0]
    else:
        assert static.programs.recorder.replayed


@pytest.mark.parametrize("virtual", ["plain", "momentum"])
def test_options_change_what_a_program_holds(virtual):
    """Clipped alphas, other virtual steps, several learners, and rates that change every step."""
    more = {"alphas": {"clip": 1e-3}, "weights": {"anneal": "step", "nesterov": True}}
    settings = settings_of("sgl", via="first-order", virtual=virtual, **more)
    assert side_by_side(settings, 6).programs.recorder.replayed == 2


def test_a_program_reads_the_rates_of_its_step():
    settings = settings_of(via="first-order", weights={"anneal": "step", "lr": 1.0})
    static = side_by_side(settings, 7)
    (kind,) = [each for each in static.programs._kinds.values() if each.cases]
    (case,) = kind.cases.values()
    before = static.rates()["w"].lr
    assert float(case.program.numbers["w"]) > before  # of the step before
    static.advance()
    assert float(case.program.numbers["w"]) == before


# What a step does decides -----------------------------------------------------------------------


def test_steps_that_read_the_epoch_are_recorded_anew_in_each():
    static = side_by_side(settings_of(search="darts-minus", via="first-order"), 24)
    assert static.programs.recorder.recorded == 3
    # of 8 steps an epoch: four are eager in the first one, and one in each of the others
    assert static.programs.recorder.replayed == 4 + 7 + 7
    assert len([kind for kind in static.programs._kinds.values() if kind.cases]) == 1


def test_a_small_last_batch_has_a_program_of_its_own():
    settings = settings_of(via="first-order", batch_size=12, limit_batches=None, epochs=5)
    settings["data"] = {"train_fraction": 0.025}
    static = side_by_side(settings, 13)
    train = static.setup.streams.train
    assert static.steps == 3 and len(train.batch(0, 2).y) < len(train.batch(0, 1).y) == 12
    assert static.programs.recorder.recorded == 2


def test_thawing_alphas_and_new_phases_make_new_programs():
    settings = settings_of(search="pcdarts", via="first-order", epochs=2, limit_batches=6)
    settings["search"]["frozen"] = 0.5
    static = side_by_side(settings, 12)
    assert static.programs.notices() == [
        "steps of learn run as one program",
        "steps of learn, validate run as one program",
    ]


@pytest.mark.slow
def test_a_new_phase_drops_old_programs():
    settings = settings_of(search="pdarts", via="first-order", limit_batches=6)
    settings["search"]["frozen"] = 0.0
    static = side_by_side(settings, 18)
    assert static.programs.recorder.recorded == 3


# Runs -------------------------------------------------------------------------------------------


def test_killed_and_resumed_programs_equal_an_uninterrupted_eager_run(tmp_path, monkeypatch):
    settings = settings_of(via="first-order", limit_batches=7, epochs=2, save_every=0.0)
    settings = from_table(Run, settings | {"log_every": 1}, "a search")
    search_run(settings, tmp_path / "eager")
    recorder = Counted()
    monkeypatch.setattr(state, "recorder_of", lambda choice, device: recorder)
    for step in (6, 3):
        with monkeypatch.context() as patch:
            killed_at(patch, step)
            with pytest.raises(KilledError):
                search_run(settings, tmp_path / "run", resume=(tmp_path / "run").exists())
    search_run(settings, tmp_path / "run", resume=True)
    assert recorder.recorded == 2 and recorder.replayed == 4  # in the first part, and in the last
    same_runs(tmp_path / "eager", tmp_path / "run")


def test_what_was_chosen_is_said_once_and_recorded(tmp_path, monkeypatch, capsys):
    settings = from_table(Run, settings_of(via="first-order", epochs=1), "a search")
    monkeypatch.setattr(state, "recorder_of", lambda choice, device: Again())
    search_run(settings, tmp_path / "run")
    sentence = "steps of learn, validate run as one program"
    assert capsys.readouterr().out.count(sentence) == 1
    (session,) = json.loads((tmp_path / "run" / "environment.json").read_text())["sessions"]
    assert session["programs"] == [sentence]
    assert session["graph"] == "off: only CUDA has them, not cpu"


def test_a_cpu_has_no_graphs():
    with pytest.raises(ValueError, match=r"graph = 'on' with device = 'cpu'.*--graph auto"):
        searching(settings_of(graph="on"))
    assert searching(settings_of(graph="auto")).programs.recorder is None
    assert recorder_of("off", torch.device("cuda")) is None
    assert chosen("off", CPU) == "off: as the settings say"
    assert chosen("auto", torch.device("cuda")) == "on"
    with pytest.raises(ValueError, match="graph = 'always'"):
        Run(graph="always")


def test_a_refusal_leaves_no_directory(tmp_path):
    settings = from_table(Run, settings_of(graph="on"), "a search")
    with pytest.raises(ValueError, match="only CUDA records steps as graphs"):
        search_run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_setting_may_change_when_a_run_resumes(tmp_path, monkeypatch):
    settings = from_table(Run, settings_of(via="first-order", save_every=0.0), "a search")
    with monkeypatch.context() as patch:
        killed_at(patch, 2)
        with pytest.raises(KilledError):
            search_run(settings, tmp_path / "run")
    toml = tmp_path / "run" / "run.toml"
    toml.write_text(toml.read_text().replace('graph = "auto"\n', ""))  # as before the setting
    search_run(replace(settings, graph="off", epochs=3), tmp_path / "run", resume=True)


def test_moments_of_an_earlier_release_move_to_the_fused_optimiser():
    settings = settings_of(via="first-order")
    work, other = searching(settings), searching(settings)
    for _ in range(2):
        work.advance()
    work.check()
    stored = deepcopy(work.state())
    plain = torch.optim.Adam(leaves(work.phase.variables["A"]), lr=3e-4, betas=(0.5, 0.999))
    groups = plain.state_dict()["param_groups"]
    saved = stored["optimisers"]["A"]
    stored["optimisers"] = {"A": {"state": saved["state"], "param_groups": groups}}
    other.restore(stored)
    (group,) = other.phase.optimisers["A"].param_groups
    assert group["fused"] and group["weight_decay"] == 1e-3
    for each in (work, other):
        each.advance()
    assert_same(work, other)
