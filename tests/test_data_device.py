"""Batches of a GPU: the bits of before, one copy from the host, and the next one made ahead."""

import hashlib
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.batch import Batch
from tutelage.config import Run
from tutelage.data import device as devices
from tutelage.data.ahead import Ahead, Place, SideStream
from tutelage.data.augment import Augmentation
from tutelage.data.batches import Stream, held, in_order
from tutelage.data.images import InMemory, Labelled, Unlabelled
from tutelage.data.randaugment import RandAugment
from tutelage.data.streams import halves_of, streams_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
GPU = torch.device("meta")  # stands for one: its tensors have no values that could be read
FROM_TO = {"aten._to_copy.default", "aten.copy_.default"}
CASES = {
    "plain": Augmentation(),
    "crop, flip": Augmentation(crop=4, flip=True),
    "cutout": Augmentation(crop=4, flip=True, cutout=7),
    "jitter": Augmentation(flip=True, jitter=0.4),
    "randaugment": Augmentation(crop=2, flip=True, randaugment=RandAugment(2)),
    "erasing": Augmentation(crop=2, flip=True, erasing=0.6),
    "windows": Augmentation(flip=True, rescale=0.2),
    "all": Augmentation(2, True, 5, 0.3, 0.4, RandAugment(2), 0.5),
}
BEFORE = {
    ("plain", 1): ["a131c45b5fbbd4c5", "f51df6f8a76cb9a3", "d8a8fe712de9362a"],
    ("plain", 3): ["5083d67f92ac0a3b", "a7d686b4e55259ca", "85f5dbc8181dce08"],
    ("crop, flip", 1): ["7923cf3bf29b4141", "e6e97b2008084344", "d2119947df3bf323"],
    ("crop, flip", 3): ["a3d346838d5148ab", "d11183875d48eebd", "fdf421c68027e0d0"],
    ("cutout", 1): ["945f99e9f51fa525", "d73445f3ec517ac3", "2606f9f2bf67bad6"],
    ("cutout", 3): ["10b733b4c40e4c69", "abcd47a83a017388", "88f24e434c7ff17d"],
    ("jitter", 1): ["ff3713ab5a7ddd35", "ac91f280508d286a", "b2016e4785045fd2"],
    ("jitter", 3): ["c05900483f5bfe9d", "3331af2f15802eae", "c96a54b090d8fe52"],
    ("randaugment", 1): ["ce3dda917636f93a", "a0580becc266083e", "2d10eafd2c00326c"],
    ("randaugment", 3): ["6d1cc370d398586f", "d7c6aebb76587478", "346d44599b02ea9f"],
    ("erasing", 1): ["ebc67d7b4cb76c40", "6ef8523cdfdfc369", "5edd5d259a8cefc1"],
    ("erasing", 3): ["1076a985be9d35d8", "fa97c6512d511363", "445ba2b99157ac41"],
    ("windows", 1): ["015244776b6c501d", "a7b7c01ca79ec441", "684eaf3a3f75805a"],
    ("windows", 3): ["3fced621a2d1a717", "fcb25fd58b084d3e", "cb00246ee7a02529"],
    ("all", 1): ["34b841f93ec5e68a", "a9bf985a854d734c", "bffc985efba57307"],
    ("all", 3): ["fac2d12a91ba1c9e", "c6af59877c61480a", "30cbe8eb61527e7c"],
}
"""Digests of batches (0, 0), (0, 2) and (3, 1), as commit 5d4455f made them."""


def photographs(channels=3):
    draws = torch.Generator().manual_seed(channels)
    pixels = torch.randint(0, 256, (50, channels, 17, 19), dtype=torch.uint8, generator=draws)
    images = InMemory(pixels, torch.arange(50) % 3)
    mean, std = (0.5, 0.25, 0.4)[:channels], (0.2, 0.3, 0.25)[:channels]
    return Labelled("toys", images, ("a", "b", "c"), mean, std, crop=1, flip=True)


