"""`tutelage data`: what is understood of a set, and samples of it as they are fed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.config import Data
from tutelage.data import sheet
from tutelage.data.augment import augmentation
from tutelage.data.read import read
from tutelage.data.sheet import samples, save_sheet, scale
from tutelage.data.survey import survey


def noise(seed, *size):
    return np.random.default_rng(seed).integers(0, 256, size or (8, 8, 3), np.uint8)


@pytest.fixture
def photos(here):
    """A folder of 11 cats and 3 dogs to train, with something of every kind."""
    root = here / "photos"
    groups = (("train", "cat", 11), ("train", "dog", 3), ("test", "cat", 2))
    for group, (part, kind, count) in enumerate(groups):
        (root / part / kind).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(noise(100 * group + k)).save(root / part / kind / f"{k}.png")
    (root / "test" / "dog").mkdir()
    train, test = root / "train", root / "test"
    Image.open(train / "cat" / "3.png").save(test / "cat" / "1.webp", lossless=True)
    Image.open(train / "cat" / "4.png").save(test / "dog" / "0.bmp")
    Image.open(train / "cat" / "5.png").save(train / "cat" / "twice.png")
    Image.fromarray(noise(997, 8, 8, 4)).save(train / "cat" / "alpha.png")
    Image.fromarray(noise(998, 8, 8)).save(train / "cat" / "c.gif")
    return root


def test_everything_of_a_folder_is_counted(photos):
    found = survey(Data(str(photos)))
    train, test = found.parts["train"], found.parts["test"]
    assert (found.name, found.shape, found.problems) == ("photos", (3, 8, 8), [])
    assert (train.images, train.classes) == (16, {"cat": 13, "dog": 3})
    assert (test.images, test.classes) == (4, {"cat": 3, "dog": 1})
    assert train.looks == {"8 x 8 RGB": 16}
    assert test.files == {".png": 2, ".webp": 1, ".bmp": 1}
    assert train.converted == {"alpha": 1}
    assert train.repeated == 1
    assert train.left_out.startswith("1 .gif, such as ")
    assert found.shared == [
        ("test/cat/1.webp", "train/cat/3.png"),
        ("test/dog/0.bmp", "train/cat/4.png"),
    ]
    assert found.contradicted == 1


def test_the_command_says_it_in_words_and_in_json(photos, tutelage):
    code, out, error = tutelage("data photos --out sheet.png")
    assert (code, error) == (0, "")
    for line in (
        "photos: 2 classes, 16 images to train, 4 images to test",
        "as fed: 8 x 8 RGB",
        "  cat          13           3",
        "train: 1 of 16 have an alpha channel, which is put on white",
        "train: 1 of 16 images repeat an earlier one",
        "train: fewer than 10 images: dog (3)",
        "also in train: 2 images of others (1 in another class), such as test/cat/1.webp, which is "
        "train/cat/3.png",
        "Samples: sheet.png",
    ):
        assert line in out.splitlines()
    with Image.open("sheet.png") as image:
        assert image.size == (sheet.TEXT + 8 * (64 + 4) + 16, 20 + 2 * 68)
    code, out, _ = tutelage("data photos --json --out sheet.png")
    assert code == 0
    assert json.loads(out)["parts"]["train"]["classes"] == {"cat": 13, "dog": 3}


def test_a_set_that_would_be_refused_is_shown_whole_and_refused(photos, tutelage):
    (photos / "train" / "dog" / "0.png").write_bytes(b"")
    path = photos / "train" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:60])
    code, out, error = tutelage("data photos --out sheet.png")
    assert code == 1
    assert out.count("is not a readable image") == 2
    assert "problem: " in out
    assert "photos cannot be used as it is: " in error
    assert not (photos.parent / "sheet.png").exists()


def test_the_table_has_a_column_for_every_part(photos, tutelage):
    (photos / "val").mkdir()
    for kind in ("cat", "dog"):
        (photos / "test" / kind).rename(photos / "val" / kind)
        (photos / "test" / kind).mkdir()
        Image.fromarray(noise(1)).save(photos / "test" / kind / "0.png")
    lines = tutelage("data photos --data.validation folder")[1].splitlines()
    assert lines[0].endswith("16 images to train, 4 images to validate, 2 images to test")
    assert lines[2].split() == ["train", "validation", "test"]
    assert lines[3].split() == ["cat", "13", "3", "1"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("", "8 x 8 RGB and .*dog/0.png is 9 x 8 RGB: give them one size with --data.resolution"),
        ("--data.resolution 8", ""),
    ],
)
def test_sizes_that_differ_need_a_resolution(photos, tutelage, flags, sentence):
    Image.fromarray(noise(999, 8, 9, 3)).save(photos / "train" / "dog" / "0.png")
    found = survey(Data(str(photos), resolution=8 if flags else None))
    assert bool(found.problems) == bool(sentence)
    assert found.parts["train"].looks == {"8 x 8 RGB": 15, "9 x 8 RGB": 1}
    assert tutelage(f"data photos {flags}")[0] == bool(sentence)


def test_a_missing_part_and_missing_class_are_problems(photos, tutelage):
    (photos / "test" / "dog").rename(photos / "test" / "owl")
    assert any("classes dog, owl" in each for each in survey(Data(str(photos))).problems)
    (photos / "test").rename(photos / "spare")
    (problem,) = survey(Data(str(photos))).problems
    assert "neither test nor val" in problem


def test_sets_in_memory(tutelage, refused):
    found = survey(Data("digits"))
    assert (found.parts["train"].images, found.parts["test"].images) == (1198, 599)
    assert found.shape == (1, 8, 8)
    held = survey(Data("digits", held_out=100))
    assert (held.parts["train"].images, held.parts["test"].images) == (1098, 100)
    code, out, _ = tutelage("data digits --data.held-out 100")
    assert (code, out.splitlines()[0]) == (
        0,
        "digits: 10 classes, 1,098 images to train, 100 images to test",
    )
    refused("data digit", "unknown data set 'digit'")
    refused("data digits --out sheet.gif", r"must end in \.png")


def test_samples_are_those_of_the_augmentation(photos):
    settings = Data(str(photos), crop=0, flip=False)
    data = read(settings, "search")
    as_read, fed = samples(data, augmentation(data, settings), 0, seed=0)
    assert len(as_read) == len(fed) == 4
    assert torch.equal(as_read, fed)  # nothing is varied, and normalisation is undone
    flipped = augmentation(data, Data(str(photos), crop=0))
    as_read, fed = samples(data, flipped, 0, seed=0)
    both = [
        torch.equal(a, b) or torch.equal(a.flip(2), b) for a, b in zip(as_read, fed, strict=True)
    ]
    assert all(both)
    assert not torch.equal(as_read, fed)


def test_a_sheet_of_a_class_of_one_image_and_of_large_ones(tmp_path):
    for kind, count in (("cat", 1), ("dog", 2)):
        (tmp_path / "train" / kind).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(noise(k, 300, 200, 3)).save(tmp_path / "train" / kind / f"{k}.png")
    save_sheet(Data(str(tmp_path)), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (sheet.TEXT + 8 * (85 + 4) + 16, 20 + 2 * (128 + 4))
    assert (scale(8), scale(60), scale(64), scale(256)) == (8.0, 2.0, 1.0, 0.5)
