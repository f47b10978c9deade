"""What choices cost, what is expected of architecture weights, and budgets of the final network."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from test_contracts import CHAINS, KINDS, TRIPLES, batch, join, rates_of, refusal
from tutelage.multilevel import hypergradient
from tutelage.parts import PARTS, make_part
from tutelage.run.cost.budget import Budget
from tutelage.run.cost.count import describe, flops, params
from tutelage.run.cost.limits import Limits
from tutelage.run.cost.table import Cost, costs_of
from tutelage.run.supernet.penalty import with_penalty
from tutelage.searches.needs import fit
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.published import PUBLISHED
from tutelage.trees import leaves
from tutelage.virtual import Exact

TOY = Size(channels=4, cells=4, classes=3, image_channels=1)
PAIRS = [
    pytest.param(
        search,
        space,
        id=f"{search}-{space}",
        marks=pytest.mark.slow if space in CHAINS and space != "nasbench-macro" else (),
    )
    for method, search, space in TRIPLES
    if method == "single"
    and KINDS[search] != "one-shot"  # evolution keeps the limits there
    and refusal(method, search, space) is None
]


def space_named(name):
    return make_part("space", {"name": name})


def joined(search, space):
    """A search, and a space that fits it."""
    relaxation = make_part("search", {"name": search})
    return relaxation, fit(relaxation, space_named(space))


def toy(space):
    """A small size; chains have as many layers as they say."""
    return replace(TOY, cells=space.sizes.cells) if space.name in CHAINS else TOY


def drawn(space, seed, scale=1.0):
    """A random architecture of a space."""
    torch.manual_seed(seed)
    return space.genotype(ArchWeights({g: scale * torch.rand(s) for g, s in space.choices.items()}))


def budget(search, space, limits, weight=1.0, size=TOY, image=(8, 8)):
    return Budget(search, costs_of(space, size, image), Limits(*limits), weight)


def bounds(space, costs):
    """Cost of the architectures with the fewest and with the most weights."""
    table = {g: costs.table(space).operations[g][..., 0] for g in space.choices}
    return [
        costs.of(space.genotype(ArchWeights({g: sign * x for g, x in table.items()})))
        for sign in (-1, 1)
    ]


# Costs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "image"),
    [
        ("darts", Size(4, 5, 7, 3), (9, 9)),
        ("darts", Size(4, 3, 3, 1), (8, 8)),
        ("darts", Size(6, 4, 10, 3, "imagenet"), (40, 40)),
        ("s1", Size(4, 3, 3, 1), (8, 8)),
        ("s2", Size(4, 3, 3, 1), (8, 8)),
        ("s3", Size(4, 3, 3, 1), (8, 8)),
        ("s4", Size(4, 3, 3, 1), (8, 8)),
        ("nasbench201", Size(4, 2, 5, 3), (9, 9)),
    ],
)
def test_prices_add_up_to_what_describe_counts(name, size, image):
    space = space_named(name)
    costs = costs_of(space, size, image)
    for seed in range(4):
        genotype = drawn(space, seed)
        counted = describe(genotype, size, image[0])
        assert costs.of(genotype) == Cost(counted.params, counted.flops)


def test_prices_of_images_that_are_no_squares():
    space, size, image = space_named("darts"), Size(4, 4, 3, 1), (7, 12)
    genotype = drawn(space, 0)
    with torch.device("meta"):
        network = space.network(genotype, size).eval()
    expected = Cost(params(network), flops(network, (1, *image)))
    assert costs_of(space, size, image).of(genotype) == expected


def test_two_operations_on_one_edge_cost_both():
    nodes_of = PUBLISHED["DARTS_V2"].cells["normal"].nodes
    twice = (("sep_conv_3x3", 0), ("dil_conv_5x5", 0))
    cell = replace(PUBLISHED["DARTS_V2"].cells["normal"], nodes=(twice, *nodes_of[1:]))
    genotype = Genotype("darts", {**PUBLISHED["DARTS_V2"].cells, "normal": cell})
    counted = describe(genotype, TOY, 8)
    costs = costs_of(space_named("darts"), TOY, (8, 8))
    assert costs.of(genotype) == Cost(counted.params, counted.flops)


def test_the_price_of_a_separable_convolution_by_hand():
    """3x3 depthwise, 1x1, BatchNorm, twice; four cells of which 1 and 2 reduce: 4, 8, 16, 16."""
    costs = costs_of(space_named("darts"), TOY, (8, 8))
    sep = costs.operations["normal"][0]["sep_conv_3x3"]
    normal = [(4, 8), (16, 2)]  # channels and side of the normal cells
    assert sep.params == sum(2 * (9 * c + c * c + 2 * c) for c, _ in normal)
    assert sep.flops == sum(2 * (9 * c + c * c) * side**2 for c, side in normal)
    assert costs.operations["normal"][0]["max_pool_3x3"] == Cost(0, 0)


# What is expected of architecture weights
# ----------------------------------------------------------------------


def test_the_expected_cost_is_the_mean_over_architectures():
    """Node by node: every pair of edges alike, every operation but `none` by its architecture
    weights."""
    space = space_named("s3")
    costs = costs_of(space, TOY, (8, 8))
    torch.manual_seed(0)
    arch = ArchWeights({g: torch.rand(s).double().softmax(-1) for g, s in space.choices.items()})
    expected = torch.tensor(costs.fixed, dtype=torch.float64)
    for group, _, rows in ((g, k, r) for g, k, r in entering(space)):
        for one in rows:
            for other in rows:
                if one < other:
                    pairs = math.comb(len(rows), 2)
                    for edge in (one, other):
                        expected += mean_cost(space, costs, arch, group, edge) / pairs
    table = costs.table(space)
    torch.testing.assert_close(table.expected(arch), expected, rtol=1e-12, atol=0)


def entering(space):
    for group in space.choices:
        start = 0
        for node, count in enumerate(space.nodes):
            yield group, node, range(start, start + count)
            start += count


def mean_cost(space, costs, arch, group, edge):
    total, share = torch.zeros(3, dtype=torch.float64), 0.0
    for column, name in enumerate(space.operations[group][edge]):
        if name != "none":
            weight = float(arch.operations[group][edge, column])
            share += weight
            total += weight * torch.tensor(costs.operations[group][edge][name]).double()
    return total / share


def test_a_mix_of_one_operation_an_edge_costs_what_its_architecture_costs():
    space = space_named("nasbench201")
    costs = costs_of(space, TOY, (8, 8))
    torch.manual_seed(1)
    hot = {g: torch.eye(5)[torch.randint(5, (6,))] for g in space.choices}
    assert costs.table(space).expected(ArchWeights(hot)).tolist() == list(
        costs.of(space.genotype(ArchWeights(hot)))
    )


def test_weights_of_edges_say_which_are_kept():
    """With all of a node's weight shared by two edges, these are what the node costs."""
    space = space_named("s2")
    costs = costs_of(space, TOY, (8, 8))
    operations, edges = {}, {}
    for group, shape in space.choices.items():
        operations[group] = torch.zeros(shape)
        operations[group][:, 1] = 1.0
        edges[group] = torch.zeros(shape[0])
    for group, _, rows in entering(space):
        edges[group][rows[-2:]] = 0.5
    arch = ArchWeights(operations, edges=edges)
    assert costs.table(space).expected(arch).tolist() == list(costs.of(space.genotype(arch)))


