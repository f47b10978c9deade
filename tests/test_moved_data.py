"""Folders of images that have moved, whose new place --data-root gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retraining import SMALL, train
from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.read import named, read, read_unlabelled


def fill(root, parts=("",), count=10):
    generator = np.random.default_rng(0)
    for part in parts:
        for kind in ("cat", "dog"):
            for k in range(count):
                path = root / part / kind / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(path)


def place(name, root):
    found = named(Data(name, Path(root)))
    return found.name, str(found.root)


def test_a_root_beside_a_path_is_where_the_folder_is_now(here):
    for name in ("old", "new/old", "more"):
        (here / name).mkdir(parents=True)
    assert place("old", "more") == ("folder", "more")
    assert place(str(here / "old"), "more") == ("folder", "more")
    assert place("gone/old", "more") == ("folder", "more")
    (here / "old").rmdir()
    assert place("old", "new/old") == ("folder", "new/old")
    (here / "new" / "list.csv").write_text("path,label")
    for name in ("list.csv", "gone/list.csv"):
        assert place(name, "new") == place(name, "new/list.csv") == ("folder", "new/list.csv")
    assert place("cifar10", "new") == ("cifar10", "new")
    with pytest.raises(DataError, match=r"--data-root more has no list\.csv: give the folder that"):
        named(Data("list.csv", Path("more")))
    with pytest.raises(
        DataError, match=r"unknown data set 'cifra10'.* by --data-root if that ends in cifra10"
    ):
        named(Data("cifra10", Path("more")))
    with pytest.raises(DataError, match="--data-root nowhere is not a folder"):
        read(Data("gone/old", Path("nowhere")), "train")


def test_images_to_pseudo_label_have_not_moved(here):
    fill(here / "new", ("train", "test"))
    fill(here / "more", count=3)
    settings = Data(str(here / "old"), here / "new", unlabelled=str(here / "more"))
    searched = read(settings, "search")
    assert len(searched.images) == 20
    assert len(read_unlabelled(settings, searched, torch.arange(2))[1]) == 6


def test_a_network_is_tested_on_its_test_images_where_they_are_now(here, tutelage):
    fill(here / "old")
    train(here / "run", replace(SMALL, epochs=1, limit_batches=1), data=Data(str(here / "old")))
    before = json.loads(tutelage("test run --json")[1])
    assert before["images"] == 4
    (here / "old").rename(here / "new")
    fill(here / "old", ("train", "test"), 3)  # other images at the old place
    code, out, error = tutelage("test run --data-root new --json")
    assert code == 0, error
    assert {**json.loads(out), "data": ""} == {**before, "data": ""}
    assert json.loads(tutelage("test run --data new --json")[1])["images"] == 20


def test_a_search_and_its_retraining_go_on_where_the_images_are_now(here, tutelage):
    fill(here / "old")
    line = "search --data old --out run --via first-order --channels 2 --cells 3 --epochs 1"
    code, _, error = tutelage(f"{line} --limit-batches 1 --batch-size 4 --device cpu")
    assert code == 0, error
    (here / "new").mkdir()
    (here / "old").rename(here / "new" / "old")
    code, _, error = tutelage("search --resume run --data-root new/old")
    assert code == 0, error
    size = "--channels 2 --cells 3 --epochs 1 --limit-batches 1 --batch-size 4 --auxiliary 0"
    code, _, error = tutelage(f"retrain run --data-root new/old {size} --device cpu")
    assert code == 0, error


def test_a_retraining_on_a_folder_does_not_look_below_the_searchs_root(here, tutelage):
    fill(here / "photos")
    small = "--channels 2 --cells 3 --epochs 1 --limit-batches 1 --batch-size 4 --device cpu"
    code, _, error = tutelage(f"search --data-root set {small} --via first-order --out run")
    assert code == 0, error
    code, _, error = tutelage(f"retrain run --data photos {small} --auxiliary 0")
    assert code == 0, error
