"""Every bad input is refused with one sentence that names it."""

import codecs
import pickle
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image

from retraining import GENOTYPE, SMALL
from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.images import InMemory, Labelled
from tutelage.data.read import check_test_part, read, read_unlabelled
from tutelage.run import retrain


def save(path, mode="RGB", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 7).save(path)


@pytest.fixture
def images(tmp_path):
    """A good folder of two classes, of three images each in both parts."""
    for part in ("train", "test"):
        for kind in ("cat", "dog"):
            for k in range(3):
                save(tmp_path / part / kind / f"{k}.png")
    return tmp_path


@pytest.fixture
def cifar(tmp_path):
    """A good CIFAR-10 of two rows a batch."""
    at = tmp_path / "cifar-10-batches-py"
    at.mkdir()
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        write(at / name)
    write(at / "batches.meta", {b"label_names": [b"a"] * 10})
    return at


def write(path, content=None):
    content = content or batch()
    path.write_bytes(pickle.dumps(content, protocol=2))


def batch(**changed):
    good = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    return good | {key.encode(): value for key, value in changed.items()}


def refused(sentence, settings, part="train"):
    with pytest.raises(DataError, match=sentence) as caught:
        read(settings, part)
    assert "\n" not in str(caught.value)


def test_the_good_ones_are_read(images, cifar):
    assert len(read(Data("folder", images), "train").images) == 6
    assert len(read(Data("cifar10", cifar), "train").images) == 10


def test_an_unknown_name_gives_the_nearest():
    refused("unknown data set 'cifer10', .*: did you mean cifar10", Data("cifer10"))
    refused("unknown data set 'zzz', .*: must be one of digits", Data("zzz"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "folder"])
def test_a_missing_root(name, tmp_path):
    refused(f"data set {name} needs its folder: give --data-root DIR", Data(name))
    refused("nowhere is not a folder", Data(name, tmp_path / "nowhere"))


def test_a_missing_set_says_what_to_do(tmp_path):
    sentence = r"cifar10 is not in .*: put cifar-10-batches-py or cifar-10-python\.tar\.gz there"
    refused(sentence + ", or fetch it with --download", Data("cifar10", tmp_path))


def test_a_missing_batch_is_named(cifar):
    (cifar / "data_batch_3").unlink()
    refused("lacks data_batch_3: unpack cifar-10-python", Data("cifar10", cifar.parent))


def test_a_missing_test_batch_is_named_before_a_training(cifar, tmp_path):
    packed = tmp_path / "elsewhere" / "cifar-10-python.tar.gz"
    packed.parent.mkdir()
    (cifar / "test_batch").write_bytes(b"not read")
    for files in (cifar.parent, cifar, packed.parent):
        if files == packed.parent:
            with tarfile.open(packed, "w:gz") as archive:
                archive.add(cifar, cifar.name)
        check_test_part(Data("cifar10", files))
    (cifar / "test_batch").unlink()
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(cifar, cifar.name)
    for files in (cifar.parent, cifar, packed.parent):
        read(Data("cifar10", files), "train")
        with pytest.raises(DataError, match=r"lacks test_batch: (unpack|remove it)"):
            check_test_part(Data("cifar10", files))
        check_test_part(Data("cifar10", files, held_out=2))


def test_an_odd_test_image_is_refused_before_a_training(images):
    check_test_part(Data(str(images)))
    save(images / "test" / "dog" / "1.png", size=(8, 9))
    with pytest.raises(DataError, match=r"dog/1\.png is .*: give them one size with --data.resol"):
        check_test_part(Data(str(images)))
    check_test_part(Data(str(images), resolution=8))
    for path in images.glob("test/*/*.png"):
        save(path, size=(8, 9))
    with pytest.raises(DataError, match=r"its test images are .*; give --data.colour and --data.r"):
        check_test_part(Data(str(images)))
    check_test_part(Data(str(images), held_out=1))


def test_a_broken_test_image_ends_a_training_before_it_begins(images, tmp_path):
    (images / "test" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cat/0\.png is not a readable image"):
        retrain.retrain(GENOTYPE, Data(str(images)), SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_broken_archive(cifar, tmp_path):
    packed = tmp_path / "elsewhere" / "cifar-10-python.tar.gz"
    packed.parent.mkdir()
    (cifar / "data_batch_5").write_bytes(np.random.default_rng(0).bytes(100_000))
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(cifar, cifar.name)
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    refused(r"tar\.gz is broken .*: remove it", Data("cifar10", packed.parent))
    (cifar / "data_batch_2").unlink()
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(cifar, cifar.name)
    refused(r"tar\.gz lacks data_batch_2", Data("cifar10", packed.parent))


@pytest.mark.parametrize("kept", [0, 1, 60, 3000])
def test_a_truncated_batch(cifar, kept):
    whole = (cifar / "data_batch_2").read_bytes()
    (cifar / "data_batch_2").write_bytes(whole[:kept])
    refused("data_batch_2 is truncated or not a pickled batch", Data("cifar10", cifar))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (batch(data=np.zeros((2, 3071), np.uint8)), "rows have 3071 values instead of 3 x 32 x 32"),
        (batch(data=np.zeros((2, 3072))), "an array of other values than whole numbers"),
        (batch(data=[1, 2]), "not a uint8 table"),
        (batch(labels=[1, 2, 3]), r"has 2 images, but labels of shape \(3,\)"),
        (batch(labels=[b"x", b"y"]), "has 2 images, but labels of shape"),
        (batch(labels=[0, 10]), "image 1 has label 10, but labels go from 0 to 9"),
        (batch(labels=[0, -1]), "image 1 has label -1, but labels go from 0 to 9"),
        ({b"fine_labels": [1]}, "it has no 'data', only fine_labels"),
        ([1, 2], "holds a list instead of a dict"),
    ],
)
def test_a_batch_of_the_wrong_form(cifar, content, sentence):
    write(cifar / "data_batch_1", content)
    refused(sentence, Data("cifar10", cifar))


