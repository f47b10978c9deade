"""Searches by a table of latencies: limits, penalties, resumption, and what is refused."""

from __future__ import annotations

import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from made_latencies import OVERHEAD, RATE, by_flops, made, place
from test_evolved_runs import SMALL, rows, settings, until_killed
from test_search import KilledError, killed_at, run_toml, same_runs
from tutelage.config import Retrain
from tutelage.parts import make_part
from tutelage.records.latencies import Latencies
from tutelage.run.cost import latency
from tutelage.run.cost.budget import Budget
from tutelage.run.cost.latency import LatencyTable
from tutelage.run.cost.limits import Limits
from tutelage.run.cost.table import Cost, Costs, costs_of
from tutelage.run.dry_run import dry_run
from tutelage.run.measure import latency_table
from tutelage.run.one_shot.evolution import Evolve
from tutelage.run.search import search_run
from tutelage.searches.darts import Darts
from tutelage.searches.evolution import Evolution
from tutelage.spaces.base import Size

CELLS = Size(2, 1, 10, 1)
CHAIN = Size(4, 4, 10, 1)
DIGITS = (8, 8)


def space_named(**table):
    return make_part("space", table)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A table for networks of NAS-Bench-201's space on the digits; not to be written to."""
    path = tmp_path_factory.mktemp("latencies") / "table.json"
    with pytest.MonkeyPatch.context() as patch:
        made(patch, path, space_named(name="nasbench201"), CELLS, DIGITS)
    return path


@pytest.fixture
def table(tmp_path, measured):
    """The same, for a test alone."""
    return Path(shutil.copy(measured, tmp_path))


def relaxed(table, **changed):
    own = {"space": {"name": "nasbench201"}, "cells": 1, "latency_table": table}
    return run_toml(**{**own, "retrain": Retrain(channels=2, cells=1), **changed})


def costs_by(table):
    return costs_of(space_named(name="nasbench201"), CELLS, DIGITS, LatencyTable.read(table))


# Relaxed searches ---------------------------------------------------------------------------------


def test_a_relaxed_search_stays_within_its_latency(table, tmp_path):
    costs = costs_by(table)
    three = costs.operations["cell"][0]["nor_conv_3x3"].latency
    most = costs.fixed.latency + 6 * 0.01 * 3 + 0.9 * three  # of no network with a 3x3
    found = search_run(relaxed(table, max_latency=most), tmp_path / "run")
    epochs = rows(tmp_path / "run", "epoch")
    assert len(epochs) == 2
    for (cost,) in (row["cost"] for row in epochs):
        for each in cost.values():
            assert each["latency"] == pytest.approx(OVERHEAD + RATE * each["flops"])
        assert cost["derived"]["latency"] <= most < cost["expected"]["latency"]
    assert costs.of(found.genotype).latency <= most
    kept = LatencyTable.read(tmp_path / "run" / latency.FILE)
    assert kept.content == LatencyTable.read(table).content


def test_the_penalty_on_latency_is_that_of_any_cost(table):
    """Of a limit on a sum of FLOPs: latencies are proportional to FLOPs but for a constant."""
    costs, search, space = costs_by(table), Darts(), space_named(name="nasbench201")
    torch.manual_seed(0)
    alphas = {"cell": torch.randn(6, 5, dtype=torch.float64, requires_grad=True)}
    expected = costs.table(space).expected(search.expected(alphas))
    limit = 0.5 * expected[2].item()
    budget = Budget(search, costs, Limits(latency=limit), 0.7)
    (penalty,) = budget.penalties([space], 1, torch.device("cpu"))
    assert penalty(alphas).item() == pytest.approx(0.7 * (2 - 1))
    (own,) = torch.autograd.grad(penalty(alphas), alphas["cell"])
    (by_cost,) = torch.autograd.grad(expected[1] * RATE * 0.7 / limit, alphas["cell"])
    torch.testing.assert_close(own, by_cost)
    assert own.any()
    for free in (Limits(), Limits(latency=3 * limit)):
        for each in replace(budget, limits=free).penalties([space], 1, torch.device("cpu")):
            assert each(alphas).item() == 0


def test_a_table_without_a_limit_records_costs_and_changes_nothing(table, tmp_path):
    for name, given in (("with", table), ("without", None)):
        search_run(relaxed(given), tmp_path / name)
    one, other = (rows(tmp_path / name, "epoch") for name in ("with", "without"))
    assert all(row.pop("cost")[0]["derived"]["latency"] > 0 for row in one)
    assert one == other
    assert not (tmp_path / "without" / latency.FILE).exists()


