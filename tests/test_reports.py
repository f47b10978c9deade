"""Situations that users of other tools reported, tried here; docs/reliability.md lists them all.

What a test of another file tries is not tried again: the table names that test.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutelage.parts import PARTS

ROOT = Path(__file__).parent
BRIEF = "--channels 2 --limit-batches 1 --epochs 1 --device cpu --via first-order"
SEARCH = f"search {BRIEF} --batch-size 4 --cells 3 --out run"
RETRAIN = "retrain DARTS_V2 --epochs 1 --channels 2 --cells 3 --device cpu --out net"
CLASSES = ("cat", "dog")


def folder(root: Path, sides=(8, 8), train=4, test=2, classes=CLASSES) -> Path:
    """Write RGB images of noise, so many of every class."""
    noise = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                pixels = noise.integers(0, 256, (*sides, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{k}.png")
    return root


@pytest.fixture
def done(tutelage):
    """Call a command that has to succeed; return what it wrote."""

    def call(line):
        code, out, error = tutelage(line)
        assert code == 0 and not error, error
        return out

    return call


def test_every_situation_names_tests_that_exist():
    text = (ROOT.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = text.split("## Situations from public reports")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    known = {}
    for row in rows:
        named = re.findall(r"`([\w/]+)\.py::(\w+)`", row)
        assert named, row
        for file, test in named:
            if file not in known:
                tree = ast.parse((ROOT / f"{file}.py").read_text(encoding="utf-8"))
                known[file] = {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}
            assert test in known[file], f"{file}.py has no {test}"


def test_an_auxiliary_head_on_images_of_five_pixels(here, done):
    """yeephycho/nasnet-tensorflow#16: a negative dimension."""
    folder(here / "images", (5, 5))
    line = f"{RETRAIN} --data images --auxiliary 0.4 --batch-size 4 --cutout 0"
    assert "on 4 images" in done(line)


@pytest.mark.parametrize("sides", [(8, 8), pytest.param((1, 1), marks=pytest.mark.slow)])
def test_a_last_batch_of_one_image(here, done, sides):
    """erdongsanshi/Fuss-Free-structure#1, MCG-NKU/SCNet#8: BatchNorm stops at one image."""
    folder(here / "images", sides, train=25)
    assert "epoch 1/1" in done(f"{RETRAIN} --data images --batch-size 49 --auxiliary 0.4")
    count = 1 if sides == (8, 8) else 2  # one map of one pixel is refused in a sentence
    done(f"search {BRIEF} --data images --batch-size {count} --cells 3 --out run")
    assert (here / "run" / "genotype.json").is_file()


@pytest.mark.parametrize("count", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_classes_of_one_image(here, done, count):
    """One image a class: half of the classes are not in the validation half, which is said."""
    classes = [f"c{k:03d}" for k in range(count)]
    folder(here / "images", train=1, test=1, classes=classes)
    said = done(f"{SEARCH} --data images")
    assert re.search(r"the validation half has no image of .*: these classes have few images", said)
    said = done(f"{RETRAIN} --data images --limit-batches 1 --batch-size 8 --auxiliary 0")
    assert f"on {count} images" in said


@pytest.mark.slow
def test_names_of_classes_in_other_scripts_with_spaces_and_markup(here, done):
    """As folders are named; the page shows them as text."""
    classes = ("Käse", "日本 語", '<b onclick="x">&')
    folder(here / "images & more", classes=classes)
    (here / "images & more").rename(here / "images")
    done(f"{SEARCH} --data images")
    done(
        "retrain run --epochs 1 --limit-batches 1 --batch-size 8 --channels 2 --cells 3 "
        "--auxiliary 0 --device cpu"
    )
    done("report run")
    page = (here / "run" / "report.html").read_text(encoding="utf-8")
    assert "Käse" in page and "日本 語" in page and "&lt;b onclick=" in page
    assert "<b onclick" not in page
    found = json.loads(done("predict run images/test --json"))
    assert {x["class"] for x in found} <= set(classes) and len(found) == 6


def test_a_large_image_is_read_and_said_and_a_larger_one_refused(here, done, refused, monkeypatch):
    """12,000 x 12,000 pixels: Pillow warns without a file's name, and refuses twice its limit."""
    folder(here / "images")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    large = here / "images" / "train" / "cat" / "9.png"
    Image.new("RGB", (15, 10)).save(large)
    said = done("data images --data.resolution 8")
    assert "1 of 9 have more than 89 million pixels, which take memory and time" in said
    said = done(f"{SEARCH} --data images --data.resolution 8")
    assert "images such as images/train/cat/9.png have more than 89 million pixels" in said
    Image.new("RGB", (15, 20)).save(large)
    refused(f"{SEARCH}-2 --data images --data.resolution 8", r"cat/9\.png is not a readable")


def test_a_small_evolution(here, done):
    """CanyonWind/Single-Path-One-Shot-NAS-MXNet#5: it fails with few candidates."""
    small = "population 4,parents 2,generations 1,images 8,judged 8"
    numbers = " ".join(f"--evolution.{each}" for each in small.split(","))
    line = f"search {BRIEF} --batch-size 4 --out run"
    done(f"{line} --search single-path --space nasbench-macro {numbers}")
    rows = (here / "run" / "evolution" / "metrics.jsonl").read_text().splitlines()
    assert sum(json.loads(row).get("event") == "step" for row in rows) == 4


@pytest.mark.parametrize(
    "space",
    [pytest.param(x, marks=[pytest.mark.slow] * (x != "nasbench201")) for x in PARTS["space"]],
)
def test_random_search_ends_in_every_space(here, done, space):
    """microsoft/nni#5323: random search gets stuck."""
    line = f"search {BRIEF} --batch-size 4 --out run --search random --space {space}"
    assert "Found: run" in done(line)
