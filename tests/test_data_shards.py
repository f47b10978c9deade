"""Shards give the images that a folder gives, in any form of tar; bad ones are named."""

import io
import shutil
import tarfile
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from photographs import add, make_photographs, make_shards
from retraining import SMALL, files, train
from tutelage.config import Data
from tutelage.data import DataError, shards
from tutelage.data.images import OnDisk
from tutelage.data.read import read, read_unlabelled

LOOK = {"resolution": 24, "colour": "rgb"}
FORMS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def sharded(folder, tmp_path_factory):
    return make_shards(folder, tmp_path_factory.mktemp("shards"))


def every(images):
    return images.take(torch.arange(len(images)))


def jpeg(value=7, side=8):
    file = io.BytesIO()
    Image.new("RGB", (side, side), (value,) * 3).save(file, "JPEG")
    return file.getvalue()


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, content in entries.items():
            add(shard, name, content)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_shards_give_the_folders_images(folder, tmp_path, form):
    root = make_shards(folder, tmp_path / "shards", form=form)
    for part in ("train", "test"):
        want, got = (read(Data(str(at), **LOOK), part) for at in (folder, root))
        assert torch.equal(every(got.images), every(want.images))
        assert torch.equal(got.images.labels, want.images.labels)
        assert got.classes == want.classes == ("cat", "dog")
        assert (got.mean, got.std) == (want.mean, want.std)


def test_shards_train_like_their_folder(folder, sharded, tmp_path):
    """The same batches, so the same metrics and the same weights, streamed with windows."""
    settings = replace(SMALL, epochs=1, batch_size=4, randaugment=1)
    for name, at in (("folder", folder), ("shards", sharded)):
        train(tmp_path / name, settings, data=Data(str(at), **LOOK, rescale=0.2, centre=0.875))
    one, other = (files(tmp_path / name) for name in ("folder", "shards"))
    assert one["network.safetensors"] == other["network.safetensors"]
    assert one["metrics.jsonl"] == other["metrics.jsonl"]


def test_parts_by_the_shards_own_names_and_classes_by_numbers(tmp_path):
    """As ImageNet's shards are called; keys in folders, several files a sample."""
    for part, values in (("train", (9, 90, 200)), ("val", (60,))):
        for k, value in enumerate(values):
            entries = {
                f"n0{k}/a-{k}.jpg": jpeg(value),
                f"n0{k}/a-{k}.cls": b" 2\n" if k else b"0",
                f"n0{k}/a-{k}.json": b"{}",
                f"n0{k}/a-{k}.seg.png": b"no image",
            }
            write(tmp_path / f"imagenet-{part}-{k:06d}.tar", entries)
    data = read(Data(str(tmp_path)), "train")
    assert data.classes == ("0", "1", "2")
    assert data.images.labels.tolist() == [0, 2, 2]
    assert every(data.images)[:, 0, 0, 0].tolist() == [9, 90, 200]
    tested = read(Data(str(tmp_path)), "test")
    assert (tested.classes, tested.images.labels.tolist()) == (data.classes, [0])
    assert every(tested.images).unique().tolist() == [60]


def test_the_training_part_leaves_the_test_shards_closed(folder, tmp_path, monkeypatch):
    root = make_shards(folder, tmp_path / "shards")
    seen = []
    index = shards.index
    monkeypatch.setattr(
        shards, "index", lambda shard: seen.append(shard.parent.name) or index(shard)
    )
    read(Data(str(root), **LOOK), "train")
    assert seen == ["train"] * 3


def test_shards_as_unlabelled_images_need_no_labels(tmp_path):
    write(tmp_path / "other/train-0.tar", {f"{k}.jpg": jpeg(k, side=12) for k in (5, 80)})
    settings = Data("digits", unlabelled=str(tmp_path / "other"))
    searched = read(settings, "train")
    data, index = read_unlabelled(settings, searched, torch.arange(4))
    assert index.tolist() == [0, 1]
    assert data.images.take(index).shape == (2, 1, 8, 8)
    assert data.images.take(index).flatten(1).amax(1).tolist() == [5, 80]
    assert data.images.labels.tolist() == [-1, -1]


