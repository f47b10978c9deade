"""Searches that sample, from the supernet to what evolution finds: broken off, resumed, limited."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from commands import content
from test_search import KilledError, run_toml, same_runs
from tutelage.benchmark.nasbench_macro import Table
from tutelage.config import Retrain
from tutelage.parts import make_part
from tutelage.records.rows import CANDIDATES
from tutelage.run.cost.count import describe
from tutelage.run.cost.limits import in_units
from tutelage.run.cost.table import Cost
from tutelage.run.dry_run import dry_run
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.signals import StoppedError
from tutelage.run.one_shot.evolution import Evolve
from tutelage.run.one_shot.ranking import Ranking
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.search import search_run
from tutelage.run.supernet.state import Searching
from tutelage.searches import evolving
from tutelage.searches.evolution import Evolution
from tutelage.spaces.base import Size
from tutelage.spaces.chain import NASBENCH_MACRO
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import genotype
from written_runs import read_rows

SMALL = {"name": "nasbench-macro", "widths": (4, 6), "depths": (2, 2), "strides": (2, 2)}
EVOLUTION = Evolution(population=4, generations=3, parents=2, images=40, judged=60)
FILES = ("metrics.jsonl", "genotype.json", "evolution/metrics.jsonl")


def settings(**changed):
    own = {
        "search": {"name": "diverse-paths"},
        "space": SMALL,
        "evolution": EVOLUTION,
        "save_every": 0.0,
        "cells": None,
        "batch_size": 20,
    }
    run = run_toml("ennas", **{**own, **changed})
    return replace(run, method={"name": "ennas", "students": 2})


def rows(path: Path, event: str):
    return [row for row in read_rows(path) if row["event"] == event]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nothing interrupted; not to be written to."""
    path = tmp_path_factory.mktemp("evolved") / "whole"
    search_run(settings(), path)
    return path


def until_killed(monkeypatch, kind, steps, path, own, resume=False):
    """Die in the so-many-th step of one kind of work, before it is done."""
    advance, done = kind.advance, itertools.count()

    def dying(self):
        if next(done) == steps:
            raise KilledError
        advance(self)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(kind, "advance", dying)
        search_run(own, path, resume)


@pytest.mark.parametrize("save_every", [0.0, 1e6])
def test_killed_in_mid_evolution_and_resumed_equals_uninterrupted(
    whole, tmp_path, monkeypatch, save_every
):
    own, path = settings(save_every=save_every), tmp_path / "killed"
    until_killed(monkeypatch, Searching, 3, path, own)
    for steps in (0, 2, 5):  # before the first candidate, in a generation, and in a later one
        until_killed(monkeypatch, Evolve, steps, path, own, resume=True)
        assert not (path / "genotype.json").exists()
    search_run(own, path, resume=True)
    assert [(whole / name).read_bytes() for name in FILES] == [
        (path / name).read_bytes() for name in FILES
    ]
    same_runs(whole, path)


def test_a_signal_in_evolution_says_how_to_go_on(whole, tmp_path, monkeypatch):
    advance, done = Evolve.advance, itertools.count()
    save_session, saved = RunDirectory.save_session, []

    def saving(self):
        saved.append(self.path)
        save_session(self)

    def interrupted(self):
        advance(self)
        if next(done) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Evolve, "advance", interrupted)
        patch.setattr(RunDirectory, "save_session", saving)
        with pytest.raises(StoppedError) as caught:
            search_run(settings(), path)
    assert saved[-1] == path  # the search's time counts that of the evolution
    assert str(caught.value) == (
        f"SIGTERM came: saved at epoch 1, step 2; resume with tutelage search --resume {path}"
    )
    assert len(rows(path / "evolution", "step")) == 6
    search_run(settings(), path, resume=True)
    same_runs(whole, path)


def test_a_signal_in_the_last_step_of_training_starts_no_evolution(whole, tmp_path, monkeypatch):
    advance, path = Searching.advance, tmp_path / "run"

    def interrupted(self):
        advance(self)
        if (self.epoch + 1, self.step) == (self.epochs, self.steps):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Searching, "advance", interrupted)
        with pytest.raises(StoppedError, match=r"SIGTERM came: saved at epoch \d, step 0; resume"):
            search_run(settings(), path)
    assert not (path / "evolution").exists()
    search_run(settings(), path, resume=True)
    same_runs(whole, path)


