"""Images held out, a sample of every class, and its rest: counts, fixed choices, closed files."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from photographs import make_photographs, make_shards
from test_data_readers import make_cifar10, make_folder
from tutelage.config import Data, Run
from tutelage.data import DataError, folder, shards
from tutelage.data.batches import Stream
from tutelage.data.collection import collection
from tutelage.data.digits import stored
from tutelage.data.read import read, read_unlabelled
from tutelage.data.splits import split
from tutelage.data.streams import halves_of, streams_of
from tutelage.data.subsets import hold_out, in_sample, places
from tutelage.recipes import read_recipe

CPU = torch.device("cpu")
IMAGENET = torch.arange(1000).repeat(1300)
"""The labels of a set as large as ImageNet's, with all classes of one size."""
LOOK = {"resolution": 24, "colour": "rgb", "rescale": 0.2}
DIGITS = Data(held_out=198, sample=0.5, unlabelled="rest", unlabelled_sample=0.25)


def rows(images):
    """The pixels of every image, as bytes."""
    return [x.numpy().tobytes() for x in images.take(torch.arange(len(images)))]


# The defaults -----------------------------------------------------------------------------------


def test_by_default_the_images_of_a_search_are_those_of_before():
    """Indices and batches as the release without these settings had them."""
    settings = Run(seed=3)
    searched = read(settings.data, "search")
    train, valid = halves_of(settings, searched)
    assert train[:6].tolist() == [1182, 199, 647, 1134, 133, 528]
    assert valid[:6].tolist() == [49, 725, 945, 188, 261, 1052]
    assert (searched.mean, searched.std) == ((0.30499029223542506,), (0.3757296200501795,))
    streams = streams_of(settings, searched, (train, valid), CPU)
    every = (streams.train, streams.valid, streams.unlabelled)
    assert [digest(stream) for stream in every] == [
        "f32bb8ea8456eaec",
        "80a5798c658b9fa8",
        "80d47d330da6cffd",
    ]


def digest(stream: Stream) -> str:
    batch = stream.batch(1, 2)
    content = batch.x.contiguous().numpy().tobytes() + batch.y.numpy().tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


@pytest.mark.parametrize("part", ["train", "search"])
def test_by_default_every_training_image_is_used_in_order(part):
    assert torch.equal(places(IMAGENET, Data(), part), torch.arange(len(IMAGENET)))
    assert len(places(IMAGENET, Data(), "test")) == len(IMAGENET)


# Held out ---------------------------------------------------------------------------------------


