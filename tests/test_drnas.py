"""DrNAS: its draws' gradients against analysis, its phases and its refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.special import betainc
from torch.distributions import Beta

from toys import ToySupernet
from tutelage.clock import Clock
from tutelage.searches.base import Phase
from tutelage.searches.drnas import DrNas, concentrations
from tutelage.searches.needs import fit
from tutelage.spaces.cells import DARTS, S1, S2, S3
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.trees import leaves, rebuild
from tutelage.virtual import Exact, virtual_step

ALPHAS = torch.tensor([-1.2, 0.4, 1.7, 0.0], dtype=torch.float64)
"""Both branches of ELU, and its corner."""
BETA = torch.tensor([0.30119421191220214, 1.4, 2.7, 1.0], dtype=torch.float64)
"""exp(-1.2), 1 + 0.4, 1 + 1.7, 1: worked by hand."""
CONTRAST = torch.tensor([1.0, -0.5, 2.0, 0.3], dtype=torch.float64)


def draws(alphas, count):
    """Many independent samples (count, ops), and the leaf (count, ops) that they come from."""
    rows = alphas.expand(count, -1).clone().requires_grad_()
    return DrNas().relax({"normal": rows}, Clock()).operations["normal"], rows


def moments(name, beta):
    """Exact expectations under Dirichlet(beta), and the functions (draws, ops) -> (draws,)."""
    total = beta.sum()
    rising = total * (total + 1)
    return {
        "mean": ((CONTRAST * beta).sum() / total, lambda x: x @ CONTRAST),
        "square": (beta[2] * (beta[2] + 1) / rising, lambda x: x[:, 2].square()),
        "product": (beta[0] * beta[1] / rising, lambda x: x[:, 0] * x[:, 1]),
        "entropy": (
            (beta / total * (torch.digamma(beta + 1) - torch.digamma(total + 1))).sum(),
            lambda x: torch.xlogy(x, x).sum(1),
        ),
    }[name]


# Draws ------------------------------------------------------------------------------------------


def test_concentrations_are_elu_plus_one():
    torch.testing.assert_close(concentrations({"normal": ALPHAS})["normal"], BETA)


def test_strongly_negative_alphas_have_concentrations_means_and_samples():
    """In float32, where ELU(alpha) + 1 is 0 below -17 and so its samples are no numbers."""
    alphas = torch.tensor([[-20.0, -17.5, 0.5, -30.0]], requires_grad=True)
    (beta,) = concentrations({"cell": alphas}).values()
    (wide,) = concentrations({"cell": alphas.double()}).values()
    assert beta.min() > 0
    torch.testing.assert_close(beta.double(), wide, rtol=1e-6, atol=0)
    search = DrNas()
    mean = search.expected({"cell": alphas}).operations["cell"]
    torch.testing.assert_close(mean.double(), wide / wide.sum(), rtol=1e-6, atol=0)
    for _ in range(20):
        sample = search.relax({"cell": alphas}, Clock()).operations["cell"]
        (gradient,) = torch.autograd.grad((sample * torch.arange(4.0)).sum(), alphas)
        assert sample.isfinite().all() and gradient.isfinite().all()
    lowest = {"cell": torch.full((1, 3), -200.0)}  # whose concentrations are 0 in float32
    assert search.expected(lowest).operations["cell"].tolist() == [[pytest.approx(1 / 3)] * 3]


def test_every_pass_draws_afresh_and_the_seed_repeats_it():
    alphas = {"normal": ALPHAS.repeat(14, 1), "reduce": ALPHAS.repeat(14, 1)}
    first, second = (DrNas().relax(alphas, Clock()).operations for _ in range(2))
    assert (first["normal"] != second["normal"]).all()
    assert (first["normal"] != first["reduce"]).all()
    for weights in first.values():
        assert weights.dtype == torch.float64 and (weights > 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(14, dtype=torch.float64))
    torch.manual_seed(0)
    again = DrNas().relax(alphas, Clock()).operations
    assert all(torch.equal(again[group], first[group]) for group in first)


@pytest.mark.parametrize("name", ["mean", "square", "product", "entropy"])
def test_values_and_gradients_are_unbiased(name):
    """Within five standard errors over many draws."""
    count = 400_000
    alphas = ALPHAS.clone().requires_grad_()
    expected, function = moments(name, F.elu(alphas) + 1)
    exact = torch.autograd.grad(expected, alphas)[0]
    theta, rows = draws(ALPHAS, count)
    values = function(theta)
    estimates = torch.autograd.grad(values.sum(), rows)[0]
    error = values.detach().std() / count**0.5
    assert abs(values.detach().mean() - expected.detach()) < 5 * error
    errors = estimates.std(0) / count**0.5
    assert ((estimates.mean(0) - exact).abs() < 5 * errors).all()
    # the test has power: 1.1 times this gradient would be refused
    assert (0.1 * exact.abs() > 5 * errors).any()


def test_the_gradient_of_a_draw_moves_it_along_its_distribution():
    """Two operations are a Beta draw: d theta / d beta = -(dF / d beta) / density, at fixed F."""
    alphas = torch.tensor([[0.5, -0.3]], dtype=torch.float64)
    theta, rows = draws(alphas, 2000)
    got = torch.autograd.grad(theta[:, 0].sum(), rows)[0]
    a, b = concentrations({"normal": alphas})["normal"][0].tolist()
    x, step = theta[:, 0].detach(), 1e-5

    def cumulative(a, b):
        return torch.from_numpy(betainc(a, b, x.numpy()))

    slopes = [
        (cumulative(a + step, b) - cumulative(a - step, b)) / (2 * step),
        (cumulative(a, b + step) - cumulative(a, b - step)) / (2 * step),
    ]
    density = Beta(torch.tensor(a).double(), torch.tensor(b).double()).log_prob(x).exp()
    chain = torch.tensor([0.5, -0.3], dtype=torch.float64).clamp(max=0).exp()  # ELU'
    expected = torch.stack([-slope / density for slope in slopes], dim=1) * chain
    # torch's pathwise derivative is a series of three digits
    torch.testing.assert_close(got, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_draw_passes_a_virtual_step(recompute):
    """The hypergradient through Exact is that of the full unroll with the same draw."""
    net, search = ToySupernet().double(), DrNas()
    w = {name: p.detach() for name, p in net.named_parameters()}
    alphas = {"normal": torch.randn(2, 3, dtype=torch.float64)}
    x = torch.randn(9, 5, dtype=torch.float64)
    y = torch.randint(3, (9,))

    def loss(weights, u):
        arch = search.relax(u, Clock())
        logits = torch.func.functional_call(net, weights, (x, arch))[0]
        return F.cross_entropy(logits, y)

    def ours(u):
        return virtual_step(loss, w, u, lr=0.3, via=Exact(recompute))

    def unrolled(u):
        here = {name: v.clone().requires_grad_() for name, v in w.items()}
        gradient = torch.autograd.grad(loss(here, u), leaves(here), create_graph=True)
        return rebuild(w, iter([v - 0.3 * g for v, g in zip(leaves(here), gradient, strict=True)]))

    found = []
    for step in (ours, unrolled):
        torch.manual_seed(7)
        u = {"normal": alphas["normal"].clone().requires_grad_()}
        found.append(torch.autograd.grad(loss(step(u), u), u["normal"])[0])
    assert found[1].abs().min() > 1e-6
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


# Regulariser ------------------------------------------------------------------------------------


def test_the_divergence_is_its_formula():
    """KL(Dir(b) || Dir(1)) = ln G(S) - sum ln G(b) - ln G(n) + sum (b - 1)(psi(b) - psi(S))."""
    rows = {"normal": torch.stack([ALPHAS, -ALPHAS]), "reduce": 2 * ALPHAS.unsqueeze(0)}
    expected = 0.0
    for alphas in rows.values():
        for row in alphas:
            beta = [float(a) + 1 if a > 0 else float(a.exp()) for a in row]
            b = torch.tensor(beta, dtype=torch.float64)
            total, ops = b.sum(), torch.tensor(float(len(b)), dtype=torch.float64)
            expected += torch.lgamma(total) - torch.lgamma(b).sum() - torch.lgamma(ops)
            expected += ((b - 1) * (torch.digamma(b) - torch.digamma(total))).sum()
    penalty = DrNas(regulariser="kl", kl_weight=0.7).relax(rows, Clock()).penalty
    assert penalty.shape == ()
    torch.testing.assert_close(penalty, 0.7 * expected)


def test_the_divergence_pulls_alphas_to_zero():
    alphas = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    penalty = DrNas(regulariser="kl").relax({"normal": alphas}, Clock()).penalty
    descent = torch.autograd.grad(penalty, alphas)[0]
    assert (descent * alphas).sum() > 0
    flat = torch.zeros(5, 7, dtype=torch.float64, requires_grad=True)
    lowest = DrNas(regulariser="kl").relax({"normal": flat}, Clock()).penalty
    assert abs(lowest.item()) < 1e-15 < penalty.item()
    assert torch.autograd.grad(lowest, flat)[0].abs().max() < 1e-15


def test_decay_adds_nothing():
    assert DrNas().relax({"normal": ALPHAS.unsqueeze(0)}, Clock()).penalty is None


# Spaces and phases ------------------------------------------------------------------------------


def test_none_goes_from_cells_and_stays_in_the_benchmark():
    fitted = fit(DrNas(), DARTS)
    assert dict(fitted.choices) == {"normal": (14, 7), "reduce": (14, 7)}
    for group, edges in fitted.operations.items():
        for before, after in zip(DARTS.operations[group], edges, strict=True):
            assert after == tuple(name for name in before if name != "none")
    assert fit(DrNas(), S3).operations == S2.operations
    assert fit(DrNas(), S1).operations == S1.operations
    assert fit(DrNas(), NASBENCH201) == NASBENCH201


def test_phases_are_the_papers():
    assert DrNas().needs(fit(DrNas(), DARTS)).phases == (
        Phase(frozen=0.4, partial=6),
        Phase(frozen=0.4, partial=4, operations=4, carries=True),
    )
    for space in (NASBENCH201, S1, S2, S3):
        assert DrNas().needs(fit(DrNas(), space)).phases == (Phase(),)
    assert DrNas(progressive=True).needs(NASBENCH201).phases == (
        Phase(frozen=0.2, partial=4),
        Phase(frozen=0.2, partial=2, operations=3, carries=True),
    )
    assert DrNas(partial_end=3, operations=2, frozen=0).needs(DARTS).phases == (
        Phase(partial=6),
        Phase(partial=3, operations=2, carries=True),
    )
    assert DrNas(progressive=False, partial=4, frozen=0.3).needs(DARTS).phases == (
        Phase(partial=4, frozen=0.3),
    )


@pytest.mark.parametrize(
    ("settings", "space", "message"),
    [
        ({"progressive": True}, S2, "space 's2' has edges of 2 operations, .* keeps 4"),
        ({"progressive": True}, S1, "space 's1' has edges of 2 operations, .* keeps 4"),
        ({"progressive": True}, S3, "space 's3' has edges of 2 operations, .* keeps 4"),
        ({"operations": 7}, DARTS, "has edges of 7 operations, .* keeps 7"),
        ({"partial": 2}, DARTS, "partial_end = 4: must be at most partial = 2"),
        ({"operations": 3}, NASBENCH201, "give progressive"),
        ({"progressive": False, "partial_end": 2}, DARTS, "give progressive"),
    ],
)
def test_refuses_phases_that_cannot_be(settings, space, message):
    with pytest.raises(ValueError, match=message):
        fit(DrNas(**settings), space)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partial": 0}, "partial = 0"),
        ({"partial_end": 0}, "partial_end = 0"),
        ({"operations": 0}, "operations = 0"),
        ({"frozen": 1.5}, "frozen = 1.5"),
        ({"regulariser": "l2"}, "regulariser = 'l2': must be one of decay, kl"),
        ({"score": "max"}, "score = 'max'"),
        ({"kl_weight": -1}, "kl_weight = -1"),
    ],
)
def test_refuses_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DrNas(**settings)


def test_alphas_start_near_zero():
    space = fit(DrNas(), DARTS)
    alphas = DrNas().alphas(space)
    assert {g: tuple(a.shape) for g, a in alphas.items()} == dict(space.choices)
    values = torch.cat([a.flatten() for a in alphas.values()])
    assert 0.8e-3 < values.std() < 1.2e-3
    assert not torch.equal(alphas["normal"], alphas["reduce"])


# Reading off ------------------------------------------------------------------------------------


def test_expected_is_the_mean_of_many_draws_or_the_releases_score():
    shown = DrNas().expected({"normal": ALPHAS.unsqueeze(0)}).operations["normal"][0]
    torch.testing.assert_close(shown, BETA / 5.401194211912202)
    theta, _ = draws(ALPHAS, 200_000)
    torch.testing.assert_close(theta.detach().mean(0), shown, atol=3e-3, rtol=0)
    released = DrNas(score="softmax").expected({"normal": ALPHAS.unsqueeze(0)})
    torch.testing.assert_close(released.operations["normal"][0], ALPHAS.softmax(0))


def cell_alphas():
    """Alphas at which the mean and the softmax keep different edges of the normal cell's node 3.

    Node 3's edges from states 0, 1, 2 have concentrations (3; 2 x 6), (2; 1 x 6), (1; 1/8 x 6):
    means 3/15, 2/8, 1/1.75. Softmax: e^2 / (e^2 + 6 e) = .312, e / (e + 6) = .312 (equal), and
    1 / (1 + 6 / 8) = .571.
    """
    space = fit(DrNas(), DARTS)
    names = space.operations["normal"][0]
    alphas = {g: torch.zeros(shape, dtype=torch.float64) for g, shape in space.choices.items()}
    normal = alphas["normal"]
    normal[2], normal[2, names.index("sep_conv_3x3")] = 1, 2.05
    normal[3, names.index("dil_conv_5x5")] = 1
    normal[4], normal[4, names.index("max_pool_3x3")] = torch.tensor(1 / 8).log(), 0
    return space, alphas


def test_derives_by_the_mean_and_by_the_release():
    space, alphas = cell_alphas()
    means = DrNas().derive(space, alphas).cells["normal"].nodes
    assert means[1] == (("max_pool_3x3", 2), ("dil_conv_5x5", 1))
    released = DrNas(score="softmax").derive(space, alphas).cells["normal"].nodes
    assert released[1] == (("max_pool_3x3", 2), ("sep_conv_3x3", 0))


def test_the_benchmark_may_keep_none():
    alphas = torch.zeros(6, 5)
    kept = ["none", "avg_pool_3x3", "skip_connect", "none", "nor_conv_1x1", "nor_conv_3x3"]
    for edge, name in enumerate(kept):
        alphas[edge, NASBENCH201.operations["cell"][edge].index(name)] = 0.1
    cell = DrNas().derive(NASBENCH201, {"cell": alphas}).cells["cell"]
    assert [name for node in cell.nodes for name, _ in node] == kept


def test_dropping_operations_leaves_the_distribution_of_the_others():
    """Rescaled, three of four entries of a draw have the mean and spread of a draw of the three."""
    count = 200_000
    whole, _ = draws(ALPHAS, count)
    rescaled = (whole[:, :3] / whole[:, :3].sum(1, keepdim=True)).detach()
    mean = BETA[:3] / BETA[:3].sum()
    variance = mean * (1 - mean) / (BETA[:3].sum() + 1)
    error = (variance / count).sqrt()
    assert ((rescaled.mean(0) - mean).abs() < 5 * error).all()
    assert ((rescaled.var(0) / variance - 1).abs() < 0.02).all()
