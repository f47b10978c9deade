"""PC-DARTS: partial channels, the weights of edges, and what both mean when deriving."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from test_search import TINY, work_of
from tutelage.clock import Clock
from tutelage.methods.single import Single
from tutelage.run.supernet.setup import stretches
from tutelage.searches.darts import Darts
from tutelage.searches.needs import fit
from tutelage.searches.pcdarts import BETAS, PcDarts
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.cells import DARTS, S2, S3
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.trees import leaves

GROUPS = ("normal", "reduce")
ENTERING = [2] * 2 + [3] * 3 + [4] * 4 + [5] * 5
"""For every edge of a cell, how many edges enter the node that it enters."""


def drawn(search, space):
    """Alphas and betas in float64, far from zero."""
    alphas = {group: torch.randn(shape).double() for group, shape in space.choices.items()}
    for group in space.choices:
        betas = search.alphas(space)[BETAS.format(group)]
        alphas[BETAS.format(group)] = [torch.randn_like(b).double() for b in betas]
    return alphas


def equal_edges(alphas):
    """The same alphas with betas that are equal at every node, if not from node to node."""
    betas = {
        name: [torch.full_like(b, place - 1.5) for place, b in enumerate(value)]
        for name, value in alphas.items()
        if isinstance(value, list)
    }
    return alphas | betas


# Architecture weights
# ------------------------------------------------------------------------------------------


def test_supernet_weights():
    space = DARTS.varied(partial=4)
    assert sum(p.numel() for p in space.supernet(Size(16, 8, 10)).parameters()) == 299_578


def test_alphas_and_betas_start_near_zero():
    for space, nodes in ((DARTS, [2, 3, 4, 5]), (NASBENCH201, [1, 2, 3])):
        alphas = PcDarts().alphas(space)
        assert set(alphas) == {*space.choices, *(f"{group} betas" for group in space.choices)}
        for group, shape in space.choices.items():
            assert alphas[group].shape == shape
            assert [len(beta) for beta in alphas[f"{group} betas"]] == nodes
    values = torch.cat([x.flatten() for x in leaves(PcDarts().alphas(DARTS))])
    assert 0.8e-3 < values.std() < 1.2e-3


def test_edges_are_weighed_over_the_edges_that_enter_a_node():
    alphas = drawn(PcDarts(), NASBENCH201)
    (a,), (b, c), (d, e, f) = (beta.exp().tolist() for beta in alphas["cell betas"])
    expected = [a / a, b / (b + c), c / (b + c), *(x / (d + e + f) for x in (d, e, f))]
    arch = PcDarts().relax(alphas, Clock())
    torch.testing.assert_close(arch.edges["cell"], torch.tensor(expected).double())
    torch.testing.assert_close(arch.operations["cell"], alphas["cell"].softmax(1))
    shown = PcDarts().expected(alphas)
    assert torch.equal(shown.edges["cell"], arch.edges["cell"])
    assert arch.edges.keys() == {"cell"}


def test_only_weights_train_in_the_first_15_of_50_epochs(tmp_path, monkeypatch):
    (stretch,) = stretches(PcDarts().needs(DARTS).phases, 50)
    assert (stretch.thaw, stretch.phase.partial) == (15, 4)
    settings = {**TINY, "epochs": 10, "channels": 4, "search": PcDarts()}
    work = work_of(settings, tmp_path, monkeypatch, Single())
    start = [x.clone() for x in leaves(work.phase.variables["A"])]
    for epoch in (0, 2, 3):
        work.epoch = epoch
        named = [level.variable for level in work.phase.levels(epoch)]
        assert named == ["w", "A"][: 1 + (epoch == 3)]
        work.advance()
        alphas = leaves(work.phase.variables["A"])
        same = [torch.equal(x, y) for x, y in zip(alphas, start, strict=True)]
        assert not any(same) if epoch == 3 else all(same)


# DARTS within it --------------------------------------------------------------------------------


def test_with_all_channels_and_equal_edges_it_is_darts_scaled_node_by_node():
    """A softmax over n equal betas is 1 / n: nodes are DARTS' divided by how many edges enter.

    So K = 1 and equal edges are DARTS but for these four constants. They do not vanish
    after it: the identities of later nodes, and the projections of later cells, add up nodes.
    """
    search = PcDarts(partial=1)
    alphas = equal_edges(drawn(search, DARTS))
    share = 1 / torch.tensor(ENTERING).double()
    arch = search.relax(alphas, Clock())
    plain = Darts().relax({group: alphas[group] for group in GROUPS}, Clock())
    for group, products in arch.products().items():
        torch.testing.assert_close(arch.edges[group], share)
        torch.testing.assert_close(products, plain.operations[group] * share.unsqueeze(1))
        assert torch.equal(arch.operations[group], plain.operations[group])


def test_that_mix_runs_as_darts_supernet_does():
    """Values, and gradients in weights and alphas."""
    search = PcDarts(partial=1)
    (phase,) = search.needs(fit(search, DARTS)).phases
    net = DARTS.varied(partial=phase.partial).supernet(Size(2, 3, 3)).double()
    assert DARTS.varied(partial=phase.partial) == DARTS
    alphas = equal_edges(drawn(search, DARTS))
    own = [alphas[group].requires_grad_() for group in GROUPS]
    weights = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    x, y = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2])
    share = 1 / torch.tensor(ENTERING).double().unsqueeze(1)
    plain = Darts().relax({group: alphas[group] for group in GROUPS}, Clock())
    scaled = ArchWeights({group: w * share for group, w in plain.operations.items()})
    found = []
    for arch in (search.relax(alphas, Clock()), scaled):
        logits, _ = functional_call(net, weights, (x, arch))
        gradients = torch.autograd.grad(F.cross_entropy(logits, y), [*own, *weights.values()])
        found.append([logits, *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("space", [DARTS, S2, NASBENCH201], ids=lambda space: space.name)
def test_edges_of_weight_one_are_darts_itself(space):
    net = space.supernet(Size(4, 3, 3)).double()
    operations = {g: torch.rand(shape).double() for g, shape in space.choices.items()}
    ones = {group: torch.ones(shape[0]).double() for group, shape in space.choices.items()}
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    plain, weighed = net(x, ArchWeights(operations)), net(x, ArchWeights(operations, edges=ones))
    for one, other in zip(plain, weighed, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("space", [DARTS, S3, NASBENCH201], ids=lambda space: space.name)
def test_equal_edges_are_derived_as_darts_does(space):
    for seed in range(20):
        torch.manual_seed(seed)
        alphas = equal_edges(drawn(PcDarts(), space))
        plain = {group: alphas[group] for group in space.choices}
        assert PcDarts().derive(space, alphas) == Darts().derive(space, plain)


# Reading off ------------------------------------------------------------------------------------


def test_a_weaker_operation_on_a_stronger_edge_wins():
    """By hand, at the third node: products of weights of skip or sep3, and of edges.

        edge from   none  skip  sep3      edge     best product
        0            .1    .2    .7   x    .10  =   sep3 .070
        1            .2    .5    .3   x    .40  =   skip .200
        2            .1    .3    .6   x    .15  =   sep3 .090
        3            .6    .1    .3   x    .35  =   sep3 .105

    Without the edges it would be 0 and 2.
    """
    operations = [[0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6], [0.6, 0.1, 0.3]]
    alphas = {}
    for group in GROUPS:
        table = torch.full((14, 3), 1 / 3)
        table[5:9] = torch.tensor(operations)
        alphas[group] = (2 * table).log()  # a softmax does not see the factor
        betas = [torch.zeros(count) for count in (2, 3, 4, 5)]
        betas[2] = (7 * torch.tensor([0.10, 0.40, 0.15, 0.35])).log()
        alphas[BETAS.format(group)] = betas
    found = PcDarts().derive(S3, alphas)
    for cell in found.cells.values():
        assert cell.nodes[2] == (("skip_connect", 1), ("sep_conv_3x3", 3))
    plain = Darts().derive(S3, {group: alphas[group] for group in GROUPS})
    assert plain.cells["normal"].nodes[2] == (("sep_conv_3x3", 0), ("sep_conv_3x3", 2))
    alphas[BETAS.format("reduce")] = [torch.zeros(count) for count in (2, 3, 4, 5)]
    found = PcDarts().derive(S3, alphas)  # each group goes by its own betas
    assert found.cells["normal"].nodes[2] == (("skip_connect", 1), ("sep_conv_3x3", 3))
    assert found.cells["reduce"].nodes[2] == (("sep_conv_3x3", 0), ("sep_conv_3x3", 2))


def test_edges_are_compared_within_a_node_only():
    """A node of five edges has smaller shares than one of two; both keep two edges all the same."""
    alphas = equal_edges(drawn(PcDarts(), DARTS))
    found = PcDarts().derive(DARTS, alphas)
    assert [len(node) for node in found.cells["normal"].nodes] == [2, 2, 2, 2]


def test_the_benchmarks_cell_keeps_every_edge_whatever_its_weight():
    alphas = drawn(PcDarts(), NASBENCH201)
    names = NASBENCH201.operations["cell"][0]
    cell = PcDarts().derive(NASBENCH201, alphas).cells["cell"]
    kept = [name for node in cell.nodes for name, _ in node]
    assert kept == [names[column] for column in alphas["cell"].argmax(1)]


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partial": 0}, "partial = 0"),
        ({"frozen": -0.1}, "frozen = -0.1"),
        ({"init": -1.0}, "init = -1.0"),
    ],
)
def test_refuses_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        PcDarts(**settings)
