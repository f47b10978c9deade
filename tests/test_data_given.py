"""Data that a Python program gives: arrays and map-style datasets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import tutelage
from retraining import GENOTYPE, SMALL
from test_search import same_runs
from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.digits import stored
from tutelage.data.given import GIVEN, Given, taken, using
from tutelage.data.read import check_test_part, read, read_unlabelled
from tutelage.data.survey import survey

TINY = {
    **{"channels": 2, "cells": 3, "batch_size": 4, "limit_batches": 1, "epochs": 1},
    **{"via": "first-order", "device": "cpu", "log_every": 1},
}


def pixels(count=20, seed=0, side=8, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), np.uint8)


def labels(count=20, classes=2):
    return np.arange(count) % classes


def parts(given, *names):
    settings, held = taken(given)
    with using(held):
        return [read(settings, name) for name in names]


class Rows(Dataset):
    """Items of any form."""

    def __init__(self, items, classes=None):
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        return self.items[place]


def forms():
    """The same images and labels in every form that is taken."""
    x, y = pixels(), labels()
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    pairs = [(Image.fromarray(image), int(label)) for image, label in zip(last, y, strict=True)]
    return {
        "arrays": (x, y),
        "channels last": (last, y.tolist()),
        "tensors": (torch.from_numpy(x), torch.from_numpy(y)),
        "channels-last memory": (torch.from_numpy(last).permute(0, 3, 1, 2), y.astype(np.uint8)),
        "tensor dataset": TensorDataset(torch.from_numpy(x), torch.from_numpy(y)),
        "pairs of Pillow's images": Rows(pairs),
        "mappings": Rows([{"image": image, "label": label} for image, label in pairs]),
        "lists": Rows([[x, np.int64(k), "more"] for x, k in zip(last, y, strict=True)]),
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_is_the_same_images(form):
    train, test = parts(forms()[form], "train", "test")
    whole = {image.tobytes(): label for image, label in zip(pixels(), labels(), strict=True)}
    assert (len(train.images), len(test.images)) == (16, 4)
    assert (train.classes, train.images.shape, train.name) == (("0", "1"), (3, 8, 8), GIVEN)
    found = {}
    for part in (train, test):
        for image, label in zip(part.images.pixels, part.images.labels, strict=True):
            found[image.contiguous().numpy().tobytes()] = int(label)
    assert found == whole
    assert np.bincount(test.images.labels).tolist() == [2, 2]


def test_grey_arrays_settings_and_names_of_classes():
    digits = stored("train")
    given = Given(
        (digits.pixels[:, 0], digits.labels),
        test=(digits.pixels[:50], digits.labels[:50]),
        classes=[f"digit {k}" for k in range(10)],
        settings=Data(flip=False, held_out=200),
    )
    train, test = parts(given, "train", "test")
    assert (len(train.images), len(test.images), train.images.shape) == (998, 200, (1, 8, 8))
    assert train.classes[3] == "digit 3"
    assert given.data.flip is False
    small = replace(given, settings=Data(resolution=4, colour="rgb"))
    assert parts(small, "test")[0].images.shape == (3, 4, 4)


def test_labels_may_be_texts_and_a_dataset_knows_its_classes():
    texts = ["owl", "ant"] * 10
    (train,) = parts((pixels(), texts), "train")
    assert train.classes == ("ant", "owl")
    rows = Rows(list(zip(pixels(), labels(), strict=True)), ["cat", "dog", "cow"])
    (named,) = parts(rows, "train")
    assert named.classes == ("cat", "dog", "cow")
    hub = Rows([{"image": x, "label": y} for x, y in zip(pixels(), labels(), strict=True)])
    hub.features = {"image": object(), "label": SimpleNamespace(names=["ash", "oak"])}
    assert parts(hub, "train")[0].classes == ("ash", "oak")


def test_parts_of_ones_own():
    given = Given(
        (pixels(), labels()),
        test=(pixels(6, 1), labels(6)),
        validation=(pixels(4, 2), labels(4)),
        unlabelled=pixels(5, 3),
    )
    searched, test = parts(given, "search", "test")
    assert (len(searched.images), len(test.images)) == (24, 6)
    assert torch.equal(searched.images.pixels[20:], torch.from_numpy(pixels(4, 2)))
    with using(given):
        found, index = read_unlabelled(given.data, searched, torch.arange(20))
        assert torch.equal(found.images.take(index), torch.from_numpy(pixels(5, 3)))
        check_test_part(given.data)
        assert survey(given.data).parts["validation"].images == 4
    no_test = replace(given, test=None, validation=None, unlabelled=None)
    with using(no_test):
        assert survey(no_test.data).problems == []


def test_a_dataset_that_streams_is_read_by_one_thread_at_a_time():
    inside, most = [], []

    class Slow(Rows):
        def __getitem__(self, place):
            inside.append(place)
            most.append(len(inside))
            found = super().__getitem__(place)
            inside.remove(place)
            return found

    rows = Slow(list(zip(pixels(40), labels(40), strict=True)))
    given = Given(rows, settings=Data(memory="stream"))
    (train,) = parts(given, "train")
    assert max(most) == 1
    taken_now = train.images.take(torch.arange(len(train.images)))
    (loaded,) = parts(replace(given, settings=Data()), "train")
    assert torch.equal(taken_now, loaded.images.pixels)
    assert max(most) == 1
    streamed, again = (x.images.identity() for x in (train, *parts(given, "train")))
    assert streamed.by == "items"
    assert np.array_equal(streamed.contents, again.contents)


class Flow(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (pixels(), "train: a ndarray has no labels; give"),
        ((pixels(), labels(19)), "train: 20 images have 19 labels"),
        ((pixels(), 3), r"train: the labels are a int: must be a list or an array \(N,\)"),
        ((pixels().astype(np.float32), labels()), "train/0 is float32: must be uint8"),
        ((pixels(2, 0, 3), labels(2)), r"an image of shape \(3, 3, 3\) may be"),
        ((pixels(2, 0, 8, 2), labels(2)), r"an image of shape \(2, 8, 8\) has no 1, 3 or 4"),
        ((pixels(2)[0, 0], labels(2)), r"images are a ndarray of shape \(8, 8\): must be"),
        ((pixels(2), [0, 0.5]), "train/1 has a label 0.5: must be a whole number"),
        ((pixels(2), [0, -1]), "train/1 has label -1: must be 0 to 0|1 classes"),
        ((pixels(2), [0, 0]), "the given data have 1 classes"),
        ((pixels(3), [0, 1, None]), "train/2 has label None"),
        ((pixels(3), [0, 1, 10**12]), "3 numbers up to 1000000000000, and no image has 2"),
        ((pixels(0), []), "train: there are no images"),
        (Flow(), "train: a Flow is no map-style dataset"),
        (7, "train: a int is no map-style dataset"),
        (Rows([{"x": 1}]), "train/0 has the keys x, and needs image"),
        (Rows([("a.png", 1)]), "train/0 is a str: must be one of Pillow's images"),
        (Given((pixels(), labels()), test=(pixels(2), [0, 2])), "test/1 has label 2: must be"),
        (
            Given((pixels(), labels()), test=(pixels(2), ["0", "x"])),
            "label 'x': must be one of 0, 1",
        ),
        ((pixels(3), [0, 0, 1]), "the given data holds 1 image of class 1"),
    ],
)
def test_what_is_no_data_is_a_sentence(given, sentence):
    with pytest.raises(DataError, match=sentence):
        parts(given, "train", "test")


def test_sizes_and_colours_that_differ_name_an_item():
    mixed = Rows([(pixels(1)[0], 0), (pixels(1, 0, 9)[0], 1)] * 4)
    with pytest.raises(DataError, match="train/0 is 8 x 8 RGB and train/1 is 9 x 9 RGB"):
        parts(mixed, "train")
    assert parts(Given(mixed, settings=Data(resolution=8)), "train")[0].images.shape == (3, 8, 8)


# A look -----------------------------------------------------------------------------------------


def test_a_survey_and_its_sheet_take_what_a_search_takes(tmp_path):
    x, y = pixels(), labels()
    x[2] = x[0]
    found = tutelage.survey((x, y))
    assert (found.name, found.shape, found.problems) == (GIVEN, (3, 8, 8), [])
    assert [part.images for part in found.parts.values()] == [16, 4]
    assert found.parts["train"].repeated + len(found.shared) == 1
    text = str(found)
    assert text.splitlines()[0] == "given: 2 classes, 16 images to train, 4 images to test"
    rows = Rows(list(zip(x, y, strict=True)), ["ash", "oak"])
    given = Given(rows, validation=(pixels(4, 2), labels(4)), test=(pixels(6, 1), labels(6)))
    assert tutelage.survey(given).parts["validation"].classes == {"ash": 2, "oak": 2}
    tutelage.save_sheet(given, str(tmp_path / "sheet.png"))
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.height == 20 + 2 * 68
    with pytest.raises(DataError, match=r"sheet.gif must end in \.png"):
        tutelage.save_sheet(given, tmp_path / "sheet.gif")
    assert tutelage.survey("digits").parts["test"].images == 599
    (problem,) = tutelage.survey((pixels(), labels(19))).problems  # once, not for every part
    assert problem == "train: train: 20 images have 19 labels"


# Runs -------------------------------------------------------------------------------------------


def test_a_run_resumes_with_the_same_data_and_with_no_others(here, refused):
    def search(data, **more):
        return tutelage.search(data=data, out="run", **TINY, **more)

    found = search((pixels(), labels()))
    assert found.genotype.to_dict() == search((pixels(), labels()), resume=True).genotype.to_dict()
    again = Rows(list(zip(pixels(), labels(), strict=True)))  # the same images in another form
    assert found.genotype.to_dict() == search(again, resume=True).genotype.to_dict()
    with pytest.raises(DataError, match=r"run was begun with other images: .* other contents"):
        search((pixels(seed=1), labels()), resume=True)
    with pytest.raises(DataError, match="images have another label: train/0 is 1 and was 0"):
        search((pixels(), 1 - labels()), resume=True)
    with pytest.raises(ValueError, match=r"data\.name = digits \(was given\)"):
        tutelage.search(out="run", resume=True, **TINY)
    with pytest.raises(ValueError, match="row = 'x': a paper's row is run by"):
        tutelage.search(out="run", row="x", **TINY)
    assert Data("cifar10", "somewhere").root == Path("somewhere")  # type: ignore[arg-type]
    refused("search --resume run", "data that only its program has: give them again, as tutelage")
    refused("retrain run", "data that only its program has")
    search((pixels(seed=1), labels()), resume=True, accept_changed_data=True)


@pytest.mark.slow
def test_a_search_on_given_digits_is_that_of_the_digits(tmp_path):
    digits, test = stored("train"), stored("test")
    settings = Data(crop=1, flip=False)
    train = (digits.pixels.numpy(), digits.labels)
    given = Given(train, test=(test.pixels, test.labels), settings=settings)
    named = tutelage.search(data=replace(settings, name="digits"), out=tmp_path / "named", **TINY)
    found = tutelage.search(data=given, out=tmp_path / "given", **TINY)
    assert found.scores == named.scores
    same_runs(tmp_path / "named", tmp_path / "given")
    result = tutelage.retrain(GENOTYPE, given, SMALL, str(tmp_path / "trained"))
    assert result["test_images"] == 599
