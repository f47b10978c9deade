"""DARTS' cells: the fast supernet against a naive one, and the stand-alone networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from reference import NaiveSupernet, batch_norm, unstack
from tutelage.spaces.base import Mix, Size
from tutelage.spaces.cells import DartsSpace
from tutelage.spaces.fused import depthwise, fold, normalise, weighted_sum
from tutelage.spaces.genotype import Cell, Genotype
from tutelage.spaces.network import drop
from tutelage.spaces.ops import operation

SPACE = DartsSpace()
NAMES = SPACE.operations["normal"]
SHORT = {
    "none": "none",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}


def cell(text: str) -> Cell:
    """Read 'sep3 1, sep3 0 · skip 0, sep3 1 · ...'."""
    nodes = [[pair.split() for pair in node.split(",")] for node in text.split("·")]
    return Cell(
        tuple(tuple((SHORT[name], int(source)) for name, source in node) for node in nodes),
        (2, 3, 4, 5),
    )


def genotype(normal: str, reduce: str) -> Genotype:
    return Genotype("darts", {"normal": cell(normal), "reduce": cell(reduce)})


DARTS_V1 = genotype(
    "sep3 1, sep3 0 · skip 0, sep3 1 · skip 0, sep3 1 · sep3 0, skip 2",
    "max 0, max 1 · skip 2, max 0 · max 0, skip 2 · skip 2, avg 0",
)
DARTS_V2 = genotype(
    "sep3 0, sep3 1 · sep3 0, sep3 1 · sep3 1, skip 0 · skip 0, dil3 2",
    "max 0, max 1 · skip 2, max 1 · max 0, skip 2 · skip 2, max 1",
)
PC_DARTS = genotype(
    "sep3 1, skip 0 · sep3 0, dil3 1 · sep5 0, sep3 1 · avg 0, dil3 1",
    "sep5 1, max 0 · sep5 1, sep5 2 · sep3 0, sep3 3 · sep3 1, sep3 2",
)
# every operation in both kinds of cell, on the inputs (stride 2 in a reduction) and inside
ALL = genotype(
    "max 0, avg 1 · skip 0, sep3 1 · sep5 0, dil3 2 · dil5 3, max 2",
    "max 0, avg 1 · skip 0, sep3 1 · sep5 0, dil3 1 · dil5 0, skip 2",
)
INSIDE = genotype(
    "dil5 0, dil3 1 · sep5 1, skip 2 · avg 3, sep3 2 · sep5 4, skip 1",
    "dil5 1, sep3 0 · dil3 2, max 2 · avg 3, sep3 2 · sep5 4, dil5 3",
)


def weights_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def alphas(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {group: torch.randn(shape, dtype=dtype) for group, shape in SPACE.choices.items()}


def one_hot(genotype: Genotype) -> Mix:
    operations = {group: torch.zeros(shape) for group, shape in SPACE.choices.items()}
    for group, cell in genotype.cells.items():
        first = 0
        for index, node in enumerate(cell.nodes):
            for name, source in node:
                operations[group][first + source, NAMES.index(name)] = 1
            first += index + 2
    return Mix(operations).without_zeros()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These maps are too small to share among threads."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Pieces


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("side", [(6, 8), (7, 5), (2, 1)])
def test_depthwise_equals_torch_in_two_derivatives(stride, dilation, kernel, side):
    x = torch.randn(2, 3, *side, dtype=torch.float64, requires_grad=True)
    k = torch.randn(3, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    padding = dilation * (kernel // 2)
    expected = F.conv2d(x, k, None, stride, padding, dilation, groups=3)
    weigh = torch.randn_like(expected)

    def derivatives(y: Tensor) -> list[Tensor]:
        first = torch.autograd.grad((y.sin() * weigh).sum(), (x, k), create_graph=True)
        second = torch.autograd.grad(sum((each**2).sum() for each in first), (x, k))
        return [y, *first, *second]

    for ours, theirs in zip(
        derivatives(depthwise(x, k, stride, dilation)), derivatives(expected), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_gradients_of_pieces_are_gradients():
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    k = torch.randn(4, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    p = torch.randn(4, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, dtype=torch.float64, requires_grad=True)
    checks = [
        (lambda x, k: depthwise(x, k, 1, 2), (x, k)),
        (lambda x, p, w: F.conv2d(x, *fold(x, p, w)), (x, p, w)),
        (lambda w, x, y: weighted_sum(w, [x, y]), (w, x, x.detach() ** 2)),
    ]
    for function, inputs in checks:
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_fold_equals_normalised_products():
    z = torch.randn(3, 6, 5, 5, dtype=torch.float64) + 2
    p = torch.randn(6, 2, 1, 1, dtype=torch.float64)
    w = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    y = normalise(F.conv2d(z, p, groups=3)).unflatten(1, (3, 2))
    expected = (w.view(3, 1, 1, 1) * y).sum(1)
    torch.testing.assert_close(F.conv2d(z, *fold(z, p, w)), expected, rtol=1e-10, atol=1e-10)


def test_fold_of_a_constant_map_is_finite():
    z = torch.full((2, 2, 4, 4), 3.0, requires_grad=True)
    y = F.conv2d(z, *fold(z, torch.ones(2, 2, 1, 1), torch.ones(1)))
    (gradient,) = torch.autograd.grad(y.square().sum(), z)
    assert y.abs().max() < 1e-2
    assert gradient.isfinite().all()


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
    mix = {group: a.softmax(1).requires_grad_() for group, a in alphas().items()}
    x, y = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2])
    # a direction in the space of weights, and one in the space of mixes
    v = {name: torch.randn_like(p) for name, p in weights.items()}
    u = {group: torch.randn_like(p) for group, p in mix.items()}
    vectors = [*v.values(), *u.values()]
    variables = [*weights.values(), *mix.values()]

    def derivatives(run) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
        logits, features = run()
        first = torch.autograd.grad(F.cross_entropy(logits, y), variables, create_graph=True)
        product = sum((g * d).sum() for g, d in zip(first, vectors, strict=True))
        second = torch.autograd.grad(product, variables)
        names = [*weights, *mix]
        return (
            logits,
            features,
            dict(zip(names, first, strict=True)),
            dict(zip(names, second, strict=True)),
        )

    ours = derivatives(lambda: functional_call(fast, weights, (x, Mix(mix))))
    theirs = derivatives(lambda: functional_call(naive, unstack(fast, weights), (x, mix)))
    for fast_value, naive_value in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(fast_value, naive_value, rtol=1e-10, atol=1e-10)
    assert_trees_close(ours[2], theirs[2])
    assert_trees_close(ours[3], theirs[3])


def test_supernet_takes_detached_weights_and_keeps_none_of_its_own():
    fast, _, weights = pair(Size(channels=2, cells=3))
    mix = Mix({group: a.softmax(1).requires_grad_() for group, a in alphas().items()})
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = {name: p.clone() for name, p in fast.state_dict().items()}
    detached = {name: 2 * p.detach() for name, p in weights.items()}
    logits, _ = functional_call(fast, detached, (x, mix))
    gradients = torch.autograd.grad(logits.square().sum(), list(mix.operations.values()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert {name for name, p in fast.named_parameters() if p.grad is not None} == set()
    assert all(torch.equal(before[name], p) for name, p in fast.state_dict().items())


def test_skipping_zeros_changes_nothing():
    fast, _, _ = pair(Size(channels=4, cells=3))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    operations = {group: a.softmax(1) * (torch.rand_like(a) < 0.3) for group, a in alphas().items()}
    skipped = Mix(operations).without_zeros()
    for ours, theirs in zip(fast(x, skipped), fast(x, Mix(operations)), strict=True):
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
    mix = {group: a.softmax(1) for group, a in alphas(torch.float32).items()}
    x = torch.randn(2, 3, 8, 8)
    counts = []
    for each in (columns, nothing):
        with torch.no_grad(), Calls() as mode:
            net(x, Mix(mix, each))
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
        "conv 5 of 4": 2,  # its dil5, once for each stride
        "conv 1 of 8": 1 + 2,  # the fold of those two; skip in the reduction of 8 channels
        "conv 5 of 8": 2,
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


@pytest.mark.parametrize("classes, count", [(10, 1_930_618), (100, 1_953_748)])
def test_supernet_weights(classes, count):
    assert weights_of(SPACE.supernet(Size(16, 8, classes))) == count


def test_supernet_has_no_state_but_weights():
    net = SPACE.supernet(Size(channels=2, cells=2))
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}


def test_supernet_in_bfloat16_is_near_itself():
    net = SPACE.supernet(Size(channels=8, cells=3))
    mix = {group: a.softmax(1).requires_grad_() for group, a in alphas(torch.float32).items()}
    x = torch.randn(16, 3, 16, 16)
    exact, _ = net(x, Mix(mix))
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = net(x, Mix(mix))
    gradients = torch.autograd.grad(logits.float().square().sum(), list(mix.values()))
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
    found = SPACE.genotype(Mix({"normal": weights, "reduce": weights.flip(1)}))
    assert found.space == "darts"
    assert found.cells["normal"] == expected
    assert {name for node in found.cells["reduce"].nodes for name, _ in node} <= set(NAMES[1:])


def test_none_is_never_derived():
    weights = torch.rand(14, 8)
    weights[:, 0] = 10
    found = SPACE.genotype(Mix({"normal": weights, "reduce": weights}))
    best = {(edge, NAMES[1 + column]) for edge, column in enumerate(weights[:, 1:].argmax(1))}
    first = 0
    for index, node in enumerate(found.cells["normal"].nodes):
        assert all((first + source, name) in best for name, source in node)
        first += index + 2


def test_random_is_uniform_and_repeatable():
    draws = [SPACE.random(torch.Generator().manual_seed(seed)) for seed in range(2000)]
    assert draws[7] == SPACE.random(torch.Generator().manual_seed(7))
    last = [draw.cells["reduce"].nodes[3] for draw in draws]
    sources = Counter(tuple(source for _, source in node) for node in last)
    names = Counter(name for node in last for name, _ in node)
    # five standard deviations of a binomial around 2000 / 10 and 4000 / 7
    assert len(sources) == 10 and all(abs(count - 200) < 68 for count in sources.values())
    assert set(names) == set(NAMES[1:])
    assert all(abs(count - 4000 / 7) < 111 for count in names.values())


# Stand-alone networks


@pytest.mark.parametrize(
    "genotype, classes, count",
    [
        (DARTS_V1, 10, 3_169_414),
        (DARTS_V1, 100, 3_221_344),
        (DARTS_V2, 10, 3_349_342),
        (DARTS_V2, 100, 3_401_272),
        (PC_DARTS, 10, 3_634_678),
        (PC_DARTS, 100, 3_686_608),
    ],
)
def test_network_weights(genotype, classes, count):
    with torch.device("meta"):
        assert weights_of(SPACE.network(genotype, Size(36, 20, classes))) == count


def test_network_weights_with_auxiliary_head_and_in_imagenet_form():
    with torch.device("meta"):
        assert weights_of(SPACE.network(DARTS_V2, Size(36, 20), auxiliary=True)) == 3_825_768
        size = Size(48, 14, 1000, form="imagenet")
        assert weights_of(SPACE.network(DARTS_V2, size)) == 4_718_752
        assert weights_of(SPACE.network(DARTS_V2, size, auxiliary=True)) == 5_979_528


@pytest.mark.parametrize("genotype", [ALL, INSIDE])
def test_one_hot_mix_equals_network_with_copied_weights(genotype):
    """The network's BatchNorms stay at scale 1 and shift 0 and use their batch (training mode).

    The supernet normalises after its pools and DARTS' network does not: the test appends that.
    """
    size = Size(channels=4, cells=4, classes=5)
    fast = SPACE.supernet(size).double()
    plain = unstack(fast, dict(fast.named_parameters()))
    network = SPACE.network(genotype, size).double().train()
    copied = {name: p for name, p in plain.items() if name.startswith("classifier")}
    copied |= {name.replace("stem.", "stem.0."): p for name, p in plain.items() if "stem" in name}
    for place, body in enumerate(network.cells):
        group = fast.plan[place].group
        copied |= {
            n: p
            for n, p in plain.items()
            if n.startswith((f"cells.{place}.before", f"cells.{place}.last"))
        }
        first = 0
        for index, node in enumerate(genotype.cells[group].nodes):
            for position, (name, source) in enumerate(node):
                old = f"cells.{place}.edges.{first + source}.{NAMES.index(name)}."
                new = f"cells.{place}.nodes.{index}.operations.{position}."
                copied |= {n.replace(old, new): p for n, p in plain.items() if n.startswith(old)}
                if "pool" in name:
                    modules = body.nodes[index].operations
                    modules[position] = nn.Sequential(modules[position], batch_norm(1))
            first += index + 2
    missing, unexpected = network.load_state_dict(copied, strict=False)
    affine = {n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert not unexpected
    assert {name.rpartition(".")[0] for name in missing} <= affine
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    mix = one_hot(genotype)
    mix = Mix({group: each.double() for group, each in mix.operations.items()}, mix.chosen)
    logits, features = fast(x, mix)
    theirs, auxiliary = network(x)
    assert auxiliary is None
    torch.testing.assert_close(logits, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(features, network.features(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", ["cifar", "imagenet"])
@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize(
    "side", [8, 28, 32, *(pytest.param(side, marks=pytest.mark.slow) for side in (64, 224))]
)
def test_image_sizes(side, image_channels, form):
    size = Size(channels=2, cells=3, classes=4, image_channels=image_channels, form=form)
    x = torch.randn(2, image_channels, side, side)
    network = SPACE.network(ALL, size, auxiliary=True, drop_path=0.2)
    logits, auxiliary = network(x)
    assert logits.shape == auxiliary.shape == (2, 4)
    assert network.eval()(x).shape == (2, 4)
    mix = Mix({group: a.softmax(1) for group, a in alphas(torch.float32).items()})
    logits, features = SPACE.supernet(size)(x, mix)
    assert logits.shape == (2, 4)
    assert features.shape == (2, 4 * 8)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    "form, side, pool", [("cifar", 32, (5, 3)), ("imagenet", 224, (5, 2)), ("cifar", 48, None)]
)
def test_auxiliary_head_pools_as_darts_do(form, side, pool):
    size = Size(channels=2, cells=3, form=form)
    network = SPACE.network(DARTS_V2, size, auxiliary=True)
    seen = {}
    network.auxiliary.register_forward_pre_hook(lambda _, args: seen.update(map=args[0]))
    network.auxiliary.first.register_forward_pre_hook(lambda _, args: seen.update(pooled=args[0]))
    network(torch.randn(2, 3, side, side))
    x = seen["map"].relu()
    expected = F.avg_pool2d(x, *pool) if pool else F.adaptive_avg_pool2d(x, 2)
    assert expected.shape[-2:] == (2, 2)
    torch.testing.assert_close(seen["pooled"], expected)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    x = torch.rand(4000, 2, 1, 1) + 0.5
    y = drop(x, 0.25)
    kept = (y != 0).flatten(1)
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert abs(kept[:, 0].float().mean() - 0.75) < 0.035
    torch.testing.assert_close(y[kept[:, 0]], (x / 0.75)[kept[:, 0]])


def test_drop_path_spares_identities_and_evaluation():
    skips = "skip 0, skip 1 · skip 0, skip 1 · skip 0, skip 2 · skip 3, skip 4"
    network = SPACE.network(genotype(skips, skips), Size(channels=2, cells=3))
    normal, reduce = network.cells[0], network.cells[1]
    before, last = torch.randn(2, 8, 6, 8, 8)
    assert torch.equal(normal(before, last, 0.9), normal(before, last, 0.0))
    last = torch.randn(8, 8, 8, 8)
    assert not torch.equal(reduce(before, last, 0.9), reduce(before, last, 0.0))
    network.drop_path = 0.9
    x = torch.randn(8, 3, 8, 8)
    assert not torch.equal(network(x)[0], network(x)[0])
    network.eval()
    assert torch.equal(network(x), network(x))


def test_network_keeps_running_statistics_with_scale_and_shift():
    network = SPACE.network(ALL, Size(channels=2, cells=3), auxiliary=True)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network(torch.randn(4, 3, 32, 32))
    assert all(norm.affine and norm.num_batches_tracked == 1 for norm in norms)
    assert not any(torch.equal(n.running_mean, torch.zeros_like(n.running_mean)) for n in norms)


def test_foreign_genotypes_and_operations_are_refused():
    foreign = Genotype("nasbench201", DARTS_V2.cells)
    with pytest.raises(ValueError, match="nasbench201"):
        SPACE.network(foreign, Size())
    with pytest.raises(ValueError, match="did you mean sep_conv_3x3"):
        operation("sep_conv_3x4", 4, 1)
