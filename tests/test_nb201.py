"""NAS-Bench-201's networks: their cost in the benchmark's table, the supernet's functions."""

from __future__ import annotations

import csv
import itertools
import lzma
import os
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from reference import unstack
from tutelage.run.cost.count import flops, params
from tutelage.searches.darts import Darts
from tutelage.searches.gdas import Gdas
from tutelage.searches.random import Random
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.cells import DARTS
from tutelage.spaces.genotype import NASBENCH201_OPERATIONS as NAMES
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.nb201 import NASBENCH201

SOURCES = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
"""The node that every edge enters, and the state that it reads."""


def genotype(columns) -> Genotype:
    """Make the cell with these operations on its six edges."""
    names = [NAMES[column] for column in columns]
    return Genotype.from_nasbench201("|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*names))


# Cost -------------------------------------------------------------------------------------------

CLASSIFIER_BIASES = 10
"""The benchmark counts these as FLOPs, one a class; we do not."""


def cost(columns) -> tuple[int, int]:
    """Parameters and FLOPs of the cell's network, built; 16 channels, N = 5, CIFAR-10."""
    with torch.device("meta"):
        network = NASBENCH201.network(genotype(columns), Size(16, 5)).eval()
    return params(network), flops(network, (3, 32, 32)) + CLASSIFIER_BIASES


def table() -> dict[str, tuple[int, int]]:
    """The same by the benchmark, of all cells."""
    if "TUTELAGE_TEST_TABLES" not in os.environ:
        pytest.skip("TUTELAGE_TEST_TABLES names no folder with nb201_core.csv.xz")
    path = Path(os.environ["TUTELAGE_TEST_TABLES"]) / "nb201_core.csv.xz"
    with lzma.open(path, "rt", newline="") as file:
        return {
            row["arch"]: tuple(
                round(1e6 * float(row[key])) for key in ("params_M_arch", "flops_M_arch")
            )
            for row in csv.DictReader(file)
        }


def test_costs_by_hand():
    """Stem, two halving blocks, head; then a 3x3 convolution on the first edge of 5 cells each."""
    stem, head = 27 * 16 + 2 * 16, 2 * 64 + 64 * 10 + 10
    halves = sum((18 + 36 + 2) * c * c + 8 * c for c in (16, 32))
    dense = sum(5 * (9 * c * c + 2 * c) for c in (16, 32, 64))
    empty = cost([0] * 6)
    assert empty[0] == stem + halves + head == 73_306
    assert cost([3, 0, 0, 0, 0, 0])[0] == empty[0] + dense
    macs = 32 * 32 * 27 * 16 + 64 * 10 + 10
    macs += sum(side**2 * (18 + 36 + 2) * c * c for c, side in ((16, 16), (32, 8)))
    assert empty[1] == macs == 7_783_050
    more = sum(5 * 9 * c * c * side**2 for c, side in ((16, 32), (32, 16), (64, 8)))
    assert cost([0, 0, 0, 0, 0, 3])[1] == macs + more


def test_some_networks_cost_what_the_benchmark_says():
    costs = table()
    draws = random.Random(1)
    for _ in range(6):
        columns = draws.choices(range(5), k=6)
        assert cost(columns) == costs[genotype(columns).to_nasbench201()]


@pytest.mark.slow
def test_all_networks_cost_what_the_benchmark_says():
    """Cost is a sum over edges, so that 25 networks give that of all 15,625.

    Each operation is measured alone on each edge, by building its network. That these add up is
    shown on 60 random networks, built as well; the sums are then compared with the whole table.
    """
    costs = table()
    empty = cost([0] * 6)
    alone = {
        (edge, column): cost([column if each == edge else 0 for each in range(6)])
        for edge, column in itertools.product(range(6), range(1, 5))
    } | {(edge, 0): empty for edge in range(6)}

    def added(columns) -> tuple[int, ...]:
        parts = [alone[pair] for pair in enumerate(columns)]
        return tuple(
            base + sum(part[kind] - base for part in parts) for kind, base in enumerate(empty)
        )

    draws = random.Random(0)
    for _ in range(60):
        columns = draws.choices(range(5), k=6)
        assert cost(columns) == added(columns)
    ours = {
        genotype(columns).to_nasbench201(): added(columns)
        for columns in itertools.product(range(5), repeat=6)
    }
    assert len(ours) == 15_625
    assert ours == costs


# The supernet's functions -----------------------------------------------------------------------


def one_hot(columns) -> ArchWeights:
    return ArchWeights({"cell": torch.eye(5, dtype=torch.float64)[list(columns)]})


def copy_weights(supernet: nn.Module, network: nn.Module, columns) -> None:
    """Give a network the weights of its operations in the supernet; BatchNorms stay at 1 and 0."""
    copied = {}
    for name, p in unstack(supernet, dict(supernet.named_parameters())).items():
        cell, edges, place = name.partition(".edges.")
        if not edges:
            copied[f"skeleton.{name}"] = p
            continue
        edge, column, rest = place.split(".", 2)
        if int(column) == columns[int(edge)]:
            node, source = SOURCES[int(edge)]
            copied[f"skeleton.{cell}.operations.{source}-{node}.{rest}"] = p
    missing, unexpected = network.load_state_dict(copied, strict=False)
    norms = {name for name, each in network.named_modules() if isinstance(each, nn.BatchNorm2d)}
    assert not unexpected
    assert {name.rpartition(".")[0] for name in missing} <= norms


@pytest.mark.parametrize("shift", range(5))
@pytest.mark.parametrize("skipping", [True, False], ids=["chosen", "all"])
def test_one_hot_mix_equals_network_with_copied_weights(shift, skipping):
    """Five cells have every operation on every edge between them."""
    columns = [(edge + shift) % 5 for edge in range(6)]
    size = Size(channels=4, cells=2, classes=5)
    supernet = NASBENCH201.supernet(size).double()
    network = NASBENCH201.network(genotype(columns), size).double().train()  # batch statistics
    copy_weights(supernet, network, columns)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    arch = one_hot(columns)
    logits, _ = supernet(x, arch.without_zeros() if skipping else arch)
    theirs, auxiliary = network(x)
    assert auxiliary is None
    torch.testing.assert_close(logits, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "columns", [(0,) * 6, (1,) * 6, (3, 0, 0, 0, 0, 0), (2, 4, 0, 1, 3, 4), (4, 4, 4, 0, 0, 0)]
)
def test_cells_that_lead_nowhere_and_others(columns):
    size = Size(channels=4, cells=1, classes=5)
    supernet = NASBENCH201.supernet(size).double()
    network = NASBENCH201.network(genotype(columns), size).double().train()
    copy_weights(supernet, network, columns)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for arch in (one_hot(columns), one_hot(columns).without_zeros()):
        torch.testing.assert_close(supernet(x, arch)[0], network(x)[0], rtol=1e-10, atol=1e-10)


def test_plain_supernet_has_no_state_but_weights():
    net = NASBENCH201.supernet(Size(channels=4, cells=1))
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}


