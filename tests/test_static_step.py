"""Steps as programs: equal to eager ones to the bit, and chosen by what a step does."""

from __future__ import annotations

import json
import weakref
from copy import deepcopy
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch

from test_contracts import CHANNELS, SMALL
from test_search import KilledError, killed_at, same_runs
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.config import Run
from tutelage.data.streams import halves_of
from tutelage.parts import PARTS, from_table, make_part
from tutelage.run.search import search_run
from tutelage.run.step.held import settle
from tutelage.run.step.programs import Programs, Step
from tutelage.run.step.recorders import Again, chosen, recorder_of
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet import state
from tutelage.run.supernet.state import Searching
from tutelage.virtual import FiniteDifference, leaves, virtual_step

CPU = torch.device("cpu")
RULES = ("exact", "finite-difference", "first-order")
RELAXED = [
    name for name in PARTS["search"] if make_part("search", {"name": name}).kind == "relaxed"
]
METHODS = [name for name in PARTS["method"] if name not in ("ennas", "dna")]
"""Those that train alphas; the two others sample paths."""
READING = {
    "gdas": "the progress of the search",
    "prdarts": "the progress of the search",
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


@pytest.mark.slow
@pytest.mark.parametrize("via", RULES)
@pytest.mark.parametrize("pair", SEVERAL, ids="-".join)
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


def test_options_change_what_a_program_holds():
    """Clipped alphas, plain virtual steps, several learners, and rates that change every step."""
    more = {"alphas": {"clip": 1e-3}, "weights": {"anneal": "step", "nesterov": True}}
    settings = settings_of("sgl", via="first-order", virtual="plain", **more)
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


def toy(work, **more):
    """A step of a kind, with batches whose values change and a tensor that it keeps."""
    kept = torch.zeros(3)
    x = torch.rand(4, 1)
    batch = SimpleNamespace(train=Batch(x, torch.zeros(4, dtype=torch.int64), torch.arange(4)))
    step = Step("kind", "a toy", lambda b, n: work(kept, b, n), batch, {"w": 0.5}, lambda: [kept])
    return step._replace(**more)


def said_of(work, steps=6, clock=None, **more):
    clock = clock or Clock()
    programs = Programs(Counted(), CPU, clock)
    for number in range(steps):
        clock.progress = number / steps
        torch.manual_seed(number)
        programs.run(toy(work, **more))
    return " ".join(programs.notices()), programs


def test_a_plain_step_is_recorded_and_its_result_is_a_copy():
    def work(kept, batch, numbers):
        kept.add_(batch.train.x.sum() * numbers["w"])
        return "place", batch.train.x.flatten() * 2

    said, programs = said_of(work)
    assert said == "steps of a toy run as one program" and programs.settled
    step = toy(work)
    first, again = programs.run(step), programs.run(toy(work))
    assert first[0] == "place" and torch.equal(first[1], step.batches.train.x.flatten() * 2)
    assert not torch.equal(first[1], again[1])


LAST = [0]


def another_number(kept, batch, numbers):
    LAST[0] += 1
    return None, batch.train.x * LAST[0]


def another_operation(kept, batch, numbers):
    LAST[0] += 1
    return None, batch.train.x.sin() if LAST[0] % 2 else batch.train.x.cos()


def more_operations(kept, batch, numbers):
    LAST[0] += 1
    x = batch.train.x
    for _ in range(LAST[0]):
        x = x.sin()
    return None, x


def repeated_draws(kept, batch, numbers):
    def loss(w, u):
        return (w["w"] * torch.rand(3) * u["u"]).sum() + w["w"].square().sum()

    w, u = ({name: torch.ones(3, requires_grad=True)} for name in "wu")
    new = virtual_step(loss, w, u, lr=0.1, via=FiniteDifference())
    return None, torch.autograd.grad(new["w"].square().sum(), u["u"])[0]


REFUSED = {
    "a value that is read": (
        lambda kept, batch, numbers: (None, batch.train.x * float(batch.train.x.sum())),
        "it reads a value back: _local_scalar_dense",
    ),
    "a branch on a value": (
        lambda kept, batch, numbers: (None, batch.train.x if batch.train.x.sum() > 0 else kept),
        "it reads a value back: _local_scalar_dense",
    ),
    "a mask": (
        lambda kept, batch, numbers: (None, batch.train.x[batch.train.x > 0.5]),
        "the size of a result depends on values: index",
    ),
    "nonzero": (
        lambda kept, batch, numbers: (None, batch.train.x.nonzero().double()),
        "the size of a result depends on values: nonzero",
    ),
    "Python's values": (
        lambda kept, batch, numbers: (None, torch.tensor([1.0, 2.0])),
        "it makes a tensor of Python's values: lift_fresh",
    ),
    "random numbers of a repeated loss": (
        repeated_draws,
        "a rule repeats random numbers: rand",
    ),
    "another number": (another_number, "the numbers or shapes of aten.mul.Tensor changed"),
    "another operation": (
        another_operation,
        "it ran aten.sin.default, then aten.cos.default in its place",
    ),
    "more operations": (more_operations, "operations, then"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_program_can_repeat_stays_eager_with_its_reason(what):
    LAST[0] = 0
    work, reason = REFUSED[what]
    said, programs = said_of(work)
    assert reason in said and said.startswith("steps of a toy run one operation at a time: ")
    assert not programs.recorder.recorded and programs.settled


def test_a_step_that_reads_the_progress_stays_eager():
    clock = Clock()
    said, programs = said_of(
        lambda kept, batch, numbers: (None, batch.train.x * clock.progress), clock=clock
    )
    assert said.endswith("it reads the progress of the search, which every step changes")
    assert not programs.recorder.recorded


def test_integer_indices_and_random_numbers_are_no_obstacle():
    def work(kept, batch, numbers):
        chosen = batch.train.x[batch.train.position.flip(0)]
        return None, chosen * torch.rand_like(chosen)

    assert said_of(work)[0] == "steps of a toy run as one program"


def test_a_first_run_may_fill_caches():
    made = []

    def work(kept, batch, numbers):
        if len(made) < 2:
            made.append(torch.tensor([0, 1]))
        return None, batch.train.x[made[-1]]

    said, programs = said_of(work, steps=8)
    assert said == "steps of a toy run as one program"
    assert programs.recorder.replayed == 4  # one run, three watched


def test_a_recording_that_fails_is_told_once():
    class Failing(Counted):
        def record(self, call):
            raise RuntimeError("CUDA error: operation not permitted\nmore lines")

    programs, results = Programs(Failing(), CPU, Clock()), []
    for _ in range(6):
        results.append(programs.run(toy(lambda kept, batch, numbers: (None, batch.train.x))))
    assert programs.notices() == [
        "steps of a toy run one operation at a time: the recording failed: CUDA error: operation "
        "not permitted"
    ]
    assert len(results) == 6 and all(x.shape == (4, 1) for _, x in results)


def test_what_a_failed_recording_has_taken_is_freed_before_the_step_runs():
    """And the reason is the first error: the end of a recording fails too."""

    class Failing(Counted):
        def record(self, call):
            taken = torch.ones(3)
            self.taken = weakref.ref(taken)
            try:
                raise RuntimeError("out of memory\nmore lines")
            except RuntimeError:
                raise RuntimeError("the recording was invalidated")  # noqa: B904

        def clear(self):
            order.append(f"cleared, held: {self.taken() is not None}")

    def work(kept, batch, numbers):
        order.append("a step")
        return None, batch.train.x

    order = []
    programs = Programs(Failing(), CPU, Clock())
    for _ in range(5):
        programs.run(toy(work))
    assert order == ["a step"] * 3 + ["cleared, held: False"] + ["a step"] * 2
    (said,) = programs.notices()
    assert said.endswith("one operation at a time: the recording failed: out of memory")


def test_a_program_is_freed_before_the_next_one_is_recorded():
    class Alone(Counted):
        last = staticmethod(lambda: None)

        def record(self, call):
            assert self.last() is None
            replay = super().record(call)
            self.last = weakref.ref(replay)
            return replay

    programs, kept = Programs(Alone(), CPU, Clock()), [torch.zeros(3)]
    for count in range(8):
        if count > 4:
            kept[0] = torch.zeros(3)
        programs.run(toy(lambda _, batch, numbers: (None, kept[0] * 1), held=lambda: kept))
    assert programs.recorder.recorded == 4
    assert programs.notices() == ["steps of a toy run as one program"]


def test_other_tensors_are_recorded_anew():
    programs = Programs(Counted(), CPU, Clock())
    kept = [torch.zeros(3)]

    def work(_, batch, numbers):
        kept[0].add_(1)
        return None, kept[0] * 1

    for _ in range(5):
        programs.run(toy(work, held=lambda: kept))
    kept[0] = torch.zeros(3)
    assert torch.equal(programs.run(toy(work, held=lambda: kept))[1], torch.ones(3))
    assert programs.recorder.recorded == 2


# What is kept in place --------------------------------------------------------------------------


def test_settling_copies_into_the_same_tensors():
    held = {"w": {"a": torch.zeros(2), "b": torch.ones(2)}, "c": torch.zeros(())}
    before = leaves(held)
    settle(held, {"w": {"a": torch.full((2,), 3.0), "b": held["w"]["b"]}, "c": torch.ones(())})
    assert all(x is y for x, y in zip(leaves(held), before, strict=True))
    assert [x.tolist() for x in before] == [[3.0, 3.0], [1.0, 1.0], 1.0]


def test_settling_values_that_lie_in_one_another():
    held = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
    settle(held, {"a": held["b"].flip(0), "b": held["a"]})
    assert held["a"].tolist() == [4.0, 3.0] and held["b"].tolist() == [1.0, 2.0]


def test_settling_another_layout_replaces():
    held = {"a": torch.zeros(2, 3), "b": torch.zeros(2)}
    new = {"a": torch.ones(3, 2).T, "b": torch.ones(3), "c": torch.ones(1)}
    settle(held, new)
    assert all(held[name] is x for name, x in new.items())


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
