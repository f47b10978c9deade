"""What the steps of an epoch measure: marks by hand, who teaches whom, and what progress says."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from test_search import TINY, work_of
from tutelage.methods.pamkd import PAMKD
from tutelage.methods.single import Single
from tutelage.multilevel import Report
from tutelage.records.rows import LearnerScores, Teaching
from tutelage.run.supernet.metrics import Meter, entries, measured, teaching_line

P = torch.tensor(
    [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5], [0.625, 0.25, 0.125]],
    dtype=torch.float64,
)
"""Probabilities of four images: their classes are 0, 1, 2, 0."""
LOGITS = P.log() + torch.tensor([[3.0], [-1.0], [0.0], [7.0]], dtype=torch.float64)


def metered(*steps, batch=None):
    """A meter after an epoch of steps, each given by its notes."""
    meter = Meter()
    for notes in steps:
        meter.add(*measured(Report({}, [notes], {}), batch))
    meter.check(0, len(steps))
    return meter


# Marks ------------------------------------------------------------------------------------------


def test_losses_and_accuracies_by_hand():
    y = {"train": torch.tensor([0, 1, 2, 1]), "valid": torch.tensor([1, 1, 0, 0])}
    batch = SimpleNamespace(**{half: SimpleNamespace(y=labels) for half, labels in y.items()})
    found = metered({"train": [LOGITS], "valid": [LOGITS]}, batch=batch).means
    message = [-math.log(0.5 * 0.75 * 0.5 * 0.25) / 4, -math.log(0.25 * 0.75 * 0.25 * 0.625) / 4]
    assert found == {
        ("learners", 0, "train_loss"): pytest.approx(message[0], rel=1e-12),
        ("learners", 0, "train_accuracy"): 0.75,
        ("learners", 0, "valid_loss"): pytest.approx(message[1], rel=1e-12),
        ("learners", 0, "valid_accuracy"): 0.5,
    }


def test_labels_are_right_where_the_truth_is_known_and_decided_everywhere():
    second = LOGITS.flip(1)  # its classes are 2, 1, 0, 2
    truth = torch.tensor([0, -1, 2, 1])
    found = metered({"labels": ([LOGITS, second], truth)}).means
    entropy = -sum(p * math.log(p) for p in P.flatten().tolist()) / 4
    assert found == {
        ("learners", 0, "label_accuracy"): pytest.approx(2 / 3, rel=1e-12),
        ("learners", 0, "label_entropy"): pytest.approx(entropy, rel=1e-12),
        ("learners", 1, "label_accuracy"): 0.0,
        ("learners", 1, "label_entropy"): pytest.approx(entropy, rel=1e-12),
    }


def test_a_step_whose_truths_are_all_unknown_counts_for_no_accuracy():
    known, unknown = ([LOGITS], torch.tensor([0, 1, 0, 1])), ([LOGITS], torch.full((4,), -1))
    meter = metered({"labels": known}, {"labels": unknown})
    assert meter.means["learners", 0, "label_accuracy"] == 0.5
    assert set(meter.last) == {("learners", 0, "label_entropy")}
    (scores,) = entries(metered({"labels": unknown}).means)["learners"]
    assert scores == LearnerScores(label_entropy=meter.last["learners", 0, "label_entropy"])


@pytest.mark.parametrize("learners", [2, 3, 4])
def test_agreement_is_the_share_of_pairs_and_images_that_are_named_alike(learners):
    logits = list(torch.randn(learners, 11, 3, dtype=torch.float64))
    batch = SimpleNamespace(valid=SimpleNamespace(y=torch.zeros(11, dtype=torch.long)))
    message = [[row.index(max(row)) for row in each.tolist()] for each in logits]
    alike = [
        message[k][n] == message[j][n]
        for k, j in itertools.combinations(range(learners), 2)
        for n in range(11)
    ]
    assert 0 < sum(alike) < len(alike)
    found = entries(metered({"valid": logits}, batch=batch).means)["teaching"]
    assert found == Teaching(agreement=found.agreement)
    assert found.agreement == pytest.approx(sum(alike) / len(alike), rel=1e-12)


def test_a_learner_alone_agrees_with_nobody():
    batch = SimpleNamespace(valid=SimpleNamespace(y=torch.zeros(4, dtype=torch.long)))
    assert entries(metered({"valid": [LOGITS]}, batch=batch).means)["teaching"] == Teaching()


def matrix(step=0.0):
    """Learner k has 10 k + j of peer j, in K = 12 more than one digit names."""
    return torch.arange(12.0).view(12, 1) * 10 + torch.arange(12.0) + step


@pytest.mark.parametrize("what", ["gate", "transfer", "attention"])
def test_a_matrix_has_a_row_for_every_learner_and_a_column_for_every_peer(what):
    meter = metered({what: matrix()}, {what: matrix(1.0)})
    assert meter.last["matrices", what, 3, 1] == 32.0
    found = entries(meter.means)["teaching"]
    wanted = [[10.0 * k + j + 0.5 for j in range(12)] for k in range(12)]
    assert found == Teaching(**{what: wanted})


def test_divergences_of_every_learner_are_marks():
    found = metered({"train_divergence": torch.tensor([0.25, 0.5])}).means
    assert found == {
        ("learners", 0, "train_divergence"): 0.25,
        ("learners", 1, "train_divergence"): 0.5,
    }
    assert entries(found)["learners"] == [
        LearnerScores(train_divergence=0.25),
        LearnerScores(train_divergence=0.5),
    ]


# In words ---------------------------------------------------------------------------------------


GATE = [[0.0, 0.25, 0.0], [0.0, 0.0, 0.0], [1.5, 0.0625, 9.0]]
NOBODY = [[7.0, 0.0], [0.0, 7.0]]  # what a learner is to itself is not said


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ""),
        ({"gate": NOBODY}, ""),
        ({"gate": GATE}, "gate 0 from 1 0.250, 2 from 0 1.500, 2 from 1 0.062"),
        ({"agreement": 0.625}, "agreement 62.5 %"),
        ({"gate": [[0, 2], [0, 0]], "transfer": [[0, 3], [4, 0]]}, "gate 0 from 1 2.000"),
        ({"gate": NOBODY, "transfer": [[0, 0], [4, 0]]}, "transfer 1 from 0 4.000"),
        (
            {"transfer": [[0, 0], [4, 0]], "attention": [[0, 0.5], [0, 0]], "agreement": 1.0},
            "attention 0 from 1 0.500; agreement 100.0 %",
        ),
    ],
)
def test_a_line_says_who_teaches_whom(values, expected):
    assert teaching_line(Teaching(**values)) == expected


def test_progress_says_who_teaches_whom(tmp_path, monkeypatch):
    """The better of two teaches the worse, by what the epoch's row has."""
    settings = TINY | {"space": "nasbench201", "cells": 1, "batch_size": 16}
    work = work_of(settings, tmp_path, monkeypatch, PAMKD(group_size=2))
    work.advance()
    work.check()
    teaching = work.row("epoch").teaching
    gate, agreement = teaching.gate, teaching.agreement
    (worse,) = (k for k in range(2) if gate[k][1 - k])
    words = f"gate {worse} from {1 - worse} {gate[worse][1 - worse]:.3f}"
    assert work.fields()["teaching"] == f"{words}; agreement {100 * agreement:.1f} %"


