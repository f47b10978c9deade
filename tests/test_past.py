"""SD-DARTS' past: what is remembered of every image."""

from __future__ import annotations

import pytest
import torch

from toys import CLASSES, epoch_of
from tutelage.methods.past import Past

CPU = torch.device("cpu")


def probabilities(images, classes=CLASSES):
    return (2 * torch.randn(images, classes, dtype=torch.float64)).softmax(1)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_row_is_the_mean_of_the_last_recorded_ones(window):
    """Under shuffling, partial batches, and epochs that leave images out."""
    past = Past(11, CLASSES, window, CPU)
    stored, seen = past.empty(), {image: [] for image in range(11)}
    for epoch in range(6):
        batches = epoch_of(11, 4)
        for position in batches[: 2 if epoch % 2 else None]:
            rows = probabilities(len(position))
            past.record(stored, position, rows)
            for image, row in zip(position.tolist(), rows.float().tolist(), strict=True):
                seen[image].append(row)
        shuffled = torch.randperm(11)
        found, known = past.mean(stored, shuffled, rows)
        for image, row, there in zip(shuffled.tolist(), found, known, strict=True):
            last = torch.tensor(seen[image][-window:], dtype=torch.float64)
            assert bool(there) == bool(seen[image])
            expected = last.mean(0) if len(last) else torch.zeros(CLASSES, dtype=torch.float64)
            torch.testing.assert_close(row, expected, rtol=1e-12, atol=0)
    assert {len(rows) for rows in seen.values()} != {6}  # some epochs did leave some out


def test_a_decayed_average_weighs_every_answer_by_its_age():
    past = Past(3, CLASSES, 2, CPU, decay=0.75)
    stored, rows = past.empty(), [probabilities(3) for _ in range(4)]
    assert stored["probabilities"].shape == (3, CLASSES, 1)
    for each in rows:
        past.record(stored, torch.arange(3), each)
    weights = [0.75**3, 0.25 * 0.75**2, 0.25 * 0.75, 0.25]  # the first one starts the average
    expected = sum(w * row for w, row in zip(weights, rows, strict=True))
    found, _ = past.mean(stored, torch.arange(3), rows[0])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_bf16_keeps_three_digits_in_half_the_memory():
    whole, half = (Past(50, 10, 2, CPU, dtype=x) for x in (torch.float32, torch.bfloat16))
    rows, stored = probabilities(50, 10), half.empty()
    half.record(stored, torch.arange(50), rows)
    found, _ = half.mean(stored, torch.arange(50), rows)
    assert not torch.equal(found, rows)
    torch.testing.assert_close(found, rows, rtol=2**-8, atol=0)
    assert whole.bytes == 50 * (10 * 2 * 4 + 4) and half.bytes == 50 * (10 * 2 * 2 + 4)


def test_some_classes_are_kept_and_the_others_are_even():
    past = Past(2, 5, 2, CPU, top=2, dtype=torch.float32)
    stored = past.empty()
    first = torch.tensor([[0.5, 0.25, 0.125, 0.125, 0.0], [0.0, 0.0, 0.25, 0.75, 0.0]])
    second = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.0, 0.0, 0.0]])
    past.record(stored, torch.tensor([0, 1]), first)
    past.record(stored, torch.tensor([1, 0]), second[[1, 0]])
    found, _ = past.mean(stored, torch.tensor([0, 1]), first.double())
    one = torch.tensor([0.5, 0.25, 1 / 12, 1 / 12, 1 / 12], dtype=torch.float64)
    torch.testing.assert_close(found[0], (one + second[0]) / 2, rtol=0, atol=1e-7)
    torch.testing.assert_close(found[1], ((first + second)[1] / 2).double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(found.sum(1), torch.ones(2).double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("past", [Past(7, 5, 3, CPU), Past(7, 5, 3, CPU, top=2, decay=0.5)])
def test_the_memory_that_is_told_is_that_of_the_tensors(past):
    assert past.bytes == sum(x.numel() * x.element_size() for x in past.empty().values())


def test_more_than_memory_holds_is_refused_with_what_takes_less():
    with pytest.raises(ValueError, match=r"takes 3\.\d+ GiB|takes [\d,]+\.\d GiB.*memory-top"):
        Past(10**12, 1000, 2, CPU).empty()
