"""Images that are decoded batch by batch: random windows, centre crops, jitter; runs on them."""

import io
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from changes import changed
from photographs import make_photographs
from retraining import SMALL, files, train
from test_retrain_resume import train_until_killed
from test_search import KilledError, killed_at, run_toml, same_runs
from tutelage.config import Data
from tutelage.data import DataError, folder
from tutelage.data.augment import augmentation
from tutelage.data.batches import Stream, in_order
from tutelage.data.images import InMemory, OnDisk
from tutelage.data.listing import Folder
from tutelage.data.randaugment import jitter
from tutelage.data.read import read
from tutelage.data.seeding import generator
from tutelage.data.windows import Windows, central, fallback
from tutelage.run.search import search_run

CPU = torch.device("cpu")
BILINEAR = Image.Resampling.BILINEAR
STREAMED = {"resolution": 24, "colour": "rgb", "rescale": 0.2, "centre": 0.875}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("photographs"))


def stream(settings, seed=0, name="train", batch_size=5):
    data = read(settings, "train")
    subset = torch.arange(len(data.images))
    return Stream(data, subset, batch_size, seed, name, augmentation(data, settings), CPU)


# Windows ----------------------------------------------------------------------------------------


def slow_box(least, numbers, width, height):
    """What everyone's RandomResizedCrop does, from given numbers between 0 and 1."""
    areas, shapes, down, across = numbers[:10], numbers[10:20], numbers[20], numbers[21]
    for area, shape in zip(areas, shapes, strict=True):
        target = width * height * (least + area * (1 - least))
        ratio = math.exp(math.log(3 / 4) + shape * (math.log(4 / 3) - math.log(3 / 4)))
        w, h = round((target * ratio) ** 0.5), round((target / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            top, left = math.floor(down * (height - h + 1)), math.floor(across * (width - w + 1))
            return left, top, left + w, top + h
    return None


@pytest.mark.parametrize(("width", "height"), [(500, 375), (64, 64), (100, 300), (2000, 100)])
def test_a_window_is_the_one_that_the_numbers_name(width, height):
    windows = Windows.draw(500, 0.08, generator(0, "x"))
    named = 0
    for position in range(500):
        want = slow_box(0.08, windows.chance[position].tolist(), width, height)
        got = windows.box(position, width, height)
        assert got == (want or fallback(width, height))
        left, top, right, bottom = got
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        if want:
            named += 1
    # 8 % of 2000 x 100 are more than 109 pixels high in every proportion that is drawn
    assert named == 0 if width == 2000 else named > 400


def test_windows_cover_the_areas_and_proportions():
    windows = Windows.draw(20_000, 0.25, generator(0, "x"))
    boxes = np.array([windows.box(position, 400, 400) for position in range(20_000)])
    wide, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert abs((wide / tall).min() - 3 / 4) < 0.02
    assert abs((wide / tall).max() - 4 / 3) < 0.03
    share = wide * tall / 400**2
    assert abs(share.min() - 0.25) < 0.01
    assert share.max() > 0.98
    places = boxes[share < 0.5, 0] / (400 - wide[share < 0.5])
    assert abs(places.mean() - 0.5) < 0.01


def test_a_picture_without_a_window_gives_its_middle():
    assert fallback(300, 100) == (83, 0, 216, 100)
    assert fallback(100, 300) == (0, 83, 100, 216)
    assert fallback(120, 100) == (0, 0, 120, 100)


def test_the_centre_is_that_of_a_resize_and_a_crop():
    assert central(500, 375, (224, 224), 0.875) == (85.9375, 23.4375, 414.0625, 351.5625)
    file = io.BytesIO()
    Image.effect_noise((500, 375), 60).resize((50, 37)).resize((500, 375)).save(file, "PNG")
    picture = Image.open(file)
    box = central(500, 375, (224, 224), 0.875)
    got = np.asarray(picture.resize((224, 224), BILINEAR, box), int)
    small = picture.resize((341, 256), BILINEAR)  # 341.3 by 256
    want = np.asarray(small.crop((58, 16, 282, 240)), int)
    assert np.abs(got - want).mean() < 2


# Batches ----------------------------------------------------------------------------------------


def test_a_batch_is_made_of_the_windows_of_its_step(photographs):
    settings = Data(str(photographs), **STREAMED, flip=False)
    s = stream(settings)
    assert type(s.data.images) is OnDisk
    assert s.augmentation.crop == 0
    paths = folder.listing(Folder(photographs), "train").paths
    part = s.batch(3, 2)
    windows = Windows(0.2, generator(0, "train/windows", 3, 2).random((5, 22)))
    for position, place in enumerate(part.position.tolist()):
        with Image.open(paths[place]) as picture:
            box = windows.box(position, *picture.size)
            pixels = np.asarray(picture.resize((24, 24), BILINEAR, box)) / 255
        want = (pixels - s.data.mean) / s.data.std
        np.testing.assert_allclose(part.x[position].permute(1, 2, 0), want, atol=1e-5)


def test_a_streamed_batch_does_not_depend_on_what_was_asked_before(photographs):
    settings = Data(str(photographs), **STREAMED, jitter=0.4)
    forwards, backwards = stream(settings), stream(settings)
    wanted = [(epoch, step) for epoch in range(2) for step in range(forwards.steps + 2)]
    seen = {at: forwards.batch(*at) for at in wanted}
    for at in reversed(wanted):
        for got, want in zip(backwards.batch(*at), seen[at], strict=True):
            assert torch.equal(got, want)
    one, other = (seen[epoch, 0] for epoch in (0, 1))
    assert not torch.equal(one.x, other.x)
    plain = stream(Data(str(photographs), resolution=24, colour="rgb"))
    assert torch.equal(plain.batch(1, 1).position, seen[1, 1].position)  # the order is unchanged


def test_the_same_images_in_another_step_have_other_windows(photographs):
    s = stream(Data(str(photographs), **STREAMED, flip=False), batch_size=16)
    first, second = s.batch(0, 0), s.batch(1, 0)
    one, other = first.position.argsort(), second.position.argsort()
    assert torch.equal(first.position[one], second.position[other])
    differs = (first.x[one] - second.x[other]).abs().amax((1, 2, 3)) > 0.05
    assert differs.all()


def test_testing_sees_the_centre_of_every_image(photographs):
    data = read(Data(str(photographs), **STREAMED), "test")
    paths = folder.listing(Folder(photographs), "test").paths
    parts = list(in_order(data, torch.arange(len(paths)), 6, CPU))
    x = torch.cat([part.x for part in parts])
    assert len(x) == len(paths) == 16
    for image, path in zip(x, paths, strict=True):
        with Image.open(path) as picture:
            box = central(*picture.size, (24, 24), 0.875)
            pixels = np.asarray(picture.resize((24, 24), BILINEAR, box)) / 255
        np.testing.assert_allclose(
            image.permute(1, 2, 0), (pixels - data.mean) / data.std, atol=1e-5
        )


def test_windows_of_images_in_memory(photographs):
    settings = Data(str(photographs), resolution=24, colour="rgb", rescale=0.3, memory="load")
    data = read(settings, "train")
    assert type(data.images) is InMemory
    windows = Windows.draw(3, 0.3, generator(0, "x"))
    index = torch.tensor([4, 9, 2])
    got = data.images.take(index, windows)
    for position, place in enumerate(index.tolist()):
        whole = Image.fromarray(data.images.pixels[place].permute(1, 2, 0).contiguous().numpy())
        want = whole.resize((24, 24), BILINEAR, windows.box(position, 24, 24))
        np.testing.assert_array_equal(got[position].permute(1, 2, 0), np.asarray(want))
    digits = stream(Data("digits", rescale=0.3, crop=0))
    assert digits.batch(0, 0).x.shape == (5, 1, 8, 8)


# What is in memory ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, InMemory),
        ({"memory": "stream"}, OnDisk),
        ({"rescale": 0.1}, OnDisk),
        ({"centre": 0.9}, OnDisk),
        ({"rescale": 0.1, "memory": "load"}, InMemory),
    ],
)
def test_what_needs_whole_images_streams(photographs, settings, kind):
    data = read(Data(str(photographs), resolution=8, colour="rgb", **settings), "train")
    assert type(data.images) is kind


