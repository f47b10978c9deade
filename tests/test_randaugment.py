"""RandAugment's operations against Pillow on the same numbers, and its draws against a loop."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from changes import changed
from tutelage.data import randaugment
from tutelage.data.randaugment import MOVES, TONES, RandAugment, argument
from tutelage.data.seeding import generator

FILL = (124, 116, 104)
AFFINE, BILINEAR = Image.Transform.AFFINE, Image.Resampling.BILINEAR


def operate(pixels, name, levels, fill):
    numbers = torch.from_numpy(argument(name, levels, *pixels.shape[2:])).to(pixels.device)
    background = torch.tensor(fill, dtype=torch.uint8, device=pixels.device)
    return randaugment.operate(pixels, name, numbers, background)


def rand_augment(pixels, how, fill, random):
    shape = tuple(pixels.shape)
    return changed(
        pixels, lambda parcel: randaugment.rand_augment(shape, how, fill, random, parcel)
    )


def affine(image, matrix, fill):
    return image.transform(image.size, AFFINE, matrix, BILINEAR, fillcolor=fill)


def solarize_add(image, level):
    lighter = [min(255, grey + int(110 * level)) if grey < 128 else grey for grey in range(256)]
    return image.point(lighter * len(image.getbands()))


def enhanced(kind):
    return lambda image, level, fill: kind(image).enhance(0.1 + 1.8 * abs(level))


PILLOW = {
    "auto-contrast": lambda image, level, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, level, fill: ImageOps.equalize(image),
    "invert": lambda image, level, fill: ImageOps.invert(image),
    "posterize": lambda image, level, fill: ImageOps.posterize(image, max(1, int(4 * abs(level)))),
    "solarize": lambda image, level, fill: ImageOps.solarize(image, int(256 * abs(level))),
    "solarize-add": lambda image, level, fill: solarize_add(image, abs(level)),
    "color": enhanced(ImageEnhance.Color),
    "contrast": enhanced(ImageEnhance.Contrast),
    "brightness": enhanced(ImageEnhance.Brightness),
    "sharpness": enhanced(ImageEnhance.Sharpness),
    "rotate": lambda image, level, fill: image.rotate(30 * level, BILINEAR, fillcolor=fill),
    "shear-x": lambda image, level, fill: affine(image, (1, 0.3 * level, 0, 0, 1, 0), fill),
    "shear-y": lambda image, level, fill: affine(image, (1, 0, 0, 0.3 * level, 1, 0), fill),
    "translate-x": lambda image, level, fill: affine(
        image, (1, 0, 0.45 * level * image.width, 0, 1, 0), fill
    ),
    "translate-y": lambda image, level, fill: affine(
        image, (1, 0, 0, 0, 1, 0.45 * level * image.height), fill
    ),
}


def by_pillow(pixels, name, level, fill):
    """One image (C, H, W) by Pillow."""
    grey = len(pixels) == 1
    picture = pixels[0].numpy() if grey else pixels.permute(1, 2, 0).contiguous().numpy()
    done = PILLOW[name](Image.fromarray(picture), level, fill[0] if grey else fill)
    array = torch.from_numpy(np.asarray(done).copy())
    return array[None] if grey else array.permute(2, 0, 1)


def pictures(channels, height=23, width=31):
    """Noise, a ramp, a dark picture, a light one, flat ones, two grey values, one light spot."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (3, channels, height, width), generator=generator)
    ramp = torch.arange(height * width).view(1, 1, height, width) * 255 // (height * width - 1)
    ramp = (ramp + 40 * torch.arange(channels).view(1, -1, 1, 1)) % 256
    flat = torch.full((1, channels, height, width), 77)
    spot = flat.clone()
    spot[:, :, 3:5, 7] = 201
    several = [noise[:1], ramp, noise[1:2] // 5, 180 + noise[2:] // 4, 0 * flat, 0 * flat + 255]
    return torch.cat([*several, flat, spot, (noise[:1] > 99) * 200 + 3]).to(torch.uint8)


def test_every_operation_has_a_reference():
    assert set(PILLOW) == {*TONES, *MOVES}
    assert len(PILLOW) == 15


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [*TONES, *MOVES])
def test_an_operation_gives_pillows_grey_values(name, channels):
    pixels, fill = pictures(channels), FILL[:channels]
    generator = np.random.default_rng(3)
    for levels in (
        *(np.full(len(pixels), level) for level in (0.0, 0.25, -0.5, 0.9, -1.0, 1.0)),
        *generator.uniform(-1, 1, (12, len(pixels))),
    ):
        got = operate(pixels, name, levels, fill)
        assert got.dtype == torch.uint8
        assert got.shape == pixels.shape
        each = zip(pixels, levels.tolist(), strict=True)
        want = torch.stack([by_pillow(image, name, level, fill) for image, level in each])
        difference = (got.int() - want.int()).abs()
        assert difference.max() <= (name in MOVES), levels
        assert (difference > 0).double().mean() < 0.04, levels  # whole numbers, a rounding apart


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_draws_are_those_of_a_loop_over_images(layout):
    pixels = pictures(3).repeat(30, 1, 1, 1)
    how = RandAugment(operations=2, magnitude=9, std=0.5, probability=0.5)
    before = pixels.clone()
    got = rand_augment(
        pixels.contiguous(memory_format=layout), how, FILL, generator(5, "train/augment", 2, 1)
    )
    assert torch.equal(pixels, before)
    random, count = generator(5, "train/augment", 2, 1), len(pixels)
    chance, normal = random.random((2, 3, count)), random.standard_normal((2, count))
    names, done = [*TONES, *MOVES], 0
    for k in range(count):
        want = pixels[k]
        for layer in range(2):
            drawn, run, side = chance[layer, :, k]
            if run < 0.5:
                strength = min(max(9 + 0.5 * normal[layer, k], 0), 10) / 10
                signed = strength if side >= 0.5 else -strength
                want = operate(want[None], names[int(15 * drawn)], np.array([signed]), FILL)[0]
                done += 1
        assert torch.equal(got[k], want)
    assert abs(done / (2 * count) - 0.5) < 4 * 0.5 / (2 * count) ** 0.5


def test_no_operation_leaves_the_images_as_they_are():
    pixels = pictures(3)
    for how in (RandAugment(), RandAugment(operations=3, probability=0)):
        assert torch.equal(rand_augment(pixels, how, FILL, generator(0, "x")), pixels)


def test_every_operation_comes_up_equally_often(monkeypatch):
    seen = dict.fromkeys((*TONES, *MOVES), 0)

    def count(pixels, name, strength, fill):
        seen[name] += len(pixels)
        return pixels

    monkeypatch.setattr("tutelage.data.randaugment.operate", count)
    images = torch.zeros(15_000, 1, 1, 1, dtype=torch.uint8)
    rand_augment(images, RandAugment(operations=2, probability=1.0), (0,), generator(0, "x"))
    expected = 2 * len(images) / 15
    assert sum(seen.values()) == 2 * len(images)
    assert all(abs(n - expected) < 5 * expected**0.5 for n in seen.values())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("name", [*TONES, *MOVES])
def test_a_gpu_does_the_same(name):
    pixels = pictures(3)
    levels = np.random.default_rng(3).uniform(-1, 1, len(pixels))
    here, there = operate(pixels, name, levels, FILL), operate(pixels.cuda(), name, levels, FILL)
    assert (here.int() - there.cpu().int()).abs().max() <= (name in MOVES)