def test_cifars_5000_held_out_images_are_sampled_uniformly():
    """The papers' protocol for a sweep: 22,500 images for each half, 5,000 to test."""
    held, left = hold_out(50_000, 5_000)
    assert (len(held), len(left)) == (5_000, 45_000)
    assert torch.equal(torch.cat([held, left]).sort().values, torch.arange(50_000))
    # 500 of every tenth of the set, with a deviation of sqrt(5000 * 0.1 * 0.9 * 0.9)
    tenths = np.bincount(held.numpy() // 5_000)
    assert abs(tenths - 500).max() < 5 * 20.2
    assert held.diff().unique().numel() > 20
    halves = split(len(left), 0.5, seed=0)
    assert [len(half) for half in halves] == [22_500, 22_500]


def test_the_held_out_images_are_documented_and_fewer_are_among_more():
    """A change of the generator would be a change of what a paper's row was tested on."""
    held, left = hold_out(50_000, 5_000)
    assert held[:5].tolist() == HELD
    assert not set(hold_out(50_000, 100)[0].tolist()) - set(held.tolist())
    assert torch.equal(hold_out(9, 0)[1], torch.arange(9))
    assert not set(held.tolist()) & set(left.tolist())


HELD = [4, 31, 43, 45, 52]


def test_a_search_its_retraining_and_the_test_share_no_image():
    settings = replace(DIGITS, sample=1.0, unlabelled="train", unlabelled_sample=1.0)
    train, search, test = (read(settings, part) for part in ("train", "search", "test"))
    assert [len(each.images) for each in (train, search, test)] == [1000, 1000, 198]
    assert rows(train.images) == rows(search.images)
    assert torch.equal(train.images.labels, search.images.labels)
    assert sorted(rows(train.images) + rows(test.images)) == sorted(rows(stored("train")))
    assert train.mean == search.mean == test.mean
    assert train.mean != read(Data(), "train").mean
    for seed in (0, 7):
        halves = halves_of(Run(data=settings, seed=seed), search)
        assert [len(half) for half in halves] == [500, 500]
        assert sorted(torch.cat(halves).tolist()) == list(range(1000))


def test_held_out_images_need_no_test_files(tmp_path):
    pixels, labels = make_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    settings = Data("cifar10", tmp_path, held_out=5)
    held, left = (index.tolist() for index in hold_out(20, 5))
    train, test = (read(settings, part) for part in ("train", "test"))
    np.testing.assert_array_equal(test.images.pixels, pixels[held])
    np.testing.assert_array_equal(train.images.pixels, pixels[left])
    assert test.images.labels.tolist() == labels[held].tolist()
    make_photographs(tmp_path / "folder", parts=("train",))
    settings = Data(str(tmp_path / "folder"), resolution=24, held_out=5)
    assert len(read(settings, "test").images) == 5
    with pytest.raises(DataError, match="neither test nor val"):
        read(replace(settings, held_out=0), "test")


# A sample and its rest --------------------------------------------------------------------------


def test_the_papers_search_on_imagenet_has_its_shares_of_every_class():
    """10 % of the images train weights, 2.5 % alphas, another 10 % have no labels."""
    settings = Data(sample=0.125, train_fraction=0.8, unlabelled="rest", unlabelled_sample=0.1)
    search, rest = (places(IMAGENET, settings, part) for part in ("search", "rest"))
    assert set(IMAGENET[search].bincount().tolist()) == {162}  # of 162.5
    assert len(rest) == 130_000
    assert len(torch.cat([search, rest]).unique()) == len(search) + len(rest)
    assert [len(half) for half in split(len(search), 0.8, 0)] == [129_600, 32_400]
    assert torch.equal(places(IMAGENET, settings, "train"), torch.arange(len(IMAGENET)))
    # about 130 unlabelled images a class, sampled without regard to it
    spread = IMAGENET[rest].bincount(minlength=1000).double()
    assert 7 < spread.std() < 13
    whole = places(IMAGENET, replace(settings, unlabelled_sample=0.875), "rest")
    assert len(whole) == 1_137_500  # classes were rounded down, so 500 more are left
    assert len(torch.cat([search, whole]).unique()) == len(search) + len(whole)


def test_the_recipe_for_imagenet_takes_an_eighth():
    data = read_recipe("pcdarts-imagenet")[0]["data"]
    settings = Data(sample=data["sample"], train_fraction=data["train_fraction"])
    cut = split(len(places(IMAGENET, settings, "search")), settings.train_fraction, 0)
    assert [len(half) / len(IMAGENET) for half in cut] == pytest.approx([0.1, 0.025], rel=0.005)


def test_a_smaller_sample_is_among_a_larger_one_in_classes_of_any_size():
    labels = torch.tensor([4] * 40 + [0] * 10 + [2] * 20)[
        torch.from_numpy(np.random.default_rng(0).permutation(70))
    ]
    small, large = in_sample(labels, 0.3), in_sample(labels, 0.6)
    assert labels[small].bincount().tolist() == [3, 0, 6, 0, 12]
    assert labels[large].bincount().tolist() == [6, 0, 12, 0, 24]
    assert not (small & ~large).any()


def test_a_sample_is_of_what_is_not_held_out():
    parts = {part: read(DIGITS, part).images for part in ("train", "search", "rest", "test")}
    # halves of odd classes are rounded
    assert [len(parts[part]) for part in ("train", "rest", "test")] == [1000, 250, 198]
    counts = parts["train"].labels.bincount() / 2
    assert parts["search"].labels.bincount().tolist() == [round(x) for x in counts.tolist()]
    every = [x for part in ("search", "rest", "test") for x in rows(parts[part])]
    known = rows(stored("train"))
    assert len(set(known)) == len(known)  # no image twice, so bytes name images
    assert len(set(every)) == len(every)
    assert set(every) < set(known)


def test_the_rest_has_no_labels_and_the_searched_images_mean():
    searched = read(DIGITS, "search")
    found, index = read_unlabelled(DIGITS, searched, torch.arange(9))
    assert index.tolist() == list(range(250))
    assert found.images.labels.tolist() == [-1] * 250
    assert rows(found.images) == rows(read(DIGITS, "rest").images)
    assert (found.mean, found.std) == (searched.mean, searched.std)


def test_another_set_is_whole_and_the_same_one_is_what_is_searched(tmp_path):
    make_cifar10(tmp_path)
    settings = Data("digits", tmp_path, unlabelled="cifar10", held_out=198, sample=0.5)
    _, index = read_unlabelled(settings, read(settings, "search"), torch.arange(9))
    assert len(index) == 20
    settings = replace(settings, unlabelled="digits")
    searched = read(settings, "search")
    found, _ = read_unlabelled(settings, searched, torch.arange(9))
    assert rows(found.images) == rows(searched.images)


# Folders and shards -----------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["stream", "load"])
@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_what_is_left_out_is_never_opened(tmp_path, kind, memory, monkeypatch):
    """Neither to measure the mean, nor for a size, nor to read into memory."""
    root = make_photographs(tmp_path / "folder")
    root = make_shards(root, tmp_path / "shards") if kind == "shards" else root
    look = LOOK if memory == "stream" else {"resolution": 24}  # the colour is looked up
    settings = Data(str(root), **look, memory=memory, **SHARES)
    every = folder.listing(collection(root), "train")
    opened = record_opened(monkeypatch, every)
    allowed = {
        part: {str(every.paths[k]) for k in places(every.labels, settings, part)}
        for part in ("train", "search", "rest", "test")
    }
    assert [len(allowed[part]) for part in allowed] == [13, 7, 3, 3]
    searched = read(settings, "search")
    assert len(searched.images) == 7
    assert opened == allowed["search"]
    opened.clear()
    found, index = read_unlabelled(settings, searched, torch.arange(4))
    found.images.take(index)
    assert opened == allowed["rest"]
    opened.clear()
    assert len(read(settings, "train").images) == 13
    assert opened == allowed["train"]
    opened.clear()
    tested = read(settings, "test").images
    tested.take(torch.arange(3))
    assert opened == allowed["train"] | allowed["test"]
    assert tested.labels.tolist() == every.labels[places(every.labels, settings, "test")].tolist()


SHARES = {"held_out": 3, "sample": 0.5, "unlabelled": "rest", "unlabelled_sample": 0.25}


def record_opened(monkeypatch, every):
    """Collect the paths of the images that are opened."""
    seen = set()

    def opened(path):
        seen.add(str(path))
        return every.source.opened(path)

    listing, source = folder.listing, every.source._replace(opened=opened)
    monkeypatch.setattr(folder, "listing", lambda *given: listing(*given)._replace(source=source))
    monkeypatch.setattr(shards, "opened", opened)
    return seen


def test_shards_have_the_folders_choice(tmp_path):
    root = make_photographs(tmp_path / "folder")
    packed = make_shards(root, tmp_path / "shards")
    for part in ("train", "search", "rest", "test"):
        one, other = (read(Data(str(at), **LOOK, **SHARES), part) for at in (root, packed))
        assert rows(one.images) == rows(other.images)
        assert torch.equal(one.images.labels, other.images.labels)
        assert one.mean == other.mean


def test_a_folder_inside_the_searched_one_gives_no_held_out_images(tmp_path):
    make_folder(tmp_path)
    settings = Data(str(tmp_path), held_out=2, unlabelled=str(tmp_path / "train"))
    searched = read(settings, "search")
    found, index = read_unlabelled(settings, searched, torch.arange(4))
    assert len(index) == 8
    assert sorted(rows(found.images)) == sorted(rows(searched.images))
    whole = replace(settings, held_out=0)
    _, index = read_unlabelled(whole, read(whole, "search"), torch.arange(4))
    assert len(index) == 10


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"held_out": -1}, "held_out = -1: must be a number of at least 0"),
        ({"sample": 0.0}, "sample = 0.0: must be above 0 and at most 1"),
        ({"sample": 1.5}, "sample = 1.5: must be above 0 and at most 1"),
        ({"sample": float("nan")}, "sample = nan: must be above 0"),
        ({"unlabelled_sample": 0.0}, "unlabelled_sample = 0.0: must be above 0"),
        ({"unlabelled_sample": 0.5}, "with unlabelled = 'train': only 'rest' is sampled"),
        ({"unlabelled": "rest"}, "sample = 1.0: no images are left out, give --data.sample"),
        (
            {"unlabelled": "rest", "sample": 0.9, "unlabelled_sample": 0.2},
            "unlabelled_sample = 0.2: sample = 0.9 leaves 0.1 of the training images, which is",
        ),
        ({"unlabelled": "rest", "sample": 0.125}, "sample = 0.125 leaves 0.875"),
    ],
)
def test_settings_are_refused_with_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Data(**given)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 0.9])
def test_shares_that_add_up_to_one_are_taken(share):
    Data(sample=share, unlabelled="rest", unlabelled_sample=1 - share)
    Data(sample=0.7, unlabelled="rest", unlabelled_sample=0.3)


def test_a_set_is_too_small_with_a_sentence():
    with pytest.raises(DataError, match="held_out = 1,198: the training images are 1,198 in all"):
        read(Data(held_out=1198), "train")
    with pytest.raises(
        DataError, match=r"sample = 0\.004: of a class with 1\d\d images that is none"
    ):
        read(Data(sample=0.004), "search")
    assert len(read(Data(sample=0.004), "train").images) == 1198
    few = Data(held_out=1195)
    with pytest.raises(DataError, match="divides 3 images into 2 and 1"):
        halves_of(Run(data=few), read(few, "search"))
