"""SD-DARTS in a search: kills, phases, rows, and the sharpness that it is about."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from test_search import KilledError, killed_at, run_toml, same_runs
from tutelage.batch import Batch
from tutelage.report.figures.plots import learner_lines
from tutelage.report.runs.read import read_run
from tutelage.report.sections.contents import learning
from tutelage.report.sections.monitor import collapse
from tutelage.run.dry_run import dry_run
from tutelage.run.job import checkpoint
from tutelage.run.monitor.curvature import sharpness
from tutelage.run.monitor.measured import accuracy, gap
from tutelage.run.search import search_run
from tutelage.searches.darts import Darts
from tutelage.spaces.base import ArchWeights, Size, one_hot
from tutelage.spaces.cells import DARTS
from tutelage.trees import leaves
from written_runs import read_rows


def settings(**changed):
    """Whole epochs of the digits in three steps; the last two of four are taught."""
    own = {
        "method": {"name": "sd-darts"},
        "limit_batches": None,
        "batch_size": 256,
        "epochs": 4,
        "space": {"name": "nasbench201"},
        "cells": 1,
        "save_every": 0.0,
    }
    base = run_toml(**{name: x for name, x in (own | changed).items() if name != "method"})
    return replace(base, method=(own | changed)["method"])


def rows(path):
    return read_rows(path)


KINDS = [
    {},
    {"memory_device": "host", "memory_dtype": "bf16", "memory_top": 3},
    {"memory": "average", "learners": 2},
    {"memory": "weights"},
]


KILLED = [*KINDS[:2], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[2:])]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KILLED, ids=lambda kind: "-".join(map(str, kind.values())))
def test_killed_and_resumed_equals_uninterrupted_with_the_past_in_use(kind, tmp_path, monkeypatch):
    asked = settings(method={"name": "sd-darts", **kind})
    search_run(asked, tmp_path / "whole")
    for step in (4, 3, 4):  # of 3 in an epoch: while it records, when it has begun to teach
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            killed_at(patch, step)
            search_run(asked, tmp_path / "killed", resume=(tmp_path / "killed").exists())
    search_run(asked, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")
    epochs = [row["learners"][0] for row in rows(tmp_path / "whole") if row["event"] == "epoch"]
    for half in ("train", "valid"):
        taught = [f"{half}_divergence" in scores for scores in epochs]
        assert taught == [False, False, True, True]
        assert all(scores[f"{half}_divergence"] > 0 for scores in epochs[2:])
    stored = checkpoint.load(tmp_path / "whole")["work"]["variables"]
    if "memory" not in kind:
        assert {x["count"].amin().item() for x in stored["P"]["train"]} == {4}


@pytest.mark.parametrize("memory", ["window", "weights"])
def test_the_past_goes_on_into_a_wider_phase(memory, tmp_path):
    asked = settings(
        method={"name": "sd-darts", "memory": memory},
        search={
            "name": "drnas",
            "progressive": True,
            "operations": 1,
            "partial": 2,
            "partial_end": 1,
        },
        channels=4,
        epochs=2,
    )
    search_run(asked, tmp_path / "run")
    stored = checkpoint.load(tmp_path / "run")["work"]["variables"]
    if memory == "window":
        assert stored["P"]["train"][0]["count"].tolist() == [2] * 599
    else:
        shapes = [[x.shape for x in leaves(stored[name])] for name in ("T", "W")]
        assert shapes[0] == shapes[1]
    (_, second) = [row for row in rows(tmp_path / "run") if row["event"] == "epoch"]
    assert second["phase"] == 1 and second["learners"][0]["train_divergence"] > 0


def test_the_size_is_told_before_the_run(tmp_path, capsys):
    asked = settings(limit_batches=1, epochs=2)
    search_run(asked, tmp_path / "run")
    message = "probabilities for 599 and 599 images are stored, 2 x 10 each: 0.1 MB on cpu"
    assert capsys.readouterr().out.startswith(message)
    assert f"of the method  {message}" in dry_run(asked).as_text()


# Sharpness --------------------------------------------------------------------------------------


def test_sharpness_of_a_quadratic_by_hand():
    """L = a² + 2 b² at (3, 2): its gradient (6, 8) has norm 10, so the step is (0.06, 0.08)."""

    def loss(alphas):
        return alphas["x"].square().sum() + 2 * alphas["y"].square().sum()

    at = {"x": torch.tensor([3.0]).double(), "y": torch.tensor([[2.0]]).double()}
    rise = 3.06**2 + 2 * 2.08**2 - 17
    assert sharpness(loss, at, 0.1) == pytest.approx(rise, rel=1e-12)
    assert sharpness(lambda a: 0 * loss(a), at, 0.1) == 0
    assert sharpness(lambda a: a["x"].new_ones(()), at, 0.1) == 0


def test_sharpness_sees_the_same_draws_and_leaves_the_generators():
    alphas = torch.tensor([1.0, 2.0], dtype=torch.float64)
    before = torch.get_rng_state()
    found = sharpness(lambda a: a.sum() + 100 * torch.randn(()), alphas, 0.5)
    assert found == pytest.approx(0.5 * math.sqrt(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gap_of_a_one_hot_mix_is_zero_and_else_counts_images():
    supernet = DARTS.supernet(Size(channels=2, cells=3, image_channels=1))
    genotype = Darts().derive(DARTS, Darts().alphas(DARTS))
    x, y = torch.randn(12, 1, 8, 8), torch.randint(10, (12,))
    parts = [Batch(x[:7], y[:7], y[:7]), Batch(x[7:], y[7:], y[7:])]
    chosen = one_hot(DARTS, genotype, like=x)
    plain = ArchWeights(chosen.operations)  # all operations run, most of them weighted 0

    def logits(arch):
        return lambda images: supernet(images, arch)[0]

    assert gap(logits(plain), logits(chosen), lambda: parts)["gap"] == 0
    right = torch.eye(10)[y]
    wrong = torch.eye(10)[torch.cat([y[:9], y[9:] + 1]) % 10]
    answers = {
        id(part.x): slice(start, start + len(part.y))
        for start, part in ((0, parts[0]), (7, parts[1]))
    }
    found = gap(
        lambda images: right[answers[id(images)]],
        lambda images: wrong[answers[id(images)]],
        lambda: parts,
    )
    assert found == {"gap": 0.25, "one_hot_accuracy": 0.75}
    assert accuracy(lambda images: right[answers[id(images)]], parts) == 1


def test_a_search_logs_sharpness_and_gap_every_so_many_epochs(tmp_path):
    asked = settings(
        method={"name": "single"}, epochs=2, sharpness_every=2, gap_every=1, limit_batches=2
    )
    search_run(asked, tmp_path / "run")
    search_run(run_toml(space=asked.space, cells=1, batch_size=256), tmp_path / "plain")
    first, second = (
        row["collapse"][0] for row in rows(tmp_path / "run") if row["event"] == "epoch"
    )
    assert first["sharpness"] is None and second["sharpness"] > 0
    for each in (first, second):
        assert -1 <= each["gap"] <= 1 and 0 <= each["one_hot_accuracy"] <= 1
    one, two = rows(tmp_path / "run"), rows(tmp_path / "plain")
    assert [row.get("loss") for row in one] == [row.get("loss") for row in two]  # nothing moves
    plain = next(row for row in two if row["event"] == "epoch")["collapse"][0]
    assert plain["gap"] is None and plain["eigenvalue"] is None


def test_the_warm_up_is_darts_to_the_bit_and_the_report_draws_what_follows(tmp_path):
    asked = settings(epochs=2, sharpness_every=1, gap_every=1)
    search_run(asked, tmp_path / "past")
    search_run(replace(asked, method={"name": "single"}), tmp_path / "single")
    (past, taught), (single, plain) = (
        [row for row in rows(tmp_path / name) if row["event"] == "epoch"]
        for name in ("past", "single")
    )
    same = ("loss", "learners", "arch_weights", "collapse", "gradient")
    assert [past[name] for name in same] == [single[name] for name in same]
    assert taught["loss"] != plain["loss"]
    stage = read_run(tmp_path / "past").search
    assert [line.y[0] == line.y[0] for line in learner_lines(stage, "divergence")] == [False] * 2
    captions = [each.caption for each in (*learning(stage), *collapse(stage))]
    for drawn in ("Divergence of every learner", "Sharpness", "Discretisation gap"):
        assert any(caption.startswith(drawn) for caption in captions)
    assert not any(
        "Divergence" in x.caption for x in learning(read_run(tmp_path / "single").search)
    )
