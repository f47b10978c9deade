"""Scores of classes, confusions and calibration, against sklearn, slow loops and values by hand."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tutelage.classification import (
    as_dict,
    by_class,
    calibration,
    confused,
    confusion,
    surely_wrong,
)


def random_predictions(count=300, classes=6, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    predicted = np.where(random.random(count) < 0.5, labels, random.integers(0, classes, count))
    return labels, predicted, random.uniform(1 / classes, 1, count)


def test_scores_are_those_of_sklearn():
    labels, predicted, _ = random_predictions()
    table = confusion(labels, predicted, 6)
    assert np.array_equal(table, confusion_matrix(labels, predicted))
    precision, recall, f1, images = precision_recall_fscore_support(labels, predicted)
    found = by_class(table)
    for ours, theirs in zip(found, (precision, recall, f1, images), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-15)


def test_what_is_not_defined_is_no_number():
    """Class 1 has no image and is never said; class 2 has images and is never said."""
    found = by_class(confusion([0, 2], [0, 0], 3))
    assert found.images.tolist() == [1, 0, 1]
    assert found.precision[0] == 0.5 and np.isnan(found.precision[1:]).all()
    assert found.recall[[0, 2]].tolist() == [1, 0] and np.isnan(found.recall[1])
    assert found.f1[2] == 0 and np.isnan(found.f1[1])
    row = as_dict(("a", "b", "c"), [0, 2], [0, 0])["by_class"]["b"]
    assert row == {"precision": None, "recall": None, "f1": None, "images": 0}


def slow_error(confidence, correct, bins):
    total = 0.0
    for b in range(bins):
        inside = [k for k, p in enumerate(confidence) if b / bins < p <= (b + 1) / bins]
        if inside:
            sure = sum(confidence[k] for k in inside) / len(inside)
            right = sum(correct[k] for k in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(right - sure)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_its_definition(bins):
    labels, predicted, confidence = random_predictions()
    correct = labels == predicted
    found = calibration(confidence, correct, bins)
    assert found.error == pytest.approx(slow_error(confidence, correct, bins), rel=1e-12)
    assert found.images.sum() == len(labels)


def test_calibration_by_hand():
    """Two of three right at 0.9, one wrong at 0.4; a probability of 1 is in the last bin."""
    found = calibration([0.9, 0.9, 0.9, 0.4, 1.0], [1, 1, 0, 0, 1], bins=2)
    assert found.images.tolist() == [1, 4]
    assert found.accuracy.tolist() == [0, 0.75]
    assert found.confidence == pytest.approx([0.4, 0.925])
    assert found.error == pytest.approx((0.4 + 4 * 0.175) / 5)
    assert np.isnan(calibration([0.9], [1], bins=2).accuracy[0])


def test_the_surest_mistakes_come_first():
    found = surely_wrong([0, 1, 2, 0], [1, 1, 0, 2], [0.5, 0.9, 0.8, 0.5], most=2)
    assert found.tolist() == [2, 0]
    assert not len(surely_wrong([0], [0], [1.0], 3))


def test_only_confusions_that_occur_are_listed():
    labels, predicted, _ = random_predictions()
    table = confusion(labels, predicted, 6)
    found = confused(table, 100)
    assert sum(count for _, _, count in found) == (labels != predicted).sum()
    counts = [count for _, _, count in found]
    assert counts == sorted(counts, reverse=True) and all(counts)