def stream(how, data=None, device=CPU, count=50):
    subset = torch.arange(3, count)
    return Stream(data or photographs(), subset, 20, 5, "train", how, device)


def digest(batch):
    found = hashlib.blake2b(digest_size=8)
    for tensor in batch:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


class Watch(TorchDispatchMode):
    """Counts operations; refuses those that read a value of the device."""

    def __init__(self):
        super().__init__()
        self.seen, self.up = Counter(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        out = func(*args, **(kwargs or {}))
        self.seen[name] += 1
        assert not any(word in name for word in ("_local_scalar", "nonzero", "masked_select"))
        if name in FROM_TO:
            source = args[1] if name == "aten.copy_.default" else args[0]
            assert (source.device.type, out.device.type) != ("meta", "cpu")
            self.up += source.device.type == "cpu" and out.device.type == "meta"
        return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_has_the_bits_of_before(name, channels):
    s = stream(CASES[name], photographs(channels))
    assert [digest(s.batch(*at)) for at in ((0, 0), (0, 2), (3, 1))] == BEFORE[name, channels]


@pytest.mark.parametrize("name", CASES)
def test_a_batch_reaches_a_gpu_in_one_copy_and_waits_for_nothing(name):
    how = CASES[name]
    data = held(photographs(), how, GPU)
    assert data.images.device == (CPU if how.rescale else GPU)
    s = stream(how, data, GPU)
    with Watch() as watch:
        batch = s.make(Place(1, 1))
    assert {tensor.device for tensor in batch} == {GPU}
    assert batch.x.shape == (20, 3, 17, 19)
    assert watch.up == 1 + (how.rescale > 0)  # windows are resized on the host
    with Watch() as watch:
        parts = list(in_order(data, torch.arange(50), 20, GPU))
    assert watch.up == len(parts) * (1 + (how.rescale > 0))


def test_the_numbers_of_a_parcel_arrive_as_they_are(monkeypatch):
    arrays = [
        np.arange(5),
        np.zeros(0, np.float32),
        np.array([[True], [False]]),
        np.array([[1.5, -2.0]]),
        np.arange(3, dtype=np.uint8),
        np.array([[0.1, 7.0]], np.float32).T,
    ]
    parcel = devices.Parcel()
    sent = [parcel.add(array) for array in arrays]
    monkeypatch.setattr(devices, "onto", lambda tensor, device: tensor)
    parcel.send(GPU)
    for each, array in zip(sent, arrays, strict=True):
        assert each.tensor.shape == array.shape
        np.testing.assert_array_equal(each.tensor.numpy(), array)


@pytest.mark.parametrize(
    ("name", "most"), [("plain", 9), ("crop, flip", 14), ("cutout", 19), ("erasing", 19)]
)
def test_a_batch_takes_few_operations(name, most):
    """Without views; before everything was sampled first, they were 12, 27, 42 and 41."""
    s = stream(CASES[name])
    s.batch(0, 0)
    with Watch() as watch:
        s.batch(1, 1)
    views = ("view", "permute", "detach", "unbind", "unsqueeze", "select.int", "slice")
    counted = {k: n for k, n in watch.seen.items() if not any(f"aten.{v}" in k for v in views)}
    assert sum(counted.values()) <= most, counted


# Images on the device --------------------------------------------------------------------------


def test_images_are_held_once_for_all_streams():
    settings, data = Run(batch_size=8), photographs()
    streams = streams_of(settings, data, halves_of(settings, data), GPU)
    every = (streams.train, streams.valid, streams.unlabelled)
    assert len({id(s.data.images) for s in every}) == 1
    assert streams.train.data.images.device == GPU
    again = streams.of(4)
    assert again.valid.data.images is streams.train.data.images
    assert data.on(GPU).images is streams.train.data.images
    assert data.on(CPU) is data


def test_other_images_are_held_unless_they_are_resized():
    images = photographs().images
    same = Unlabelled(images, (3, 17, 19)).on(GPU)
    other = Unlabelled(images, (3, 8, 8)).on(GPU)
    assert same.device == GPU
    assert other.device == CPU


def test_images_that_do_not_fit_stay_on_the_host_and_one_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**31))
    images = photographs().images
    monkeypatch.setattr(devices, "SHARE", images.pixels.nbytes / 2**30)
    assert devices.fits_on(CUDA, images.pixels.nbytes)
    monkeypatch.setattr(devices, "SHARE", (images.pixels.nbytes - 1) / 2**30)
    assert images.on(CUDA) is images
    assert images.on(CUDA) is images
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "they stay in the memory of the processor" in said[0]


