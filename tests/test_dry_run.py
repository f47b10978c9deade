"""The dry run: what it counts, what it measures, and that it writes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from commands import BRIEF
from footprint import CASES
from test_search import run_toml
from tutelage.config import Retrain
from tutelage.parts import make_part
from tutelage.run import dry_run as module
from tutelage.run.cost.count import describe, params
from tutelage.run.cost.table import Cost, costs_of
from tutelage.run.dry_run import STEPS, batches, dry_run
from tutelage.run.measure import memory
from tutelage.run.measure import scoring as measuring
from tutelage.run.measure.forecast import Forecast, Traced
from tutelage.run.measure.live import Trace
from tutelage.run.measure.memory import available, peak, reset_peak
from tutelage.run.measure.result import Dry
from tutelage.run.measure.scoring import measure_scoring
from tutelage.run.measure.steps import Measured, Section
from tutelage.run.supernet.state import Searching
from tutelage.searches.evolution import Evolution
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.chain import NASBENCH_MACRO

EXHAUSTIVE = (pytest.mark.slow, pytest.mark.exhaustive)
MARKS = dict.fromkeys(CASES, EXHAUSTIVE) | {
    "nasbench201-exact": (),
    "darts-small": (pytest.mark.slow,),
}
FINAL = Retrain(channels=4, cells=3)


def settings(method="single", **changed):
    return run_toml(method, retrain=FINAL, **{"batch_size": 16, **changed})


@pytest.fixture
def steps(monkeypatch):
    """Batch sizes of all steps that are taken."""
    taken, advance = [], Searching.advance

    def counted(self):
        taken.append(self.setup.streams.train.batch_size)
        advance(self)

    monkeypatch.setattr(Searching, "advance", counted)
    return taken


@pytest.mark.slow
def test_few_steps_at_three_batches(steps):
    found = dry_run(settings())
    assert steps == [2] * 2 + [4] * 2 + [16] * (1 + STEPS)
    assert batches(16) == [2, 4, 16]
    assert [each.batch for each in found.measured] == [16]
    assert found.fits and found.batch == 16 and found.steps == 2  # --limit-batches 2
    assert found.seconds == pytest.approx(found.sections[0].seconds * 2 * 2)


def test_the_command_prints_and_writes_nothing(tutelage, here):
    code, out, error = tutelage(f"search {BRIEF} --dry-run --retrain.channels 4 --retrain.cells 3")
    assert code == 0 and not error
    assert not list(here.iterdir())
    for shown in ("final network: 4 channels, 3 cells", "1 x 8 x 8 image", "a step", "GiB"):
        assert shown in out


@pytest.mark.slow
def test_the_final_networks_are_those_that_describe_counts():
    found = dry_run(settings())
    space = make_part("space", {"name": "darts"})
    by_columns = torch.arange(8.0).expand(14, 8)  # max pools are free, the last is dil_conv_5x5

    def counted(columns):
        genotype = space.genotype(ArchWeights(dict.fromkeys(space.choices, columns)))
        each = describe(genotype, Size(4, 3, 10, 1), 8)
        return Cost(each.params, each.flops)

    low, even, high = found.costs
    assert low == counted(-by_columns)
    assert high == counted(-(by_columns - 5).abs())  # sep_conv_5x5
    assert all(a < b < c for a, b, c in zip(low[:2], even[:2], high[:2], strict=True))
    assert low.latency == even.latency == high.latency == 0  # there is no table


@pytest.mark.slow
@pytest.mark.parametrize(("method", "learners"), [("single", 1), ("sgl", 2)])
def test_weights_are_those_of_the_supernets(method, learners):
    own = settings(method, space={"name": "s2"}, batch_size=2, limit_batches=1)
    section = dry_run(own).sections[0]
    supernet = make_part("space", {"name": "s2"}).supernet(Size(2, 3, 10, 1))
    copies = 2 * learners if method == "sgl" else learners  # SGL trains V and W
    assert section.params == params(supernet)
    assert section.trained == copies * params(supernet)


@pytest.mark.slow
def test_every_phase_and_frozen_stretch_is_measured(steps, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 1)
    search = {"name": "pdarts", "deeper": (0, 1), "frozen": 0.5}
    found = dry_run(settings(search=search, epochs=6, limit_batches=1, batch_size=2))
    assert [each.epochs for each in found.sections] == [range(e, e + 1) for e in range(6)]
    assert [each.levels for each in found.sections] == [("learn",), ("learn", "validate")] * 3
    assert steps == [2] * 6 * 2 + [3] * 6 * 2 + [2] * 6 * 2
    first, _, second, _, third, _ = (each.params for each in found.sections)
    assert second < first  # five operations an edge instead of eight
    whole = make_part("space", {"name": "darts"})
    kept = {g: [[0, 1, 2]] * 14 for g in whole.choices}
    assert third > params(whole.narrowed(kept).supernet(Size(2, 4, 10, 1)))
    assert found.seconds == pytest.approx(sum(each.seconds for each in found.sections))


def test_a_search_that_trains_nothing_is_not_measured(steps):
    found = dry_run(settings(search={"name": "random"}))
    assert not steps and not found.measured
    assert "nothing trains" in found.as_text()


def test_too_large_a_batch_is_answered_without_running_it(steps, monkeypatch):
    monkeypatch.setattr(Forecast, "at", lambda self, batch: 10**9 * batch)
    monkeypatch.setattr(Forecast, "needed", Forecast.at)
    monkeypatch.setattr(module, "available", lambda device: 10**10)
    found = dry_run(settings())
    assert 16 not in steps and not found.fits
    assert found.largest == 8
    assert "a batch of 16 does not fit" in found.as_text()
    assert "about" in found.as_text()


def test_memory_that_runs_out_is_answered(monkeypatch):
    measure = module.measure

    def failing(work, steps):
        if work.setup.streams.train.batch_size == 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return measure(work, steps)

    monkeypatch.setattr(module, "measure", failing)
    assert "a batch of 16 does not fit" in dry_run(settings()).as_text()


def test_another_error_is_no_lack_of_memory(monkeypatch):
    def failing(work, steps):
        raise RuntimeError("shapes do not agree")

    monkeypatch.setattr(module, "measure", failing)
    with pytest.raises(RuntimeError, match="shapes"):
        dry_run(settings())


# What samples paths -----------------------------------------------------------------------------


def test_all_sub_networks_of_a_batch_are_counted():
    """Three that differ in all layers of three operations run each operation once."""
    small = {"name": "nasbench-macro", "widths": (4, 6), "depths": (2, 1), "strides": (2, 1)}
    small |= {"stem_channels": 2, "last": 8}
    space = make_part("space", small)
    costs = costs_of(space, Size(2, 3, 10, 1), (8, 8))
    every = [p.flops for edge in costs.operations["chain"] for p in edge.values()]
    own = settings(search={"name": "diverse-paths"}, space=small)
    own = replace(own, method={"name": "ennas", "students": 3}, limit_batches=1)
    found = dry_run(own)
    (section,) = found.sections
    assert section.paths == 3
    assert section.flops == 3 * costs.fixed.flops + sum(every)
    assert found.unit == "layers"
    assert (found.scoring.fitted, found.scoring.judged) == (599, 599)  # all that there are
    assert (found.scoring.ranked, found.scoring.evolved) == (0, 27)  # likewise


@dataclass
class Timed:
    """Scores in 5 seconds, 2 for an image that it is fitted to and 3 for one that it judges."""

    fitted: Any
    judged: Any
    clock: Any

    def score(self, genotype):
        self.clock.now += 5
        for parts, seconds in ((self.fitted, 2), (self.judged, 3)):
            for part in parts() if parts else ():
                self.clock.now += seconds * len(part.y)


@pytest.mark.parametrize(("fits", "expected"), [(True, 5 + 2 * 90 + 3 * 70), (False, 5 + 3 * 70)])
def test_the_time_of_a_score_is_that_of_all_its_images(monkeypatch, fits, expected):
    clock, taken = SimpleNamespace(now=0.0), []

    def parts(half):
        for size in (16, 16, 16, 16, 16):
            taken.append(half)
            yield SimpleNamespace(y=range(size))

    def timed(work, learner):
        return Timed(lambda: parts("train"), lambda: parts("valid"), clock)

    def score(self, genotype, own=Timed.score):
        own(self if fits else Timed(None, self.judged, clock), genotype)

    monkeypatch.setattr(measuring, "scorer_of", timed)
    monkeypatch.setattr(Timed, "score", score)
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock.now)
    train, valid = (SimpleNamespace(subset=range(count)) for count in (90, 1000))
    evolution = Evolution(population=4, generations=3, images=200, judged=70)
    setup = SimpleNamespace(
        device=torch.device("cpu"),
        space=NASBENCH_MACRO,
        streams=SimpleNamespace(train=train, valid=valid),
        settings=SimpleNamespace(evolution=evolution, ranked=7, table="accuracies.json"),
    )
    found = measure_scoring(SimpleNamespace(setup=setup, learners=[None]), 4)
    assert found.seconds == pytest.approx(expected)
    assert (found.fitted, found.judged) == (90 * fits, 70)
    assert (found.ranked, found.evolved) == (7, 12)
    # of four architectures, after one that is not measured, until 20 s are over
    assert taken.count("valid") == 2 * 2 and taken.count("train") == 2 * 2 * fits


def measured(batch, seconds, peak):
    return Measured(batch, [Section(range(2), ("learn",), 1, 1, 1, seconds)], peak)


def forecast(slope=10):
    """1,000 bytes and `slope` an image, of which 100 are beside the tensors."""

    def at(batch):
        size = 900 + slope * batch
        return Traced(batch, [Trace(["add"], [size], [size])], 100)

    return Forecast(at(8), at(16))


def report(*sizes, asked=64, images=1000, memory=10_000, forecast=forecast()):  # noqa: B008
    costs = (Cost(1, 1), Cost(2, 2), Cost(3, 3))
    measured = {"measured": sizes, "forecast": forecast, "memory": memory}
    return Dry(Size(), (3, 32, 32), costs, asked, images, 10, **measured)


def test_the_largest_batch_by_hand():
    own = measured(64, 4.0, 1640)
    assert report(own).largest == 800  # 9,000 bytes: (9,000 - 1,000) / 10
    assert report(own, memory=9_990).largest == 792  # 799.1, rounded down
    assert report(own, images=700).largest == 700
    assert report(own, memory=1_100).largest == 0
    assert report(own, forecast=forecast(slope=0)).largest == 1000  # nothing grows
    small = report(measured(8, 0.5, 0), measured(16, 1.0, 0), asked=200, memory=2_000)
    assert small.largest == 80
    assert small.peak == 3000 and not small.fits
    assert small.sections[0].seconds == pytest.approx(12.5)
    assert small.seconds == pytest.approx(12.5 * 10 * 2)


def test_peaks_are_those_of_what_is_held():
    cpu = torch.device("cpu")
    reset_peak(cpu)
    before = peak(cpu)
    held = torch.ones(64 * 2**20)  # 256 MiB
    assert 200 * 2**20 < peak(cpu) - before < 400 * 2**20
    assert available(cpu) > held.nbytes


@pytest.mark.parametrize(("limit", "found"), [(None, False), ("max", False), ("4096", True)])
def test_a_containers_limit_may_be_missing(tmp_path, monkeypatch, limit, found):
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
    monkeypatch.setattr(memory, "LIMITS", (str(tmp_path / "memory.max"),))
    assert (available(torch.device("cpu")) == 4096) is found


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is Linux' to say")
@pytest.mark.parametrize("case", [pytest.param(x, marks=MARKS.get(x, ())) for x in CASES])
def test_the_prediction_is_near_what_another_process_takes(case):
    command = [sys.executable, str(Path(__file__).with_name("footprint.py")), case]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    predicted, taken = json.loads(done.stdout)
    assert 0.9 < predicted / taken < 1.1


def test_changes_that_fit_are_named(monkeypatch):
    """Of SGL with four learners: fewer of them, one by one, and recomputation."""
    monkeypatch.setattr(module, "available", lambda device: 10**10)
    sizes = {(4, False): 20e9, (4, True): 12e9, (3, False): 11e9, (2, False): 8e9}
    asked = []

    def at(self, batch):
        return int(self.low.extra * (1 if batch == 16 else 0.1))

    def needed(self, batch):
        graph = 4e9 if (asked[-1], batch) == ((4, False), 16) else 0
        return at(self, batch) + int(graph)

    def trace(work, asked_for):
        own = work.setup.settings
        asked.append((own.method["learners"], own.recompute))
        size = sizes[asked[-1]]
        return Traced(work.setup.streams.train.batch_size, [], int(size))

    monkeypatch.setattr(Forecast, "at", at)
    monkeypatch.setattr(Forecast, "needed", needed)
    monkeypatch.setattr(module, "trace", trace)
    own = settings("sgl", space={"name": "nasbench201"}, cells=1, limit_batches=1, via="exact")
    found = dry_run(replace(own, method={"name": "sgl", "learners": 4}))
    assert asked[::2] == list(sizes)
    assert found.changes == (
        ("--graph off", 20 * 10**9),
        ("--recompute", 12 * 10**9),
        ("--learners 3", 11 * 10**9),
        ("--learners 2", 8 * 10**9),
    )
    text = found.as_text()
    assert "would fit      --learners 2: 7.45 GiB" in text
    assert "no fit         --recompute" in text
