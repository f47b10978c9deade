"""DARTS' supernet against a naive one, what of it runs, and what is derived from its architecture
weights."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from darts_cells import NAMES, SHORT, SPACE, alphas, cell
from reference import NaiveSupernet, unstack
from tutelage.searches.random import Random
from tutelage.spaces import convolution, fused, mixed, ops, plan
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.cells import DARTS, CellSpace, everywhere
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.nb201 import NASBENCH201

# Supernet


def pair(size: Size) -> tuple[nn.Module, NaiveSupernet, dict[str, Tensor]]:
    fast, naive = SPACE.supernet(size).double(), NaiveSupernet(tuple(NAMES), size).double()
    weights = {name: p.detach().requires_grad_() for name, p in fast.named_parameters()}
    return fast, naive, weights


def assert_trees_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        scale = max(1.0, value.abs().max().item())
        torch.testing.assert_close(
            ours[name] / scale, value / scale, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_naive_supernet_has_the_same_weights():
    fast, naive, weights = pair(Size(channels=4, cells=3))
    names = {name: p.shape for name, p in naive.named_parameters()}
    assert {name: p.shape for name, p in unstack(fast, weights).items()} == names


def test_supernet_equals_naive_in_values_gradients_and_second_derivatives():
    fast, naive, weights = pair(Size(channels=2, cells=3, classes=3))
    arch = {group: a.softmax(1).requires_grad_() for group, a in alphas().items()}
    x, y = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2])
    # a direction in the space of weights, and one in the space of architecture weights
    v = {name: torch.randn_like(p) for name, p in weights.items()}
    u = {group: torch.randn_like(p) for group, p in arch.items()}
    vectors = [*v.values(), *u.values()]
    variables = [*weights.values(), *arch.values()]

    def derivatives(run) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
        logits, features = run()
        first = torch.autograd.grad(F.cross_entropy(logits, y), variables, create_graph=True)
        product = sum((g * d).sum() for g, d in zip(first, vectors, strict=True))
        second = torch.autograd.grad(product, variables)
        names = [*weights, *arch]
        return (
            logits,
            features,
            dict(zip(names, first, strict=True)),
            dict(zip(names, second, strict=True)),
        )

    ours = derivatives(lambda: functional_call(fast, weights, (x, ArchWeights(arch))))
    theirs = derivatives(lambda: functional_call(naive, unstack(fast, weights), (x, arch)))
    for fast_value, naive_value in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(fast_value, naive_value, rtol=1e-10, atol=1e-10)
    assert_trees_close(ours[2], theirs[2])
    assert_trees_close(ours[3], theirs[3])


def test_supernet_takes_detached_weights_and_keeps_none_of_its_own():
    fast, _, weights = pair(Size(channels=2, cells=3))
    arch = ArchWeights({group: a.softmax(1).requires_grad_() for group, a in alphas().items()})
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = {name: p.clone() for name, p in fast.state_dict().items()}
    detached = {name: 2 * p.detach() for name, p in weights.items()}
    logits, _ = functional_call(fast, detached, (x, arch))
    gradients = torch.autograd.grad(logits.square().sum(), list(arch.operations.values()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert {name for name, p in fast.named_parameters() if p.grad is not None} == set()
    assert all(torch.equal(before[name], p) for name, p in fast.state_dict().items())


def test_a_pass_in_inference_mode_leaves_later_ones_alone():
    fast, _, _ = pair(Size(channels=2, cells=3))
    arch = ArchWeights({group: a.softmax(1).requires_grad_() for group, a in alphas().items()})
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    plan._index.cache_clear()
    with torch.inference_mode():
        before = fast(x, arch)[0]
    after = fast(x, arch)[0]
    after.sum().backward()
    assert torch.equal(before, after)


def test_a_supernet_runs_where_there_are_only_shapes():
    fast = SPACE.supernet(Size(channels=2, cells=3)).to("meta")
    arch = ArchWeights({group: a.softmax(1).to("meta").float() for group, a in alphas().items()})
    logits, _ = fast(torch.empty(2, 3, 8, 8, device="meta"), arch)
    assert logits.shape == (2, 10)


def test_a_pass_of_fake_tensors_leaves_later_ones_alone():
    for space in (DARTS, NASBENCH201):
        net = space.supernet(Size(channels=4, cells=space.sizes.fewest))
        arch = {group: torch.rand(shape) for group, shape in space.choices.items()}
        x = torch.randn(2, 3, 8, 8)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            net(mode.from_tensor(x), ArchWeights(arch))
        assert type(net(x, ArchWeights(arch))[0]) is Tensor


@pytest.mark.parametrize("joined", [True, False])
def test_convolutions_of_all_channels_can_be_strided(joined, monkeypatch):
    monkeypatch.setattr(fused, "JOINED", 1 << 16 if joined else 0)
    operations = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "sep_conv_3x3")
    space = CellSpace("mine", everywhere(*operations))
    size = Size(channels=4, cells=3)
    for name in operations[1:]:
        column = operations.index(name)
        alone = {
            group: torch.eye(len(operations))[column].repeat(count, 1).double()
            for group, (count, _) in space.choices.items()
        }
        torch.manual_seed(0)
        net = space.supernet(size).double()
        logits, _ = net(torch.randn(2, 3, 8, 8, dtype=torch.float64), ArchWeights(alone))
        assert logits.shape == (2, 10) and logits.isfinite().all()


def test_skipping_zeros_changes_nothing():
    fast, _, _ = pair(Size(channels=4, cells=3))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    operations = {group: a.softmax(1) * (torch.rand_like(a) < 0.3) for group, a in alphas().items()}
    skipped = ArchWeights(operations).without_zeros()
    for ours, theirs in zip(fast(x, skipped), fast(x, ArchWeights(operations)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


class Calls(TorchDispatchMode):
    """Count the calls of torch's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == "convolution":
            x, kernel = args[0], args[1]
            name = f"conv {kernel.shape[-1]} of {x.shape[1]}"
        if name == "avg_pool2d" and args[1] == [1, 1]:
            name = "subsample"
        self.count[name] += 1
        return function(*args, **(kwargs or {}))


