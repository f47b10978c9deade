"""S1 to S4: what is on their edges, the supernets' functions, and what is derived."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
from torch import nn

from reference import batch_norm, unstack
from tutelage.searches.darts import Darts
from tutelage.searches.gdas import Gdas
from tutelage.searches.pdarts import PDarts
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.cells import DARTS, S1, S2, S3, S4, CellSpace, everywhere
from tutelage.spaces.genotype import Cell, Genotype
from tutelage.spaces.ops import operation

SPACES = {space.name: space for space in (DARTS, S1, S2, S3, S4)}
STARTS = list(accumulate((2, 3, 4, 5), initial=0))[:4]
"""The first edge of every node."""

TABLE = """
    skip dil3, max avg | skip dil5, max dil3 | skip dil5, max avg | skip sep3, max avg
    skip dil3, skip dil5 | max skip, max avg | skip sep3, max sep3 | skip sep3, skip dil3
    skip dil3, skip dil5 | skip sep3, max avg | max skip, max avg | skip dil3, skip dil5
    dil3 dil5, skip dil5 | dil3 dil5, skip dil5
"""
"""S1, an edge after another: its operations in the normal cell, and in the reduction cell."""
LONG = {
    "skip": "skip_connect",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "sep3": "sep_conv_3x3",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}


# Operations -------------------------------------------------------------------------------------


def test_s1_has_its_pairs():
    edges = [edge.split(",") for line in TABLE.strip().splitlines() for edge in line.split("|")]
    for column, group in enumerate(("normal", "reduce")):
        expected = [tuple(LONG[name] for name in edge[column].split()) for edge in edges]
        assert list(S1.operations[group]) == expected


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (S2, ("skip_connect", "sep_conv_3x3")),
        (S3, ("none", "skip_connect", "sep_conv_3x3")),
        (S4, ("noise", "sep_conv_3x3")),
    ],
)
def test_s2_to_s4_have_the_same_operations_everywhere(space, names):
    assert dict(space.operations) == {"normal": (names,) * 14, "reduce": (names,) * 14}
    assert dict(space.choices) == {"normal": (14, len(names)), "reduce": (14, len(names))}


def test_narrowing_twice_keeps_columns_of_what_is_left():
    once = DARTS.narrowed(dict.fromkeys(("normal", "reduce"), [[1, 3, 4, 7]] * 14))
    twice = once.narrowed({"normal": [[1, 2]] * 14, "reduce": [[0, 3]] * 14})
    assert set(twice.operations["normal"]) == {("skip_connect", "sep_conv_3x3")}
    assert set(twice.operations["reduce"]) == {("max_pool_3x3", "dil_conv_5x5")}
    assert once.varied(partial=2).operations == once.operations
    assert (
        twice.varied(partial=2).narrowed(dict.fromkeys(("normal", "reduce"), [[0]] * 14)).variant
        == DARTS.varied(partial=2).variant
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_noise_is_standard_normal_and_new_every_time(stride):
    module, x = operation("noise", 8, stride), 100 * torch.ones(64, 8, 15, 15)
    first, second = module(x), module(x)
    side = 15 if stride == 1 else 8
    assert first.shape == (64, 8, side, side)
    assert not torch.equal(first, second)
    error = 1 / math.sqrt(first.numel())
    assert abs(first.mean()) < 5 * error
    assert abs(first.std() - 1) < 5 * error
    # the supernet draws for every edge apart
    net = S4.supernet(Size(channels=2, cells=3))
    weights = torch.tensor([[1.0, 0.0]]).expand(14, 2)
    arch = ArchWeights({"normal": weights, "reduce": weights}).without_zeros()
    seen = []
    for cell in net.cells:
        cell.nodes[0].register_forward_hook(lambda _, args, y: seen.append(y))
    net(torch.randn(64, 3, 16, 16), arch)
    for y in seen:  # a sum of two independent samples
        assert abs(y.var() - 2) < 5 * 2 * math.sqrt(2 / y.numel())


# The supernets' functions -----------------------------------------------------------------------


def cells_of_one(space: CellSpace, group: str, index: int, column: int) -> Cell:
    """Make a cell of the same column's operations, on two edges of every node."""
    edges = space.operations[group]
    nodes = []
    for node, start in enumerate(STARTS):
        count = node + 2
        pair = sorted({(2 * index) % count, (2 * index + 1) % count})
        nodes.append(tuple((edges[start + source][column], source) for source in pair))
    return Cell(tuple(nodes), concat=(2, 3, 4, 5))


