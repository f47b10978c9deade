"""The best weights of an ensemble, against scipy's in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
import torch.nn.functional as F

from tutelage import ensembling
from tutelage.ensembling import LOWEST, Quadratic, differentiable_weights, ensemble_weights

SIGNS = ("nonnegative", "any")
SIZES = tuple(itertools.product((2, 3, 4, 8), (10, 100, 1000)))


def cross_entropy(w, logits, y):
    mixed = torch.einsum("m,mbc->bc", w.double(), logits.double())
    return F.cross_entropy(mixed, y)


def scipys_least(logits, y, lowest, starts):
    """Least cross-entropy that SLSQP finds from any of the starts."""
    count = len(logits)

    def loss(w):
        w = torch.tensor(w, requires_grad=True)
        value = cross_entropy(w, logits, y)
        value.backward()
        return value.item(), w.grad.numpy()

    sums = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(count)}
    least = np.inf
    for start in starts:
        found = scipy.optimize.minimize(
            loss,
            start,
            jac=True,
            bounds=[(lowest, None)] * count,
            constraints=sums,
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 300},
        )
        if abs(found.x.sum() - 1) < 1e-9 and found.x.min() > lowest - 1e-9:
            least = min(least, found.fun)
    return least


def draw(members, classes):
    torch.manual_seed(1000 * members + classes)
    images = 16 if classes == 1000 else 64
    y = torch.randint(classes, (images,))
    return torch.randn(members, images, classes).double(), F.one_hot(y, classes).double(), y


def perfect_first(noise, one_hot):
    return torch.cat([30 * one_hot.unsqueeze(0), 3 * noise[1:]])


def last_is_first(logits, noise=0.0):
    return torch.cat([logits[:-1], logits[:1] + noise])


CASES = {
    "random": lambda noise, hot, y: (noise, y),
    "good": lambda noise, hot, y: (2 * noise + 2 * hot, y),
    "better": lambda noise, hot, y: (noise + 6 * hot, y),
    "all wrong": lambda noise, hot, y: (noise - 10 * hot, y),
    "one perfect": lambda noise, hot, y: (perfect_first(noise, hot), y),
    "one perfect and peaked": lambda noise, hot, y: (100 * perfect_first(noise, hot), y),
    "one bad": lambda noise, hot, y: (torch.cat([noise[1:] + 2 * hot, noise[:1] - 4 * hot]), y),
    "peaked": lambda noise, hot, y: (100 * noise, y),
    "peaked, good": lambda noise, hot, y: (100 * (noise + 2 * hot), y),
    "peaked, all right": lambda noise, hot, y: (100 * (noise + 8 * hot), y),
    "identical": lambda noise, hot, y: ((noise + 2 * hot)[:1].repeat(len(noise), 1, 1), y),
    "zeros": lambda noise, hot, y: (0 * noise, y),
    "two alike": lambda noise, hot, y: (last_is_first(noise + 2 * hot), y),
    "nearly alike": lambda noise, hot, y: (last_is_first(noise + 2 * hot, 1e-7 * noise[1]), y),
    "one uniform": lambda noise, hot, y: (torch.cat([noise[1:] + hot, 0 * noise[:1]]), y),
    "of many scales": lambda noise, hot, y: (
        noise * torch.logspace(-2, 2, len(noise)).double().view(-1, 1, 1),
        y,
    ),
    "one image": lambda noise, hot, y: (noise[:, :1], y[:1]),
    "one class": lambda noise, hot, y: (noise + F.one_hot(0 * y, hot.shape[1]), 0 * y),
}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("case", CASES)
def test_no_weights_are_better(case, sign):
    """scipy finds no better ones: neither from equal weights nor from ours."""
    lowest = LOWEST[sign]
    for members, classes in SIZES:
        logits, y = CASES[case](*draw(members, classes))
        w = ensemble_weights(logits, y, sign)
        mine = cross_entropy(w, logits, y).item()
        assert w.sum().item() == pytest.approx(1.0, abs=1e-12)
        assert w.min().item() >= lowest
        assert mine <= min(F.cross_entropy(z, y).item() for z in logits) + 1e-12
        equal = np.full(members, 1 / members)
        least = scipys_least(logits, y, lowest, (equal, w.numpy()))
        assert mine <= least * (1 + 1e-6) + 1e-10


@pytest.mark.parametrize("sign", SIGNS)
def test_few_passes_over_the_batch(sign, monkeypatch):
    expand, passes = ensembling._expand, []
    monkeypatch.setattr(ensembling, "_expand", lambda *given: passes.append(0) or expand(*given))
    most = {"identical": 1, "random": 4, "good": 4, "better": 4, "one class": 4}
    for case, (members, classes) in itertools.product(CASES, SIZES):
        passes.clear()
        ensemble_weights(*CASES[case](*draw(members, classes)), sign)
        assert len(passes) <= most.get(case, 30), (case, members, classes)


@pytest.mark.parametrize("scale", [1e3, 1e5])
@pytest.mark.parametrize("sign", SIGNS)
def test_the_most_peaked_logits_end_below_the_best_member(sign, scale):
    for members, classes in SIZES:
        noise, one_hot, y = draw(members, classes)
        logits = scale * (noise + one_hot)
        w = ensemble_weights(logits, y, sign)
        mine = cross_entropy(w, logits, y).item()
        assert w.sum().item() == pytest.approx(1.0, abs=1e-12)
        assert mine <= min(F.cross_entropy(z, y).item() for z in logits) * (1 + 1e-12)


@pytest.mark.parametrize("sign", SIGNS)
def test_a_single_member_has_all_the_weight(sign):
    noise, _, y = draw(1, 10)
    assert ensemble_weights(noise, y, sign).tolist() == [1.0]


def test_two_members_by_hand():
    """Two classes, margins of -2 (right) and 2 (wrong): of 4 images, a has 3 right, b all.

    For w on a: f = (3 log(1 + exp(-2)) + log(1 + exp(-2 + 4 w))) / 4 falls with w down to its
    bound: 0, or -10 where any sign may be.
    """
    y = torch.tensor([0, 0, 0, 0])
    a = torch.tensor([[2.0, 0], [2, 0], [2, 0], [0, 2]])
    b = torch.tensor([[2.0, 0]]).repeat(4, 1)
    assert ensemble_weights(torch.stack([a, b]), y).tolist() == [0.0, 1.0]
    found = ensemble_weights(torch.stack([a, b]), y, "any")
    expected = (3 * np.log1p(np.exp(-2)) + np.log1p(np.exp(-42))) / 4
    assert cross_entropy(found, torch.stack([a, b]), y).item() == pytest.approx(expected, abs=1e-11)


def test_any_sign_takes_a_bad_member_away():
    noise, one_hot, y = draw(4, 100)
    logits = CASES["one bad"](noise, one_hot, y)[0]
    kept, taken = (ensemble_weights(logits, y, sign) for sign in SIGNS)
    assert kept[-1].item() == 0
    assert taken[-1].item() < -0.1
    assert cross_entropy(taken, logits, y) < 0.8 * cross_entropy(kept, logits, y)


def test_weights_are_bounded_where_the_logits_separate_the_batch():
    one_hot, y = draw(3, 10)[1:]
    logits = torch.stack([one_hot, 2 * one_hot, 0.5 * one_hot])
    assert ensemble_weights(logits, y).tolist() == pytest.approx([0, 1, 0], abs=1e-12)
    found = ensemble_weights(logits, y, "any")
    assert found.min().item() == -10  # the least that is allowed
    assert cross_entropy(found, logits, y) < 1e-8


def test_float32_is_solved_in_float64():
    noise, one_hot, y = draw(4, 100)
    logits = (noise + one_hot).float()
    found = ensemble_weights(logits, y)
    assert found.dtype == torch.float32
    assert torch.equal(found, ensemble_weights(logits.double(), y).float())


def test_logits_are_left_as_they_were():
    noise, _, y = draw(2, 10)
    logits = noise.requires_grad_()
    before = logits.detach().clone()
    assert not ensemble_weights(logits, y).requires_grad
    assert torch.equal(logits, before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_are_equal_where_a_logit_is_not_finite(value):
    noise, _, y = draw(4, 10)
    noise[1, 2, 3] = value
    assert ensemble_weights(noise, y).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("members", "inner", "sign"),
    [
        (2, 2, "nonnegative"),
        (3, 2, "nonnegative"),
        (3, 3, "nonnegative"),
        (5, 4, "nonnegative"),
        (2, 2, "any"),
        (4, 4, "any"),
    ],
)
def test_the_derivative_of_weights_is_that_of_solving_again(members, inner, sign):
    """Members beyond the inner ones are so bad that they have no weight, here and nearby."""
    noise, one_hot, y = draw(members, 10)
    helped = torch.ones(members, 1, 1).double()
    helped[inner:] = -4
    logits = (2 * noise + helped * one_hot).requires_grad_()
    w = differentiable_weights(logits, y, sign)
    assert torch.equal(w, ensemble_weights(logits, y, sign))
    assert int((w > 0.02).sum()) == inner
    assert (w.detach()[inner:] == 0).all()
    into, along = torch.randn(members).double(), torch.randn_like(noise)
    (slope,) = torch.autograd.grad((w * into).sum(), logits)
    step = 1e-4
    up, down = (ensemble_weights(logits.detach() + x * along, y, sign) for x in (step, -step))
    expected = float(((up - down) / (2 * step)) @ into)
    assert float((slope * along).sum()) == pytest.approx(expected, rel=1e-4)
    assert abs(expected) > 1e-3


def test_weights_at_a_vertex_or_of_equal_members_have_no_derivative():
    noise, one_hot, y = draw(3, 10)
    best = torch.stack([8 * one_hot + noise[0], noise[1], noise[2]])
    alike = noise[:1].repeat(3, 1, 1)
    for logits in (best.requires_grad_(), alike.requires_grad_()):
        w = differentiable_weights(logits, y)
        (slope,) = torch.autograd.grad((w * torch.tensor([1.0, 2.0, 4.0])).sum(), logits)
        assert float(slope.abs().max()) == 0.0
    assert not differentiable_weights(noise, y).requires_grad
    noise[1, 2, 3] = torch.nan
    assert differentiable_weights(noise.requires_grad_(), y).tolist() == pytest.approx([1 / 3] * 3)


def test_too_many_members_are_refused():
    with pytest.raises(ValueError, match="13 members takes too long: give at most 12"):
        ensemble_weights(torch.zeros(13, 2, 3), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_no_point_of_the_simplex_has_a_smaller_quadratic(members):
    """Against points at random on every face, from far away to close by."""
    torch.manual_seed(members)
    for rank, total in itertools.product((0, 1, members), (1.0, 41.0)):
        root = torch.randn(members, rank).double()
        about = Quadratic(0.0, 3 * torch.randn(members).double(), root @ root.T)
        x = total * torch.rand(members).double().softmax(0)

        def value(points, about=about, x=x):
            step = points - x
            return step @ about.gradient + ((0.5 * step @ about.hessian) * step).sum(-1)

        found = ensembling._simplex_minimum(x, about)
        assert found.min().item() >= 0
        assert found.sum().item() == pytest.approx(total, rel=1e-12)
        others = torch.rand(2000, members).double() * (torch.rand(2000, members) < 0.5)
        others[:, 0] += others.sum(1) == 0
        others = total * others / others.sum(1, keepdim=True)
        share = torch.logspace(-4, 0, 2000).double().unsqueeze(1)
        nearby = found + share * (others - found)
        assert value(found).item() <= value(nearby).min().item() + 1e-9
