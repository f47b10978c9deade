"""Growing a supernet: which blocks and channels survive, and what function they make."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from tutelage.spaces.base import ArchWeights, Size, Variant
from tutelage.spaces.cells import DARTS
from tutelage.spaces.grow import grow
from tutelage.spaces.mixed import MixedNode
from tutelage.spaces.mixed_cell import run_cell
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.plan import Layout
from tutelage.spaces.plan import weights_of as weights_in
from tutelage.spaces.states import State

SIZE = Size(channels=12, cells=3, classes=5)
SPACES = {
    "darts": (DARTS.varied(auxiliary_skip=True), SIZE),
    "nasbench201": (NASBENCH201, Size(channels=4, cells=1, classes=5)),
}


def weights_of(net):
    return {name: p.detach() for name, p in net.named_parameters()}


def numbered(net):
    """Tensors of the parameters' names and shapes whose entries are all different."""
    count, found = 0, {}
    for name, p in net.named_parameters():
        found[name] = torch.arange(count, count + p.numel(), dtype=torch.float64).view(p.shape)
        count += p.numel()
    return found


def random_mix(space):
    shapes = space.choices.items()
    return {g: torch.rand(shape, dtype=torch.float64) for g, shape in shapes}


def some(space, count):
    """Columns that stay: `count` of every edge, not the same on all edges."""
    return {
        group: [sorted(torch.randperm(len(names))[:count].tolist()) for names in edges]
        for group, edges in space.operations.items()
    }


def nodes(*pairs, strides=(1, 1)):
    """Single nodes, each from the operations of its edges and its channels, inside a module."""
    made = [MixedNode(edges, strides[: len(edges)], c, Variant()) for edges, c in pairs]
    return [nn.ModuleDict({"node": node}).double() for node in made]


def copied_rows(found, source):
    """Which row of the source each row found is."""
    return [next(j for j, each in enumerate(source) if torch.equal(each, row)) for row in found]


@pytest.mark.parametrize("name", SPACES)
def test_nothing_changes_where_nothing_changes(name):
    space, size = SPACES[name]
    old, new = space.supernet(size), space.supernet(size)
    before = numbered(old)
    after = grow(old, new)(before)
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("name", SPACES)
def test_dropped_operations_are_operations_of_no_weight(name):
    space, size = SPACES[name]
    kept = some(space, 3)
    smaller = space.narrowed(kept)
    old, new = space.supernet(size).double(), smaller.supernet(size).double()
    few = random_mix(smaller)
    many = {group: torch.zeros(shape).double() for group, shape in space.choices.items()}
    for group, rows in kept.items():
        many[group].scatter_(1, torch.tensor(rows), few[group])
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    grown = grow(old, new)(weights_of(old))
    expected = old(x, ArchWeights(many, auxiliary=0.3))
    found = functional_call(new, grown, (x, ArchWeights(few, auxiliary=0.3)), strict=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    # and it is these blocks that make it so: the new net's own weights give something else
    assert (new(x, ArchWeights(few, auxiliary=0.3))[0] - expected[0]).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "before", "after"), [("darts", 6, 4), ("nasbench201", 4, 2)])
def test_the_next_phase_runs_and_its_weights_are_the_old_ones(name, before, after):
    space, size = SPACES[name]
    old = space.varied(partial=before).supernet(size)
    later = space.narrowed(some(space, 2)).varied(partial=after)
    new = later.supernet(size).double()
    values = numbered(old)
    grown = grow(old, new)(values)
    shapes = {key: p.shape for key, p in new.named_parameters()}
    assert {key: x.shape for key, x in grown.items()} == shapes
    widened = [key for key, shape in shapes.items() if shape != values[key].shape]
    assert widened and all(".nodes." in key for key in widened)
    for key, x in grown.items():
        assert torch.isin(x, values[key]).all()
        if ".nodes." not in key:
            assert torch.equal(x, values[key])
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    trained = grow(old, new)({key: p.double() for key, p in weights_of(old).items()})
    logits, _ = functional_call(new, trained, (x, ArchWeights(random_mix(later))), strict=True)
    assert torch.isfinite(logits).all()