def test_resuming_what_is_done_changes_nothing_but_the_sessions(whole, tmp_path, capsys):
    path = tmp_path / "run"
    search_run(settings(), path)
    before = content(path)
    found = search_run(settings(), path, resume=True)
    after = content(path)
    assert before.keys() == after.keys()
    changed = {name for name in after if before[name] != after[name]}
    assert changed <= {"environment.json", "evolution/environment.json"}
    assert found.genotype == Genotype.read(path / "genotype.json")
    assert "candidate" not in capsys.readouterr().out.rpartition("search ")[2]


def test_rows_name_candidates_and_the_end_names_the_best(whole):
    steps, epochs = (rows(whole / "evolution", event) for event in ("step", "epoch"))
    assert [(row["epoch"], row["step"]) for row in steps] == [
        (generation, step) for generation in range(3) for step in range(1, 5)
    ]
    assert len({tuple(row["encoding"]) for row in steps}) == 12
    assert [row["accuracy"] for row in epochs] == [
        max(row["accuracy"] for row in steps[: 4 * generation]) for generation in (1, 2, 3)
    ]
    (end,) = rows(whole, "end")
    best = max(steps, key=lambda row: row["accuracy"])
    named = {key: best[key] for key in ("encoding", "accuracy", "params", "flops")}
    assert end["evolution"] == named
    data = json.loads((whole / "genotype.json").read_text())
    assert data["about"]["supernet_accuracy"] == best["accuracy"]
    kinds = ("identity", "mbconv3_3x3", "mbconv6_5x5")
    names = [name for ((name, _),) in data["cells"]["chain"]["nodes"]]
    assert names == [kinds[gene] for gene in best["encoding"]]
    assert data["layout"]["widths"] == [4, 6]


@pytest.mark.parametrize("limit", ["max_flops", "max_params"])
def test_limits_are_never_broken(whole, tmp_path, limit):
    cost = {"max_flops": "flops", "max_params": "params"}[limit]
    without = [row[cost] for row in rows(whole / "evolution", "step")]
    most = sorted(without)[4]
    found = search_run(settings(epochs=1, **{limit: most / 1e6}), tmp_path / "run")
    within = [row[cost] for row in rows(tmp_path / "run" / "evolution", "step")]
    assert max(within) <= most < max(without)
    assert found.genotype


def test_rows_say_which_architectures_the_method_gave():
    space, settings = NASBENCH_MACRO, Evolution(population=3, generations=2, parents=2)
    scorer = SimpleNamespace(score=lambda genotype: 0.5, quantity="accuracy")
    costs = SimpleNamespace(total=lambda kept: Cost(1, 1), of=lambda genotype: Cost(1, 1))
    given = [genotype(space, (place,) * 8) for place in range(2)]
    work = Evolve(space, scorer, costs, lambda cost: True, settings, seed=0, first=given)
    message = []
    while work.epoch < work.epochs:
        work.advance()
        message.append(work.row("step").given)
        if work.step == work.steps:
            assert work.end_epoch().given is None
    assert message == [True, True, None, None, None, None]


