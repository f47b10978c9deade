"""Supernets as searches ask for them, against naive ones: values and two derivatives."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from reference import NaiveBenchmark, NaiveCells, unstack
from test_cells import assert_trees_close
from tutelage import shares
from tutelage.clock import Clock
from tutelage.searches.base import Search
from tutelage.searches.darts import Darts
from tutelage.searches.darts_minus import DartsMinus
from tutelage.searches.needs import fit
from tutelage.searches.pcdarts import BETAS, PcDarts
from tutelage.searches.prdarts import PrDarts
from tutelage.spaces import convolution, fused
from tutelage.spaces.base import ArchWeights, Size, Space
from tutelage.spaces.cells import DARTS, S1, S3, S4
from tutelage.spaces.mixed_cell import run_cell
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.plan import Layout, weights_of
from tutelage.spaces.states import State
from tutelage.trees import leaves, rebuild

CELLS = Size(channels=2, cells=3, classes=3)
BENCHMARK = Size(channels=4, cells=1, classes=3)
CLOCK = Clock(epoch=20, epochs=50)


class Case(NamedTuple):
    space: Space
    size: Size
    search: Search = Darts(1.0)
    chosen: bool = False
    """Whether only some of the operations run."""


def with_auxiliary(space: Space) -> Space:
    return fit(DartsMinus(), space)


PARTIAL = DARTS.varied(partial=4)
EIGHT = Size(channels=8, cells=3, classes=3)

CASES = {
    "darts-partial": Case(PARTIAL, EIGHT, PcDarts(init=1.0)),
    "darts-partial-chosen": Case(PARTIAL, EIGHT, PcDarts(init=1.0), chosen=True),
    "darts-edges": Case(DARTS, CELLS, PcDarts(partial=1, init=1.0)),
    "darts-auxiliary": Case(with_auxiliary(DARTS), CELLS, DartsMinus(init=1.0)),
    "darts-pools-not-normalised": Case(DARTS.varied(normalised_pools=False), CELLS),
    "darts-final-norm": Case(DARTS.varied(final_norm=True), CELLS),
    "darts-as-prdarts": Case(fit(PrDarts(), DARTS), CELLS, chosen=True),
    "s1": Case(S1, CELLS),
    "s1-chosen": Case(S1, CELLS, chosen=True),
    "s1-partial": Case(S1.varied(partial=2), EIGHT, PcDarts(init=1.0)),
    "s1-auxiliary": Case(with_auxiliary(S1), CELLS, DartsMinus(init=1.0)),
    "s3": Case(S3, CELLS),
    "s4": Case(S4, CELLS),
    "nasbench201": Case(NASBENCH201, BENCHMARK),
    "nasbench201-chosen": Case(NASBENCH201, BENCHMARK, chosen=True),
    "nasbench201-partial": Case(NASBENCH201.varied(partial=2), BENCHMARK, PcDarts(init=1.0)),
    "nasbench201-auxiliary": Case(
        with_auxiliary(NASBENCH201), BENCHMARK, DartsMinus(init=1.0), chosen=True
    ),
}


@pytest.fixture(autouse=True)
def _noise_by_its_order(monkeypatch):
    """Let noise depend on the seed alone, not on how a tensor lies in memory."""
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.randn(x.shape, dtype=x.dtype))
    monkeypatch.setattr(shares, "random_like", lambda x, _: torch.randn(x.shape, dtype=x.dtype))


def pair(case: Case) -> tuple[Any, Any, dict[str, Tensor]]:
    fast = case.space.supernet(case.size).double()
    naive = NaiveBenchmark if case.space.name == "nasbench201" else NaiveCells
    weights = {name: p.detach().requires_grad_() for name, p in fast.named_parameters()}
    return fast, naive(case.space.operations, case.size, case.space.variant).double(), weights


def alphas_of(case: Case) -> dict[str, Any]:
    drawn = case.search.alphas(case.space)
    return rebuild(drawn, iter([x.double().requires_grad_() for x in leaves(drawn)]))


def some(case: Case) -> dict[str, list[list[int]]] | None:
    """Columns that run: of three edges, or columns, in a row two."""
    if not case.chosen:
        return None
    return {
        group: [[op for op in range(ops) if (edge + op) % 3] for edge in range(edges)]
        for group, (edges, ops) in case.space.choices.items()
    }


def naive_mix(
    case: Case, alphas: dict[str, Any], chosen: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, float]:
    """Weights of operations, of edges and of the auxiliary skip, from the papers' formulas."""
    operations, edges = {}, {}
    for group, (count, ops) in case.space.choices.items():
        exponentials = alphas[group].exp()
        operations[group] = torch.stack([row / row.sum() for row in exponentials])
        if chosen is not None:
            mask = [[float(op in columns) for op in range(ops)] for columns in chosen[group]]
            operations[group] = operations[group] * torch.tensor(mask)
        for betas in alphas.get(BETAS.format(group), ()):
            here = [beta.exp() / betas.exp().sum() for beta in betas]
            edges[group] = [*edges.get(group, ()), *here]
        assert len(edges.get(group, range(count))) == count
    whole = {group: torch.stack(each) for group, each in edges.items()}
    # DARTS-' beta at epoch 20 of 50
    return operations, whole or None, 0.6 if case.space.variant.auxiliary_skip else 0.0