def test_bad_shards_are_named(tmp_path):
    def refused(sentence, content, part="train"):
        root = tmp_path / str(time.monotonic_ns())
        good = {"a.jpg": jpeg(), "a.cls": b"0", "b.jpg": jpeg(99), "b.cls": b"1"}
        path = write(root / "train" / "7.tar", good if callable(content) else content)
        if callable(content):
            path.write_bytes(content(path.read_bytes()))
        with pytest.raises(DataError, match=sentence) as caught:
            every(read(Data(str(root), memory="stream"), part).images)
        assert "\n" not in str(caught.value)

    sample = {"a.jpg": jpeg(), "a.cls": b"0"}
    refused(r"7\.tar has no b\.cls beside its image", sample | {"b.jpg": jpeg()})
    refused(r"7\.tar is damaged or no tar file of samples: invalid lit", sample | {"a.cls": b"cat"})
    refused(r"7\.tar holds no images called KEY\.jpg", {"a.txt": b"words", "a.cls": b"0"})
    for length in (600, 1800):  # in a header, in an image
        refused(r"7\.tar is damaged or no tar file", lambda content, n=length: content[:n])
    for length in (4700, 4608):  # in a later header, and before one
        refused(r"neither a file nor the end", lambda content, n=length: content[:n])
    refused(
        r"byte 4,608 of it is neither a file nor the end",
        lambda content: content[:4608] + b"?" * 512 + content[5120:],
    )
    refused(r"7\.tar is damaged or no tar file", lambda content: b"what is this" * 100)
    broken = sample | {"b.jpg": jpeg(side=40)[:300], "b.cls": b"1", "a.jpg": jpeg(side=40)}
    refused(r"the image at byte \d+ of \S+7\.tar is not a readable image", broken)
    refused(
        r"image 1 has label -3, but labels go from 0", sample | {"b.jpg": jpeg(), "b.cls": b"-3"}
    )
    refused(r"has shards of its train part, but none of a test or val part", sample, "test")


def test_names_that_hold_the_word_of_the_other_part(tmp_path):
    """Training shards are no test images, though `latest` says test."""
    for part, value in (("train", 9), ("val", 60)):
        for k in range(2):
            entries = {f"{k}.jpg": jpeg(value + k), f"{k}.cls": str(k).encode()}
            write(tmp_path / f"latest-{part}-{k}.tar", entries)
    values = {part: every(read(Data(str(tmp_path)), part).images) for part in ("train", "test")}
    assert values["train"].unique().tolist() == [9, 10]
    assert values["test"].unique().tolist() == [60, 61]


def test_blank_lines_name_no_classes(tmp_path):
    write(
        tmp_path / "train/0.tar", {"a.jpg": jpeg(), "a.cls": b"0", "b.jpg": jpeg(), "b.cls": b"1"}
    )
    (tmp_path / "classes.txt").write_text("\ncat\ndog \n\n")
    assert read(Data(str(tmp_path)), "train").classes == ("cat", "dog")


def test_the_archives_that_folders_were_unpacked_from_are_no_shards(folder, tmp_path):
    root = tmp_path / "imagenet"
    shutil.copytree(folder, root)
    for part in ("train", "val"):
        write(root / f"ILSVRC2012_img_{part}.tar", {"n01440764.tar": b"archive" * 100})
    for part in ("train", "test"):
        want, got = (read(Data(str(at), **LOOK), part) for at in (folder, root))
        assert torch.equal(every(got.images), every(want.images))


def test_random_access_reads_no_other_image(sharded, monkeypatch):
    data = read(Data(str(sharded), **LOOK, memory="stream"), "train")
    assert type(data.images) is OnDisk
    seen = []
    source = shards.source(sharded)
    recorded = source._replace(opened=lambda m: seen.append(m) or shards.opened(m))
    monkeypatch.setattr(data.images, "_source", recorded)
    data.images.take(torch.tensor([11, 3, 11]))
    listed = shards.listing(sharded, "train").paths
    assert sorted(seen) == sorted([listed[11], listed[3], listed[11]])
    places = np.array([[member.offset, member.size] for member in listed])
    assert (places[:, 0] % 512 == 0).all()
