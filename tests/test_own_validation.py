"""Unequal classes and validation images of one's own."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from retraining import GENOTYPE, SMALL
from tutelage.config import Data, Retrain, Run
from tutelage.data import DataError
from tutelage.data.augment import Augmentation
from tutelage.data.balance import class_weights
from tutelage.data.batches import Stream
from tutelage.data.halves import halves
from tutelage.data.images import InMemory, Labelled
from tutelage.data.read import check_test_part, read
from tutelage.data.splits import load_split, stratified
from tutelage.data.survey import survey
from tutelage.run.training.training import Training

COUNTS = {"train": 6, "val": 3, "test": 2}


@pytest.fixture
def photos(here):
    """Two classes in three parts of their own."""
    for number, (part, count) in enumerate(COUNTS.items()):
        for kind, name in enumerate(("cat", "dog")):
            (here / "photos" / part / name).mkdir(parents=True)
            for k in range(count):
                pixels = np.full((8, 8, 3), 100 * number + 10 * k + kind, np.uint8)
                Image.fromarray(pixels).save(here / "photos" / part / name / f"{k}.png")
    return here / "photos"


def brightness(data, index):
    return sorted(data.images.take(index)[:, 0, 0, 0].tolist())


# Stratified halves ------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.5, 0.8, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_divided_by_the_share(fraction, seed):
    labels = torch.tensor([0] * 40 + [1] * 10 + [2] * 2 + [3])[torch.randperm(53)]
    train, valid = stratified(labels, fraction, seed)
    assert sorted(torch.cat([train, valid]).tolist()) == list(range(53))
    counts = Counter(labels[train].tolist())
    for label, count in ((0, 40), (1, 10), (2, 2)):
        assert counts[label] == min(max(round(count * fraction), 1), count - 1)
    assert counts[3] == 1
    assert torch.equal(train, stratified(labels, fraction, seed)[0])
    assert not torch.equal(train, stratified(labels, fraction, seed + 10)[0])
    if fraction < 0.8:  # in no order of classes
        assert labels[valid].tolist() != sorted(labels[valid].tolist())


def test_halves_of_digits_have_equal_classes(refused):
    settings = Run(data=Data(stratified=True), seed=3)
    data = read(settings.data, "search")
    counts = [np.bincount(data.images.labels[half]) for half in halves(settings, data)]
    assert abs(counts[0] - counts[1]).max() <= 1
    with pytest.raises(DataError, match="each part needs at least 2"):
        stratified(torch.arange(5), 0.5, 0)
    refused("search --data.stratified --data.validation folder --out run", "no images are divided")


# A validation part ------------------------------------------------------------------------------


def test_the_val_folder_trains_alphas_and_all_of_train_weights(photos):
    settings = Run(data=Data(str(photos), validation="folder"))
    data = read(settings.data, "search")
    train, valid = halves(settings, data)
    assert brightness(data, train) == sorted(10 * k + c for k in range(6) for c in range(2))
    assert brightness(data, valid) == sorted(100 + 10 * k + c for k in range(3) for c in range(2))
    assert data.images.labels[valid].tolist() == [0, 0, 0, 1, 1, 1]
    assert len(read(settings.data, "train").images) == 12
    tested = read(settings.data, "test")
    assert brightness(tested, torch.arange(4)) == [200, 201, 210, 211]
    half = read(Data(str(photos)), "search")  # as before: val is not read beside a test part
    assert len(half.images) == 12


def test_a_search_and_its_retraining(photos, tutelage):
    line = "--data photos --data.validation folder --epochs 1 --limit-batches 1 --device cpu"
    code, _, error = tutelage(
        f"search {line} --via first-order --channels 2 --cells 3 --batch-size 4 --out run"
    )
    assert code == 0, error
    train, valid = load_split(photos.parent / "run" / "split.npz", 18)
    assert (train.tolist(), valid.tolist()) == (list(range(12)), list(range(12, 18)))
    code, _, error = tutelage(
        "retrain run --epochs 1 --limit-batches 1 --batch-size 4 --channels 2 --cells 3 "
        "--auxiliary 0 --class-weights balanced"
    )
    assert code == 0, error
    result = json.loads((photos.parent / "run" / "retrain" / "result.json").read_text())
    assert result["test_images"] == 4
    line = "--epochs 1 --limit-batches 1 --batch-size 4 --channels 2 --cells 3 --auxiliary 0"
    code, _, error = tutelage(f"retrain run --data digits {line} --out other")
    assert code == 0, error  # digits have no part for validation, which the run's folder has


def test_what_lacks_a_part_is_refused(photos):
    settings = Data(str(photos), validation="folder")
    assert survey(settings).parts["validation"].classes == {"cat": 3, "dog": 3}
    (photos / "val" / "dog").rename(photos / "val" / "owl")
    with pytest.raises(DataError, match="only one of train and val has the classes dog, owl"):
        read(settings, "search")
    (photos / "val").rename(photos / "spare")
    with pytest.raises(DataError, match="has no val"):
        read(settings, "search")
    (photos / "spare").rename(photos / "val")
    (photos / "test").rename(photos / "spare")
    with pytest.raises(DataError, match="has no test"):
        check_test_part(settings)
    check_test_part(replace(settings, held_out=2))
    with pytest.raises(DataError, match="digits has no validation part of its own"):
        read(Data(validation="folder"), "search")


# Weights of classes -----------------------------------------------------------------------------


def stream(labels, classes=3):
    pixels = torch.randint(0, 256, (len(labels), 1, 8, 8), dtype=torch.uint8)
    names = tuple("abcdef"[:classes])
    data = Labelled("toys", InMemory(pixels, labels), names, (0.5,), (0.5,), crop=0, flip=False)
    return Stream(
        data=data,
        subset=torch.arange(len(labels)),
        batch_size=6,
        seed=0,
        name="retrain",
        augmentation=Augmentation(),
        device=torch.device("cpu"),
    )


def test_weights_are_inverse_to_the_images_of_a_class():
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    weights = class_weights(labels, 3)
    assert weights.tolist() == [6 / (2 * 4), 0, 6 / (2 * 2)]
    assert float(weights[labels].mean()) == 1


def test_a_training_has_them_in_its_loss():
    settings = replace(SMALL, class_weights="balanced", auxiliary=0.0, label_smoothing=0.1)
    labels = torch.tensor([0, 0, 0, 0, 1, 2])
    training = Training(GENOTYPE, stream(labels), settings)
    logits, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 0, 1])
    weights = [6 / 12, 6 / 3, 6 / 3]
    total, norm = 0.0, 0.0
    for row, label in zip(logits.float().log_softmax(1).double().tolist(), y.tolist(), strict=True):
        spread = sum(w * -p for w, p in zip(weights, row, strict=True)) / 3
        total += 0.9 * weights[label] * -row[label] + 0.1 * spread
        norm += weights[label]
    assert float(training._loss(logits, y)) == pytest.approx(total / norm, rel=1e-5)
    equal = Training(GENOTYPE, stream(labels), replace(settings, class_weights="equal"))
    plain = F.cross_entropy(logits.float(), y, label_smoothing=0.1)
    assert torch.equal(equal._loss(logits, y), plain)
    with pytest.raises(ValueError, match="class_weights"):
        Retrain(class_weights="square")
