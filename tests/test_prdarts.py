"""PR-DARTS: its gates, its penalty and how two operations may come to lie on one edge."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from reference import NaiveCells, unstack
from tutelage.clock import Clock
from tutelage.searches.needs import fit, size_of
from tutelage.searches.prdarts import PrDarts, path_term
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.cells import DARTS, S1, S2, S3, S4
from tutelage.spaces.genotype import DARTS_OPERATIONS, Genotype
from tutelage.spaces.nb201 import NASBENCH201

SKIP, SEP3, DIL5, MAX = (
    DARTS_OPERATIONS.index(name)
    for name in ("skip_connect", "sep_conv_3x3", "dil_conv_5x5", "max_pool_3x3")
)


def draw(scale: float = 1.0) -> dict[str, Tensor]:
    """Sample alphas of both cells."""
    return {
        group: (scale * torch.randn(14, 8, dtype=torch.float64)).requires_grad_()
        for group in DARTS.operations
    }


# Gates ------------------------------------------------------------------------------------------


def slow_gate(a: float, u: float, tau: float) -> tuple[float, float]:
    """Return a gate and its derivative by alpha, from uniform sampling u."""
    s = 1 / (1 + math.exp(-(a + math.log(u) - math.log(1 - u)) / tau))
    stretched = -0.1 + 1.2 * s
    inside = 0 <= stretched <= 1
    return min(max(stretched, 0.0), 1.0), 1.2 * s * (1 - s) / tau if inside else 0.0


@pytest.mark.parametrize("epochs", [1, 2, 10])
def test_gates_are_validated_at_the_temperature_of_the_last_epoch(epochs):
    archs = []
    for epoch in (epochs - 1, epochs):
        torch.manual_seed(0)
        archs.append(PrDarts().relax(draw(), Clock(epoch=epoch, epochs=epochs)))
    last, after = archs
    assert after.chosen == last.chosen
    assert torch.equal(after.penalty, last.penalty)


def test_the_most_open_gates_run_and_the_gradient_is_that_of_all_gates():
    alphas = draw()["normal"]
    torch.manual_seed(3)
    u = torch.rand_like(alphas).tolist()
    torch.manual_seed(3)
    arch = PrDarts(gate_dropout=0.0).relax({"normal": alphas}, Clock(epoch=5, epochs=11))
    weights = arch.operations["normal"]
    v = torch.randn_like(weights)
    (gradient,) = torch.autograd.grad((weights * v).sum(), alphas)
    a, weights = alphas.tolist(), weights.detach()
    for edge in range(14):
        gates = [slow_gate(a[edge][op], u[edge][op], 0.55) for op in range(8)]
        kept = arch.chosen["normal"][edge]
        rest = set(range(8)) - set(kept)
        assert len(kept) == 2 and len(rest) == 6
        assert min(gates[op][0] for op in kept) >= max(gates[op][0] for op in rest)
        for op in range(8):
            assert float(weights[edge, op]) == pytest.approx(float(op in kept), abs=1e-15)
            expected = float(v[edge, op]) * gates[op][1]
            assert float(gradient[edge, op]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("alpha", "tau"), [(0.7, 0.5), (-1.0, 1.0)])
def test_gates_are_open_as_often_as_theta_says(alpha, tau):
    gates = PrDarts().gates(torch.full((100_000,), alpha, dtype=torch.float64), tau)
    theta = 1 / (1 + math.exp(-(alpha - tau * math.log(0.1 / 1.1))))
    closed = 1 / (1 + math.exp(alpha - tau * math.log(1.1 / 0.1)))
    assert float((gates > 0).double().mean()) == pytest.approx(theta, abs=0.005)
    assert float((gates < 1).double().mean()) == pytest.approx(closed, abs=0.005)
    assert gates.min() == 0 and gates.max() == 1


def test_a_share_of_the_gates_is_set_back():
    # one operation has the only open gate: it runs unless it is set back (0.4), and then still as
    # often as it comes first among those at 0, itself and the closed ones that are not set back
    gates = torch.zeros(100, 8)
    gates[:, SEP3] = 1.0
    search = PrDarts(kept=1)
    found = torch.cat([search.choose(gates) for _ in range(2000)])
    among = sum(math.comb(7, m) * 0.6**m * 0.4 ** (7 - m) / (m + 1) for m in range(8))
    share = float((found == SEP3).double().mean())
    assert share == pytest.approx(0.6 + 0.4 * among, abs=0.01)


def test_ties_are_broken_by_one_random_order_for_all_edges():
    search = PrDarts(gate_dropout=0.0)
    gates = torch.ones(14, 8)
    counts = torch.zeros(8)
    for _ in range(2000):
        kept = search.choose(gates)
        assert torch.equal(kept, kept[:1].expand(14, 2))
        counts[kept[0]] += 1
    assert counts.sum() == 4000
    assert counts.div(2000).tolist() == pytest.approx([2 / 8] * 8, abs=0.04)


def test_only_kept_operations_run_in_the_supernet():
    space = fit(PrDarts(), DARTS)
    net = space.supernet(Size(channels=4, cells=3, classes=2))
    alphas = {group: 1e-3 * torch.randn(14, 8) for group in DARTS.operations}
    leaves = [a.requires_grad_() for a in alphas.values()]
    arch = PrDarts().relax(alphas, Clock())
    everything = ArchWeights({group: w.round() for group, w in arch.operations.items()})
    x = torch.randn(4, 3, 8, 8)
    logits, features = net(x, arch)
    torch.testing.assert_close(logits, net(x, everything)[0], rtol=1e-3, atol=1e-4)
    gradients = torch.autograd.grad(logits.square().sum(), leaves)
    assert torch.equal(features, features.relu())  # the last normalisation has a ReLU behind it
    for gradient, kept in zip(gradients, arch.chosen.values(), strict=True):
        assert gradient.abs().sum() > 0
        for edge, row in enumerate(gradient.tolist()):
            assert {op for op, g in enumerate(row) if g} <= set(kept[edge])


def test_the_supernet_is_the_naive_one_with_plain_pools():
    """In float64: logits, and gradients in alphas and weights; pools are not normalised."""
    space, size = fit(PrDarts(), DARTS), Size(channels=4, cells=3, classes=3)
    net, naive = space.supernet(size).double(), NaiveCells(space.operations, size, space.variant)
    weights = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    x, alphas = torch.randn(3, 3, 8, 8, dtype=torch.float64), draw()
    arch = PrDarts(kept=3).relax(alphas, Clock())
    # what does not run gives no gradient to its weight
    kept = {g: torch.zeros(14, 8).scatter(1, torch.tensor(c), 1.0) for g, c in arch.chosen.items()}
    only = {group: w * kept[group].double() for group, w in arch.operations.items()}
    logits, _ = functional_call(net, weights, (x, arch))
    slow, _ = functional_call(naive.double(), unstack(net, weights), (x, only))
    torch.testing.assert_close(logits, slow, rtol=0, atol=1e-11)
    variables = [*alphas.values(), *weights.values()]
    gradients = [
        torch.autograd.grad(
            found.square().sum(), variables, retain_graph=True, materialize_grads=True
        )
        for found in (logits, slow)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


# Penalty ----------------------------------------------------------------------------------------


def slow_penalty(alphas: dict[str, Tensor], chosen, tau: float) -> Tensor:
    """Go through the kept operations of both cells one by one."""
    terms = {"skip": [], "conv": [], "pool": []}
    paths = []
    for group, a in alphas.items():
        theta = 1 / (1 + torch.exp(-(a - tau * math.log(0.1 / 1.1))))
        found = {"skip": [], "conv": [], "pool": []}
        edge, path = 0, []
        for node in range(4):
            for state in range(node + 2):
                convolutions = []
                for op in chosen[group][edge]:
                    first = DARTS_OPERATIONS[op].partition("_")[0]
                    kind = {"skip": "skip", "max": "pool", "avg": "pool"}.get(first, "conv")
                    found[kind].append(theta[edge, op])
                    if first in ("sep", "dil"):
                        convolutions.append(theta[edge, op])
                if state == node + 1 and convolutions:
                    path.append(sum(convolutions) / len(convolutions))
                edge += 1
        paths.append(math.prod(path) if path else 0.0)
        for kind, values in found.items():
            terms[kind].append(sum(values) / len(values) if values else 0.0)
    costs = {kind: max((one + two) / 2 - 0.2, 0.0) for kind, (one, two) in terms.items()}
    return (
        0.01 * costs["skip"]
        + 0.005 * (costs["conv"] + costs["pool"])
        - 0.005 * (paths[0] + paths[1]) / 2
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("kept", "scale", "shift"), [(2, 1, 0), (1, 3, -2), (4, 1, -3)])
def test_the_penalty_is_that_of_slow_loops(seed, kept, scale, shift):
    torch.manual_seed(seed)
    alphas = draw(scale)
    alphas = {group: (a.detach() + shift).requires_grad_() for group, a in alphas.items()}
    arch = PrDarts(kept=kept).relax(alphas, Clock(epoch=seed, epochs=6))
    expected = slow_penalty(alphas, arch.chosen, 1 - 0.9 * seed / 5)
    torch.testing.assert_close(arch.penalty, expected, rtol=1e-12, atol=0)
    leaves = list(alphas.values())
    found = torch.autograd.grad(arch.penalty, leaves)
    torch.testing.assert_close(found, torch.autograd.grad(expected, leaves), rtol=1e-10, atol=1e-18)


def test_nothing_kept_of_a_group_and_no_convolution_on_the_path():
    # only skips are open: the other groups cost nothing, and the path is worth nothing
    alphas = {group: torch.full((14, 8), -40.0, dtype=torch.float64) for group in DARTS.operations}
    for a in alphas.values():
        a[:, SKIP] = 40.0
    arch = PrDarts(kept=1, gate_dropout=0.0).relax(alphas, Clock())
    assert arch.chosen == {group: [[SKIP]] * 14 for group in alphas}
    assert float(arch.penalty) == pytest.approx(0.01 * 0.8, rel=1e-12)


def test_none_counts_among_the_convolutions_but_makes_no_path():
    alphas = {group: torch.full((14, 8), -40.0, dtype=torch.float64) for group in DARTS.operations}
    for a in alphas.values():
        a[:, 0] = 40.0
    arch = PrDarts(kept=1, gate_dropout=0.0).relax(alphas, Clock())
    assert float(arch.penalty) == pytest.approx(0.005 * 0.8, rel=1e-12)


def test_the_path_leads_through_the_states_just_before():
    theta, kept = torch.full((14, 8), 0.9), torch.ones(14, 8)
    chain = torch.tensor([1, 4, 8, 13])
    theta[chain, SEP3], theta[chain, DIL5] = 0.5, 0.3
    kept[chain] = 0.0
    kept[chain, SEP3] = kept[chain, SKIP] = 1.0
    kept[13, DIL5], kept[4, SEP3] = 1.0, 0.0  # a mean of 0.4; an edge that the path leaves out
    assert float(path_term(theta, kept)) == pytest.approx(0.5 * 0.5 * 0.4)


# Reading off ------------------------------------------------------------------------------------


def test_two_operations_may_lie_on_one_edge_and_none_is_never_derived():
    table = torch.zeros(14, 8)
    table[:, 0] = 9.0  # none is strongest everywhere, but equally so
    table[0, SEP3], table[0, SKIP], table[1, MAX] = 3.0, 2.0, 1.0  # both of node 2 from state 0
    table[3, DIL5], table[4, SKIP] = 2.0, 4.0
    table[5, MAX], table[8, SEP3], table[8, DIL5] = 1.0, 3.0, 2.0  # both of node 4 from state 3
    found = PrDarts().derive(DARTS, {"normal": table, "reduce": torch.zeros(14, 8)})
    assert found.cells["normal"].nodes == (
        (("sep_conv_3x3", 0), ("skip_connect", 0)),
        (("skip_connect", 2), ("dil_conv_5x5", 1)),
        (("sep_conv_3x3", 3), ("dil_conv_5x5", 3)),
        (("max_pool_3x3", 0), ("avg_pool_3x3", 0)),  # ties: lower predecessor, lower column
    )
    assert found.cells["normal"].concat == (2, 3, 4, 5)


def test_operations_of_different_edges_compare_by_their_softmax():
    table = torch.zeros(14, 8)
    table[0] = 5.0  # equal alphas: an eighth each, though they are large
    table[1, SEP3] = 2.0
    found = PrDarts().derive(DARTS, {"normal": table, "reduce": table})
    assert found.cells["normal"].nodes[0] == (("sep_conv_3x3", 1), ("max_pool_3x3", 0))


def test_a_genotype_with_two_operations_on_an_edge_travels_and_is_built():
    table = torch.zeros(14, 8)
    table[0, SEP3], table[0, SKIP] = 3.0, 2.0
    found = PrDarts().derive(DARTS, {"normal": table, "reduce": table})
    assert Genotype.from_json(found.to_json()) == found == Genotype.from_darts(found.to_darts())
    net = DARTS.network(found, Size(channels=4, cells=3, classes=2)).eval()
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 2)
    assert net.cells[0].nodes[0].sources == [0, 0]


# Refusals ---------------------------------------------------------------------------------------


TURNED = DARTS.narrowed(dict.fromkeys(("normal", "reduce"), [range(7, -1, -1)] * 14))


@pytest.mark.parametrize("space", [S1, S2, S3, S4, NASBENCH201, TURNED], ids=lambda s: s.name)
def test_spaces_without_the_groups_are_refused(space):
    with pytest.raises(ValueError, match=f"space '{space.name}' .* use the space darts"):
        fit(PrDarts(), space)


def test_the_normalisations_of_the_release_are_asked_for():
    assert fit(PrDarts(), DARTS) == DARTS.varied(final_norm=True, normalised_pools=False)
    assert size_of(PrDarts(), DARTS) == (16, 6)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tau_end": 0.0}, "tau_end = 0.0"),
        ({"kept": 0}, "kept = 0"),
        ({"kept": 9}, "kept = 9"),
        ({"gate_dropout": 1.2}, "gate_dropout = 1.2"),
        ({"gate_low": 0.0}, "gate_low = 0.0"),
        ({"gate_high": 1.0}, "gate_high = 1.0"),
        ({"path_weight": -0.1}, "path_weight = -0.1"),
        ({"threshold": math.nan}, "threshold = nan"),
    ],
)
def test_impossible_settings_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        PrDarts(**settings)
