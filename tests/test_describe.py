import json

import pytest
import torch
from torch import nn

from tutelage.run.cost.count import describe, flops
from tutelage.run.networks.files import build
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.published import PUBLISHED


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("DARTS_V1", 10, 3_169_414),
        ("DARTS_V1", 100, 3_221_344),
        ("DARTS_V2", 10, 3_349_342),
        ("DARTS_V2", 100, 3_401_272),
        ("PC_DARTS_cifar", 10, 3_634_678),
        ("PC_DARTS_cifar", 100, 3_686_608),
    ],
)
def test_weights_on_cifar_equal_the_original_code(name, classes, expected):
    assert describe(PUBLISHED[name], Size(36, 20, classes)).params == expected


def test_params_with_auxiliary_head_equal_the_original_code():
    assert describe(PUBLISHED["DARTS_V2"], Size(36, 20, 10)).params_with_auxiliary == 3_825_768


def test_the_imagenet_form_equals_the_original_code():
    description = describe(PUBLISHED["DARTS_V2"], Size(48, 14, 1000, stem="imagenet"))
    assert description.params == 4_718_752
    assert description.params_with_auxiliary == 5_979_528
    assert description.side == 224


def test_flops_of_the_imagenet_form():
    """The paper prints 574 million; convolutions and the classifier make 530 (its issue 46)."""
    size = Size(48, 14, 1000, stem="imagenet")
    with torch.device("meta"):
        expected = counted_by_hooks(build(PUBLISHED["DARTS_V2"], size).eval(), (3, 224, 224))
    assert describe(PUBLISHED["DARTS_V2"], size).flops == expected == 529_911_552


def counted_by_hooks(network, shape):
    """Count FLOPs from the shapes that every convolution and linear map sees."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        per_output = module.weight[0].numel()  # (channels in / groups) x kernel, or features
        total += output.numel() * per_output

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, *shape, device=next(network.parameters()).device))
    return total


@pytest.mark.parametrize(
    ("stem", "channels", "side"), [("cifar", 1, 8), ("cifar", 3, 20), ("imagenet", 3, 64)]
)
def test_flops_equal_a_count_by_layers(stem, channels, side):
    size = Size(4, 5, 7, channels, stem)
    description = describe(PUBLISHED["DARTS_V1"], size, side)
    network = build(PUBLISHED["DARTS_V1"], size).eval()
    assert description.flops == counted_by_hooks(network, (channels, side, side))


def test_flops_of_a_convolution_by_hand():
    with torch.device("meta"):
        network = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
    assert flops(network, (4, 6, 6)) == 8 * 36 * 9 + 8 * 5


def test_text_and_json_say_the_same():
    genotype, size = PUBLISHED["DARTS_V2"], Size(36, 20, 10)
    description = describe(genotype, size)
    values = json.loads(json.dumps(description.as_dict()))
    assert values["params"] == 3_349_342
    assert Genotype.from_dict(values["genotype"]) == genotype
    assert Size(**values["size"]) == size
    text = description.as_text()
    for shown in (
        "3,349,342",
        "3,825,768",
        f"{values['flops']:,}",
        "36 channels, 20 cells, 10 classes",
        "on one 3 x 32 x 32 image",
        genotype.as_text(),
    ):
        assert shown in text


def test_nothing_is_allocated():
    described = describe(PUBLISHED["DARTS_V2"], Size(2000, 20, 10))  # 40 GB of weights
    assert described.params > 5e9


def test_bad_input_is_one_sentence():
    with pytest.raises(ValueError, match="side = 0: must be at least 1 pixel"):
        describe(PUBLISHED["DARTS_V2"], Size(4, 5, 10), side=0)
    foreign = Genotype("dart", PUBLISHED["DARTS_V2"].cells)
    with pytest.raises(ValueError, match=r"unknown space 'dart': did you mean darts\?"):
        describe(foreign, Size(4, 5, 10))
