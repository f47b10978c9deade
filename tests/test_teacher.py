"""Trained networks as teachers: their feature maps, ours and timm's."""

from __future__ import annotations

import sys

import pytest
import torch

from teachers import FakeTimm, chain, even, saved
from tutelage.run.networks.teacher import Pictures, trained
from tutelage.spaces.base import Size
from tutelage.spaces.chain import DNA
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.published import PUBLISHED

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("genotype", "size", "sides"),
    [
        (even(chain()), Size(4, 6, 3, 1), [8, 4, 2, 2, 1, 1]),
        (PUBLISHED["DARTS_V2"], Size(2, 8, 3, 1), [16, 8, 4]),
        (PUBLISHED["DARTS_V2"], Size(2, 2, 3, 1), [8, 4]),
        (even(NASBENCH201), Size(2, 2, 3, 1), [16, 8, 4]),
        (PUBLISHED["resnet18"], Size(4, 8, 3, 1), [16, 8, 4, 2]),
    ],
    ids=["chain", "darts", "darts-of-two-cells", "nasbench201", "resnet18"],
)
def test_a_teachers_last_map_leads_to_its_answer(genotype, size, sides, tmp_path):
    network = saved(tmp_path, genotype, size)
    x = torch.rand(3, 1, 16, 16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    maps = trained(str(tmp_path), Pictures((1, 16, 16), (0.0,), (1.0,)), CPU)(x)
    assert [y.shape[2] for y in maps] == sides
    assert not any(y.requires_grad for y in maps)
    last = maps[-1]
    if genotype.space == "nasbench201":
        last = network.skeleton.norm(last).relu()
        logits = network.skeleton.classifier(last.mean((2, 3)))
    elif genotype.space == "darts":
        logits = network.classifier(last.mean((2, 3)))
    else:
        logits = network.frame.classifier(network.frame.pooled(last))
    with torch.no_grad():
        torch.testing.assert_close(network(x), logits)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_teacher_sees_images_as_it_was_trained_on_them(tmp_path):
    network = saved(tmp_path, even(chain()), Size(4, 6, 3, 1), mean=(0.3,), std=(0.2,))
    pixels = torch.rand(3, 1, 16, 16)
    seen = trained(str(tmp_path), Pictures((1, 16, 16), (0.5,), (0.25,)), CPU)
    with torch.no_grad():
        expected = network.maps((pixels - 0.3) / 0.2)
    for found, wanted in zip(seen((pixels - 0.5) / 0.25), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_teacher_from_timm(monkeypatch):
    timm = FakeTimm("tiny")
    monkeypatch.setitem(sys.modules, "timm", timm)
    pictures = Pictures((3, 4, 4), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pixels = torch.rand(2, 3, 4, 4)
    first, second = trained("timm:tiny", pictures, CPU)(pixels)
    mean = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(first, (pixels - mean) / 0.5)
    torch.testing.assert_close(second, 2 * first)
    assert timm.asked == [{"pretrained": True, "features_only": True}]
    with pytest.raises(ValueError, match=r"teacher 'timm:tin': Unknown model \(tin\)"):
        trained("timm:tin", pictures, CPU)
    with pytest.raises(ValueError, match="takes images of 3 channels, and these have 1"):
        trained("timm:tiny", Pictures((1, 8, 8)), CPU)


def test_the_stages_of_a_network_from_timm(monkeypatch):
    timm = FakeTimm("tiny")
    monkeypatch.setitem(sys.modules, "timm", timm)
    seen = trained("timm:tiny#blocks", Pictures((3, 4, 4)), CPU)
    assert timm.asked == [{"pretrained": True, "features_only": False}]
    first, second = timm.network.blocks
    for _ in range(2):  # what an earlier batch gave is forgotten
        pixels = torch.rand(2, 3, 4, 4)
        x = first((pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5)
        torch.testing.assert_close(seen(pixels), [x, second(x)])
    with pytest.raises(ValueError, match=r"'timm:tiny#stages': has no 'stages', but blocks, head"):
        trained("timm:tiny#stages", Pictures((3, 4, 4)), CPU)
    with pytest.raises(ValueError, match=r"'head' gives no feature maps \(B, C, H, W\)"):
        trained("timm:tiny#head", Pictures((3, 4, 4)), CPU)(pixels)


def test_an_efficientnet_of_timms_own_has_the_maps_of_the_papers_stages(monkeypatch):
    timm = pytest.importorskip("timm", exc_type=ImportError)
    made = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, **more: made(name, pretrained=False, **more)
    )
    seen = trained("timm:tf_efficientnet_b7#blocks", Pictures((3, 64, 64)), CPU)
    maps = seen(torch.rand(1, 3, 64, 64))[-DNA.stages :]
    assert [(y.shape[1], y.shape[2]) for y in maps] == [
        *((48, 16), (80, 8), (160, 4)),
        *((224, 4), (384, 2), (640, 2)),
    ]
