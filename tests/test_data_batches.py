"""Draws, splits and batches: functions of a seed, a name and a counter."""

import numpy as np
import pytest
import torch
from PIL import Image

from changes import augment
from tutelage.data import DataError
from tutelage.data.augment import Augmentation
from tutelage.data.batches import Stream, in_order
from tutelage.data.images import InMemory, Labelled, OnDisk, Unlabelled
from tutelage.data.seeding import generator
from tutelage.data.splits import held_out, load_split, save_split, split

CPU = torch.device("cpu")
PLAIN = Augmentation()


def toys(count=23):
    """Images whose every pixel is their own position."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 2)
    images = InMemory(pixels.contiguous(), torch.arange(count) % 3)
    return Labelled("toys", images, ("a", "b", "c"), (0.0,), (1 / 255,), crop=1, flip=True)


def stream(subset=None, batch_size=5, seed=0, name="train", how=PLAIN, data=None):
    data = data or toys()
    subset = torch.arange(len(data.images)) if subset is None else subset
    return Stream(data, subset, batch_size, seed, name, how, CPU)


def epoch_of(s, epoch=0):
    return torch.cat([s.batch(epoch, step).position for step in range(s.steps)]).tolist()


def test_draws_are_philox_of_seed_name_and_counter():
    digest = 0xB9E25AACF295904E  # of "train": it must never change, or runs cannot be resumed
    key = np.array([7, digest], np.uint64)
    philox = np.random.Philox(key=key, counter=np.array([0, 3, 1, 0], np.uint64))
    got = generator(7, "train", 3, 1).random(4)
    np.testing.assert_array_equal(got, np.random.Generator(philox).random(4))


def test_draws_differ_in_every_argument():
    first = [
        generator(*arguments).random()
        for arguments in [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 0, 1)]
    ]
    assert len(set(first)) == 5


def test_split_divides_all_images_and_depends_on_the_seed():
    train, valid = split(101, 0.3, 5)
    assert len(train) == 30
    assert sorted(torch.cat([train, valid]).tolist()) == list(range(101))
    assert torch.equal(train, split(101, 0.3, 5)[0])
    assert not torch.equal(train, split(101, 0.3, 6)[0])


def test_a_stored_split_comes_back(tmp_path):
    train, valid = split(20, 0.5, 0)
    save_split(tmp_path / "split.npz", train, valid)
    read_train, read_valid = load_split(tmp_path / "split.npz", 20)
    assert torch.equal(read_train, train)
    assert torch.equal(read_valid, valid)
    with pytest.raises(DataError, match="divides 20 images, but the training set has 21 now"):
        load_split(tmp_path / "split.npz", 21)


def test_a_broken_split_is_named(tmp_path):
    path = tmp_path / "split.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"split\.npz is not a stored split"):
        load_split(path, 20)
    save_split(path, torch.tensor([0, 1]), torch.tensor([1, 2]))
    with pytest.raises(DataError, match="4 images"):
        load_split(path, 4)
    whole = (tmp_path / "whole.npz", *split(20, 0.5, 0))
    save_split(*whole)
    path.write_bytes(whole[0].read_bytes()[:300])
    with pytest.raises(DataError, match=r"split\.npz is not a stored split"):
        load_split(path, 20)


def test_a_split_without_room_for_two_parts_is_refused():
    with pytest.raises(DataError, match="divides 10 images into 1 and 9"):
        split(10, 0.1, 0)


def test_held_out_keeps_its_choice_when_names_are_added():
    names = [f"{k}.png" for k in range(50)]
    before = {n for n, out in zip(names, held_out(names, 0.2), strict=True) if out}
    more = [*names, "new.png"]
    after = {n for n, out in zip(more, held_out(more, 0.2), strict=True) if out}
    assert len(before) == 10
    assert len(after - {"new.png"} ^ before) <= 1


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    s = stream()
    assert s.steps == 5
    first, second = epoch_of(s, 0), epoch_of(s, 1)
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    assert first != epoch_of(stream(seed=1))
    assert first != epoch_of(stream(name="unlabelled"))


@pytest.mark.parametrize(
    ("count", "batch_size", "steps"),
    [(23, 5, 5), (20, 5, 4), (21, 5, 4), (22, 5, 5), (3, 8, 1), (4, 1, 4)],
)
def test_a_last_batch_of_one_image_is_left_out(count, batch_size, steps):
    s = stream(torch.arange(count), batch_size)
    assert s.steps == steps
    assert min(len(s.batch(0, step).x) for step in range(steps)) >= min(2, batch_size)


def test_a_batch_does_not_depend_on_what_was_asked_before():
    how = Augmentation(1, True, 1)
    s = stream(how=how)
    backwards = [s.batch(2, step).x for step in reversed(range(7))]
    for step, x in enumerate(reversed(backwards)):
        assert torch.equal(x, stream(how=how).batch(2, step).x)


def test_images_labels_and_index_belong_together():
    subset = torch.tensor([20, 4, 9, 13, 2])
    part = stream(subset, 3).batch(0, 0)
    assert part.x.shape == (3, 1, 2, 2)
    assert torch.equal(part.x[:, 0, 0, 0].round().long(), subset[part.position])
    assert torch.equal(part.y, subset[part.position] % 3)


def test_what_is_done_to_a_batch_leaves_later_batches_alone():
    s = stream()
    want = s.batch(0, 0).position.clone()
    s.batch(0, 0).position.zero_()
    s.batch(0, 0).x.zero_()
    assert torch.equal(s.batch(0, 0).position, want)
    assert s.data.images.take(torch.tensor([7])).unique().tolist() == [7]


def test_steps_beyond_the_last_go_through_a_further_permutation():
    s = stream()
    first, second = (
        torch.cat([s.batch(0, turn * s.steps + k).position for k in range(s.steps)]).tolist()
        for turn in (0, 1)
    )
    assert sorted(first) == sorted(second)
    assert first != second


def test_a_batch_is_augmented_with_the_draws_of_its_step():
    how = Augmentation(1, True, 1)
    s = stream(how=how, batch_size=8)
    part = s.batch(4, 2)
    want = augment(
        s.data.images.take(part.position),
        how,
        (0.0,),
        (1 / 255,),
        generator(0, "train/augment", 4, 2),
    )
    assert torch.equal(part.x, want)


def test_in_order_covers_everything_once_without_augmentation():
    subset = torch.arange(22, -1, -1)
    parts = list(in_order(toys(), subset, 5, CPU))
    assert [len(part.x) for part in parts] == [5, 5, 5, 5, 3]
    assert torch.cat([part.position for part in parts]).tolist() == list(range(23))
    assert torch.equal(torch.cat([part.x[:, 0, 1, 1] for part in parts]).round().long(), subset)
    assert torch.equal(torch.cat([part.y for part in parts]), subset % 3)


def test_a_stream_of_one_image_is_refused():
    with pytest.raises(DataError, match="the valid images are 1: at least 2 are needed"):
        stream(torch.arange(1), name="valid")


def test_decoding_ahead_changes_nothing(tmp_path):
    data = toys()
    pixels = data.images.take(torch.arange(23))
    for k in range(23):
        Image.fromarray(pixels[k, 0].numpy()).save(tmp_path / f"{k}.png")
    paths = [str(tmp_path / f"{k}.png") for k in range(23)]
    disk = OnDisk(paths, data.images.labels, (1, 2, 2))
    streamed = stream(
        data=Labelled("toys", disk, data.classes, data.mean, data.std, crop=1, flip=True)
    )
    for epoch in range(3):
        for step in range(3):  # an epoch that is cut short leaves an expected batch behind
            got, want = streamed.batch(epoch, step), stream().batch(epoch, step)
            assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))
    for _ in range(20):
        disk.expect(torch.randperm(23)[:3])
    assert len(disk._expected) <= 8


def test_unlabelled_images_have_no_labels_and_take_the_other_shape():
    part = Unlabelled(toys().images, (3, 4, 4))
    taken = part.take(torch.tensor([5, 9]))
    assert taken.shape == (2, 3, 4, 4)
    assert taken[0].unique().tolist() == [5]
    assert taken[1].unique().tolist() == [9]
    assert part.labels.tolist() == [-1] * 23
