"""Spaces of chains: the supernet's function, settings that travel, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from chains import SMALL, SPACES, chosen, drawn, genotype, own_size
from tutelage.parts import make_part
from tutelage.run.cost.count import params
from tutelage.run.networks.files import About, build, load, save_network
from tutelage.spaces.base import ArchWeights, Size, one_hot
from tutelage.spaces.chain import CREAM, DNA, ENNAS_S3
from tutelage.spaces.genotype import Cell, Genotype

every_space = pytest.mark.parametrize(
    "space",
    [
        pytest.param(x, id=x.name, marks=pytest.mark.slow if x in (ENNAS_S3, DNA) else ())
        for x in SPACES
    ],
)

# The supernet's function ------------------------------------------------------------------------


@every_space
def test_a_path_is_the_stand_alone_network_with_inherited_weights(space):
    """In training mode, by the statistics of the batch; every block in every layer."""
    size = own_size(space, 3, channels=4)
    supernet = space.supernet(size).double()
    own = dict(supernet.named_parameters())
    for name, parameter in own.items():
        if "blocks" in name and parameter.dim() == 1:  # scales and shifts
            nn.init.normal_(parameter, 1, 0.3)
    x = torch.randn(4, 3, 10, 10, dtype=torch.float64)
    count = len(space.candidates)
    for turn in range(count):
        columns = [(layer + turn) % count for layer in range(sum(space.depths))]
        found = chosen(space, columns)
        inherited = space.inherited(own, found)
        network = space.network(found, size).double().train()
        named = {name for name, _ in network.named_parameters()}
        without = {name for name in named if network.get_parameter(name).dim() == 1}
        assert set(inherited) <= named
        assert named - set(inherited) <= (set() if space.affine else without)
        network.load_state_dict(network.state_dict() | inherited)
        arch = one_hot(space, found, x)
        assert [list(row) for row in arch.chosen["chain"]] == [[column] for column in columns]
        with torch.no_grad():
            (ours, features), (theirs, none) = supernet(x, arch), network(x)
            assert none is None
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(features, network.features(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("changed", [{}, {"last": 0, "first": 0}])
def test_what_surrounds_the_layers_by_hand(stem, changed):
    space = replace(SMALL, **changed)
    frame = space.supernet(own_size(space, 3, stem)).frame.double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)

    def normed(y):
        return F.silu(F.batch_norm(y, None, None, training=True))  # scales are 1, shifts 0

    y = normed(F.conv2d(x, frame.stem[0].weight, None, 1 if stem == "cifar" else 2, 1))
    if space.first:
        y = frame.stem[3](y)  # a block, which has tests of its own
    torch.testing.assert_close(frame.stem(x), y)
    y = torch.randn(4, 8, 3, 3, dtype=torch.float64)
    pooled = frame.pooled(y)
    if space.last:
        y = normed(F.conv2d(y, frame.end[0].weight))
    torch.testing.assert_close(pooled, y.sum((2, 3)) / 9)
    assert frame.classifier.in_features == (space.last or 8)


def test_a_softmax_mix_is_the_plain_weighted_sum_with_its_gradients():
    supernet = SMALL.supernet(own_size(SMALL, 3)).double()
    alphas = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    arch = alphas.softmax(1)
    y = supernet.frame.stem(x)
    for row, layer in zip(arch, supernet.layers, strict=True):
        y = sum(w * layer.blocks[name](y) for w, name in zip(row, SMALL.candidates, strict=True))
    pooled = supernet.frame.end(y).flatten(2).mean(2)
    expected = pooled @ supernet.frame.classifier.weight.T + supernet.frame.classifier.bias
    logits, features = supernet(x, ArchWeights({"chain": arch}))
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(features, pooled, rtol=1e-10, atol=1e-10)
    variables = [alphas, *supernet.parameters()]
    direction = torch.randn_like(logits)
    ours, theirs = (
        torch.autograd.grad((z * direction).sum(), variables, retain_graph=True)
        for z in (logits, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_layer_of_which_nothing_runs_is_zero():
    supernet = SMALL.supernet(own_size(SMALL, 3)).double()
    x = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    arch = ArchWeights({"chain": torch.rand(3, 4).double()}, {"chain": [[1], [], [2]]})
    expected = supernet.layers[2].blocks["shuffle_5x5"](torch.zeros(3, 6, 6, 6).double())
    pooled = supernet.frame.pooled(expected * arch.operations["chain"][2, 2])
    torch.testing.assert_close(supernet(x, arch)[1], pooled)


def test_the_strongest_blocks_are_derived():
    arch = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.5, 0.3]])
    found = SMALL.genotype(ArchWeights({"chain": arch}))
    assert found.names == ["shuffle_xception", "identity", "shuffle_5x5"]
    narrowed = SMALL.narrowed({"chain": [[0, 1], [1, 3], [2, 3]]})
    found = narrowed.genotype(
        ArchWeights({"chain": torch.tensor([[0.1, 0.9], [0.4, 0.6], [0.8, 0.2]])})
    )
    assert found.names == ["mbconv3_3x3", "shuffle_xception", "shuffle_5x5"]
    assert [list(each.blocks) for each in narrowed.supernet(own_size(SMALL)).layers] == [
        ["identity", "mbconv3_3x3"],
        ["mbconv3_3x3", "shuffle_xception"],
        ["shuffle_5x5", "shuffle_xception"],
    ]


def test_a_cell_by_the_name_of_a_chains_space_is_refused():
    cell = Cell(((("identity", 0),),), concat=(1,), inputs=1)
    with pytest.raises(ValueError, match="a genotype of 1 layers: the chain nasbench-macro has 3"):
        SMALL.network(Genotype(SMALL.name, {"cell": cell}), own_size(SMALL))


# Settings, layouts and refusals -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "name", "shape"),
    [
        ({"stem_channels": 6, "first": 0}, "frame.stem.0.weight", (6, 3, 3, 3)),
        ({"first": 5}, "frame.stem.3.layers.4.weight", (5, 4, 1, 1)),
        ({"widths": (6, 12)}, "layers.2.layers.3.weight", (18, 1, 3, 3)),
        ({"widths": (6, 12)}, "frame.end.0.weight", (10, 12, 1, 1)),
        ({"last": 14}, "frame.classifier.weight", (10, 14)),
        ({"last": 0}, "frame.classifier.weight", (10, 8)),
        ({"depths": (3, 2)}, "layers.4.layers.0.weight", (24, 8, 1, 1)),
        ({"squeeze": 0.25}, "layers.1.layers.6.gate.0.weight", (1, 18, 1, 1)),
        ({"squeeze": 0.0}, "layers.1.layers.6.weight", (6, 18, 1, 1)),
    ],
)
def test_settings_change_the_network_and_travel_in_its_genotype(changed, name, shape, tmp_path):
    space = make_part("space", {"name": "nasbench-macro", **replace(SMALL, **changed).layout})
    assert space == replace(SMALL, **changed)
    found = genotype(space, ["mbconv3_3x3"] * sum(space.depths))
    size = own_size(space)
    network = space.network(found, size)
    assert network.state_dict()[name].shape == shape
    read = Genotype.from_json(found.to_json())
    assert read == found and json.loads(found.to_json())["layout"] == space.layout
    again = build(read, size)
    assert repr(again) == repr(network)
    for statistic in network.buffers():
        if statistic.is_floating_point():
            statistic.add_(torch.rand_like(statistic))
    about = About(read, size, tuple("abcdefghij"), (0.5,) * 3, (0.2,) * 3, (3, 9, 9))
    save_network(tmp_path / "network.safetensors", network, about)
    x = torch.randn(2, 3, 9, 9)
    assert torch.equal(load(tmp_path)(x), network.eval()(x))


def test_strides_and_activation_change_the_function():
    x, names = torch.randn(2, 3, 8, 8), ["mbconv3_3x3"] * 3
    outputs = []
    for changed in ({}, {"strides": (2, 2)}, {"activation": "relu"}):
        torch.manual_seed(0)
        space = replace(SMALL, **changed)
        outputs.append(space.network(genotype(space, names), own_size(space)).eval()(x))
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])
    assert params(replace(SMALL, affine=False).supernet(own_size(SMALL))) < params(
        SMALL.supernet(own_size(SMALL))
    )


def test_widths_follow_the_channels_and_stay_even():
    def given(channels):
        layers = SMALL.layers(own_size(SMALL, channels=channels))
        return [(x.inputs, x.outputs, x.stride, x.stage) for x in layers]

    assert given(4) == [(2, 6, 1, 0), (6, 6, 1, 0), (6, 8, 2, 1)]
    assert given(8) == [(4, 12, 1, 0), (12, 12, 1, 0), (12, 16, 2, 1)]
    assert given(3) == [(2, 4, 1, 0), (4, 4, 1, 0), (4, 6, 2, 1)]  # 1.5, 4.5, 6
    assert given(1) == [(2, 2, 1, 0), (2, 2, 1, 0), (2, 2, 2, 1)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"candidates": ["mbconv3_4x4"]}, "candidates = mbconv3_4x4: must be identity, "),
        ({"candidates": ["foo"]}, "candidates = foo: must be identity, "),
        ({"candidates": []}, "candidates = : name each block once"),
        ({"candidates": ["identity", "identity"]}, "identity, identity: name each block once"),
        ({"widths": [8, 16]}, "2 widths, 3 depths and 3 strides: give one of each"),
        ({"widths": [], "depths": [], "strides": []}, "0 widths, 0 depths and 0 strides"),
        ({"widths": [8, 15, 16]}, "widths = 8 15 16: each must be even, at least 2"),
        ({"widths": [8, 0, 16]}, "widths = 8 0 16: each must be even"),
        ({"depths": [1, 0, 1]}, "depths = 1 0 1: each must be at least 1"),
        ({"strides": [1, 3, 1]}, "strides = 1 3 1: each must be 1 or 2"),
        ({"stem_channels": 0}, "stem_channels = 0: must be a number of at least 1"),
        ({"squeeze": -0.5}, "squeeze = -0.5: must be a number of at least 0"),
        ({"activation": "rely"}, "activation = 'rely': did you mean relu"),
        ({"width": [8]}, "unknown setting 'width' of space nasbench-macro"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_part("space", {"name": "nasbench-macro", **changed})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SMALL.supernet(Size(4, 5)), "cells = 5: .* has 3 layers, by its depths 2 1"),
        (lambda: SMALL.varied(partial=4), "a chain has neither partial channels"),
        (lambda: SMALL.varied(auxiliary_skip=True), "a chain has neither"),
        (
            lambda: SMALL.varied(final_norm=True),
            "use a space of cells, or a search that needs none",
        ),
        (
            lambda: SMALL.network(drawn(replace(SMALL, last=12), 0), own_size(SMALL)),
            "with another layout: build it by its own layout",
        ),
        (
            lambda: SMALL.network(Genotype.of_chain("nasbench-macro", ["identity"], {}), Size(4)),
            "a genotype of 1 layers: the chain nasbench-macro has 3, by its depths 2 1",
        ),
        (
            lambda: SMALL.network(genotype(SMALL, ["shufle_5x5"] * 3), own_size(SMALL)),
            "block 'shufle_5x5' in the space nasbench-macro: did you mean shuffle_5x5",
        ),
        (lambda: SMALL.network(drawn(CREAM, 0), own_size(SMALL)), "a genotype of the space 'cream"),
        (
            lambda: SMALL.network(drawn(SMALL, 0), own_size(SMALL), auxiliary=True),
            "no auxiliary head: give --auxiliary 0",
        ),
    ],
)
def test_what_does_not_fit_a_chain_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
