"""Early stopping on histories worked by hand, on both sides of every threshold."""

from __future__ import annotations

import math

import pytest

from tutelage.run.monitor.early_stopping import by_eigenvalue, by_skips

STEP = [0.1] * 15 + [0.2] * 10
"""Means of five: 0.12 around epoch 13, 0.14 around 14, 0.16 around 15."""


@pytest.mark.parametrize(("newest", "stops"), [(1.9, False), (2.0, False), (2.1, True)])
def test_eigenvalue_stops_below_the_ratio_only(newest, stops):
    found = by_eigenvalue([1.0, newest], window=1, back=1, ratio=0.5, start=0)
    assert (found is not None) == stops
    if found:
        assert found.epoch == 0
        assert found.reason == "the dominant eigenvalue grew from 1 to 2.1 between epochs 0 and 1"


def test_eigenvalue_takes_means_around_an_epoch():
    history = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]  # around 2: 4/3, around 4: 2, a ratio of 2/3
    assert by_eigenvalue(history, window=3, back=2, ratio=0.66, start=0) is None
    assert by_eigenvalue(history, window=3, back=2, ratio=0.67, start=0).epoch == 2
    # the window is cut short before the first epoch: around 0, the mean of epochs 0 and 1
    assert by_eigenvalue([2.0, 4.0, 5.0, 6.0], window=3, back=2, ratio=0.61, start=0).epoch == 0
    assert by_eigenvalue([2.0, 4.0, 5.0, 6.0], window=3, back=2, ratio=0.59, start=0) is None


def test_eigenvalue_by_the_paper():
    answers = [by_eigenvalue(STEP[:done], start=0) for done in range(1, 18)]
    assert answers[:16] == [None] * 16  # 0.1 / 0.12 is above 0.75
    assert answers[16].epoch == 9  # 0.1 / 0.14 is not: epoch 16 shows the mean around 14


def test_eigenvalue_keeps_no_architecture_from_before_the_start():
    assert by_eigenvalue(STEP[:17]) is None
    assert by_eigenvalue(STEP[:18]).epoch == 10


def test_eigenvalue_counts_measured_values():
    sparse = [x for value in STEP[:17] for x in (value, None)]
    assert by_eigenvalue(sparse, start=0).epoch == 18
    assert by_eigenvalue(sparse[:-3], start=0) is None
    broken = [math.nan if x is None else x for x in sparse]
    assert by_eigenvalue(broken, start=0) == by_eigenvalue(sparse, start=0)


@pytest.mark.parametrize(
    "history", [[-2.0, -1.0], [-1.0, 3.0], [-1.0, -3.0], [0.0, 1.0], [3.0, -1.0]]
)
def test_eigenvalue_needs_positive_means(history):
    assert by_eigenvalue(history, window=1, back=1, start=0) is None


def test_eigenvalue_needs_enough_values():
    assert by_eigenvalue([]) is None
    assert by_eigenvalue([None] * 30) is None
    assert by_eigenvalue([10.0**i for i in range(7)], start=0) is None
    assert by_eigenvalue([10.0**i for i in range(8)], start=0).epoch == 0


def release(values: list[float]) -> int | None:
    """The rule of RobustDARTS' code as it runs, epoch by epoch, one value every two epochs."""
    seen: list[float] = []
    means: list[float] = []
    for epoch in range(0, 2 * len(values), 2):
        seen.append(values[epoch // 2])
        if len(seen) >= 3:
            means.append(sum(seen[-5:]) / len(seen[-5:]))
        kept = epoch - 4 - 8
        if kept >= 10 and means[-1] / means[-5] > 1.3:
            return kept
    return None


@pytest.mark.parametrize("onset", [0, 8, 12, 17, 25])
def test_eigenvalue_with_the_settings_of_the_release(onset):
    values = [math.exp(0.2 * max(0, i - onset)) * (1 + 0.1 * math.sin(i)) for i in range(25)]
    history = [x for value in values for x in (value, None)]
    settings = {"back": 4, "ratio": 1 / 1.3, "start": 10}
    answers = (by_eigenvalue(history[:done], **settings) for done in range(1, 51))
    first = next((found.epoch for found in answers if found), None)
    assert first == release(values)


def test_skips_stop_at_the_second():
    assert by_skips([]) is None
    assert by_skips([0, 1]) is None
    assert by_skips([0, 1, 2]) == ("the normal cell has 2 skip connections", 2)
    assert by_skips([3, 1]) is None
    assert by_skips([0, 2], most=2) is None
    assert by_skips([0, 3], most=2).epoch == 1


def test_skips_may_wait():
    assert by_skips([4, 4], start=2) is None
    assert by_skips([4, 4, 4], start=2).epoch == 2