@pytest.mark.parametrize(("search", "space"), PAIRS)
def test_the_penalty_has_the_gradient_of_finite_differences(search, space):
    relaxation, fitted = joined(search, space)
    torch.manual_seed(0)
    alphas = {
        name: [x.double() for x in leaf] if isinstance(leaf, list) else leaf.double()
        for name, leaf in relaxation.alphas(fitted).items()
    }
    size = toy(fitted)
    low, _ = bounds(fitted, costs_of(fitted, size, (8, 8)))
    limits = (low.params * 1.01, low.flops * 1.02)
    asked = budget(relaxation, fitted, limits, 0.7, size)
    (penalty,) = asked.penalties([fitted], 1, torch.device("cpu"))
    variables = [x.requires_grad_() for x in leaves(alphas)]
    value = penalty(alphas)
    assert value.dtype == torch.float64 and float(value.detach()) > 0
    gradient = torch.autograd.grad(value, variables, materialize_grads=True)
    torch.manual_seed(1)
    direction = [torch.randn_like(x) for x in variables]

    def along(step):
        with torch.no_grad():
            for x, d in zip(variables, direction, strict=True):
                x.add_(step * d)
            shifted = float(penalty(alphas))
            for x, d in zip(variables, direction, strict=True):
                x.sub_(step * d)
        return shifted

    slope = (along(1e-6) - along(-1e-6)) / 2e-6
    exact = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert exact == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert exact != 0


@pytest.mark.parametrize(
    "method", [each for each in PARTS["method"] if refusal(each, "pcdarts", "s3") is None]
)
def test_a_budget_adds_its_gradient_for_every_learner(method):
    """Of the hypergradient in all learners' alphas, it changes what its own gradient says."""
    problem, search, space = join(method, "pcdarts", "s3")
    asked = budget(search, space, (1.0, 1.0))
    penalties = asked.penalties([space], len(problem.learners), torch.device("cpu"))
    images = batch()

    def found(of):
        torch.manual_seed(3)
        return hypergradient(of.levels, of.variables, images, rates_of(of.levels), Exact())

    plain, limited = found(problem), found(with_penalty(problem, penalties))
    top = problem.levels[-1].variable
    variable = problem.variables[top]
    alphas = [x.requires_grad_() for x in leaves(variable)]
    total = 0
    for learner, penalty in zip(problem.learners, penalties, strict=True):
        own = problem.variables
        for key in learner.alphas:
            own = own[key]
        total = total + penalty(own)
    expected = torch.autograd.grad(total, alphas, allow_unused=True)
    for a, b, extra in zip(leaves(limited.gradient), leaves(plain.gradient), expected, strict=True):
        if extra is not None:
            torch.testing.assert_close(a - b, extra, rtol=1e-6, atol=1e-9)
    assert any(extra is not None and bool(extra.any()) for extra in expected)
