"""Learning curves of a retraining on images that it neither trains on nor is tested on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from retraining import DIGITS, SMALL, files, train
from test_report import Page
from test_retrain_resume import train_until_killed
from tutelage import Given, load
from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.read import read
from tutelage.records.rows import TRAINING
from tutelage.report.page import write_report
from tutelage.report.runs.read import read_run
from tutelage.report.sections import contents
from tutelage.run.job.directory import RunDirectory
from tutelage.run.training.validation import divided

VALIDATED = replace(SMALL, validate=90)


def epochs(out):
    """The rows of the epochs of a retraining."""
    return [row for row in RunDirectory(out).metrics.read(TRAINING) if row.event == "epoch"]


@torch.no_grad()
def scores(network, images, labels, details):
    """Loss and accuracy of a network, one image after the other."""
    mean, std = details
    logits = [network(((x[None] / 255 - mean) / std).float())[0].double() for x in images]
    losses = [float(F.cross_entropy(z, y)) for z, y in zip(logits, labels, strict=True)]
    right = [int(z.argmax()) == int(y) for z, y in zip(logits, labels, strict=True)]
    return sum(losses) / len(losses), sum(right) / len(right)


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """A training that is measured after every epoch; not to be written to."""
    out = tmp_path_factory.mktemp("validated") / "whole"
    train(out, VALIDATED)
    return out


# Which images -----------------------------------------------------------------------------------


def test_the_images_are_no_others_than_those_left_out():
    digits = read(DIGITS, "train")
    subset, validation = divided(digits, DIGITS, 90)
    together = torch.cat([subset, validation.subset])
    assert len(validation.subset) == 90 and validation.data is digits
    assert together.sort().values.tolist() == list(range(len(digits.images)))
    fewer = divided(digits, DIGITS, 40)[1].subset
    assert set(fewer.tolist()) < set(validation.subset.tolist())
    every, none = divided(digits, DIGITS, 0)
    assert len(every) == len(digits.images) and not len(none.subset)
    for count in (1_197, 1_198, 5_000):
        with pytest.raises(DataError, match="validate = "):
            divided(digits, DIGITS, count)


@pytest.mark.parametrize("given", [False, True])
def test_a_validation_part_is_measured_and_all_of_train_trains(given, here):
    random = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 8), ("val", 3), ("test", 2)):
        images = random.integers(0, 256, (2 * count, 8, 8, 3), np.uint8)
        labels = np.arange(2 * count) % 2
        parts[part] = images, labels
        for place, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            path = here / "photos" / part / "ab"[label] / f"{place:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    data = Data("photos", validation="folder")
    if given:
        held = (parts[part] for part in ("train", "test", "val"))
        data = Given(*held, classes=("a", "b"))
    settings = replace(SMALL, epochs=1, batch_size=4, limit_batches=None, auxiliary=0.0, cutout=0)
    train(here / "out", settings, data=data)
    pixels = torch.from_numpy(parts["train"][0]).double() / 255
    moments = torch.std_mean(pixels, (0, 1, 2), correction=0)
    details = [each[:, None, None] for each in reversed(moments)]
    images, labels = map(torch.from_numpy, parts["val"])
    expected = scores(load(here / "out"), images.permute(0, 3, 1, 2), labels, details)
    (row,) = epochs(here / "out")
    assert (row.valid_loss, row.valid_accuracy) == pytest.approx(expected, rel=1e-3)
    stored = json.loads((here / "out" / "data.json").read_text())["parts"]
    assert (stored["train"]["images"], stored["validation"]["images"]) == (16, 6)
    with pytest.raises(ValueError, match="the val part is measured already"):
        train(here / "other", replace(settings, validate=2), data=data)
    assert not (here / "other").exists()


# What is measured -------------------------------------------------------------------------------


def test_an_epoch_is_measured_as_its_network_is(validated):
    digits = read(DIGITS, "train")
    subset = divided(digits, DIGITS, 90)[1].subset
    images, labels = digits.images.take(subset), digits.images.labels[subset]
    expected = scores(load(validated), images, labels, (digits.mean[0], digits.std[0]))
    last = epochs(validated)[-1]
    assert (last.valid_loss, last.valid_accuracy) == pytest.approx(expected, rel=1e-5)
    assert all(row.valid_loss is not None for row in epochs(validated))


@pytest.mark.slow
def test_averaged_weights_are_what_is_measured(tmp_path):
    train(tmp_path / "out", replace(VALIDATED, epochs=1, ema=0.99))
    digits = read(DIGITS, "train")
    subset = divided(digits, DIGITS, 90)[1].subset
    images, labels = digits.images.take(subset), digits.images.labels[subset]
    expected = scores(load(tmp_path / "out"), images, labels, (digits.mean[0], digits.std[0]))
    assert epochs(tmp_path / "out")[-1].valid_loss == pytest.approx(expected[0], rel=1e-5)


def test_killed_and_resumed_it_has_the_same_curves(validated, tmp_path):
    train_until_killed(tmp_path / "out", VALIDATED, 5)
    train(tmp_path / "out", VALIDATED, resume=True)
    assert files(tmp_path / "out") == files(validated)


# On the page ------------------------------------------------------------------------------------


def test_both_curves_are_drawn_in_the_colour_of_their_network(validated, monkeypatch):
    drawn = []
    monkeypatch.setattr(contents, "plot", lambda *given: drawn.append(given) or ())
    list(contents.retrained(read_run(validated).retraining))
    rows = epochs(validated)
    (_, losses, axis), (_, accuracies, _) = drawn
    assert [(x.label, x.dashed) for x in losses] == [("valid", False), ("train", True)]
    assert axis.name == "epoch" and len({x.colour for x in losses + accuracies}) == 1
    assert losses[0].y == [row.valid_loss for row in rows]
    assert accuracies[0].y == [100 * row.valid_accuracy for row in rows]


def test_the_page_has_both_curves_and_says_of_which_images(validated, retrained, tmp_path):
    page = Page(write_report([validated], tmp_path / "with.html"))
    assert "valid: 90 training images, which it does not train on" in page.text
    page = Page(write_report([retrained], tmp_path / "without.html"))
    assert "With --validate N, the network is also measured" in page.text