# The next batch --------------------------------------------------------------------------------


class Aside:
    """A lane on a CPU that notes what is made beside the present work, and what is used of it."""

    def __init__(self):
        self.made = self.used = 0

    def start(self, make):
        batch = make()
        self.made += 1

        def handed():
            self.used += 1
            return batch

        return handed


ORDERS = {
    "from the start": [(epoch, step) for epoch in range(2) for step in range(3)],
    "after a jump": [(0, 0), (4, 1), (4, 2), (5, 0), (1, 2), (2, 0)],
    "backwards": [(1, 2), (1, 1), (1, 0), (0, 2)],
    "short epochs": [(epoch, step) for epoch in range(3) for step in range(2)],
    "long epochs": [(0, step) for step in range(7)],
    "twice the same": [(0, 0), (0, 0), (0, 1), (0, 1), (0, 2)],
}
USED = {
    "from the start": 5, "after a jump": 3, "backwards": 0, "short epochs": 3, "long epochs": 4,
    "twice the same": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_batches_made_ahead_are_those_that_are_asked_for(name):
    s, lane = stream(CASES["all"]), Aside()
    s.__dict__["_ahead"] = Ahead(s.make, lane)
    plain = stream(CASES["all"])
    for at in ORDERS[name]:
        for got, want in zip(s.batch(*at), plain.batch(*at), strict=True):
            assert torch.equal(got, want)
    assert lane.used == USED[name]
    assert lane.made <= len(ORDERS[name])


def test_a_side_streams_batch_is_waited_for_by_the_gpu_and_keeps_its_memory(monkeypatch):
    """The order of the calls, on a CPU; what they do is torch's."""
    calls = []

    class Queue:
        device = CUDA

        def __init__(self, name="side"):
            self.name = name

        def record_event(self):
            calls.append("recorded")
            return "event"

        def wait_event(self, event):
            calls.append(f"{self.name} waits for {event}")

    class Kept:
        def record_stream(self, queue):
            calls.append(f"kept for {queue.name}")

    @contextmanager
    def inside(queue):
        calls.append("begin")
        yield
        calls.append("end")

    def make():
        calls.append("made")
        assert not torch.is_inference_mode_enabled()
        return Batch(Kept(), Kept(), Kept())

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Queue())
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Queue("present"))
    lane = SideStream(CUDA)
    with torch.inference_mode():
        handed = lane.start(make)
    assert calls == ["begin", "made", "recorded", "end"]
    calls.clear()
    handed()
    assert calls == ["present waits for event", *["kept for present"] * 3]


def test_on_a_cpu_no_batch_is_made_before_it_is_asked_for(monkeypatch):
    s, made = stream(CASES["plain"]), []
    monkeypatch.setattr(Stream, "make", lambda self, place: made.append(place))
    s.batch(0, 0)
    assert made == [(0, 0)]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_makes_the_same_batches_ahead(name):
    how = CASES[name]
    s, plain = stream(how, held(photographs(), how, CUDA), CUDA), stream(how)
    moved = name in ("randaugment", "all")  # bilinear grey values, a rounding apart
    for at in ORDERS["from the start"]:
        for got, want in zip(s.batch(*at), plain.batch(*at), strict=True):
            if moved:
                assert (got.cpu() != want).double().mean() < 0.04
            else:
                assert torch.equal(got.cpu(), want)
