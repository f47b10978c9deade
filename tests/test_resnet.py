import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from tutelage.spaces.resnet import resnet


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("depth", "form", "classes", "expected"),
    [
        (18, "imagenet", 1000, 11_689_512),
        (50, "imagenet", 1000, 25_557_032),
        (18, "cifar", 10, 11_173_962),
        (50, "cifar", 10, 23_520_842),
    ],
)
def test_weights_equal_the_published_networks(depth, form, classes, expected):
    with torch.device("meta"):
        assert parameters(resnet(depth, classes, form=form)) == expected


@pytest.mark.parametrize(
    ("depth", "form", "side", "multiply_adds"),
    [
        # of the releases on 224 x 224 images: 1.814 and 4.089 thousand million
        (18, "imagenet", 224, 1_814_073_344),
        (50, "imagenet", 224, 4_089_184_256),
    ],
)
def test_multiply_adds_equal_the_published_networks(depth, form, side, multiply_adds):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        resnet(depth, 1000, form=form)(torch.zeros(1, 3, side, side))
    assert counter.get_total_flops() == 2 * multiply_adds


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize(
    ("form", "channels", "side", "last"),
    [("cifar", 1, 8, 1), ("cifar", 3, 32, 4), ("imagenet", 3, 64, 2)],
)
def test_shapes(depth, form, channels, side, last):
    network = resnet(depth, 7, image_channels=channels, form=form, batch_statistics=True)
    x = torch.randn(2, channels, side, side)
    logits, features = network(x)
    assert logits.shape == (2, 7)
    assert features.shape == (2, 512 if depth == 18 else 2048)
    assert network.blocks(network.pool(network.stem(x))).shape[2:] == (last, last)


def reference(network, x, stages):
    """Write a ResNet-18 or -50 out layer by layer, normalising by hand with batch statistics."""

    def layer(sequence, x):
        convolution, norm = sequence
        x = F.conv2d(x, convolution.weight, None, convolution.stride, convolution.padding)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        x = (x - mean) / (variance + 1e-5).sqrt()
        return x * norm.weight[:, None, None] + norm.bias[:, None, None]

    x = layer(network.stem, x).clamp(min=0)
    block = iter(network.blocks)
    for stage, count in enumerate(stages):
        for position in range(count):
            inner = next(block)
            strides = [sequence[0].stride[0] for sequence in inner.residual]
            assert max(strides) == (2 if stage > 0 and position == 0 else 1)
            y = x
            for k, sequence in enumerate(inner.residual):
                y = layer(sequence, y)
                if k < len(inner.residual) - 1:
                    y = y.clamp(min=0)
            same = isinstance(inner.shortcut, torch.nn.Identity)
            x = (y + (x if same else layer(inner.shortcut, x))).clamp(min=0)
    features = x.flatten(2).mean(2)
    return features @ network.classifier.weight.T + network.classifier.bias


@pytest.mark.parametrize(("depth", "stages"), [(18, (2, 2, 2, 2)), (50, (3, 4, 6, 3))])
def test_the_forward_pass_written_out(depth, stages):
    torch.manual_seed(0)
    network = resnet(depth, 5, image_channels=1, batch_statistics=True).double()
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    expected = reference(network, x, stages)
    assert torch.allclose(network(x)[0], expected, rtol=0, atol=1e-10 * expected.abs().max().item())


def test_batch_statistics_leave_no_state_and_no_second_mode():
    torch.manual_seed(0)
    network = resnet(18, 3, image_channels=1, batch_statistics=True)
    assert not list(network.buffers())
    x = torch.randn(4, 1, 8, 8)
    train = network.train()(x)[0]
    assert torch.equal(train, network.eval()(x)[0])
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    assert torch.equal(train, functional_call(network, weights, (x,))[0])
    moving = resnet(18, 3)
    assert {name.split(".")[-1] for name, _ in moving.named_buffers()} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 34}, "depth = 34: must be one of 18, 50"),
        ({"form": "tiny"}, "form = 'tiny': must be 'cifar' or 'imagenet'"),
        ({"classes": 0}, "classes = 0: must be at least 1"),
        ({"image_channels": 0}, "image_channels = 0: must be at least 1"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        resnet(**{"depth": 18, "classes": 10} | arguments)