def test_one_map_of_channels_serves_every_operation_of_a_node():
    """W'[o, i] = W[g(o), g(i)] with one g for all kinds, edges and repetitions, by plain loops."""
    kinds = ("sep_conv_3x3", "dil_conv_5x5", "nor_conv_1x1", "skip_connect")
    edges = ((*kinds,), ("max_pool_3x3", "sep_conv_3x3"), ("sep_conv_3x3", "nor_conv_1x1"))
    fewer = (("dil_conv_5x5", "nor_conv_1x1"), ("sep_conv_3x3",), ("sep_conv_3x3", "nor_conv_1x1"))
    old, new = nodes((edges, 3), (fewer, 8), strides=(1, 1, 1))
    before = numbered(old)
    after = grow(old, new)(before)
    first = "node.stacks.dil_conv_5x5.depthwise.0"
    copied = copied_rows(after[first], before[first])
    assert copied[:3] == [0, 1, 2] and len(copied) == 8
    # blocks of the old stacks that each new one is made of: sep_conv_3x3 was on edges 0, 1, 2
    blocks = {"sep_conv_3x3": [1, 2], "dil_conv_5x5": [0], "nor_conv_1x1": [0, 1]}
    for key, found in after.items():
        taken = [
            before[key][3 * block + channel]
            for block in blocks[key.split(".")[2]]
            for channel in copied
        ]
        if "depthwise" not in key:
            taken = [torch.stack([row[channel] for channel in copied]) for row in taken]
        assert torch.equal(found, torch.stack(taken)), key


def test_a_strided_skip_copies_within_its_halves():
    edges = (("skip_connect", "sep_conv_3x3"), ("skip_connect",))
    old, new = nodes((edges, 5), (edges, 9), strides=(2, 2))
    before = numbered(old)
    after = grow(old, new)(before)
    kernel = "node.stacks.sep_conv_3x3.depthwise.0"
    inputs = copied_rows(after[kernel], before[kernel])
    for edge in "01":
        for half, narrow, width in (("even", 2, 4), ("odd", 3, 5)):
            key = f"node.reductions.{edge}.{half}.weight"
            assert after[key].shape == (width, 9, 1, 1)
            outputs = copied_rows(after[key], before[key][:, inputs])
            assert outputs[:narrow] == list(range(narrow))


class InCell(nn.Module):
    """A cell of one node."""

    def __init__(self, node):
        super().__init__()
        self.node = node

    def forward(self, inputs, weights):
        return run_cell([self.node], inputs, weights, Variant())[-1].whole


def run(module, weights, states, arch):
    """Evaluate the one node of a module."""
    layout = Layout((len(states),))
    (given,) = weights_in(ArchWeights({"cell": arch}), "cell", module["node"].edges, layout, 1)
    inputs = [State(x, 1, Variant()) for x in states]
    return functional_call(InCell(module["node"]), weights, (inputs, given))


@pytest.mark.parametrize("balanced", [True, False])
def test_repeated_inputs_give_repeated_outputs(balanced):
    """The widened node reads an input as often as it has copies, and writes the copied channels.

    Old weights times the number of copies of what they read are the same function on repeated
    inputs; where all have as many copies, BatchNorm takes the factor out and the function stays.
    """
    edges = (("sep_conv_3x3", "nor_conv_3x3"), ("dil_conv_5x5", "nor_conv_1x1"))
    old, new = nodes((edges, 2), (edges, 4))
    kernel = "node.stacks.dil_conv_5x5.depthwise.0"
    for seed in range(100):
        torch.manual_seed(seed)
        change = grow(old, new)
        copied = copied_rows(change(weights_of(old))[kernel], weights_of(old)[kernel])
        if (copied.count(0) == 2) == balanced:
            break
    copies = torch.tensor([copied.count(0), copied.count(1)])
    assert sorted(copies.tolist()) == ([2, 2] if balanced else [1, 3])
    states = [torch.randn(6, 2, 8, 8, dtype=torch.float64) for _ in edges]
    arch = torch.rand(2, 2, dtype=torch.float64)
    found = run(new, change(weights_of(old)), [x[:, copied] for x in states], arch)
    counted = {
        name: p if "depthwise" in name else p * copies[:, None, None]
        for name, p in weights_of(old).items()
    }
    expected = run(old, counted, states, arch)[:, copied]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    plain = run(old, weights_of(old), states, arch)[:, copied]
    difference = float((found - plain).abs().max())
    assert difference < 2e-3 if balanced else difference > 0.05


def test_copies_come_from_the_generator_and_stay():
    old = DARTS.varied(partial=6).supernet(SIZE)
    new = DARTS.varied(partial=4).supernet(SIZE)
    values = numbered(old)
    makers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        makers.append(grow(old, new))
    torch.rand(3)
    first, again, other = (make(values) for make in makers)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    # momentum goes the way of the weights
    momentum = makers[0]({key: 2 * x + 1 for key, x in values.items()})
    assert all(torch.equal(momentum[key], 2 * first[key] + 1) for key in first)


def test_a_node_may_lose_all_its_weights():
    old, new = nodes(((("skip_connect", "sep_conv_3x3"),), 3), ((("skip_connect",),), 6))
    assert grow(old, new)(weights_of(old)) == {}


def test_refuses_narrower_operations():
    with pytest.raises(
        ValueError, match="operations with 2 channels cannot follow operations with 3"
    ):
        grow(DARTS.varied(partial=4).supernet(SIZE), DARTS.varied(partial=6).supernet(SIZE))