def calls(chosen: dict[str, list[list[str]]]) -> Counter[str]:
    """Count what the chosen operations call in one normal and two reduction cells."""
    net = SPACE.supernet(Size(channels=2, cells=3))
    columns = {
        group: [[NAMES.index(SHORT[name]) for name in edge] for edge in edges]
        for group, edges in chosen.items()
    }
    nothing = {group: [[] for _ in edges] for group, edges in chosen.items()}
    arch = {group: a.softmax(1) for group, a in alphas(torch.float32).items()}
    x = torch.randn(2, 3, 8, 8)
    counts = []
    for each in (columns, nothing):
        # else 1x1 convolutions of such small maps are products
        small = patch.object(convolution, "PRODUCT", 0)
        pools = patch.object(ops, "tiny", lambda x: True)  # but means stay pools
        with small, pools, torch.no_grad(), Calls() as mode:
            net(x, ArchWeights(arch, each))
        counts.append(mode.count)
    difference = counts[0].copy()
    difference.subtract(counts[1])
    wanted = {"max_pool2d_with_indices", "avg_pool2d", "native_batch_norm"}
    return Counter(
        {
            name: count
            for name, count in difference.items()
            if count and (name in wanted or name.startswith("conv"))
        }
    )


NOTHING: list[list[str]] = [[] for _ in range(14)]


def test_only_chosen_operations_run():
    normal, reduce = NOTHING.copy(), NOTHING.copy()
    normal[0], normal[1] = ["sep3"], ["max"]
    # node 1 reads state 0 with stride 2 and state 2 with stride 1
    reduce[0], reduce[2], reduce[4] = ["skip"], ["dil5"], ["none", "avg", "dil5"]
    assert calls({"normal": normal, "reduce": reduce}) == {
        "conv 3 of 2": 2,  # sep3, twice depthwise
        "conv 1 of 2": 2,  # and its 1x1
        "max_pool2d_with_indices": 1,
        "conv 1 of 4": 2,  # skip in the reduction of 4 channels: even and odd pixels
        "conv 5 of 4": 1,  # its dil5 of stride 2, on the even pixels
        "conv 3 of 4": 1,  # that of stride 1: on 4 x 4 pixels the outer taps are in the padding
        "conv 1 of 8": 1 + 2,  # the fold of those two; skip in the reduction of 8 channels
        "conv 3 of 8": 1,  # on 2 x 2 pixels the other one has a single tap: a product
        "conv 1 of 16": 1,
        "avg_pool2d": 2,
        "native_batch_norm": 2 + 2 * 2,  # inside sep3, after max; after every skip and avg
    }


def test_a_pool_runs_once_a_state():
    every = [["none", "max"]] * 14
    counted = calls({"normal": every, "reduce": NOTHING})
    assert counted == {"max_pool2d_with_indices": 5, "native_batch_norm": 5}


def test_none_costs_nothing():
    assert calls({"normal": [["none"]] * 14, "reduce": [["none"]] * 14}) == {}


def test_a_stack_runs_all_edges_of_a_node_in_one_call():
    every = [["dil3"]] * 14
    counted = calls({"normal": every, "reduce": NOTHING})
    # nodes have 2, 3, 4 and 5 edges of 2 channels: one depthwise and one folded product each
    assert counted == {
        f"conv {kernel} of {channels}": 1 for kernel in (1, 3) for channels in (4, 6, 8, 10)
    }


