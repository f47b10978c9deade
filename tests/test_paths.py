"""Architectures as encoding: every tuple is one, uniform encoding are uniform, and a path runs
alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import product
from math import prod, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from chains import SMALL, own_size
from reference import unstack
from test_cells import Calls
from tutelage.spaces import convolution, ops
from tutelage.spaces.base import Size, nodes
from tutelage.spaces.cells import DARTS, S1, S3
from tutelage.spaces.chain import ENNAS_S2, NASBENCH_MACRO
from tutelage.spaces.genotype import NASBENCH201_OPERATIONS
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.paths import bounds, genotype, kept, path, sample

CPU = torch.device("cpu")
SOME = [NASBENCH_MACRO, ENNAS_S2, NASBENCH201, DARTS, S1, S3]


def random_genes(space, seed):
    draws = random.Random(seed)
    return tuple(draws.randrange(bound) for bound in bounds(space))


def named(found):
    """Group, edge and operation of everything that a genotype keeps, as its nodes list it."""
    return {(group, edge, name) for group, _, pairs in nodes(found) for edge, name in pairs}


def within_five_deviations(count, draws, probability):
    return abs(count - draws * probability) < 5 * sqrt(draws * probability * (1 - probability))


# Genes and architectures ------------------------------------------------------------------------


def test_bounds_by_hand():
    pairs = (3, 7, 7, 6, 7, 7, 10, 7, 7)  # of the edges of the second node, third and fourth
    assert bounds(DARTS) == (7, 7, *pairs) * 2
    assert bounds(NASBENCH201) == (5,) * 6
    assert bounds(NASBENCH_MACRO) == (3,) * 8
    assert bounds(ENNAS_S2) == (14,) * 21
    # a chain whose layers are left with one, two and three blocks of their own
    assert bounds(SMALL.narrowed({"chain": [[0, 1], [1, 2], [2, 3]]})) == (2, 2, 2)
    # 3 operations an edge of S3, of which `none` cannot be kept, also where a node keeps all edges
    assert bounds(S3)[:5] == (2, 2, 3, 2, 2)


@pytest.mark.parametrize("space", SOME, ids=lambda space: space.name)
def test_an_architecture_keeps_exactly_what_its_genes_name(space):
    for seed in range(60):
        encoding = random_genes(space, seed)
        found = genotype(space, encoding)
        entries = list(kept(space, encoding))
        assert named(found) == set(entries)
        assert len(set(entries)) == sum(len(pairs) for _, _, pairs in nodes(found))
        for group, edge, name in entries:
            assert name in space.operations[group][edge]


def test_genes_by_hand():
    assert list(kept(NASBENCH_MACRO, (0, 1, 2, 0, 1, 2, 0, 1)))[1:3] == [
        ("chain", 1, "mbconv3_3x3"),
        ("chain", 2, "mbconv6_5x5"),
    ]
    text = genotype(NASBENCH201, (3, 0, 1, 2, 4, 3)).to_nasbench201()
    assert text == (
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    )
    # second node: its third pair of edges, states 1 and 2; operations sep 3x3 and max pool
    encoding = (2, 2) + (2, 3, 0) + (0, 0, 0) * 2
    cell = genotype(DARTS, encoding * 2).cells["reduce"]
    assert set(cell.nodes[1]) == {("sep_conv_3x3", 1), ("max_pool_3x3", 2)}
    assert set(cell.nodes[0]) == {("skip_connect", 0), ("skip_connect", 1)}


@pytest.mark.parametrize(
    ("space", "every"),
    [(NASBENCH_MACRO, 6561), pytest.param(NASBENCH201, 15_625, marks=pytest.mark.slow)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_all_genes_are_different_architectures(space, every):
    assert prod(bounds(space)) == every
    found = {
        str(genotype(space, encoding).to_dict()["cells"])
        for encoding in product(*map(range, bounds(space)))
    }
    assert len(found) == every


def test_all_genes_of_a_node_of_darts_are_different_architectures():
    """Of the node that keeps all its edges, and of one that chooses among three pairs."""
    rest = (0,) * (len(bounds(DARTS)) - 5)
    for free in ((7, 7, 1, 1, 1), (1, 1, 3, 7, 7)):
        found = {
            str(sorted(named(genotype(DARTS, (*encoding, *rest)))))
            for encoding in product(*map(range, free))
        }
        assert len(found) == prod(free)


def test_draws_are_uniform():
    draws = 3000
    found = [sample(NASBENCH_MACRO) for _ in range(draws)]
    for place in range(8):
        for value, count in Counter(encoding[place] for encoding in found).items():
            assert within_five_deviations(count, draws, 1 / 3), (place, value)
    pairs = Counter((encoding[2], encoding[3]) for encoding in found)
    assert len(pairs) == 9
    assert all(within_five_deviations(count, draws, 1 / 9) for count in pairs.values())


def test_draws_of_cells_are_uniform_over_edges_and_operations():
    draws = 1500
    found = [genotype(DARTS, sample(DARTS)).cells["normal"].nodes for _ in range(draws)]
    first = Counter(name for node, *_ in found for name, _ in node)
    assert len(first) == 7  # `none` is none of them
    assert all(within_five_deviations(count, 2 * draws, 1 / 7) for count in first.values())
    sources = Counter(frozenset(state for _, state in last) for *_, last in found)
    assert len(sources) == 10
    assert all(within_five_deviations(count, draws, 1 / 10) for count in sources.values())


def test_the_same_seed_draws_the_same():
    torch.manual_seed(3)
    first = [sample(DARTS) for _ in range(3)]
    torch.manual_seed(3)
    assert [sample(DARTS) for _ in range(3)] == first
    assert len(set(first)) == 3


# What a path runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_path_weighs_what_it_keeps_with_one_and_runs_nothing_else(dtype):
    for space in SOME:
        encoding = random_genes(space, 1)
        arch = path(space, encoding, CPU, dtype)
        entries = set(kept(space, encoding))
        for group, weights in arch.operations.items():
            assert weights.dtype == dtype
            for edge, names in enumerate(space.operations[group]):
                expected = [float((group, edge, name) in entries) for name in names]
                assert weights[edge].tolist() == expected
                columns = [column for column, weight in enumerate(expected) if weight]
                assert list(arch.chosen[group][edge]) == columns


@pytest.mark.parametrize("space", [SMALL, ENNAS_S2], ids=lambda space: space.name)
def test_a_path_of_a_chain_calls_its_blocks_once_and_no_others(space):
    supernet = space.supernet(own_size(space, 3, channels=4))
    called = []
    for layer, mixed in enumerate(supernet.layers):
        for name, each in mixed.blocks.items():
            each.register_forward_hook(lambda *_, at=(layer, name): called.append(at))
    for seed in range(4):
        encoding = random_genes(space, seed)
        called.clear()
        logits, _ = supernet(torch.randn(4, 3, 8, 8), path(space, encoding, CPU, torch.float32))
        expected = [(edge, name) for _, edge, name in kept(space, encoding)]
        assert called == expected
        gradients = torch.autograd.grad(
            F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])),
            list(supernet.parameters()),
            allow_unused=True,
        )
        names = [name for name, _ in supernet.named_parameters()]
        moved = {name for name, g in zip(names, gradients, strict=True) if g is not None}
        running = ("frame.", *(f"layers.{layer}.blocks.{name}." for layer, name in expected))
        assert moved == {name for name in names if name.startswith(running)}


@pytest.mark.parametrize("seed", range(3))
def test_a_path_of_nasbench201_costs_what_its_network_does(seed, monkeypatch):
    """In convolutions: the sums of a supernet are products of matrices, a network's additions."""
    monkeypatch.setattr(convolution, "PRODUCT", 0)
    monkeypatch.setattr(ops, "tiny", lambda x: True)  # pools stay pools
    encoding, size = random_genes(NASBENCH201, seed), Size(4, 2)
    network = NASBENCH201.network(genotype(NASBENCH201, encoding), size).eval()
    x, counts = torch.randn(1, 3, 16, 16), []
    arch = path(NASBENCH201, encoding, CPU, torch.float32)
    supernet = NASBENCH201.supernet(size)
    for run in (lambda: network(x), lambda: supernet(x, arch)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        counts.append(counter.get_flop_counts()["Global"][torch.ops.aten.convolution])
    assert counts[0] == counts[1] > 0


def test_a_path_of_darts_runs_the_convolutions_and_pools_that_it_keeps():
    """Those of a node run in one call for a kind, so operations of one kind count once a node."""
    supernet = DARTS.supernet(Size(2, 3))
    x = torch.randn(2, 3, 8, 8)
    for seed in range(6):
        encoding = random_genes(DARTS, seed)
        arch = path(DARTS, encoding, CPU, torch.float32)
        normal = {"normal": arch.chosen["normal"], "reduce": [[]] * 14}
        with Calls() as mode, torch.no_grad():
            supernet(x, replace(arch, chosen=normal))
        cell = genotype(DARTS, encoding).cells["normal"]
        for pool, call in (("max", "max_pool2d_with_indices"), ("avg", "avg_pool2d")):
            pooled = {state for node in cell.nodes for name, state in node if pool in name}
            assert mode.count[call] == len(pooled)
        kinds = [kind for node in cell.nodes for kind in {name for name, _ in node}]
        for side, stem in ((3, 1), (5, 0)):
            run = sum(count for name, count in mode.count.items() if f"conv {side}" in name)
            separable = kinds.count(f"sep_conv_{side}x{side}")  # depthwise twice
            assert run == stem + 2 * separable + kinds.count(f"dil_conv_{side}x{side}")


@pytest.mark.parametrize("space", [NASBENCH201, DARTS], ids=lambda space: space.name)
def test_the_operations_of_a_path_have_a_gradient_and_no_others(space):
    supernet = space.supernet(Size(2, 3, 3)).double()
    own = dict(supernet.named_parameters())
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    groups = {place: cell.group for place, cell in enumerate(getattr(supernet, "plan", ()))}
    for seed in range(4):
        encoding = random_genes(space, seed)
        if space is NASBENCH201:
            encoding = tuple(
                gene or 3 for gene in encoding
            )  # where nothing is `none`, all is of use
        logits, _ = supernet(x, path(space, encoding, CPU, torch.float64))
        loss = F.cross_entropy(logits, torch.tensor([0, 1, 2, 0]))
        found = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(own.items(), found, strict=True)
        }
        moved = set()
        for name, gradient in unstack(supernet, gradients).items():
            if ".edges." in name and gradient.abs().max() > 0:
                _, cell, _, edge, column, *_ = name.split(".")
                group = groups.get(int(cell), "cell")
                names = space.operations[group][int(edge)]
                moved.add((group, int(edge), names[int(column)]))
        entries = set(kept(space, encoding))
        assert moved <= entries
        assert {entry for entry in entries if "conv" in entry[2]} <= moved


def test_operations_of_nasbench201_come_in_the_benchmarks_order():
    for column, name in enumerate(NASBENCH201_OPERATIONS):
        encoding = (column,) * 6
        assert {each for _, _, each in kept(NASBENCH201, encoding)} == {name}
