"""The members that networks of all spaces share with timm's models."""

import pytest
import torch
import torch.nn.functional as F

from retraining import FILE
from test_network_file import small_network
from tutelage.run.networks.files import build, load, space_of
from tutelage.spaces.base import Size
from tutelage.spaces.published import resolve

NAMES = (
    "DARTS_V2",
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|",
    "resnet18",
)
"""A genotype of cells, one of NAS-Bench-201, a chain."""


def network_of(name, classes=5):
    genotype = resolve(name)
    layers = space_of(genotype).sizes.final_cells
    torch.manual_seed(0)
    return build(genotype, Size(8, layers if genotype.stages else 3, classes))


@pytest.mark.parametrize("name", NAMES, ids=("cells", "nasbench201", "chain"))
def test_the_parts_of_a_network_are_the_network(name):
    network = network_of(name).eval()
    x = torch.randn(2, 3, 32, 32)
    maps = network.forward_features(x)
    assert maps.dim() == 4 and maps.shape[:2] == (2, network.num_features)
    pooled = network.forward_head(maps, pre_logits=True)
    assert torch.equal(pooled, network.features(x))
    assert torch.equal(network.forward_head(maps), network(x))
    linear = network.get_classifier()
    assert torch.equal(network(x), F.linear(pooled, linear.weight, linear.bias))
    assert network.num_classes == 5


@pytest.mark.parametrize("name", NAMES, ids=("cells", "nasbench201", "chain"))
def test_a_classifier_is_replaced_and_taken_away(name):
    network = network_of(name).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.double)
    features, before = network.features(x), network.state_dict()
    network.reset_classifier(7)
    assert network(x).shape == (2, 7) and network.num_classes == 7
    assert network(x).dtype == torch.double
    assert torch.equal(network.features(x), features)
    changed = [k for k, v in network.state_dict().items() if v.shape != before[k].shape]
    assert {k.rpartition(".")[0] for k in changed} == {f"{network.home}.classifier".strip(".")}
    network.reset_classifier(0)
    assert torch.equal(network(x), features)
    network.reset_classifier(4, "avg")
    assert network(x).shape == (2, 4)


def test_a_second_head_has_the_new_classes_too():
    network = build(resolve("DARTS_V2"), Size(4, 3, 5), auxiliary=True)
    network.reset_classifier(3)
    logits, second = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == second.shape == (2, 3)


def test_mistakes_are_one_sentence():
    network = network_of(NAMES[0])
    for wrong in (-1, 2.5):
        with pytest.raises(ValueError, match=f"num_classes = {wrong}: must be 0 or more, a whole"):
            network.reset_classifier(wrong)
    with pytest.raises(ValueError, match="global_pool = 'max': must be 'avg'"):
        network.reset_classifier(3, "max")


def test_a_loaded_network_trains_in_an_ordinary_loop(tmp_path):
    """The loss falls, and training mode gives a tensor, not a pair."""
    small_network(tmp_path / FILE)
    network = load(tmp_path)
    network.reset_classifier(2)
    network.train()
    x, y = torch.randn(8, 3, 16, 16), torch.tensor([0, 1] * 4)
    weights = list(network.parameters())
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(network(x), y)
        losses.append(loss.item())
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= 0.003 * gradient.sign()
    assert losses[-1] < losses[0] / 2