def test_limits_that_allow_nothing_are_refused_before_the_search(tmp_path):
    with pytest.raises(ValueError, match=r"max_params = 0.001: the cheapest architecture"):
        search_run(settings(max_params=0.001), tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", [lambda own, path: dry_run(own), search_run])
def test_limits_that_no_draw_keeps_are_refused_before_the_search(tmp_path, monkeypatch, run):
    """Only all identities are as cheap: one of 6,561, of which 100 are drawn."""
    own = settings(space={"name": "nasbench-macro", "stem_channels": 4, "last": 8})
    least = cheapest(own)
    own = replace(own, max_flops=(least.flops + 1) / 1e6)
    monkeypatch.setattr(evolving, "RANDOM_TRIES", 100)
    monkeypatch.setattr(Searching, "advance", lambda self: pytest.fail("trained"))
    with pytest.raises(ValueError, match=re.escape(f"; the cheapest has {in_units(least)}")):
        run(own, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def cheapest(own):
    """What the architecture of identities alone costs."""
    space = make_part("space", own.space)
    names = ["identity"] * 8
    found = describe(Genotype.of_chain(space.name, names, space.layout), Size(4, 8, 10, 1), 8)
    return Cost(found.params, found.flops)


def test_a_last_batch_of_one_image_is_left_out(tmp_path, monkeypatch):
    """Its maps of one pixel have no statistics: 599 images in batches of 26, and 53, and 27."""
    accuracy, batches = Scorer.accuracy, []

    def diagnose(self, genotype):
        both = (self.fitted, self.judged)
        batches.append([[len(part.y) for part in parts()] for parts in both])
        return accuracy(self, genotype)

    monkeypatch.setattr(Scorer, "accuracy", diagnose)
    own = settings(
        epochs=1,
        batch_size=26,
        limit_batches=None,
        space={**SMALL, "widths": (4, 4, 4), "depths": (1, 1, 1), "strides": (2, 2, 2)},
        evolution=Evolution(population=1, generations=1, parents=2, images=53, judged=27),
    )
    (scores,) = search_run(own, tmp_path / "run").scores
    assert scores["valid_accuracy"] * 598 == pytest.approx(round(scores["valid_accuracy"] * 598))
    assert batches == [[[26, 26], [26]]]


# With a table -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of all chains, in which more large blocks are better."""
    path = tmp_path_factory.mktemp("table") / "macro.json"
    entries = {}
    for digits in itertools.product("012", repeat=8):
        accuracy = 50 + 2 * sum(map(int, digits))
        costs = {"params": 1000 + accuracy, "flops": 2000 + accuracy}
        entries["".join(digits)] = {"test_acc": [accuracy] * 3, **costs}
    path.write_text(json.dumps(entries))
    return path


def ranked(table, **changed):
    return settings(
        space={"name": "nasbench-macro"},
        channels=2,
        epochs=1,
        table=table,
        ranked=5,
        retrain=Retrain(channels=2),
        evolution=Evolution(population=2, generations=1, parents=2, images=20, judged=60),
        **changed,
    )


def test_architectures_are_ranked_against_the_table(table, tmp_path, monkeypatch):
    search_run(ranked(table), tmp_path / "whole")
    own = tmp_path / "killed"
    until_killed(monkeypatch, Ranking, 3, own, ranked(table))
    until_killed(monkeypatch, Evolve, 1, own, ranked(table), resume=True)
    search_run(ranked(table), own, resume=True)
    same_runs(tmp_path / "whole", own)
    steps = rows(own / "ranking", "step")
    assert len({tuple(row["encoding"]) for row in steps}) == len(steps) == 5
    (end,) = rows(own, "end")
    scores = {tuple(row["encoding"]): row["accuracy"] for row in steps}
    true = {encoding: 50 + 2 * sum(encoding) for encoding in scores}
    highest = max(scores.values())
    chosen = min(true[encoding] for encoding in scores if scores[encoding] == highest)
    assert end["ranking"]["count"] == end["ranking"]["top"] == 5
    assert end["ranking"]["accuracy"] == chosen
    assert end["ranking"]["rank"] == 1 + sum(each > chosen for each in true.values())
    answer = Table(table).query(Genotype.read(own / "genotype.json"))
    assert end["table"] == [{**answer.accuracy, "rank": answer.rank["cifar10_test"]}]


# Killed for real --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.exhaustive  # faults/test_kills.py has random moments too
def test_sigkill_at_three_random_moments(whole, tmp_path):
    code = """
import sys
from pathlib import Path
from test_evolved_runs import settings
from tutelage.run.search import search_run
out = Path(sys.argv[1])
search_run(settings(save_every=1e-4), out, resume=(out / "run.toml").exists())
"""
    killed, tests = tmp_path / "killed", str(Path(__file__).parent)
    command = [sys.executable, "-c", code, str(killed)]
    path = os.pathsep.join([tests, *filter(None, sys.path)])
    # one thread, as the run in this process has it: sums of more threads round otherwise
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    choose, evolution = random.Random(0), RunDirectory(killed / "evolution")
    for wanted in sorted(choose.sample(range(1, 12), 3)):
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            while sum(row.event == "step" for row in evolution.metrics.read(CANDIDATES)) < wanted:
                assert process.poll() is None
                time.sleep(0.002)
            process.kill()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert len(RunDirectory(killed / "evolution").read_json("environment.json")["sessions"]) > 2
    same_runs(whole, killed)
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