def test_small_kinds_of_one_dilation_run_as_one(monkeypatch):
    each = [["dil3", "sep5", "dil5", "sep3"]] * 14
    counted = calls({"normal": each, "reduce": NOTHING})
    channels = {4 * edges for edges in (2, 3, 4, 5)}  # two kinds of 2 channels an edge
    # twice the depthwise convolution of sep, once that of dil, and the 1x1 convolution inside sep
    assert {f"conv 5 of {width}": 3 for width in channels}.items() <= counted.items()
    assert not any(name.startswith("conv 3") for name in counted)
    monkeypatch.setattr(mixed, "merges", lambda x: False)
    apart = calls({"normal": each, "reduce": NOTHING})
    assert {f"conv {k} of {width // 2}": 3 for k in (3, 5) for width in channels}.items() <= (
        apart.items()
    )


@pytest.mark.parametrize("classes, count", [(10, 1_930_618), (100, 1_953_748)])
def test_supernet_weights(classes, count):
    assert sum(p.numel() for p in SPACE.supernet(Size(16, 8, classes)).parameters()) == count


def test_supernet_has_no_state_but_weights():
    net = SPACE.supernet(Size(channels=2, cells=2))
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}


def test_supernet_in_bfloat16_is_near_itself():
    net = SPACE.supernet(Size(channels=8, cells=3))
    arch = {group: a.softmax(1).requires_grad_() for group, a in alphas(torch.float32).items()}
    x = torch.randn(16, 3, 16, 16)
    exact, _ = net(x, ArchWeights(arch))
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = net(x, ArchWeights(arch))
    gradients = torch.autograd.grad(logits.float().square().sum(), list(arch.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (logits.float() - exact).norm() < 0.1 * exact.norm()


# Derivation


def test_genotype_by_hand():
    # every node's edges are written as (best operation, its weight, weight of none)
    table = [
        [("sep3", 0.3, 0.6), ("max", 0.4, 0.1)],
        [("skip", 0.2, 0.7), ("dil5", 0.25, 0.0), ("avg", 0.1, 0.0)],
        [("sep5", 0.3, 0.0), ("sep5", 0.3, 0.0), ("sep5", 0.3, 0.0), ("dil3", 0.5, 0.4)],
        [
            ("avg", 0.1, 0.9),
            ("avg", 0.1, 0.0),
            ("avg", 0.11, 0.0),
            ("max", 0.2, 0.8),
            ("max", 0, 1),
        ],
    ]
    weights = torch.zeros(14, 8)
    for row, (name, best, none) in enumerate(edge for node in table for edge in node):
        weights[row, NAMES.index(SHORT[name])] = best
        weights[row, 0] = none
    expected = cell("max 1, sep3 0 · dil5 1, skip 0 · dil3 3, sep5 0 · max 3, avg 2")
    found = SPACE.genotype(ArchWeights({"normal": weights, "reduce": weights.flip(1)}))
    assert found.space == "darts"
    assert found.cells["normal"] == expected
    assert {name for node in found.cells["reduce"].nodes for name, _ in node} <= set(NAMES[1:])


def test_none_is_never_derived():
    weights = torch.rand(14, 8)
    weights[:, 0] = 10
    found = SPACE.genotype(ArchWeights({"normal": weights, "reduce": weights}))
    best = {(edge, NAMES[1 + column]) for edge, column in enumerate(weights[:, 1:].argmax(1))}
    first = 0
    for index, node in enumerate(found.cells["normal"].nodes):
        assert all((first + source, name) in best for name, source in node)
        first += index + 2


def test_random_search_is_uniform_and_repeatable():
    def draw(seed: int) -> Genotype:
        torch.manual_seed(seed)
        return search.derive(SPACE, search.alphas(SPACE))

    search = Random()
    draws = [draw(seed) for seed in range(2000)]
    assert draws[7] == draw(7)
    last = [draw.cells["reduce"].nodes[3] for draw in draws]
    sources = Counter(frozenset(source for _, source in node) for node in last)
    names = Counter(name for node in last for name, _ in node)
    # five standard deviations of a binomial around 2000 / 10 and 4000 / 7
    assert len(sources) == 10 and all(abs(count - 200) < 68 for count in sources.values())
    assert set(names) == set(NAMES[1:])
    assert all(abs(count - 4000 / 7) < 111 for count in names.values())


@pytest.mark.parametrize("amp", [False, True])
def test_second_order_differentiates_no_grouped_convolution_of_torchs(amp):
    """On every device: torch's second derivative of one takes calls for every group."""
    for space in (DARTS, NASBENCH201, DARTS.varied(partial=2)):
        net = space.supernet(Size(channels=4, cells=3 if space.name == "darts" else 1))
        weights = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
        arch = ArchWeights({group: torch.rand(shape) for group, shape in space.choices.items()})
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            logits, _ = functional_call(net, weights, (torch.randn(4, 3, 8, 8), arch))
        gradients = torch.autograd.grad(logits.sum(), weights.values(), create_graph=True)
        seen, found = set(), [x.grad_fn for x in (logits, *gradients)]
        while found:
            node = found.pop()
            if node is not None and node not in seen:
                seen.add(node)
                found += [following for following, _ in node.next_functions]
        assert "_ConvolveBackward" in {node.name() for node in seen}
        assert not [node for node in seen if node.name().startswith("Convolution")]