def test_streaming_gives_what_memory_gives(photographs):
    plain = {"resolution": 16, "colour": "rgb"}
    one, other = (stream(Data(str(photographs), **plain, memory=m)) for m in ("load", "stream"))
    assert one.data.mean == other.data.mean
    for step in range(one.steps):
        assert torch.equal(one.batch(1, step).x, other.batch(1, step).x)


def test_what_cannot_be_is_refused(photographs):
    with pytest.raises(DataError, match=r"centre = 0.875 with memory = 'load': .*memory stream"):
        read(Data(str(photographs), resolution=8, memory="load", centre=0.875), "train")
    with pytest.raises(DataError, match=r"centre = 0\.5: the images of digits are in memory"):
        read(Data(centre=0.5), "train")
    with pytest.raises(DataError, match="memory = 'stream': the images of digits are in memory"):
        read(Data(memory="stream"), "train")
    for wrong in ({"centre": 0.0}, {"centre": 1.5}, {"rescale": 2.0}, {"jitter": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Data(**wrong)


# Jitter -----------------------------------------------------------------------------------------


def test_jitter_is_pillows_in_an_order_of_every_image():
    pixels = torch.randint(0, 256, (60, 3, 9, 7), dtype=torch.uint8)
    before = pixels.clone()
    got = changed(pixels, lambda parcel: jitter(60, 0.4, generator(2, "x"), parcel))
    assert torch.equal(pixels, before)
    random = generator(2, "x")
    order, chance = random.random((3, 60)).argsort(0), random.random((3, 60))
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for k in range(60):
        picture = Image.fromarray(pixels[k].permute(1, 2, 0).contiguous().numpy())
        for place in order[:, k]:
            picture = kinds[place](picture).enhance(0.6 + 0.8 * chance[place, k])
        np.testing.assert_array_equal(got[k].permute(1, 2, 0), np.asarray(picture))
    assert len({tuple(each) for each in order.T.tolist()}) == 6


# Runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 5])
def test_a_retraining_on_streamed_images_resumes_to_the_bit(photographs, tmp_path, steps):
    data = Data(str(photographs), **STREAMED, jitter=0.4)
    settings = replace(SMALL, batch_size=4, randaugment=1, erasing=0.2, save_every=0.0)
    train(tmp_path / "whole", settings, data=data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_retrain_resume.train", lambda out, how: train(out, how, data=data))
        train_until_killed(tmp_path / "out", settings, steps)
    result = train(tmp_path / "out", settings, resume=True, data=data)
    assert result["test_images"] == 16
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_search_on_streamed_images_resumes_to_the_bit(photographs, tmp_path, monkeypatch):
    settings = run_toml(data=Data(str(photographs), **STREAMED), save_every=0.0, epochs=1)
    search_run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, 1)
        search_run(settings, tmp_path / "out")
    search_run(settings, tmp_path / "out", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif("TUTELAGE_TEST_DATA" not in os.environ, reason="TUTELAGE_TEST_DATA is not set")
def test_a_retraining_on_real_photographs(tmp_path):
    root = os.path.join(os.environ["TUTELAGE_TEST_DATA"], "tin10")  # noqa: PTH118
    data = Data(root, resolution=32, colour="rgb", rescale=0.25, centre=0.875, jitter=0.4)
    settings = replace(SMALL, cutout=0, limit_batches=3, randaugment=2, erasing=0.2)
    result = train(tmp_path / "out", settings, data=data)
    assert result["test_images"] == len(folder.listing(Folder(Path(root)), "test").paths)
