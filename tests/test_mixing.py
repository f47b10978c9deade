"""Mixup and CutMix against loops, and a training with them that resumes exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from retraining import GENOTYPE, SMALL, files, train
from test_own_validation import stream
from test_retrain_resume import train_until_killed
from tutelage.batch import Batch
from tutelage.config import Retrain
from tutelage.data.mixing import Mixing, mix, rectangle, shared
from tutelage.run.training.training import Training


def batch(count=5, height=6, width=9):
    x = torch.randn(count, 2, height, width, dtype=torch.float64)
    return Batch(x, torch.arange(count) % 3, torch.arange(count) + 10)


def test_mixup_adds_two_images_with_their_shares():
    given, seen = batch(), []
    for seed in range(40):
        mixed, partner = mix(given, Mixing(mixup=0.4), np.random.default_rng(seed))
        order = [int(place) - 10 for place in partner.position]
        assert sorted(order) == list(range(5))
        share = float(partner.x[0])
        assert (partner.x == partner.x[0]).all()
        for k, other in enumerate(order):
            want = share * given.x[k] + (1 - share) * given.x[other]
            torch.testing.assert_close(mixed.x[k], want, rtol=1e-6, atol=1e-6)
            assert int(partner.y[k]) == int(given.y[other])
        assert torch.equal(mixed.y, given.y)
        seen.append(share)
    assert min(seen) < 0.1
    assert max(seen) > 0.9
    assert 0.3 < np.mean(seen) < 0.7


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_puts_a_rectangle_of_one_on_the_other(seed):
    given = batch()
    before = given.x.clone()
    mixed, partner = mix(given, Mixing(cutmix=1.0), np.random.default_rng(seed))
    assert torch.equal(given.x, before)
    order = [int(place) - 10 for place in partner.position]
    for k, other in enumerate(order):
        own = (mixed.x[k] == given.x[k]).all(0)
        theirs = (mixed.x[k] == given.x[other]).all(0)
        assert (own | theirs).all()
        if k != other:
            assert float(own.double().mean()) == pytest.approx(float(partner.x[0]), abs=1e-6)
            rows, columns = (~own).any(1).sum(), (~own).any(0).sum()
            assert int((~own).sum()) == int(rows * columns)  # a whole rectangle


def test_rectangles_have_the_area_and_stay_inside():
    assert rectangle(10, 20, 0.75, 0.5, 0.5) == (3, 8, 5, 15)  # half of either side
    assert rectangle(10, 20, 0.75, 0.0, 0.99) == (0, 3, 14, 20)
    assert rectangle(10, 20, 1.0, 0.5, 0.5) == (5, 5, 10, 10)
    assert rectangle(10, 20, 0.0, 0.5, 0.5) == (0, 10, 0, 20)


def test_both_take_turns():
    cut = 0
    given = batch()
    for seed in range(100):
        mixed, partner = mix(given, Mixing(1.0, 1.0), np.random.default_rng(seed))
        k = next(k for k in range(5) if int(partner.position[k]) != k + 10)
        cut += bool((mixed.x[k] == given.x[k]).any() or partner.x[0] == 0)
    assert 30 < cut < 70


def test_the_loss_has_both_labels():
    settings = replace(SMALL, mixup=0.2, auxiliary=0.0, label_smoothing=0.1)
    training = Training(GENOTYPE, stream(torch.tensor([0, 1, 2, 0, 1, 2])), settings)
    logits, y, other = torch.randn(6, 3), torch.arange(6) % 3, torch.arange(6).flip(0) % 3
    partner = Batch(torch.full((6,), 0.3), other, y)
    own, theirs = (F.cross_entropy(logits, each, label_smoothing=0.1) for each in (y, other))
    found = training._loss(logits, y, partner)
    torch.testing.assert_close(found, 0.3 * own + 0.7 * theirs)
    assert torch.equal(shared(own, theirs, partner), found)


@pytest.mark.parametrize("given", [{"mixup": -1.0}, {"cutmix": -0.1}])
def test_negative_parameters_are_refused(given):
    with pytest.raises(ValueError, match="a number of at least 0"):
        Retrain(**given)


@pytest.mark.slow
def test_a_mixed_training_resumes_exactly(tmp_path):
    settings = replace(SMALL, mixup=0.4, cutmix=1.0, save_every=0.0)
    train(tmp_path / "whole", settings)
    train_until_killed(tmp_path / "killed", settings, 3)
    train(tmp_path / "killed", settings, resume=True)
    assert files(tmp_path / "whole") == files(tmp_path / "killed")
    train(tmp_path / "plain", replace(SMALL, save_every=0.0))
    assert files(tmp_path / "plain") != files(tmp_path / "whole")