@pytest.mark.parametrize("name", CASES)
def test_naive_supernet_has_the_same_weights(name):
    fast, naive, weights = pair(CASES[name])
    shapes = {name: p.shape for name, p in naive.named_parameters()}
    assert {name: p.shape for name, p in unstack(fast, weights).items()} == shapes


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_supernet_equals_naive_in_values_gradients_and_second_derivatives(
    name, joined, monkeypatch
):
    if not joined:  # as with large maps
        monkeypatch.setattr(fused, "JOINED", 0)
        monkeypatch.setattr(convolution, "PRODUCT", 0)
    case = CASES[name]
    fast, naive, weights = pair(case)
    alphas, chosen = alphas_of(case), some(case)
    x, y = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2])
    variables = [*weights.values(), *leaves(alphas)]
    labels = [*weights, *(f"alphas {index}" for index in range(len(leaves(alphas))))]
    direction = [torch.randn_like(p) for p in variables]

    def ours() -> tuple[Tensor, Tensor]:
        arch = case.search.relax(alphas, CLOCK)
        arch = ArchWeights(arch.operations, chosen, arch.edges, arch.auxiliary)
        return functional_call(fast, weights, (x, arch))

    def theirs() -> tuple[Tensor, Tensor]:
        plain = unstack(fast, weights)
        return functional_call(naive, plain, (x, *naive_mix(case, alphas, chosen)))

    results = []
    for run in (ours, theirs):
        torch.manual_seed(1)  # of the noise
        logits, features = run()
        loss = F.cross_entropy(logits, y)
        first = torch.autograd.grad(
            loss, variables, create_graph=True, materialize_grads=True, allow_unused=True
        )
        product = sum((g * d).sum() for g, d in zip(first, direction, strict=True))
        second = torch.autograd.grad(product, variables, materialize_grads=True, allow_unused=True)
        results.append(
            [
                {"logits": logits, "features": features},
                dict(zip(labels, first, strict=True)),
                dict(zip(labels, second, strict=True)),
            ]
        )
    for one, other in zip(*results, strict=True):
        assert_trees_close(one, other)
    # and there is something to compare, but for the beta of a node with one edge
    for derivative in results[1][1:]:
        own = [x for x in list(derivative.values())[len(weights) :] if len(x) > 1]
        assert own and all(x.abs().max() > 1e-6 for x in own)


@pytest.mark.parametrize("name", ["darts-partial", "s1-partial", "nasbench201-partial"])
def test_without_operations_the_first_share_is_zero_and_the_others_pass(name):
    """architecture weights of no operation leaves the bypass, dealt out: channel i of share k at i
    * K + k."""
    case = CASES[name]
    fast, _, _ = pair(case)
    cell = next(each for each in fast.modules() if hasattr(each, "nodes"))
    nothing = {group: [[] for _ in edges] for group, edges in case.space.operations.items()}
    arch = case.search.relax(alphas_of(case), CLOCK)
    group, variant = next(iter(case.space.choices)), case.space.variant
    shares, layout = variant.partial, Layout(case.space.nodes)
    (given,) = weights_of(
        ArchWeights(arch.operations, nothing, arch.edges),
        group,
        case.space.operations[group],
        layout,
        1,
    )
    channels = case.size.channels
    inputs = [
        State(torch.randn(2, channels, 8, 8, dtype=torch.float64), 1, variant)
        for _ in range(layout.nodes[0])
    ]
    found = run_cell(list(cell.nodes), inputs, given, variant)[len(inputs)].whole
    weights = arch.edges[group][: len(inputs)]
    passed = sum(w * state.whole for w, state in zip(weights, inputs, strict=True))
    each = passed.shape[1] // shares
    for place, channel in enumerate(found.unbind(1)):
        i, share = divmod(place, shares)
        expected = passed[:, share * each + i] if share else torch.zeros_like(channel)
        torch.testing.assert_close(channel, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["darts-auxiliary", "s1-auxiliary", "nasbench201-auxiliary"])