def cases() -> list:
    """Genotypes that have every operation but none on every edge between them."""
    found = []
    for name in ("s1", "s2", "s3", "s4"):
        space = SPACES[name]
        for column, operation_name in enumerate(space.operations["normal"][0]):
            if operation_name != "none":
                found += [
                    pytest.param(space, index, column, id=f"{name}-{column}-{index}")
                    for index in range(3)
                ]
    return found


def columns_of(space: CellSpace, genotype: Genotype) -> dict[str, list[list[int]]]:
    """List the columns that the genotype keeps, for every edge."""
    columns = {group: [[] for _ in edges] for group, edges in space.operations.items()}
    for group, cell in genotype.cells.items():
        for start, node in zip(STARTS, cell.nodes, strict=True):
            for name, source in node:
                edge = start + source
                columns[group][edge].append(space.operations[group][edge].index(name))
    return columns


def copy_weights(supernet: nn.Module, network: nn.Module, genotype: Genotype, columns) -> None:
    """Give a network the weights of its operations in the supernet; BatchNorms stay at 1 and 0.

    The supernet normalises after its pools and the network does not: this appends that.
    """
    copied = {}
    for name, p in unstack(supernet, dict(supernet.named_parameters())).items():
        cell, edges, place = name.partition(".edges.")
        if not edges:
            copied[name.replace("stem.", "stem.0.")] = p
            continue
        group = supernet.plan[int(cell.split(".")[1])].group
        edge, column, rest = place.split(".", 2)
        if int(column) in columns[group][int(edge)]:
            node = max(index for index, start in enumerate(STARTS) if start <= int(edge))
            sources = [source for _, source in genotype.cells[group].nodes[node]]
            position = sources.index(int(edge) - STARTS[node])
            copied[f"{cell}.nodes.{node}.operations.{position}.{rest}"] = p
    for body, place in zip(network.cells, supernet.plan, strict=True):
        for module, node in zip(body.nodes, genotype.cells[place.group].nodes, strict=True):
            for position, (name, _) in enumerate(node):
                if "pool" in name:
                    pooled = module.operations[position]
                    module.operations[position] = nn.Sequential(pooled, batch_norm(1))
    missing, unexpected = network.load_state_dict(copied, strict=False)
    norms = {name for name, each in network.named_modules() if isinstance(each, nn.BatchNorm2d)}
    assert not unexpected
    assert {name.rpartition(".")[0] for name in missing} <= norms


def test_the_cases_have_every_operation_on_every_edge():
    for name in ("s1", "s2", "s3", "s4"):
        space, seen = SPACES[name], set()
        for case in cases():
            if case.values[0] is space:
                _, index, column = case.values
                for group in space.operations:
                    nodes = cells_of_one(space, group, index, column).nodes
                    for start, node in zip(STARTS, nodes, strict=True):
                        seen |= {(group, start + source, each) for each, source in node}
        assert seen == {
            (group, edge, each)
            for group, edges in space.operations.items()
            for edge, names in enumerate(edges)
            for each in names
            if each != "none"
        }


@pytest.mark.parametrize(("space", "index", "column"), cases())
def test_one_hot_mix_equals_network_with_copied_weights(space, index, column, monkeypatch):
    # noise by its order alone, not by how a tensor lies in memory
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.randn(x.shape, dtype=x.dtype))
    cells = {group: cells_of_one(space, group, index, column) for group in space.operations}
    genotype, size = Genotype(space.name, cells), Size(channels=4, cells=3, classes=5)
    columns = columns_of(space, genotype)
    supernet = space.supernet(size).double()
    network = space.network(genotype, size).double().train()  # BatchNorms use their batch
    copy_weights(supernet, network, genotype, columns)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    operations = {}
    for group, (edges, ops) in space.choices.items():
        rows = [[float(op in columns[group][edge]) for op in range(ops)] for edge in range(edges)]
        operations[group] = torch.tensor(rows, dtype=torch.float64)
    arch = ArchWeights(operations)
    assert arch.without_zeros().chosen == columns
    # where noise is drawn for edges of no weight too, the draws of the others are not the same
    for given in [arch.without_zeros()] + [arch] * (space.name != "s4"):
        torch.manual_seed(3)
        logits, features = supernet(x, given)
        torch.manual_seed(3)
        theirs, auxiliary = network(x)
        assert auxiliary is None
        torch.testing.assert_close(logits, theirs, rtol=1e-10, atol=1e-10)
        torch.manual_seed(3)
        torch.testing.assert_close(features, network.features(x), rtol=1e-10, atol=1e-10)


