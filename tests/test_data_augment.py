"""Batched augmentation against plain loops over images, rows and columns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from changes import augment, changed
from tutelage.config import Data
from tutelage.data import DataError, erasing, randaugment
from tutelage.data import augment as augmenting
from tutelage.data.augment import Augmentation, augmentation
from tutelage.data.erasing import rectangles
from tutelage.data.images import InMemory, Labelled
from tutelage.data.randaugment import OFF, RandAugment
from tutelage.data.seeding import generator

MEAN, STD = (0.5, 0.25, 0.4), (0.2, 0.3, 0.25)
ZERO, ONE = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)


def pictures(count=6, channels=3, height=7, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


def normalise(pixels, mean, std):
    width = pixels.shape[3]
    return changed(pixels, lambda parcel: augmenting.normalise(width, mean, std, parcel))


def crop_and_flip(pixels, padding, *numbers):
    shape = tuple(pixels.shape)
    return changed(
        pixels, lambda parcel: augmenting.crop_and_flip(shape, padding, *numbers, parcel)
    )


def cut_out(x, side, row, column):
    shape = tuple(x.shape)
    return changed(x, lambda parcel: augmenting.cut_out(shape, side, row, column, parcel))


def erase(x, probability, random):
    shape = tuple(x.shape)
    return changed(x, lambda parcel: erasing.erase(shape, probability, random, parcel))


def rand_augment(pixels, how, fill, random):
    shape = tuple(pixels.shape)
    return changed(
        pixels, lambda parcel: randaugment.rand_augment(shape, how, fill, random, parcel)
    )


def slow_crop_and_flip(image, padding, top, left, mirrored):
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding), np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = image
    window = padded[:, top : top + height, left : left + width]
    return window[:, :, ::-1] if mirrored else window


def slow_normalise(image, mean, std):
    out = np.zeros(image.shape, np.float64)
    for channel in range(len(mean)):
        out[channel] = (image[channel] / 255 - mean[channel]) / std[channel]
    return out


def slow_cut_out(image, side, row, column):
    out = image.copy()
    for y in range(row - side // 2, row - side // 2 + side):
        for x in range(column - side // 2, column - side // 2 + side):
            if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                out[:, y, x] = 0
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_crop_and_flip_cuts_the_window_that_a_loop_cuts(channels, padding):
    pixels = pictures(channels=channels)
    top = np.arange(6) % (2 * padding + 1)
    left = (np.arange(6) * 2) % (2 * padding + 1)
    mirrored = np.array([True, False, True, True, False, False])
    got = crop_and_flip(pixels, padding, top, left, mirrored)
    for i, image in enumerate(pixels.numpy()):
        want = slow_crop_and_flip(image, padding, int(top[i]), int(left[i]), bool(mirrored[i]))
        np.testing.assert_array_equal(got[i].numpy(), want)


def test_a_centred_window_that_is_not_mirrored_is_the_image():
    pixels = pictures()
    middle = np.full(6, 2)
    assert torch.equal(crop_and_flip(pixels, 2, middle, middle, np.zeros(6, bool)), pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalise_agrees_with_float64(channels, layout):
    pixels = pictures(channels=channels).contiguous(memory_format=layout)
    got = normalise(pixels, MEAN[:channels], STD[:channels])
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    for image, want in zip(got.numpy(), pixels.numpy(), strict=True):
        np.testing.assert_allclose(
            image, slow_normalise(want, MEAN[:channels], STD[:channels]), atol=1e-6
        )


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_cut_out_clears_the_square_that_a_loop_clears(side):
    x = normalise(pictures(), MEAN, STD)
    row, column = np.array([0, 6, 3, 0, 6, 2]), np.array([0, 4, 2, 4, 0, 1])
    want = [
        slow_cut_out(image, side, r, c)
        for image, r, c in zip(x.numpy(), row.tolist(), column.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(cut_out(x, side, row, column).numpy(), np.stack(want))


def test_cut_out_hides_a_whole_square_away_from_the_borders_and_a_quarter_in_a_corner():
    x = torch.ones(2, 1, 9, 9)
    cut_out(x, 4, np.array([4, 0]), np.array([4, 0]))
    assert (x == 0).sum((1, 2, 3)).tolist() == [16, 4]


def test_augment_composes_the_loops_with_the_draws_of_its_generator():
    pixels, how = pictures(count=32), Augmentation(crop=2, flip=True, cutout=3)
    got = augment(pixels, how, MEAN, STD, generator(3, "train", 1, 2))
    chance = generator(3, "train", 1, 2).random((5, 32))
    for i, image in enumerate(pixels.numpy()):
        top, left = int(chance[0, i] * 5), int(chance[1, i] * 5)
        window = slow_crop_and_flip(image, 2, top, left, chance[2, i] >= 0.5)
        row, column = int(chance[3, i] * 7), int(chance[4, i] * 5)
        want = slow_cut_out(slow_normalise(window, MEAN, STD), 3, row, column)
        np.testing.assert_allclose(got[i].numpy(), want, atol=1e-6)


def test_every_shift_and_both_directions_come_up_equally_often():
    width = 4096
    pixels = torch.arange(1, 4, dtype=torch.uint8).view(1, 1, 1, 3).expand(width, 1, 1, 3)
    x = augment(pixels, Augmentation(crop=1, flip=True), (0.0,), (1 / 255,), generator(0, "x"))
    rows = {tuple(row) for row in x.round().int().view(width, 3).tolist()}
    flipped = {(3, 2, 1), (0, 3, 2), (2, 1, 0)}
    assert rows == flipped | {(1, 2, 3), (2, 3, 0), (0, 1, 2), (0, 0, 0)}
    blank = (x.abs().sum((1, 2, 3)) < 0.5).double().mean()  # two of three vertical shifts
    assert abs(blank - 2 / 3) < 4 * (2 / 9 / width) ** 0.5
    seen = x.round().int().view(width, 3)[x.sum((1, 2, 3)) > 0.5].tolist()
    share = np.mean([tuple(row) in flipped for row in seen])
    assert abs(share - 1 / 2) < 4 * (1 / 4 / len(seen)) ** 0.5


def test_switching_one_option_leaves_the_draws_of_the_others_alone():
    pixels = pictures()
    whole = augment(pixels, Augmentation(2, True, 0), MEAN, STD, generator(0, "x"))
    holed = augment(pixels, Augmentation(2, True, 3), MEAN, STD, generator(0, "x"))
    assert torch.equal(holed, torch.where(holed == 0, 0.0, whole))
    assert not torch.equal(holed, whole)


def test_augmentation_takes_the_sets_own_treatment_unless_told_otherwise():
    images = InMemory(pictures(height=8, width=8), torch.zeros(6, dtype=torch.int64))
    data = Labelled("toys", images, ("a", "b"), MEAN, STD, crop=4, flip=True)
    assert augmentation(data, Data()) == Augmentation(4, True, 0)
    assert augmentation(data, Data(crop=0, flip=False, cutout=3)) == Augmentation(0, False, 3)
    with pytest.raises(DataError, match="cutout = 8: would hide whole images of toys"):
        augmentation(data, Data(cutout=8))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_makes_the_same_batch():
    pixels, how = pictures(count=32), Augmentation(2, True, 3)
    here = augment(pixels, how, MEAN, STD, generator(0, "x"))
    there = augment(pixels.cuda(), how, MEAN, STD, generator(0, "x"))
    assert torch.equal(here, there.cpu())


def slow_erase(x, rectangles, noise):
    """Fill rectangles one number after another, image by image and channel by channel."""
    out, numbers = x.copy(), iter(noise)
    for image, (top, left, tall, wide) in zip(out, rectangles, strict=True):
        for channel in image:
            for row in range(top, top + tall):
                for column in range(left, left + wide):
                    channel[row, column] = next(numbers)
    assert next(numbers, None) is None
    return out


def test_erasing_fills_the_rectangles_that_a_loop_fills():
    x = normalise(pictures(count=64, height=20, width=15), MEAN, STD)
    random = generator(1, "x")
    drawn = rectangles(64, 20, 15, 0.4, random).T
    noise = random.standard_normal(3 * sum(tall * wide for *_, tall, wide in drawn), np.float32)
    want = slow_erase(x.numpy(), drawn.tolist(), noise.tolist())
    np.testing.assert_array_equal(erase(x, 0.4, generator(1, "x")).numpy(), want)


def test_erased_rectangles_have_the_papers_areas_and_proportions():
    drawn = rectangles(20_000, 60, 40, 0.2, generator(0, "x"))
    top, left, tall, wide = drawn[:, drawn[2] > 0]
    assert abs(len(top) / 20_000 - 0.2) < 4 * (0.16 / 20_000) ** 0.5
    assert (top >= 0).all() and (top + tall <= 60).all() and (tall < 60).all()
    assert (left >= 0).all() and (left + wide <= 40).all() and (wide < 40).all()
    share, proportion = tall * wide / 2400, tall / wide
    assert 0.015 < share.min() < 0.03 and 0.3 < share.max() < 0.35
    assert 0.25 < proportion.min() < 0.35 and 2.8 < proportion.max() < 3.8
    assert (top + tall).max() == 60 and (left + wide).max() == 40


def test_random_operations_come_before_normalisation_and_noise_after_it():
    pixels = pictures(count=32, height=20, width=20)
    how = Augmentation(crop=2, flip=True, randaugment=RandAugment(2), erasing=0.5)
    random = generator(3, "train", 1, 2)
    shifted = augment(pixels, replace(how, randaugment=OFF, erasing=0), ZERO, ONE, random)
    whole = shifted.round().to(torch.uint8)
    operated = rand_augment(whole, how.randaugment, (128, 64, 102), random)
    want = erase(normalise(operated, MEAN, STD), 0.5, random)
    assert torch.equal(augment(pixels, how, MEAN, STD, generator(3, "train", 1, 2)), want)