def test_a_run_resumes_by_its_own_copy_also_on_another_machine(table, tmp_path, monkeypatch):
    own = relaxed(table, max_latency=0.5, save_every=0.0)
    search_run(own, tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed_at(patch, 2)
        with pytest.raises(KilledError):
            search_run(own, tmp_path / "killed")
    table.write_text("{}")
    monkeypatch.setattr(latency, "names", lambda kind: ["Another One"])
    search_run(own, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")
    with pytest.raises(ValueError, match="begun with other settings: latency_table = "):
        search_run(replace(own, latency_table=tmp_path / "b.json"), tmp_path / "killed", True)


# Evolution ----------------------------------------------------------------------------------------


def sampled(tmp_path, monkeypatch, **changed):
    path = tmp_path / "chain.json"
    if not path.exists():
        made(monkeypatch, path, space_named(**SMALL, stem_channels=4, last=8), CHAIN, DIGITS)
    space = {**SMALL, "stem_channels": 4, "last": 8}
    return settings(space=space, channels=4, epochs=1, latency_table=path, **changed)


@pytest.mark.slow
def test_evolution_stays_within_the_latency_and_resumes(tmp_path, monkeypatch):
    search_run(sampled(tmp_path, monkeypatch), tmp_path / "free")
    steps = rows(tmp_path / "free" / "evolution", "step")
    for row in steps:
        assert row["latency"] == pytest.approx(OVERHEAD + RATE * row["flops"])
    (end,) = rows(tmp_path / "free", "end")
    assert end["evolution"]["latency"] in [row["latency"] for row in steps]
    most = sorted(row["latency"] for row in steps)[4]
    own = sampled(tmp_path, monkeypatch, max_latency=most)
    found = search_run(own, tmp_path / "run")
    assert re.search(r" FLOPs, [\d.]+ ms$", found.evolved)
    within = [row["latency"] for row in rows(tmp_path / "run" / "evolution", "step")]
    assert max(within) <= most < max(row["latency"] for row in steps)
    until_killed(monkeypatch, Evolve, 5, tmp_path / "killed", own)
    search_run(own, tmp_path / "killed", resume=True)
    for name in ("metrics.jsonl", "evolution/metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


@pytest.mark.slow
def test_a_front_of_accuracy_and_latency(tmp_path, monkeypatch):
    evolution = Evolution(population=4, generations=3, parents=2, images=40, judged=60)
    evolution = replace(evolution, objectives="accuracy-latency")
    search_run(sampled(tmp_path, monkeypatch, evolution=evolution), tmp_path / "run")
    front = rows(tmp_path / "run" / "evolution", "epoch")[-1]["front"]
    times = [each["latency"] for each in front]
    assert times == sorted(times)
    steps = rows(tmp_path / "run" / "evolution", "step")
    assert times[0] == min(row["latency"] for row in steps)


# What is refused, and what a dry run says ---------------------------------------------------------


def test_the_smallest_latency_there_is_is_said(table, tmp_path):
    costs = costs_by(table)
    least = min(
        costs.total(("cell", e, name) for e, name in enumerate(names)).latency
        for names in itertools.product(("none", "skip_connect"), repeat=6)
    )
    with pytest.raises(ValueError, match=rf"max_latency = 0.001: .* has {least:.4g} ms; raise"):
        search_run(relaxed(table, max_latency=0.001), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_limits_that_only_together_cannot_be_met_are_all_named():
    space = space_named(name="nasbench-macro", widths=[8], depths=[1], strides=[1])
    space = replace(space, candidates=("mbconv3_3x3", "identity"))
    priced = {"mbconv3_3x3": Cost(1, 9, 9.0), "identity": Cost(9, 9, 1.0)}
    costs = Costs(Cost(0, 0), {"chain": [priced]}, [(1, 1)], keeps_none=True)
    budget = Budget(Darts(), costs, Limits(params=8, latency=8.0), weight=1.0)
    with pytest.raises(ValueError, match=r"max_params = 8e-06 with max_latency = 8: .* ms; raise"):
        budget.check(space)


def test_a_table_of_another_device_is_refused_before_a_directory_is_made(tmp_path, refused):
    content = Latencies(place(name="Another One"))
    (tmp_path / "t.json").write_text(content.as_text())
    line = f"search --latency-table {tmp_path / 't.json'} --max-latency 1 --out {tmp_path / 'run'}"
    refused(line, r"measured on Another One \(cpu\), and this machine has")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_of_a_refusal_measures_what_the_search_needs(tutelage, monkeypatch):
    monkeypatch.setattr(latency_table, "latency_of", by_flops)
    line = "latency --space nasbench201 --channels 8 --cells 1 --batch-size 2 --threads 1"
    assert tutelage(f"{line} --out t.json")[0] == 0
    line = "search --space nasbench201 --channels 2 --cells 1 --via first-order --epochs 1"
    line += " --limit-batches 1 --retrain.channels 4 --retrain.cells 1 --latency-table t.json"
    code, _, error = tutelage(f"{line} --out run")
    assert code == 1
    command = re.search(r"add it with tutelage (latency .*), and the space's own", error)[1]
    assert tutelage(command)[0] == 0
    code, _, error = tutelage(f"{line} --out run")
    assert code == 0, error
    assert rows(Path("run"), "epoch")[-1]["cost"][0]["derived"]["latency"] > 0


def test_a_dry_run_has_the_range_of_latencies(table):
    text = dry_run(relaxed(table, search={"name": "random"})).as_text()
    costs = costs_by(table)
    high = costs.total(("cell", edge, "nor_conv_3x3") for edge in range(6)).latency
    low = re.search(r"latency +([\d.]+) to ([\d.]+) ms; [\d.]+ expected", text)
    assert float(low[2]) == pytest.approx(high, rel=1e-3) and float(low[1]) < float(low[2])
    assert "latency" not in dry_run(relaxed(None, search={"name": "random"})).as_text()