# Reading off ------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", [Darts(), Gdas(), PDarts()])
def test_none_is_never_derived_in_s3(search):
    """None wins everywhere; edges are ranked by the best of the others, by hand."""
    space = S3
    alphas = torch.zeros(14, 3, dtype=torch.float64)
    alphas[:, 0] = 5.0
    # (skip, sep3) minus none's 5; the last node has a tie of its edges 0 and 4
    alphas[:, 1:] = torch.tensor(
        [
            [1.0, 0.0], [0.0, 2.0],
            [3.0, 0.0], [1.0, 0.0], [0.0, 2.0],
            [0.0, 1.0], [0.0, 1.5], [0.5, 0.0], [1.2, 0.0],
            [2.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [2.0, 0.0],
        ]
    )  # fmt: skip
    expected = (
        (("sep_conv_3x3", 1), ("skip_connect", 0)),
        (("skip_connect", 0), ("sep_conv_3x3", 2)),
        (("sep_conv_3x3", 1), ("skip_connect", 3)),
        (("skip_connect", 0), ("skip_connect", 4)),
    )
    found = search.derive(space, {"normal": alphas, "reduce": alphas})
    assert found.space == "s3"
    assert found.cells["reduce"].nodes == expected
    names = [name for node in found.cells["normal"].nodes for name, _ in node]
    assert "none" not in names


def test_a_strong_none_weakens_its_edge_as_in_darts():
    """Weights are softmaxes over all operations, none's too: of equal skips it hides one."""
    alphas = torch.zeros(14, 3)
    alphas[2:5, 1] = 1.0
    alphas[3, 0] = 4.0
    found = Darts().derive(S3, {"normal": alphas, "reduce": alphas})
    assert found.cells["normal"].nodes[1] == (("skip_connect", 0), ("skip_connect", 2))


def test_noise_may_be_derived_in_s4():
    alphas = torch.zeros(14, 2)
    alphas[:, 1] = 0.1  # sep3 everywhere, but on edges 1 and 13
    alphas[[1, 13], 0] = 1.0
    found = Darts().derive(S4, {"normal": alphas, "reduce": -alphas})
    assert found.cells["normal"].nodes[0] == (("noise", 1), ("sep_conv_3x3", 0))
    assert found.cells["normal"].nodes[3] == (("noise", 4), ("sep_conv_3x3", 0))
    names = {name for node in found.cells["reduce"].nodes for name, _ in node}
    assert names == {"noise", "sep_conv_3x3"}
    assert Genotype.from_json(found.to_json()) == found
    network = S4.network(found, Size(channels=4, cells=3, classes=5)).eval()
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(network(x), network(x))


def test_s1_is_derived_by_the_names_of_each_edge():
    alphas = torch.zeros(14, 2)
    alphas[:, 1] = torch.linspace(0.1, 1.4, 14)  # the second operation, later edges stronger
    found = Darts().derive(S1, {"normal": alphas, "reduce": alphas})
    assert found.cells["normal"].nodes == (
        (("dil_conv_5x5", 1), ("dil_conv_3x3", 0)),
        (("dil_conv_3x3", 2), ("sep_conv_3x3", 1)),
        (("dil_conv_3x3", 3), ("sep_conv_3x3", 2)),
        (("dil_conv_5x5", 4), ("dil_conv_5x5", 3)),
    )
    assert found.cells["reduce"].nodes == (
        (("dil_conv_3x3", 1), ("avg_pool_3x3", 0)),
        (("dil_conv_5x5", 2), ("avg_pool_3x3", 1)),
        (("dil_conv_5x5", 3), ("dil_conv_3x3", 2)),
        (("dil_conv_5x5", 4), ("dil_conv_5x5", 3)),
    )


def test_edge_weights_multiply_when_reading_off():
    operations = torch.full((14, 2), 0.4)
    operations[:, 1] = 0.6
    edges = torch.tensor([0.1, 0.9, 0.2, 0.5, 0.3, *[0.25] * 4, *[0.2] * 5])
    edges[12] = 0.21
    arch = ArchWeights(
        dict.fromkeys(("normal", "reduce"), operations),
        edges=dict.fromkeys(("normal", "reduce"), edges),
    )
    sources = [[source for _, source in node] for node in S2.genotype(arch).cells["normal"].nodes]
    assert sources == [[1, 0], [1, 2], [0, 1], [3, 0]]
    torch.testing.assert_close(arch.products()["normal"][1], torch.tensor([0.36, 0.54]))


def test_an_operation_that_no_cell_can_run_is_refused():
    mine = CellSpace("mine", everywhere("skip_connect", "conv_7x1"))
    with pytest.raises(ValueError, match="unknown operation 'conv_7x1': did you mean nor_conv_1x1"):
        mine.supernet(Size(4, 3))
