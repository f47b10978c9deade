"""The blocks of chains against plain functions of their weights, in float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.blocks import Style, block, is_block
from tutelage.spaces.convolution import Depthwise

ACTIVATIONS = {"relu": torch.relu, "swish": lambda x: x * torch.sigmoid(x)}
MBCONVS = list(product((1, 3, 6), (3, 5, 7), (1, 2), (4, 6), (0.0, 0.25, 0.5)))
SIZES = [(4, 4, 1), (4, 4, 2), (4, 8, 1), (4, 8, 2), (8, 4, 1), (6, 6, 2), (3, 10, 2), (2, 2, 1)]
"""Channels read and given, and the stride."""


class Plain:
    """The functions that blocks are made of, fed with a block's parameters one after the other."""

    def __init__(self, module: nn.Module, activation: str = "relu") -> None:
        self.parameters = iter(list(module.parameters()))
        self.activation = ACTIVATIONS[activation]

    def norm(self, x: Tensor) -> Tensor:
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = (x - mean).square().mean((0, 2, 3), keepdim=True)
        scale, shift = (next(self.parameters)[:, None, None] for _ in range(2))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        """Convolve one output at a time: all channels, or each channel with its own kernel."""
        kernel = next(self.parameters)
        side = kernel.shape[-1]
        depthwise = kernel.shape[1] == 1 and len(kernel) == x.shape[1] > 1
        x = F.pad(x, [side // 2] * 4)
        rows, columns = ((x.shape[d] - side) // stride + 1 for d in (2, 3))
        maps = []
        for i, j in product(range(rows), range(columns)):
            window = x[:, :, i * stride : i * stride + side, j * stride : j * stride + side]
            if depthwise:
                maps.append((window * kernel[:, 0]).sum((2, 3)))
            else:
                maps.append((window[:, None] * kernel).sum((2, 3, 4)))
        return torch.stack(maps, 2).unflatten(2, (rows, columns))

    def mbconv(self, x: Tensor, expansion: int, stride: int, squeeze: float) -> Tensor:
        y = x
        if expansion > 1:
            y = self.activation(self.norm(self.convolve(y)))
        y = self.activation(self.norm(self.convolve(y, stride)))
        if squeeze:
            reduce, shift, expand, offset = (next(self.parameters) for _ in range(4))
            inner = self.activation(y.mean((2, 3)) @ reduce[:, :, 0, 0].T + shift)
            y = y * torch.sigmoid(inner @ expand[:, :, 0, 0].T + offset)[:, :, None, None]
        y = self.norm(self.convolve(y))
        return x + y if stride == 1 and x.shape[1] == y.shape[1] else y

    def shuffle(self, x: Tensor, xception: bool, outputs: int, stride: int) -> Tensor:
        """Even channels pass by and odd ones are worked on; all are, where the size changes."""
        halves = stride == 1 and x.shape[1] == outputs
        seen = torch.stack([x[:, c] for c in range(1, x.shape[1], 2)], 1) if halves else x
        main = seen
        if xception:
            for step in (stride, 1, 1):
                main = self.norm(self.convolve(main, step))
                main = self.activation(self.norm(self.convolve(main)))
        else:
            main = self.activation(self.norm(self.convolve(main)))
            main = self.norm(self.convolve(main, stride))
            main = self.activation(self.norm(self.convolve(main)))
        if halves:
            aside = torch.stack([x[:, c] for c in range(0, x.shape[1], 2)], 1)
        else:
            aside = self.norm(self.convolve(x, stride))
            aside = self.activation(self.norm(self.convolve(aside)))
        return torch.cat([aside, main], 1)


def built(name: str, inputs: int, outputs: int, stride: int, **style) -> nn.Module:
    module = block(name, inputs, outputs, stride, Style(**style)).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def images(channels: int, side: int = 5) -> Tensor:
    return torch.randn(3, channels, side, side, dtype=torch.float64, requires_grad=True)


def agree(module: nn.Module, x: Tensor, expected: Tensor) -> None:
    """Compare values, and gradients in the images and all parameters."""
    y = module(x)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(y)
    variables = [x, *module.parameters()]
    ours, theirs = (torch.autograd.grad((z * direction).sum(), variables) for z in (y, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mbconv_is_the_plain_one(activation):
    for place, (expansion, kernel, stride, outputs, squeeze) in enumerate(MBCONVS):
        if place % 2 == (activation == "relu"):
            continue  # each setting with one of the activations
        name = f"mbconv{expansion}_{kernel}x{kernel}"
        module = built(name, 4, outputs, stride, activation=activation, squeeze=squeeze)
        x, plain = images(4), Plain(module, activation)
        agree(module, x, plain.mbconv(x, expansion, stride, squeeze))
        assert next(plain.parameters, None) is None


@pytest.mark.parametrize("name", ["shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "shuffle_xception"])
def test_shuffle_is_the_plain_one(name):
    for inputs, outputs, stride in SIZES:
        activation = "swish" if inputs == 4 else "relu"
        module = built(name, inputs, outputs, stride, activation=activation)
        x, plain = images(inputs), Plain(module, activation)
        xception = name == "shuffle_xception"
        agree(module, x, plain.shuffle(x, xception, outputs, stride))
        assert next(plain.parameters, None) is None


def test_a_shuffle_that_keeps_the_size_passes_the_even_channels_by():
    """By hand: of channels 0 1 2 3 the first half of the output is 0 2."""
    module = built("shuffle_3x3", 4, 4, 1)
    x = images(4)
    y = module(x)
    assert torch.equal(y[:, :2], x[:, [0, 2]])
    (gradient,) = torch.autograd.grad(y[:, 2:].sum() + y[:, 2:].square().sum(), x)
    assert gradient[:, [0, 2]].abs().max() == 0 < gradient[:, [1, 3]].abs().max()


def test_identity_projects_where_sizes_differ():
    x = images(4)
    assert block("identity", 4, 4, 1, Style())(x) is x
    for outputs, stride in ((6, 1), (4, 2), (2, 2)):
        module = built("identity", 4, outputs, stride)
        plain = Plain(module)
        agree(module, x, plain.norm(plain.convolve(x, stride)))


def test_weights_by_hand():
    def counted(name, inputs, outputs, stride, **style):
        module = block(name, inputs, outputs, stride, Style(**style))
        return sum(p.numel() for p in module.parameters())

    expanded = 24 * 72 + 2 * 72 + 25 * 72 + 2 * 72 + 72 * 40 + 2 * 40
    assert counted("mbconv3_5x5", 24, 40, 2) == expanded
    gate = 72 * 6 + 6 + 6 * 72 + 72  # its inner width is a share of 24, not of 72
    assert counted("mbconv3_5x5", 24, 40, 2, squeeze=0.25) == expanded + gate
    assert counted("mbconv1_3x3", 32, 16, 1) == 9 * 32 + 2 * 32 + 32 * 16 + 2 * 16
    assert counted("identity", 32, 64, 2) == 32 * 64 + 2 * 64
    assert counted("identity", 32, 32, 1) == 0
    without = 24 * 72 + 25 * 72 + 72 * 40
    assert counted("mbconv3_5x5", 24, 40, 2, affine=False) == without


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9])
def test_a_depthwise_convolution_is_the_same_in_training_and_after(kernel, stride):
    layer = Depthwise(4, kernel, stride).double()
    for side in (1, 4, 7):
        x = images(4, side)
        torch.testing.assert_close(layer.train()(x), layer.eval()(x), rtol=1e-12, atol=1e-12)
        expected = F.conv2d(x, layer.weight, None, stride, kernel // 2, groups=4)
        torch.testing.assert_close(layer.train()(x), expected, rtol=1e-12, atol=1e-12)


def test_dropped_paths_leave_the_residual_alone():
    module = built("mbconv3_3x3", 4, 4, 1)
    x = torch.randn(64, 4, 3, 3, dtype=torch.float64)
    whole, dropped = module(x), module(x, 0.25)
    away = [torch.equal(one, image) for one, image in zip(dropped, x, strict=True)]
    scaled = x + (whole - x) / 0.75
    for one, kept, gone in zip(dropped, scaled, away, strict=True):
        assert gone or torch.allclose(one, kept, rtol=1e-12, atol=1e-12)
    assert 4 <= sum(away) <= 30  # 16 expected
    for name, outputs in (("mbconv3_3x3", 6), ("shuffle_3x3", 4), ("identity", 4)):
        module = built(name, 4, outputs, 1)
        assert torch.equal(module(x, 0.5), module(x))


def test_only_networks_that_are_told_to_keep_statistics():
    for name in ("mbconv3_3x3", "shuffle_5x5", "shuffle_xception", "identity"):
        for track in (True, False):
            module = block(name, 4, 6, 2, Style(track=track))
            assert bool(list(module.buffers())) == track


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("identity", True),
        ("mbconv6_5x5", True),
        ("mbconv12_11x11", True),
        ("shuffle_9x9", True),
        ("basic_7x7", True),
        ("bottleneck_3x3", True),
        ("basic", False),
        ("bottleneck_2x2", False),
        ("mbconv6_5x3", False),
        ("mbconv0_3x3", False),
        ("mbconv3_4x4", False),  # an even kernel gives another size than it reads
        ("shuffle_10x10", False),
        ("shuffle_03x03", False),
        ("mbconv_3x3", False),
        ("shuffle", False),
    ],
)
def test_names(name, known):
    assert is_block(name) == known
    if known:
        x = torch.randn(2, 4, 6, 6)
        assert block(name, 4, 4, 1, Style())(x).shape == x.shape
    else:
        with pytest.raises(ValueError, match=f"unknown block '{name}': must be identity, mbconvE"):
            block(name, 4, 4, 1, Style())
