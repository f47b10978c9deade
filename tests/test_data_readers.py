"""Readers: what is read is what is on disk, and a training part never opens a test file."""

import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.config import Data
from tutelage.data import DATA, digits, folder
from tutelage.data.given import GIVEN
from tutelage.data.images import InMemory, OnDisk, measure
from tutelage.data.pictures import fit
from tutelage.data.read import READERS, read, read_unlabelled
from tutelage.data.splits import held_out

REAL = os.environ.get("TUTELAGE_TEST_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="TUTELAGE_TEST_DATA names no folder of real data")

PARTS = ("train", "test")
recording: list[str] | None = None


def record(event, arguments):
    if event == "open" and recording is not None and isinstance(arguments[0], (str, Path)):
        recording.append(str(arguments[0]))


sys.addaudithook(record)


@pytest.fixture
def opened():
    """Every path that the process opens during the test."""
    global recording
    recording = []
    yield recording
    recording = None


def noise(count, height=8, width=8, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, height, width, channels), np.uint8)


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(path)


def make_folder(root, parts=("train", "test"), count=5, **shape):
    """Write count pictures of the classes cat and dog below every part; return them by path."""
    pictures = {}
    for seed, part in enumerate(parts):
        for kind, name in enumerate(("cat", "dog")):
            for k, picture in enumerate(noise(count, seed=10 * seed + kind, **shape)):
                pictures[f"{part}/{name}/{k}.png"] = picture
                save(root / part / name / f"{k}.png", picture)
    return pictures


