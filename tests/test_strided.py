"""No strided 1x1 convolution anywhere: torch's weight gradient of one may write past its buffer.

Seen in oneDNN's kernel for processors with AVX2 and without AVX-512, torch 2.6 to 2.13.
"""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from chains import SMALL
from tutelage.parts import PARTS, make_part
from tutelage.run.networks.files import build
from tutelage.run.networks.fixed import fixed_network
from tutelage.spaces import convolution
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.blocks import Style, block
from tutelage.spaces.chain import Chain
from tutelage.spaces.convolution import Convolution, convolve, depthwise, subsample
from tutelage.spaces.published import PUBLISHED

SPACES = {name: make_part("space", {"name": name}) for name in PARTS["space"]}
CELLS = [name for name, space in SPACES.items() if not isinstance(space, Chain)]
CHAINS = [name for name in SPACES if name not in CELLS]


@pytest.fixture(autouse=True)
def no_convolution_is_a_product(monkeypatch):
    """Small maps with a 1x1 kernel are matrix products otherwise, and would not be seen."""
    monkeypatch.setattr(convolution, "PRODUCT", 0)


class Strided(TorchDispatchMode):
    """Records the convolutions, forward and backward, and those that are 1x1 and strided."""

    def __init__(self):
        super().__init__()
        self.seen, self.strided = set(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default:
            weight, stride = args[1], args[3]
        elif function is torch.ops.aten.convolution_backward.default:
            weight, stride = args[2], args[4]
        else:
            return function(*args, **(kwargs or {}))
        self.seen.add(function)
        if tuple(weight.shape[2:]) == (1, 1) and max(stride) > 1:
            self.strided.append((function, tuple(weight.shape)))
        return function(*args, **(kwargs or {}))


def strided(network, *inputs):
    """Differentiate a network, in training twice; list the strided 1x1 convolutions that it ran."""
    parameters = list(network.parameters())
    with Strided() as record:
        found = network(*inputs)
        outputs = found[0] if isinstance(found, tuple) else found
        value, twice = outputs.square().sum(), network.training
        gradient = torch.autograd.grad(value, parameters, create_graph=twice, allow_unused=True)
        if twice:
            squares = sum(g.square().sum() for g in gradient if g is not None)
            torch.autograd.grad(squares, parameters, allow_unused=True)
    assert len(record.seen) == 2, "no convolution was seen: nothing was tested"
    return record.strided


def even(space):
    return ArchWeights({group: torch.full(shape, 0.5) for group, shape in space.choices.items()})


def drawn(space):
    return space.genotype(
        ArchWeights({group: torch.rand(shape) for group, shape in space.choices.items()})
    )


def images(size):
    return torch.randn(2, size.image_channels, 32 if size.stem == "imagenet" else 16, 16)


def small(name):
    """A space, and a small size of its networks that has every kind of layer."""
    space = SPACES[name]
    if not isinstance(space, Chain):
        return space, [Size(4, 3), *([Size(4, 3, stem="imagenet")] if name == "darts" else [])]
    return space, [Size(8, sum(space.depths), stem="imagenet")]


def test_the_record_sees_one():
    """What the other tests are worth."""
    assert strided(torch.nn.Conv2d(3, 2, 1, 2), torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("darts", {"partial": 2}),
        ("darts", {"auxiliary_skip": True}),
        *((name, {}) for name in CELLS),
    ],
)
def test_supernets_of_cells_have_none(name, variant):
    space, sizes = small(name)
    space = space.varied(**variant)
    for size in sizes:
        assert not strided(space.supernet(size), images(size), even(space))


@pytest.mark.parametrize("name", CHAINS)
def test_supernets_of_chains_have_none(name):
    space = SPACES[name]
    depths = tuple(1 for _ in space.depths)
    space = make_part("space", {"name": name, "depths": depths})
    size = Size(4, len(depths))
    assert not strided(space.supernet(size), images(size), even(space))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_stand_alone_networks_have_none(name, training):
    space, sizes = small(name)
    for size in sizes:
        network = space.network(drawn(space), size).train(training)
        assert not strided(network, images(size))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "name", ["identity", "basic_1x1", "bottleneck_1x1", "shuffle_1x1", "mbconv3_1x1", "mbconv1_3x3"]
)
def test_blocks_that_halve_an_image_have_none(name, training):
    module = block(name, 4, 6, 2, Style(squeeze=0.25)).train(training)
    assert not strided(module, torch.randn(2, 4, 7, 8))


def test_a_chain_of_small_kernels_has_none():
    space = make_part("space", {"name": SMALL.name, **SMALL.layout, "candidates": ["mbconv1_1x1"]})
    size = Size(4, 3)
    assert not strided(space.supernet(size), images(size), even(space))


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_fixed_networks_have_none(name):
    """LBT's students, whose shortcuts are strided 1x1 convolutions."""
    assert not strided(fixed_network(name, Size(4, 3)), torch.randn(2, 3, 9, 9))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in PUBLISHED if not PUBLISHED[name].stages])