def test_images_of_odd_sides():
    size = Size(channels=4, cells=1, classes=5, image_channels=1)
    x = torch.randn(2, 1, 7, 9)
    logits, features = NASBENCH201.supernet(size)(x, ArchWeights({"cell": torch.rand(6, 5)}))
    assert logits.shape == (2, 5) and features.shape == (2, 16)
    assert NASBENCH201.network(genotype([3] * 6), size).eval()(x).shape == (2, 5)


def test_drop_path_spares_identities_and_evaluation():
    size, x = Size(channels=4, cells=1, classes=5), torch.randn(8, 3, 8, 8)
    skips = NASBENCH201.network(genotype([1] * 6), size, drop_path=0.9)
    assert torch.equal(skips(x)[0], skips(x)[0])
    network = NASBENCH201.network(genotype([1, 1, 1, 1, 1, 4]), size, drop_path=0.9)
    cell, states = network.skeleton.cells[0], torch.randn(400, 4, 8, 8)
    cell_of_skips = skips.skeleton.cells[0]
    pooled = cell.operations["2-3"](2 * states)  # nodes 1 and 2 are x and 2 x
    gained = cell(states, 0.75) - (cell_of_skips(states, 0.75) - 2 * states)
    kept = (gained.abs() > 1e-3).flatten(1).any(1)
    assert 60 < kept.sum() < 140  # a quarter of 400, within five standard deviations
    torch.testing.assert_close(gained[kept], 4 * pooled[kept], rtol=1e-4, atol=1e-4)
    assert not torch.equal(network(x)[0], network(x)[0])
    network.eval()
    assert torch.equal(network(x), network(x))


# Reading off ------------------------------------------------------------------------------------


def test_every_edge_stands_for_its_strongest_operation_none_among_them():
    # columns: none, skip, 1x1, 3x3, average
    alphas = torch.tensor(
        [
            [0.9, 0.1, 0.2, 0.3, 0.4],
            [0.1, 0.5, 0.2, 0.3, 0.4],
            [0.0, -0.1, 0.2, 0.1, 0.1],
            [-3.0, -3.0, -3.0, -1.0, -2.0],
            [0.2, 0.1, 0.1, 0.1, 0.3],
            [1.0, 1.0, 1.0, 1.0, 0.9],  # of equals the first
        ]
    )
    expected = "|none~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|avg_pool_3x3~1|none~2|"
    for search in (Darts(), Gdas(), Random()):
        assert search.derive(NASBENCH201, {"cell": alphas}).to_nasbench201() == expected


def test_narrowed_edges_are_derived_by_their_own_names():
    space = NASBENCH201.narrowed({"cell": [[0, 3], [1, 4], [2, 3], [0, 1], [3, 4], [0, 4]]})
    arch = ArchWeights({"cell": torch.tensor([[0.6, 0.4], [0.4, 0.6]] * 3)})
    cell = space.genotype(arch).cells["cell"]
    assert cell.nodes == (
        (("none", 0),),
        (("avg_pool_3x3", 0), ("nor_conv_1x1", 1)),
        (("skip_connect", 0), ("nor_conv_3x3", 1), ("avg_pool_3x3", 2)),
    )


def test_random_search_reaches_every_operation_on_every_edge_alike():
    torch.manual_seed(0)
    draws = [Random().derive(NASBENCH201, Random().alphas(NASBENCH201)) for _ in range(2000)]
    for edge, (node, source) in enumerate(SOURCES):
        names = [draw.cells["cell"].nodes[node - 1][source][0] for draw in draws]
        # five standard deviations of a binomial around 2000 / 5
        assert all(abs(names.count(name) - 400) < 90 for name in NAMES), edge


# Refusals ---------------------------------------------------------------------------------------


def test_what_the_space_does_not_have_is_refused():
    with pytest.raises(ValueError, match="networks of nasbench201 have only 'cifar'"):
        NASBENCH201.supernet(Size(channels=4, cells=1, stem="imagenet"))
    with pytest.raises(ValueError, match="give --auxiliary 0"):
        NASBENCH201.network(genotype([1] * 6), Size(4, 1), auxiliary=True)
    with pytest.raises(ValueError, match="a genotype of the space 'nasbench201'"):
        DARTS.network(genotype([1] * 6), Size(4, 3))