class Evil:
    def __reduce__(self):
        return print, ("arbitrary code has run",)


@pytest.mark.parametrize("value", [Evil(), OrderedDict(), codecs.decode])
def test_a_pickle_that_would_call_anything_else(cifar, value, capsys):
    write(cifar / "data_batch_1", batch(extra=value))
    refused("data_batch_1: it asks for .*, which no batch of images needs", Data("cifar10", cifar))
    assert capsys.readouterr().out == ""


def test_a_resolution_or_colour_that_a_fixed_set_does_not_have():
    refused("resolution = 32: the images of digits are 8 x 8", Data(resolution=32))
    refused("colour = 'rgb': the images of digits are grey", Data(colour="rgb"))
    assert read(Data(resolution=8, colour="grey"), "train").images.shape == (1, 8, 8)


def test_a_folder_of_one_class_or_none(tmp_path):
    refused("has 0 class folders: a classification needs at least 2", Data("folder", tmp_path))
    save(tmp_path / "cat" / "1.png")
    refused("has 1 class folders", Data("folder", tmp_path))


def test_an_empty_class(images, tmp_path):
    (images / "train" / "owl").mkdir()
    (images / "train" / "owl" / "notes.txt").write_text("no image")
    refused(r"train/owl holds no images .*every class needs one", Data("folder", images))
    for kind in ("cat", "dog"):
        save(tmp_path / "flat" / kind / "1.png")
    refused(
        r"cat holds 1 images .*, and 1 more folder as few: every class needs two, one of them for",
        Data("folder", tmp_path / "flat"),
    )


@pytest.mark.parametrize("fixed", [{}, {"colour": "rgb", "resolution": 8}])
@pytest.mark.parametrize("kept", [0, 20, 45])
def test_a_corrupt_image_is_named(images, fixed, kept):
    path = images / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:kept])
    refused(r"train/dog/1\.png is not a readable image", Data("folder", images, **fixed))


def test_a_corrupt_jpeg_of_a_sound_header_is_named(images):
    path = images / "train" / "dog" / "9.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    refused(r"train/dog/9\.jpg is not a readable image", Data("folder", images))


def test_grey_and_rgb_mixed_name_one_of_each(images):
    save(images / "train" / "dog" / "1.png", "L")
    sentence = r"dog/1\.png is grey and .*cat/0\.png is RGB: give --data\.colour rgb"
    refused(sentence, Data("folder", images))
    assert read(Data("folder", images, colour="rgb"), "train").images.shape == (3, 8, 8)


def test_differing_sizes_without_a_resolution(images):
    save(images / "train" / "dog" / "1.png", size=(9, 8))
    sentence = r"cat/0\.png is 8 x 8 RGB and .*dog/1\.png is 9 x 8 RGB.*--data\.resolution"
    refused(sentence, Data("folder", images))
    assert read(Data("folder", images, resolution=8), "train").images.shape == (3, 8, 8)


def test_a_test_part_that_does_not_match(images):
    save(images / "test" / "owl" / "1.png")
    refused("only one of its parts has the classes owl", Data("folder", images), "test")
    (images / "test" / "owl" / "1.png").unlink()
    (images / "test" / "owl").rmdir()
    for path in (images / "test").rglob("*.png"):
        save(path, "L")
    refused(
        "test images are 8 x 8 grey, its training images 8 x 8 RGB", Data("folder", images), "test"
    )


def test_a_folder_with_half_of_its_parts(images):
    (images / "test").rename(images / "spare")
    refused("has a train folder, but neither test nor val", Data("folder", images), "test")
    (images / "train").rename(images / "val")
    refused("has a test or val folder, but no train folder", Data("folder", images))


@pytest.mark.parametrize(
    ("unlabelled", "sentence"),
    [
        ("cifar1", "unknown data set 'cifar1', .*: did you mean cifar10"),
        ("cifar100", "data set cifar100 needs its folder: give --data-root DIR"),
        ("folder", "unlabelled = folder needs a folder"),
    ],
)
def test_unlabelled_data_that_are_not_there(unlabelled, sentence):
    settings = Data(unlabelled=unlabelled)
    with pytest.raises(DataError, match=sentence):
        read_unlabelled(settings, read(settings, "train"), torch.arange(9))


def test_an_unlabelled_folder_without_images(tmp_path):
    settings = Data(unlabelled=str(tmp_path))
    with pytest.raises(DataError, match="holds no images"):
        read_unlabelled(settings, read(settings, "train"), torch.arange(9))


def test_unlabelled_images_with_labels_are_refused():
    images = InMemory(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([-1, 0]))
    with pytest.raises(DataError, match="image 1 has label 0, but labels go from -1 to -1"):
        Labelled("toys", images, (), (0.0,), (1.0,), crop=0, flip=False)
