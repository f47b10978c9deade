"""ResNets: genotypes of chains, against the published counts and a forward pass written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from tutelage.parts import make_part
from tutelage.run.cost.count import describe
from tutelage.run.networks.files import build, space_of
from tutelage.run.networks.fixed import fixed_network
from tutelage.spaces.base import Size
from tutelage.spaces.published import resolve

DEPTHS = {"resnet18": 8, "resnet50": 16}


def size_of(name, classes=10, stem="cifar", image_channels=3):
    return Size(64, DEPTHS[name], classes, image_channels, stem)


@pytest.mark.parametrize(
    ("name", "stem", "classes", "expected"),
    [
        # of the releases on 224 x 224 images: 1.814 and 4.089 thousand million FLOPs
        ("resnet18", "imagenet", 1000, (11_689_512, 1_814_073_344)),
        ("resnet50", "imagenet", 1000, (25_557_032, 4_089_184_256)),
        ("resnet18", "cifar", 10, (11_173_962, 555_422_720)),
        ("resnet50", "cifar", 10, (23_520_842, 1_297_829_888)),
    ],
)
def test_weights_and_flops_equal_the_published_networks(name, stem, classes, expected):
    found = describe(resolve(name), size_of(name, classes, stem))
    assert (found.params, found.flops) == expected


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize(
    ("stem", "channels", "side", "last"),
    [("cifar", 1, 8, 1), ("cifar", 3, 32, 4), ("imagenet", 3, 64, 2)],
)
def test_shapes(name, stem, channels, side, last):
    with torch.device("meta"):
        network = build(resolve(name), size_of(name, 7, stem, channels))
        x = torch.randn(2, channels, side, side)
        logits, none = network(x)
        *_, end = maps = network.maps(x)
    wide = 512 if name == "resnet18" else 2048
    assert (logits.shape, none, len(maps)) == ((2, 7), None, 4)
    assert end.shape == (2, wide, last, last)


def written_out(network, x, name, stem):
    """Write a ResNet out layer by layer, normalising by hand with batch statistics."""

    def layer(x, convolution, norm, stride=1):
        side = convolution.weight.shape[-1]
        x = F.conv2d(x, convolution.weight, None, stride, side // 2)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        x = (x - mean) / (variance + 1e-5).sqrt()
        return x * norm.weight[:, None, None] + norm.bias[:, None, None]

    large, bottleneck = stem == "imagenet", name == "resnet50"
    x = layer(x, *network.frame.stem[:2], 2 if large else 1).clamp(min=0)
    if large:
        rows = F.pad(x, (1, 1, 1, 1), value=float("-inf")).unfold(2, 3, 2).unfold(3, 3, 2)
        x = rows.amax((4, 5))
    before = None
    for block in network.layers:
        convolutions = [m for m in block.layers if isinstance(m, torch.nn.Conv2d)]
        norms = [m for m in block.layers if isinstance(m, torch.nn.BatchNorm2d)]
        wide = convolutions[-1].out_channels
        stride = 2 if before and wide != before else 1
        y = x
        for k, parts in enumerate(zip(convolutions, norms, strict=True)):
            if k:
                y = y.clamp(min=0)
            y = layer(y, *parts, stride if k == (1 if bottleneck else 0) else 1)
        if y.shape != x.shape or wide != x.shape[1]:
            x = layer(x, *block.shortcut.projection, stride)
        x, before = (y + x).clamp(min=0), wide
    return x.flatten(2).mean(2) @ network.classifier.weight.T + network.classifier.bias


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", DEPTHS)
def test_the_forward_pass_written_out(name, stem):
    torch.manual_seed(0)
    network = build(resolve(name), size_of(name, 5, stem, 1)).double().train()
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    side = 8 if stem == "cifar" else 32
    x = torch.randn(4, 1, side, side, dtype=torch.float64)
    expected = written_out(network, x, name, stem)
    found, _ = network(x)
    assert torch.allclose(found, expected, rtol=0, atol=1e-10 * expected.abs().max().item())


def test_convolutions_of_blocks_are_drawn_as_he_draws_them():
    torch.manual_seed(0)
    block = build(resolve("resnet18"), size_of("resnet18")).layers[5].layers
    assert [x.out_channels for x in (block[0], block[3])] == [256, 256]
    assert block[0].weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


def test_a_dropped_path_leaves_the_shortcut():
    torch.manual_seed(0)
    network = build(resolve("resnet18"), size_of("resnet18", 3, image_channels=1)).train()
    block, x = network.layers[1], torch.rand(64, 64, 4, 4)
    whole, dropped = block(x), block(x, 0.5)
    kept = torch.isclose(dropped, (x + 2 * block.layers(x)).relu(), atol=1e-5).flatten(1).all(1)
    alone = torch.isclose(dropped, x).flatten(1).all(1)
    assert 16 < int(kept.sum()) < 48 and int(kept.sum()) + int(alone.sum()) == 64
    assert not torch.allclose(whole, dropped)


def test_a_space_of_resnets_holds_the_published_ones():
    for name, block in (("resnet18", "basic_3x3"), ("resnet50", "bottleneck_3x3")):
        genotype = resolve(name)
        assert set(genotype.names) == {block}
        space = space_of(genotype)
        assert block in space.candidates and "identity" in space.candidates
        assert sum(space.depths) == len(genotype.names) == DEPTHS[name]
    assert space_of(resolve("resnet18")) == make_part("space", {"name": "resnet"})


# As LBT's student -------------------------------------------------------------------------------


def test_a_fixed_network_has_no_state_and_no_second_mode():
    torch.manual_seed(0)
    network = fixed_network("resnet18", Size(2, 3, 3, 1))
    assert sum(x.numel() for x in network.parameters()) > 11e6  # of its own size, not the search's
    assert not list(network.buffers())
    x = torch.randn(4, 1, 8, 8)
    train = network.train()(x)[0]
    torch.testing.assert_close(train, network.eval()(x)[0])
    network.train()
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    assert torch.equal(train, functional_call(network, weights, (x,))[0])


@pytest.mark.parametrize(
    ("architecture", "wide"),
    [
        ("DARTS_V1", 4 * 4 * 4),  # its cells are the search's: 4 channels, twice doubled, 4 nodes
        ("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", 4 * 4),
        ("01201201", 1280),
        ("resnet50", 2048),
    ],
)
def test_any_genotype_is_a_student(architecture, wide):
    logits, features = fixed_network(architecture, Size(4, 3, 5, 1))(torch.rand(2, 1, 16, 16))
    assert (logits.shape, features.shape) == ((2, 5), (2, wide))
