"""Classes of unequal size in searches and retrainings: weights of classes, or balanced batches."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tutelage
from retraining import SMALL, train
from test_search import TINY, KilledError, killed_at, same_runs
from toys import ToyMake, toy_batch
from tutelage import SGL, Single
from tutelage.config import Data, Retrain, Run, once_balanced
from tutelage.data.augment import Augmentation
from tutelage.data.balance import balanced_order, class_weights
from tutelage.data.batches import Stream
from tutelage.data.images import InMemory, Labelled
from tutelage.data.splits import split
from tutelage.data.streams import streams_of
from tutelage.methods.past import Past
from tutelage.run.search import search_run
from tutelage.transfer import cross_entropy

LABELS = np.array([0] * 70 + [2] * 20 + [3] * 3)[np.random.default_rng(0).permutation(93)]
METHODS = Path(tutelage.__file__).parent / "methods"

# Orders -----------------------------------------------------------------------------------------


def test_an_order_has_every_class_equally_often_and_its_images_too():
    for epoch in range(3):
        order = balanced_order(LABELS, 0, "train", epoch, 0)
        assert len(order) == 93
        assert sorted(Counter(LABELS[order].tolist()).values()) == [31, 31, 31]
        for label, size in ((0, 70), (2, 20), (3, 3)):
            times = Counter(order[LABELS[order] == label].tolist()).values()
            assert max(times) - min(times) <= 1
            assert len(times) == min(size, 31)
    uneven = balanced_order(np.array([0, 0, 0, 1]), 0, "train", 0, 0)
    assert sorted(np.bincount(np.array([0, 0, 0, 1])[uneven]).tolist()) == [2, 2]
    odd = balanced_order(np.array([0, 0, 1, 2, 2]), 0, "train", 0, 0)
    assert sorted(np.bincount(np.array([0, 0, 1, 2, 2])[odd]).tolist()) == [1, 2, 2]


def test_an_order_is_a_function_of_its_arguments():
    def order(seed=0, name="train", epoch=1, turn=0):
        return balanced_order(LABELS, seed, name, epoch, turn).tolist()

    assert order() == order()
    others = [order(seed=1), order(name="valid"), order(epoch=2), order(turn=1)]
    assert all(other != order() for other in others)
    first = {place for place in order() if LABELS[place] == 0}
    assert first != {place for place in order(epoch=2) if LABELS[place] == 0}


def stream(balanced=True):
    labels = torch.from_numpy(LABELS)
    images = InMemory(torch.zeros(93, 1, 4, 4, dtype=torch.uint8), labels)
    data = Labelled("toys", images, tuple("abcd"), (0.5,), (0.5,), crop=0, flip=False)
    subset = torch.arange(93)[LABELS != 2]
    return Stream(
        data=data,
        subset=subset,
        batch_size=10,
        seed=3,
        name="train",
        augmentation=Augmentation(),
        device=torch.device("cpu"),
        balanced=balanced,
    )


def test_batches_of_a_balanced_stream_are_a_function_of_epoch_and_step():
    own = stream()
    assert own.steps == stream(balanced=False).steps == 8
    batches = [own.batch(2, step) for step in range(8)]
    counts = Counter(torch.cat([batch.y for batch in batches]).tolist())
    assert counts in ({0: 37, 3: 36}, {0: 36, 3: 37})
    for batch in batches:
        assert torch.equal(own.data.images.labels[own.subset[batch.position]], batch.y)
    again = stream().batch(2, 5)  # of a stream that has made no other
    assert torch.equal(again.position, batches[5].position)
    assert not torch.equal(stream(balanced=False).batch(2, 5).position, batches[5].position)
    assert len(torch.cat([batch.y for batch in own.in_order()])) == 73


def test_both_halves_of_a_search_are_balanced_and_images_without_labels_are_not():
    data = stream().data
    halves = split(93, 0.5, 0)
    settings = Run(data=Data(balanced=True), batch_size=10)
    found = streams_of(settings, data, halves, torch.device("cpu"))
    assert [found.train.balanced, found.valid.balanced, found.unlabelled.balanced] == [1, 1, 0]
    plain = streams_of(replace(settings, data=Data()), data, halves, torch.device("cpu"))
    assert not (plain.train.balanced or plain.valid.balanced)


@pytest.mark.slow
def test_a_balanced_search_and_retraining_resume_exactly(tmp_path, monkeypatch):
    settings = Run(**{**TINY, "data": Data(balanced=True)}, save_every=0.0)
    search_run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, 3)
        search_run(settings, tmp_path / "killed")
    search_run(settings, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")
    with pytest.raises(ValueError, match=r"data\.balanced = False \(was True\)"):
        search_run(replace(settings, data=Data()), tmp_path / "killed", resume=True)
    with pytest.raises(ValueError, match=r"class_weights = 'balanced' with data\.balanced"):
        train(tmp_path / "no", replace(SMALL, class_weights="balanced"), data=Data(balanced=True))


def test_a_repeated_image_is_stored_once():
    past = Past(4, 2, 3, torch.device("cpu"))
    stored = past.empty()
    rows = torch.rand(3, 2).softmax(1)
    past.record(stored, torch.tensor([1, 1, 2]), rows)
    assert stored["count"].tolist() == [0, 1, 1, 0]
    mean, known = past.mean(stored, torch.tensor([1, 2, 3]), rows)
    assert torch.equal(mean[:2], rows[[0, 2]])
    assert known.tolist() == [True, True, False]


# Weights ----------------------------------------------------------------------------------------


def weighted(logits, y, weights):
    """The weighted mean of the losses of a batch, image by image."""
    total, norm = 0.0, 0.0
    for row, label in zip(logits.tolist(), y.tolist(), strict=True):
        chances = np.exp(row) / np.exp(row).sum()
        total += weights[label] * -np.log(chances[label])
        norm += weights[label]
    return total / norm


def test_weights_are_inverse_to_the_number_of_images():
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    assert class_weights(labels, 3).tolist() == [6 / (2 * 4), 0, 6 / (2 * 2)]


@pytest.mark.parametrize("method", [Single(), SGL()])
def test_the_losses_of_labels_are_weighted_over_the_batch(method):
    weights = torch.tensor([0.5, 2.0, 1.25], dtype=torch.float64)
    torch.manual_seed(0)
    make = ToyMake()
    make.cross_entropy = partial(cross_entropy, weights=weights)
    problem = method(make)
    batch, s = toy_batch(), SimpleNamespace(**problem.variables)
    for level, half in ((problem.levels[0], "train"), (problem.levels[-1], "valid")):
        found, notes = level.loss(s, batch)
        y = getattr(batch, half).y
        expected = sum(weighted(z.detach(), y, weights.tolist()) for z in notes[half])
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_every_method_takes_the_loss_of_labels_from_its_maker():
    """So that weights of the classes reach it; the choice of KDCL's teacher is no loss."""
    for path in METHODS.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"from tutelage\.transfer import [^\n]*cross_entropy", text), path
        assert "nll_loss" not in text


