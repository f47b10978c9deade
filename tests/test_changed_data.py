"""A run whose images have changed is refused by name, and goes on where its user accepts that."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ensembles import TOGETHER
from photographs import make_photographs, make_shards
from retraining import GENOTYPE, SMALL
from test_data_readers import make_cifar10
from tutelage.config import Data
from tutelage.data.changes import changes, digests_of
from tutelage.data.digests import digest_pixels
from tutelage.data.images import InMemory, Labelled
from tutelage.data.read import read
from tutelage.run import retrain
from tutelage.run.inputs import FILE

SEARCH = "search --via first-order --channels 2 --cells 3 --batch-size 4 --device cpu --out run"
RESUME = "search --resume run --device cpu"
REFUSED = "run was begun with other images"
TOLD = "--accept-changed-data"


def cases(table, *quick):
    """The changes of a table; only the quick ones are in the default tests."""
    return [
        pytest.param(change, marks=() if change in quick else pytest.mark.slow, id=change.__name__)
        for change in table
    ]


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed, size=(8, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


@pytest.fixture
def folder(here):
    """Six images of each of two classes and parts, and a search of one epoch that saw them."""
    for number, (part, kind, k) in enumerate(
        (part, kind, k) for part in ("train", "test") for kind in ("cat", "dog") for k in range(6)
    ):
        save(here / "photos" / part / kind / f"{k}.png", noise(number))
    return here / "photos"


@pytest.fixture
def begun(folder, tutelage):
    code, _, error = tutelage(f"{SEARCH} --data photos --epochs 1 --limit-batches 1")
    assert code == 0, error
    return folder


def each(folder, change):
    for path in sorted((folder / "train").rglob("*.png")):
        with Image.open(path) as image:
            changed = change(image.copy())
        changed.save(path)


def inverted(folder):
    each(folder, lambda image: image.point(lambda value: 255 - value))


def resized(folder):
    each(folder, lambda image: image.resize((10, 8)))


def swapped(folder):
    """Two images exchange their labels: as files, their contents."""
    one, other = folder / "train" / "cat" / "2.png", folder / "train" / "dog" / "4.png"
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])


def renamed(folder):
    for part in ("train", "test"):
        (folder / part / "cat").rename(folder / part / "kitten")


def replaced(folder):
    """Other files, as many as before."""
    for k in range(2):
        (folder / "train" / "dog" / f"{k}.png").unlink()
        save(folder / "train" / "dog" / f"new{k}.png", noise(99 + k))


def grey(folder):
    each(folder, lambda image: image.convert("L"))


def added(folder):
    for part in ("train", "test"):
        save(folder / part / "owl" / "0.png", noise(7))


def one_more(folder):
    save(folder / "train" / "cat" / "9.png", noise(7))


MAY = {
    inverted: r"12 of 12 images \(6 of cat, 6 of dog\) have other contents, such as train/cat/0",
    resized: "the images are 10 x 8 and were 8 x 8",
    swapped: r"2 of 12 images \(1 of cat, 1 of dog\) have other contents, such as train/cat/2.png",
    renamed: "class cat is called kitten; dog has number 0 for 1",
    replaced: r"2 of 12 images \(2 of dog\) are new, such as train/dog/new0.png; "
    r"2 of 12 images \(2 of dog\) are gone",
}
MAY_NOT = {
    grey: "the images are grey and were RGB",
    added: r"class owl is new; the images are 13 and were 12",
    one_more: r"the images are 13 and were 12 \(7 of cat for 6\)",
}


@pytest.mark.parametrize("change", cases(MAY, swapped, renamed))
def test_a_search_is_refused_and_goes_on_if_told(begun, tutelage, refused, change):
    change(begun)
    refused(RESUME, f"{REFUSED}: {MAY[change]}.*{TOLD}")
    code, out, error = tutelage(f"{RESUME} {TOLD}")
    assert code == 0, error
    assert f"accepted, {REFUSED}" in out
    (accepted,) = json.loads(Path("run", FILE).read_text())["accepted"]
    assert accepted["use"] == "train"
    assert accepted["changes"]
    code, out, error = tutelage(RESUME)  # these are its images now
    assert code == 0, error
    assert "other images" not in out


@pytest.mark.parametrize("change", cases(MAY_NOT, grey))
def test_a_search_cannot_go_on_with_others(begun, refused, change):
    change(begun)
    for told in ("", TOLD):
        refused(f"{RESUME} {told}", f"{REFUSED}: {MAY_NOT[change]}.*or give another --out")


def test_a_moved_folder_is_the_same(begun, tutelage):
    begun.rename(begun.with_name("moved"))
    shutil.copytree(begun.with_name("moved"), begun)  # other times, and the same contents
    code, _, error = tutelage(RESUME)
    assert code == 0, error


def test_a_run_begun_before_resumes_and_gets_its_digests(begun, tutelage, refused):
    Path("run", FILE).unlink()
    inverted(begun)
    code, _, error = tutelage(RESUME)
    assert code == 0, error
    inverted(begun)
    refused(RESUME, REFUSED)


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        *(
            pytest.param(text, marks=pytest.mark.slow)
            for text in (
                *("", "[]", '{"parts": {"train": 3}}', '{"parts": 7}', '{"version": "x"}'),
                "[" * 100_000,
            )
        ),
    ],
)
def test_damaged_digests_are_said_and_written_again(begun, tutelage, damage):
    whole = Path("run", FILE).read_bytes()
    Path("run", FILE).write_text(damage)
    code, out, error = tutelage(RESUME)
    assert code == 0, error
    assert "data.json cannot be read" in out
    assert Path("run", FILE).read_bytes() == whole


@pytest.mark.slow
def test_digests_of_another_length_are_damaged(begun, tutelage):
    stored = json.loads(Path("run", FILE).read_text())
    for key, value in (("contents", "AAAA"), ("labels", "////////" * 8), ("names", "%")):
        part = {**stored["parts"]["train"], key: value}
        Path("run", FILE).write_text(json.dumps({**stored, "parts": {"train": part}}))
        code, out, error = tutelage(RESUME)
        assert code == 0, error
        assert "data.json cannot be read" in out


def test_unlabelled_images_are_compared_too(folder, tutelage, refused):
    save(folder.with_name("more") / "a.png", noise(50))
    save(folder.with_name("more") / "b.png", noise(51))
    given = "--method sgl --data photos --unlabelled more --epochs 1 --limit-batches 1"
    code, _, error = tutelage(f"{SEARCH} {given}")
    assert code == 0, error
    save(folder.with_name("more") / "b.png", noise(52))
    refused(
        RESUME, r"other images \(unlabelled\): 1 of 2 images have other contents, such as b.png"
    )
    assert tutelage(f"{RESUME} {TOLD}")[0] == 0


# Retrainings ------------------------------------------------------------------------------------


def training(out, resume=False, accept=False, epochs=2):
    settings = replace(SMALL, epochs=epochs, batch_size=4, cutout=None, auxiliary=0.0)
    return retrain.retrain(GENOTYPE, Data("photos"), settings, out, resume, accept)


@pytest.fixture
def halfway(folder, monkeypatch):
    """A training that was killed in its second epoch."""
    advance = retrain.Training.advance

    def killed(self):
        if self.epoch == 1:
            raise KeyboardInterrupt
        advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(retrain.Training, "advance", killed)
        with pytest.raises(KeyboardInterrupt):
            training(folder.with_name("out"))
    return folder


@pytest.mark.parametrize("change", cases(MAY, inverted))
def test_a_training_is_refused_and_goes_on_if_told(halfway, change):
    out = halfway.with_name("out")
    change(halfway)
    if change is resized:  # the test images are resized with them
        for path in (halfway / "test").rglob("*.png"):
            save(path, noise(3, (8, 10, 3)))
    with pytest.raises(ValueError, match=f"out was begun with other images: {MAY[change]}"):
        training(out, resume=True)
    assert training(out, resume=True, accept=True)["epochs"] == 2
    assert json.loads((out / FILE).read_text())["accepted"]


@pytest.mark.parametrize("change", cases(MAY_NOT, added))
def test_a_training_cannot_go_on_with_others(halfway, change):
    change(halfway)
    for accept in (False, True):
        with pytest.raises(ValueError, match=f"{MAY_NOT[change]}.*give another --out"):
            training(halfway.with_name("out"), resume=True, accept=accept)


@pytest.mark.slow
def test_retrain_has_the_flag(halfway, tutelage, refused):
    settings = "--batch-size 4 --epochs 2 --limit-batches 4 --channels 4 --cells 3 --auxiliary 0"
    given = f"retrain out --drop-path 0.3 --log-every 2 --device cpu {settings}"
    inverted(halfway)
    refused(given, "out was begun with other images")
    assert tutelage(f"{given} {TOLD}")[0] == 0


@pytest.mark.slow
def test_an_ensemble_is_refused_though_its_next_member_has_not_begun(folder, monkeypatch):
    settings = replace(SMALL, epochs=1, batch_size=4, limit_batches=1, auxiliary=0.0)
    out = folder.with_name("out")

    def together(resume, accept=False):
        return retrain.retrain_ensemble(TOGETHER, Data("photos"), settings, out, resume, accept)

    advance = retrain.Training.advance

    def killed(self):
        if self.settings.seed == 1:
            raise KeyboardInterrupt
        advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(retrain.Training, "advance", killed)
        with pytest.raises(KeyboardInterrupt):
            together(resume=False)
    shutil.rmtree(out / "member-1")
    swapped(folder)
    with pytest.raises(ValueError, match=f"out was begun with other images: {MAY[swapped]}"):
        together(resume=True)
    assert len(together(resume=True, accept=True)["ensemble"]) == 3


# Images that stream, shards, and archives -------------------------------------------------------

LOOK = {"resolution": 16, "colour": "rgb", "memory": "stream"}


def found(before, settings):
    now, names = digests_of(read(settings, "train"))
    return changes(before, now, names)


def test_files_that_stream_are_compared_by_names_sizes_and_times(tmp_path):
    root = make_photographs(tmp_path / "photos")
    settings = Data(str(root), **LOOK)
    before, _ = digests_of(read(settings, "train"))
    assert before.by == "files"
    assert not found(before, settings)
    path = root / "train" / "dog" / "3.JPEG"
    stat = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (size,) = found(before, settings)
    os.utime(root / "train" / "cat" / "1.JPEG", ns=(0, 0))
    (both,) = found(before, settings)
    assert size.startswith("1 of 16 images (1 of dog) have other sizes or times of their files, ")
    assert size.endswith("such as train/dog/3.JPEG")
    assert both.startswith("2 of 16 images (1 of cat, 1 of dog)")


def test_shards_are_compared_by_places_and_times(tmp_path):
    root = make_shards(make_photographs(tmp_path / "photos"), tmp_path / "shards")
    settings = Data(str(root), **LOOK)
    before, names = digests_of(read(settings, "train"))
    assert names[0].startswith("train/0000.tar:")
    assert not found(before, settings)
    os.utime(root / "train" / "0001.tar", ns=(0, 0))
    (sentence,) = found(before, settings)
    assert "have other sizes or times of their files, such as train/0001.tar:" in sentence


def test_a_label_of_an_archive(tmp_path):
    make_cifar10(tmp_path, rows=4)
    settings = Data("cifar10", tmp_path)
    before, _ = digests_of(read(settings, "train"))
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    content = pickle.loads(path.read_bytes())
    content[b"labels"][1], content[b"labels"][2] = content[b"labels"][2], content[b"labels"][1]
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert found(before, settings) == [
        "2 of 20 images have another label: number 5 is class 6 and was class 5"
    ]
    content[b"data"][3, 7] ^= 1
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert found(before, settings)[1] == (
        "1 of 20 images (1 of class 7) have other contents, such as number 7"
    )


def test_another_order_is_seen():
    pixels = torch.from_numpy(noise(0, (3, 1, 4, 4)))

    def part(order):
        images = InMemory(pixels[order], torch.zeros(3, dtype=torch.int64), ["a", "b", "c"])
        return Labelled("toys", images, ("x",), (0.0,), (1.0,), crop=0, flip=False)

    before, names = digests_of(part([0, 1, 2]))
    now, _ = digests_of(part([0, 2, 1]))
    assert changes(before, replace(now), names)[0].startswith("2 of 3 images (2 of x) have other")


def test_digests_depend_on_pixels_alone_and_are_fast():
    pixels = torch.randint(0, 256, (600, 3, 32, 32), dtype=torch.uint8)
    whole = digest_pixels(pixels)
    assert len(set(whole.tolist())) == 600
    assert np.array_equal(
        whole, digest_pixels(pixels.contiguous(memory_format=torch.channels_last))
    )
    assert np.array_equal(whole[300:], digest_pixels(pixels[300:]))
    pixels[17, 2, 31, 31] ^= 1
    assert np.flatnonzero(whole != digest_pixels(pixels)).tolist() == [17]
    began = time.process_time()
    digest_pixels(pixels[:500])
    assert time.process_time() - began < 0.1  # 10 seconds for CIFAR-10 at the very most