def make_cifar10(root, rows=4):
    """Write a small CIFAR-10 in the official layout; return its training pixels and labels."""
    at = root / "cifar-10-batches-py"
    at.mkdir(parents=True)
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    data = noise(6 * rows, 32, 96, 1).reshape(6, rows, 3072)
    labels = np.arange(6 * rows).reshape(6, rows) % 10
    for name, x, y in zip(names, data, labels, strict=True):
        content = {b"data": x, b"labels": y.tolist()}
        (at / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {b"label_names": [f"class {k}".encode() for k in range(10)]}
    (at / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return data[:5].reshape(-1, 3, 32, 32), labels[:5].flatten()


def as_python2(value):
    """Pickle as Python 2 with numpy 1 did, whose strings are bytes: the official files' form."""
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(as_python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(as_python2(k) + as_python2(v) for k, v in value.items()) + b"u"
    kind = b"cnumpy\ndtype\n(" + as_python2(b"u1") + b"K\x00K\x01tR(K\x03" + as_python2(b"|")
    kind += b"NNN" + as_python2(-1) * 2 + b"K\x00tb"
    shape = b"(" + b"".join(map(as_python2, value.shape)) + b"t"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t"
    made += as_python2(b"b") + b"tR"
    return made + b"(K\x01" + shape + kind + b"\x89" + as_python2(value.tobytes()) + b"tb"


def test_listing_the_sets_does_not_import_torch():
    code = "import sys, tutelage.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_set_that_is_listed_can_be_read():
    assert {*DATA, GIVEN} == READERS.keys()


def test_the_digits_are_those_of_scikit_learn_divided_by_digest():
    datasets = pytest.importorskip("sklearn.datasets")
    original = datasets.load_digits()
    embedded = Path(digits.__file__).parent / "embedded"
    files = {part: dict(np.load(embedded / f"digits_{part}.npz")) for part in PARTS}
    together = np.concatenate([files[p]["position"] for p in PARTS])
    assert sorted(together) == list(range(1797))
    for part in PARTS:
        position = files[part]["position"]
        np.testing.assert_array_equal(files[part]["images"], original.images[position])
        np.testing.assert_array_equal(files[part]["labels"], original.target[position])
    for digit in range(10):
        at = np.flatnonzero(original.target == digit)
        held = held_out([str(k) for k in at], 1 / 3)
        assert set(at[held]) <= set(files["test"]["position"].tolist())
        assert set(at[~np.array(held)]) <= set(files["train"]["position"].tolist())


def test_digits_use_the_whole_range_of_uint8():
    train, test = (read(Data(), part) for part in PARTS)
    assert (len(train.images), len(test.images)) == (1198, 599)
    assert train.images.shape == (1, 8, 8)
    values = train.images.take(torch.arange(1198)).unique().tolist()
    assert values == [round(ink * 255 / 16) for ink in range(17)]
    assert (train.crop, train.flip, len(train.classes)) == (1, False, 10)
    assert (train.mean, train.std) == (test.mean, test.std)


def test_the_training_digits_leave_the_test_digits_closed(opened):
    digits.stored("train")
    assert any("digits_train" in path for path in opened)
    assert not any("digits_test" in path for path in opened)


def test_measured_statistics_are_those_of_all_pixels():
    pixels = torch.from_numpy(noise(700, 5, 7)).permute(0, 3, 1, 2)
    mean, std = measure(InMemory(pixels, torch.zeros(700, dtype=torch.int64)))
    value = pixels.numpy() / 255
    np.testing.assert_allclose(mean, value.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, value.std((0, 2, 3)), rtol=1e-12)


def test_a_large_set_is_measured_on_a_sample_and_a_blank_one_without_dividing_by_zero():
    pixels = torch.arange(200, dtype=torch.uint8)[:, None, None, None]
    images = InMemory(pixels, torch.zeros(200, dtype=torch.int64))
    mean, _ = measure(images, most=50)
    assert mean == measure(images, most=50)[0]
    assert abs(mean[0] - 99.5 / 255) < 0.2
    assert measure(InMemory(pixels[:1], torch.zeros(1)))[1] == pytest.approx([1 / 255])


def packed(root):
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
    (root / "cifar-10-batches-py").rename(root / "moved away")
    return root


@pytest.mark.parametrize(
    "place", [lambda root: root, lambda root: root / "cifar-10-batches-py", packed]
)
def test_cifar10_is_read_unpacked_or_packed(tmp_path, place):
    pixels, labels = make_cifar10(tmp_path)
    data = read(Data("cifar10", place(tmp_path)), "train")
    np.testing.assert_array_equal(data.images.take(torch.arange(20)).numpy(), pixels)
    np.testing.assert_array_equal(data.images.labels.numpy(), labels)
    assert data.classes[9] == "class 9"
    assert (data.crop, data.flip) == (4, True)


def test_the_training_part_of_cifar10_leaves_the_test_file_closed(tmp_path, opened):
    make_cifar10(tmp_path)
    opened.clear()
    read(Data("cifar10", tmp_path), "train")
    assert sum("data_batch_" in path for path in opened) == 5
    assert not any("test_batch" in path for path in opened)
    read(Data("cifar10", tmp_path), "test")
    assert any("test_batch" in path for path in opened)


def test_cifar100_is_read_as_python_2_has_pickled_it(tmp_path):
    at = tmp_path / "cifar-100-python"
    at.mkdir()
    pixels = noise(6, 32, 96, 1).reshape(6, 3072)
    content = {b"data": pixels, b"fine_labels": [5, 99, 0, 1, 2, 3], b"coarse_labels": [0] * 6}
    meta = {b"fine_label_names": [f"class {k}".encode() for k in range(100)]}
    (at / "train").write_bytes(b"\x80\x02" + as_python2(content) + b".")
    (at / "meta").write_bytes(b"\x80\x02" + as_python2(meta) + b".")
    data = read(Data("cifar100", tmp_path), "train")
    got = data.images.take(torch.arange(6)).numpy()
    np.testing.assert_array_equal(got, pixels.reshape(6, 3, 32, 32))
    assert data.images.labels.tolist() == [5, 99, 0, 1, 2, 3]
    assert len(data.classes) == 100


def test_a_folder_by_class_is_read_as_it_is(tmp_path):
    pictures = make_folder(tmp_path)
    data = read(Data("folder", tmp_path), "train")
    want = np.stack([p for path, p in sorted(pictures.items()) if path.startswith("train")])
    np.testing.assert_array_equal(
        data.images.take(torch.arange(10)).permute(0, 2, 3, 1).numpy(), want
    )
    assert data.images.labels.tolist() == [0] * 5 + [1] * 5
    assert data.classes == ("cat", "dog")
    np.testing.assert_allclose(data.mean, want.mean((0, 1, 2)) / 255, rtol=1e-9)
    assert (data.crop, data.flip) == (1, True)


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_folders_test_part_has_the_training_parts_statistics(tmp_path, name):
    make_folder(tmp_path, ("train", name))
    train, test = (read(Data(str(tmp_path)), part) for part in PARTS)
    assert (test.mean, test.std) == (train.mean, train.std)
    assert len(test.images) == 10
    assert not torch.equal(test.images.take(torch.arange(10)), train.images.take(torch.arange(10)))


def test_the_training_part_of_a_folder_leaves_test_files_closed(tmp_path, opened):
    make_folder(tmp_path)
    opened.clear()
    read(Data("folder", tmp_path), "train")
    assert any("/train/" in path for path in opened)
    assert not any("/test/" in path for path in opened)


def test_a_folder_without_parts_is_divided_class_by_class(tmp_path, opened):
    make_folder(tmp_path, ("",), count=20)
    opened.clear()
    train = read(Data("folder", tmp_path), "train")
    trained = {path for path in opened if path.endswith(".png")}
    assert train.images.labels.bincount().tolist() == [16, 16]
    opened.clear()
    folder.read_folder(Data("folder", tmp_path), "test")
    tested = {path for path in opened if path.endswith(".png")} - trained
    assert len(trained) == 32
    assert len(tested) == 8


def test_a_folders_images_are_resized_cropped_and_converted(tmp_path):
    make_folder(tmp_path, count=2, height=20, width=30)
    odd = noise(1, 48, 12, 1)[0]
    save(tmp_path / "train/cat/odd.png", odd)
    data = read(Data("folder", tmp_path, resolution=8, colour="rgb"), "train")
    assert data.images.shape == (3, 8, 8)
    small = np.asarray(Image.fromarray(odd[..., 0]).resize((8, 32), Image.Resampling.BILINEAR))
    got = data.images.take(torch.tensor([2]))[0]
    np.testing.assert_allclose(got.numpy(), np.broadcast_to(small[12:20], (3, 8, 8)), atol=1)
    grey = read(Data("folder", tmp_path, resolution=8, colour="grey"), "train")
    assert grey.images.shape == (1, 8, 8)


def test_resizing_takes_the_shorter_side_and_the_centre():
    wide = Image.fromarray(noise(1, 10, 30)[0])
    np.testing.assert_array_equal(fit(wide, (3, 10, 10)), np.asarray(wide)[:, 10:20])
    small = np.asarray(wide.resize((15, 5), Image.Resampling.BILINEAR)).astype(int)
    np.testing.assert_allclose(fit(wide, (3, 5, 5)), small[:, 5:10], atol=1)


def test_a_large_folder_stays_on_disk_and_gives_the_same_images(tmp_path, monkeypatch):
    make_folder(tmp_path)
    want = read(Data("folder", tmp_path), "train")
    monkeypatch.setattr(folder, "MEMORY", 100)
    got = read(Data("folder", tmp_path), "train")
    assert isinstance(got.images, OnDisk)
    index = torch.tensor([7, 0, 3, 3])
    assert torch.equal(got.images.take(index), want.images.take(index))
    assert (got.mean, got.std) == (want.mean, want.std)


def test_the_training_half_is_its_own_unlabelled_data_and_keeps_its_labels():
    """By them the labels that a method gives are judged."""
    searched = read(Data(), "train")
    half = torch.tensor([4, 8, 15, 16])
    data, index = read_unlabelled(Data(), searched, half)
    assert torch.equal(index, half)
    assert torch.equal(data.images.take(half), searched.images.take(half))
    assert torch.equal(data.images.labels[half], searched.images.labels[half])


def test_another_sets_images_come_in_the_shape_and_scale_of_the_searched_one(tmp_path):
    make_cifar10(tmp_path)
    settings = Data("digits", tmp_path, unlabelled="cifar10")
    searched = read(settings, "train")
    data, index = read_unlabelled(settings, searched, torch.arange(600))
    assert index.tolist() == list(range(20))
    assert data.images.take(index).shape == (20, 1, 8, 8)
    assert (data.mean, data.std, data.crop) == (searched.mean, searched.std, 1)
    digits = Data("cifar10", tmp_path, unlabelled="digits")
    data, index = read_unlabelled(digits, read(digits, "train"), torch.arange(9))
    assert data.images.take(index[:2]).shape == (2, 3, 32, 32)
    assert len(index) == 1198


def test_an_unlabelled_folder_needs_no_classes_and_leaves_its_test_part_closed(tmp_path, opened):
    for k, picture in enumerate(noise(3, 30, 20)):
        save(tmp_path / "loose" / f"{k}.jpg", picture)
    settings = Data(unlabelled=str(tmp_path / "loose"))
    data, index = read_unlabelled(settings, read(settings, "train"), torch.arange(9))
    assert data.images.take(index).shape == (3, 1, 8, 8)
    make_folder(tmp_path / "classes")
    opened.clear()
    settings = Data(unlabelled=str(tmp_path / "classes"))
    _, index = read_unlabelled(settings, read(settings, "train"), torch.arange(9))
    assert len(index) == 10
    assert not any("/test/" in path for path in opened)


def test_the_searched_folder_as_unlabelled_data_leaves_out_its_test_images(tmp_path, opened):
    make_folder(tmp_path, ("",), count=10)
    settings = Data("folder", tmp_path, unlabelled=str(tmp_path))
    searched = read(settings, "train")
    data, index = read_unlabelled(settings, searched, torch.arange(4))
    assert len(index) == 16
    assert torch.equal(data.images.take(index), searched.images.take(index))


def test_python_2_pickles_are_made_right():
    value = {b"a": [1, -2], b"b": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    loaded = pickle.load(io.BytesIO(b"\x80\x02" + as_python2(value) + b"."), encoding="bytes")
    assert loaded[b"a"] == [1, -2]
    np.testing.assert_array_equal(loaded[b"b"], value[b"b"])


@needs_real
@pytest.mark.slow
def test_the_real_cifar10_has_the_published_statistics(opened):
    data = read(Data("cifar10", Path(REAL)), "train")
    assert data.images.labels.bincount().tolist() == [5000] * 10
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    mean, std = measure(data.images, most=50_000)
    np.testing.assert_allclose(mean, data.mean, atol=1e-6)
    np.testing.assert_allclose(std, data.std, atol=1e-6)
    assert not any("test_batch" in path for path in opened)


@needs_real
def test_the_real_cifar100_may_be_a_part_of_it():
    train, test = (read(Data("cifar100", Path(REAL)), part) for part in PARTS)
    assert train.images.labels.bincount().tolist() == [100] * 100
    assert test.images.labels.bincount().tolist() == [20] * 100
    np.testing.assert_allclose(measure(train.images)[0], train.mean, atol=0.01)


@needs_real
def test_real_jpegs_by_class_are_read():
    settings = Data("folder", Path(REAL) / "tin10", colour="rgb")
    train, test = (read(settings, part) for part in PARTS)
    assert train.images.shape == test.images.shape == (3, 64, 64)
    assert train.images.labels.bincount().tolist() == [200] * 10
    assert test.images.labels.bincount().tolist() == [50] * 10