def test_an_auxiliary_skip_of_no_weight_is_none(name):
    case = CASES[name]
    fast, _, _ = pair(case)
    plain = case.space.varied(auxiliary_skip=False).supernet(case.size).double()
    missing, unexpected = plain.load_state_dict(fast.state_dict(), strict=False)
    assert not missing
    assert all("auxiliaries" in each for each in unexpected)
    operations = case.search.relax(alphas_of(case), CLOCK).operations
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for faded in (ArchWeights(operations), ArchWeights(operations, auxiliary=0.0)):
        for one, other in zip(fast(x, faded), plain(x, ArchWeights(operations)), strict=True):
            assert torch.equal(one, other)
    assert not torch.allclose(fast(x, ArchWeights(operations, auxiliary=1.0))[0], fast(x, faded)[0])


def test_reductions_have_auxiliary_skips_of_their_own():
    """On strided edges it is a factorized reduce with weights that no operation shares."""
    plain = sum(p.numel() for p in DARTS.supernet(CELLS).parameters())
    more = sum(p.numel() for p in with_auxiliary(DARTS).supernet(CELLS).parameters())
    # each of the two reduction cells, of 4 and 8 channels, has 2 strided edges a node
    assert more - plain == 8 * (4 * 4 + 8 * 8)


@pytest.mark.parametrize(("space", "channels"), [(DARTS, 6), (NASBENCH201, 18), (S1, 2)])
def test_channels_that_cannot_be_shared_out_are_refused(space, channels):
    with pytest.raises(ValueError, match=f"channels = {channels}: must be a multiple of 4"):
        space.varied(partial=4).supernet(Size(channels=channels, cells=3))


@pytest.mark.parametrize("space", [DARTS, NASBENCH201], ids=lambda space: space.name)
def test_operations_one_by_one_pass_what_they_do_not_see(space):
    net = space.varied(partial=2).supernet(Size(channels=4, cells=3 if space is DARTS else 1))
    found = list(net.outputs(torch.randn(4, 3, 8, 8)))
    cells = sum(net.counts.values())
    assert len(found) == cells * len(next(iter(space.operations.values())))
    assert all(y.isfinite().all() for _, _, y in found)


def test_a_space_without_the_auxiliary_skip_ignores_its_weight():
    for space in (DARTS, NASBENCH201):
        net = space.supernet(Size(channels=2, cells=3 if space is DARTS else 1))
        arch = ArchWeights({group: torch.rand(shape) for group, shape in space.choices.items()})
        x = torch.randn(4, 3, 8, 8)
        given = ArchWeights(arch.operations, auxiliary=0.7)
        assert torch.equal(net(x, arch)[0], net(x, given)[0])


def test_weights_of_another_number_of_cells_are_refused():
    net = DARTS.supernet(Size(channels=2, cells=3))
    arch = {group: torch.rand(5, *shape) for group, shape in DARTS.choices.items()}
    with pytest.raises(ValueError, match="weights of 5 cells: the supernet has 1 of the group"):
        net(torch.randn(4, 3, 8, 8), ArchWeights(arch))


def test_an_operation_twice_on_an_edge_is_refused():
    names = ("skip_connect", "skip_connect", "max_pool_3x3")
    layout = Layout((1,))
    with pytest.raises(ValueError, match="edge 0 has skip_connect twice"):
        weights_of(ArchWeights({"cell": torch.rand(1, 3)}), "cell", (names,), layout, 1)