def test_retrained_networks_with_an_auxiliary_head_have_none(name, training):
    network = build(PUBLISHED[name], Size(4, 3), auxiliary=True).train(training)
    assert not strided(network, torch.randn(2, 3, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (1, 4), (3, 8), (9, 2)])
@pytest.mark.parametrize("name", CELLS)
def test_tiny_maps_have_none(name, sides):
    """Kernels lose the taps that reach only padding, and may become 1x1."""
    space, x = SPACES[name], torch.randn(3, 3, *sides)
    assert not strided(space.supernet(Size(2, 3)), x, even(space))
    for training in (True, False):
        assert not strided(space.network(drawn(space), Size(2, 3)).train(training), x)


@pytest.mark.parametrize(
    ("sides", "form"),
    [
        ((5, 4), {"stride": 2}),
        ((5, 4), {"stride": 2, "groups": 3}),
        ((1, 1), {"dilation": 2, "groups": 3}),
    ],
)
def test_the_function_alone_has_none(sides, form):
    """Of a map of one pixel, the kernel's gradient is a convolution with that one: see the last."""
    side = 3 if "dilation" in form else 1
    x = torch.randn(2, 3, *sides, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(6 if "groups" not in form else 3, 3 // form.get("groups", 1), side, side)
    kernel = kernel.double().requires_grad_()

    def derivatives(function):
        y = function()
        first = torch.autograd.grad(y.pow(3).sum(), [x, kernel], create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), [x, kernel])
        return y, *first, *second

    with Strided() as record:
        ours = derivatives(lambda: convolve(x, kernel, **form))
    assert record.seen
    assert not record.strided
    padding = form.get("dilation", 1) * (side // 2)
    theirs = derivatives(lambda: F.conv2d(x, kernel, padding=padding, **form))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sides", [(8, 8), (7, 5), (1, 1), (2, 9)])
def test_a_strided_1x1_convolution_is_torchs(sides):
    x = torch.randn(3, 4, *sides, dtype=torch.float64, requires_grad=True)
    for groups in (1, 2):
        ours = Convolution(4, 6, 1, 2, groups=groups).double()
        theirs = torch.nn.Conv2d(4, 6, 1, 2, groups=groups, bias=False).double()
        theirs.load_state_dict(ours.state_dict())
        for found, expected in zip(twice(ours, x), twice(theirs, x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def twice(module, x):
    """Value, first and second derivatives of a module."""
    y = module(x)
    at = [x, module.weight]
    first = torch.autograd.grad(y.pow(3).sum(), at, create_graph=True)
    return y, *first, *torch.autograd.grad(sum(g.pow(2).sum() for g in first), at)


def test_a_depthwise_kernel_of_one_pixel_is_torchs():
    x, kernel = torch.randn(2, 5, 7, 6).double(), torch.randn(5, 1, 1, 1).double()
    for stride in (1, 2):
        expected = F.conv2d(x, kernel, stride=stride, groups=5)
        torch.testing.assert_close(depthwise(x, kernel, stride), expected)


def test_subsampling_reads_even_pixels():
    for sides in ((8, 8), (7, 5), (1, 2)):
        x = torch.randn(2, 3, *sides)
        assert torch.equal(subsample(x, 2), x[:, :, ::2, ::2])
        assert subsample(x, 1) is x


FAULT = """
import torch
for _ in range(20):
    g, x, w = (torch.randn(shape).contiguous(memory_format=torch.channels_last)
               for shape in ((4, 2, 4, 4), (4, 4, 8, 8), (2, 4, 1, 1)))
    OURS = __import__("sys").argv[1] == "ours"
    if OURS:
        from tutelage.spaces.convolution import subsample
        x, stride = subsample(x, 2), 1
    else:
        stride = 2
    torch.ops.aten.convolution_backward(
        g, x, w, None, [stride] * 2, [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
    )
"""


@pytest.mark.slow
def test_the_faulty_call_and_ours():
    """Torch's dies of what it wrote, on such a processor or as on one; ours does not."""
    checker = "libc_malloc_debug.so.0"
    try:
        ctypes.CDLL(checker)
    except OSError:
        pytest.skip(f"{checker}, which checks the heap, is not there")

    def run(which):
        own = {"LD_PRELOAD": checker, "MALLOC_CHECK_": "3", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-c", FAULT, which],
            env={**os.environ, **own, "ONEDNN_MAX_CPU_ISA": "AVX2"},
            capture_output=True,
            timeout=300,
        ).returncode

    assert run("ours") == 0
    if run("torch's") == 0:
        pytest.skip(f"torch {torch.__version__} does not write past this buffer here")