def test_a_search_with_weights(tmp_path, refused, monkeypatch):
    equal = Run(**TINY)
    images = stored_unequal()
    monkeypatch.setattr("tutelage.run.strategies.assemble.read", lambda *given: images)
    search_run(equal, tmp_path / "equal")
    balanced = replace(equal, class_weights="balanced")
    search_run(balanced, tmp_path / "balanced")
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("equal", "balanced")]
    assert rows[0] != rows[1]
    with pytest.raises(ValueError, match=r"class_weights = equal \(was balanced\)"):
        search_run(equal, tmp_path / "balanced", resume=True)
    line = "search --method dna --teacher untrained --search single-path --space ennas-s1 --out run"
    refused(
        f"{line} --class-weights balanced --batch-size 4", "give --data.balanced, which samples"
    )


def stored_unequal():
    labels = torch.from_numpy(LABELS)
    pixels = torch.randint(0, 256, (93, 1, 8, 8), dtype=torch.uint8)
    return Labelled("toys", InMemory(pixels, labels), tuple("abcd"), (0.5,), (0.5,), 0, False)


def test_settings_that_are_refused():
    with pytest.raises(ValueError, match="class_weights = 'square'"):
        Run(class_weights="square")
    with pytest.raises(ValueError, match="each makes classes count equally, give one of them"):
        Run(class_weights="balanced", data=Data(balanced=True))
    once_balanced(Data(balanced=True), Retrain().class_weights)