def test_progress_says_nothing_of_teaching_where_there_is_none(tmp_path, monkeypatch):
    settings = TINY | {"space": "nasbench201", "cells": 1}
    work = work_of(settings, tmp_path, monkeypatch, Single())
    work.advance()
    work.check()
    assert "teaching" not in work.fields()
    assert work.row("epoch").teaching == Teaching()


@pytest.mark.parametrize("resumed", ["no", "in the epoch", "after it", "of an earlier release"])
def test_a_gradient_that_has_become_zero_is_told_apart(resumed):
    meter, places = Meter(), [("gradient", "validate", "learn")]
    for step, norm in enumerate([0.5, *[0.0] * 14], start=1):
        meter.add(places, torch.tensor([norm]))
        meter.check(0, step)
    if resumed == "after it":
        meter.clear()
    if resumed != "no":
        state, zeros, meter = meter.state(), meter.zeros(), Meter()
        meter.restore(state, None if "release" in resumed else zeros)
    last = 20 if "release" in resumed else 6
    for step in range(16, 15 + last):
        meter.add(places, torch.tensor([0.0]))
        meter.check(0, step)
    meter.add(places, torch.tensor([0.0]))
    with pytest.raises(ValueError, match=r"zero for 20 steps at epoch 0, step .*: it was not zero"):
        meter.check(0, 15 + last)
