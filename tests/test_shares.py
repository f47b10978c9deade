"""What ranks exchange has derivatives: each against a plain function of the whole batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad
from torch.func import functional_call

from launched import computing, together
from tutelage import ranks, shares
from tutelage.spaces import folding
from tutelage.spaces.fused import BatchNorm, normalise
from tutelage.spaces.network import drop
from tutelage.spaces.ops import Noise

IMAGES = 7
"""On two ranks 3 and 4, on four 1, 2, 2 and 2."""
RATIOS = (1.0, 100.0, 10_000.0)
"""Means of maps, over their deviation."""


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def differentiated(loss, *variables):
    """A loss, its gradient and a product of its Hessian with a vector, averaged over ranks."""
    p = [x.clone().requires_grad_() for x in variables]
    value = loss(*p)
    g = grad(value, p, create_graph=True)
    v = [drawn(*x.shape, seed=9) for x in p]
    product = grad(sum((a * b).sum() for a, b in zip(g, v, strict=True)), p)
    return [x.detach() for x in [value, *shares.average(g), *shares.average(product)]]


def chunks(x, count):
    """The rows of every rank, by the definition of a share."""
    return [x[len(x) * r // count : len(x) * (r + 1) // count] for r in range(count)]


# Every function, once with exchanges and once without ------------------------------------------


def added(x, count):
    """`total`: a sum over images of something that is not linear, inside what is not linear."""

    def ours(W):
        with shares.share(len(x)) as own:
            return shares.total((x[own.rows] @ W).sin().sum(0)).cos().square().sum()

    return ours, lambda W: (x @ W).sin().sum(0).cos().square().sum()


def joined(x, count):
    """`gathered`: a loss in which every image meets every other one."""

    def ours(W):
        with shares.share(len(x)) as own:
            y = shares.gathered((x[own.rows] @ W).sin(), own)
        return (y @ y.t()).tanh().square().sum()

    def plain(W):
        y = (x @ W).sin()
        return (y @ y.t()).tanh().square().sum()

    return ours, plain


def stacked(x, count):
    """`placed`: every rank's mean in its place."""

    def ours(W):
        with shares.share(len(x)) as own:
            means = shares.placed((x[own.rows] @ W).sin().mean(0))
        return (means[:1] * means).exp().sum()

    def plain(W):
        means = torch.stack([(each @ W).sin().mean(0) for each in chunks(x, count)])
        return (means[:1] * means).exp().sum()

    return ours, plain


LINEAR = {"total": added, "gathered": joined, "placed": stacked}


def linear(name, count):
    ours, plain = LINEAR[name](drawn(IMAGES, 3), count)
    return differentiated(ours if ranks.count() > 1 else plain, drawn(3, 4, seed=1))


def normalised(maps, target):
    """BatchNorm of a sum, in a loss that is not linear; with its running statistics."""
    norm = BatchNorm(3)

    def loss(kernel, weight, bias):
        given = {"weight": weight, "bias": bias}
        with shares.share(IMAGES) as own:
            y = functional_call(norm, given, (F.conv2d(maps[own.rows], kernel),))
            return (shares.gathered(y.sin(), own) * target).sum()

    return loss, lambda: [norm.running_mean, norm.running_var]


def of_batch_norm(ratio):
    """A BatchNorm with weights, and what it has seen at the end: ours, or torch's on one rank."""
    maps, target = drawn(IMAGES, 3, 4, 5), drawn(IMAGES, 3, 4, 5, seed=2)
    maps = maps + ratio
    variables = drawn(3, 3, 1, 1, seed=3), drawn(3, seed=4), drawn(3, seed=5)
    seen = torch.zeros(3), torch.ones(3)
    if ranks.count() == 1:

        def plain(kernel, weight, bias):
            # a mean changes nothing but what is seen, and without it no digit is lost
            y = F.conv2d(maps - ratio, kernel)
            y = F.batch_norm(y, *seen, weight, bias, training=True)
            return (y.sin() * target).sum()

        found = differentiated(plain, *variables)
        shift = ratio * variables[0].sum((1, 2, 3))
        return [*found, seen[0] + 0.1 * shift, seen[1]]
    loss, running = normalised(maps, target)
    return [*differentiated(loss, *variables), *running()]


def of_folding(ratio, kind=torch.float64):
    """A sum of normalised 1x1 convolutions: `folded_sum`, or term by term on one rank."""
    maps = (drawn(IMAGES, 6, 4, 5) + ratio).to(kind)
    target = drawn(IMAGES, 4, 4, 5, seed=2).to(kind)
    pointwise, weights = drawn(8, 3, 1, 1, seed=3).to(kind), drawn(2, seed=4).to(kind)

    def ours(z, P, w):
        with shares.share(IMAGES) as own:
            y = folding.folded_sum([z[own.rows]], P, w)
            return (shares.gathered(y.sin(), own) * target).sum()

    def plain(z, P, w):
        # a mean changes nothing, and without it no digit is lost
        terms = zip((z - ratio).split(3, 1), P.split(4), w, strict=True)
        y = sum(a * F.batch_norm(F.conv2d(x, p), None, None, training=True) for x, p, a in terms)
        return (y.sin() * target).sum()

    if kind == torch.float64:
        return differentiated(ours if ranks.count() > 1 else plain, maps, pointwise, weights)
    with shares.share(IMAGES) as own:  # the values alone
        return [shares.gathered(folding.folded_sum([maps[own.rows]], pointwise, weights), own)]


def folded_plainly(ratio):
    """The sum that float32 approximates, of the same numbers."""
    kept = [x.float().double() for x in (drawn(IMAGES, 6, 4, 5) + ratio, drawn(8, 3, 1, 1, seed=3))]
    terms = zip(kept[0].split(3, 1), kept[1].split(4), drawn(2, seed=4).float(), strict=True)
    return sum(a * F.batch_norm(F.conv2d(x, p), None, None, training=True) for x, p, a in terms)


def everything(count):
    """All values, gradients and products of what is exchanged, by name."""
    with computing(torch.float64):
        found = {name: linear(name, count) for name in LINEAR}
        found |= {("norm", ratio): of_batch_norm(ratio) for ratio in RATIOS}
        found |= {("folded", ratio): of_folding(ratio) for ratio in RATIOS}
        return found


def others(count):
    """What is not differentiated: values of own statistics, of float32, and random numbers."""
    x = drawn(IMAGES, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    found = {}
    torch.manual_seed(3)
    with shares.share(IMAGES) as own:
        mine = x if own is None else x[own.rows]
        found["noise"] = shares.gathered(Noise(2)(mine), own)
        found["drop"] = shares.gathered(drop(mine, 0.5), own)
        with shares.statistics(together=False):
            found["own"] = shares.gathered(normalise(mine), own)
        if own:
            found["dropout"] = shares.gathered(shares.dropout(mine, 0.25), own)
    with shares.share(count - 1) as own:
        found["few"] = own
    found["sizes"] = [each.stop - each.start for each in shares.shares(6)]
    if ranks.count() > 1:
        found["float32"] = [of_folding(ratio, torch.float32)[0] for ratio in RATIOS]
    return found


@pytest.mark.parametrize("count", [2, 4])
def test_what_is_exchanged_has_derivatives_of_two_orders(count):
    """An error grows as the mean of a map does against its deviation, and not as its square."""
    alone = everything(count)
    for found in together(count, everything, count):
        for name, values in alone.items():
            ratio = name[1] if isinstance(name, tuple) else 1.0
            for mine, plain in zip(found[name], values, strict=True):
                error = float((mine - plain).abs().max() / plain.abs().max())
                assert error < 1e-14 * max(10.0, ratio), name


@pytest.mark.parametrize("count", [2, 4])
def test_values_and_random_numbers_are_those_of_one_process(count):
    alone, x = others(count), drawn(IMAGES, 3, 4, 4)
    own = [F.batch_norm(each, None, None, training=True) for each in chunks(x, count)]
    exact = {ratio: folded_plainly(ratio) for ratio in RATIOS}
    for found in together(count, others, count):
        assert torch.equal(found["noise"], alone["noise"])
        assert torch.equal(found["drop"], alone["drop"])
        torch.testing.assert_close(found["own"], torch.cat(own))
        zero = found["dropout"] == 0
        assert 0.1 < zero.double().mean() < 0.4
        torch.testing.assert_close(found["dropout"], (x / 0.75).masked_fill(zero, 0.0))
        assert found["few"] is None
        assert found["sizes"] == {2: [3, 3], 4: [1, 2, 1, 2]}[count]
        for ratio, mine in zip(RATIOS, found["float32"], strict=True):
            # float32 has 24 bits; a difference of second moments would lose all of 10,000 ** 2
            assert (mine - exact[ratio]).abs().max() < 2e-6 * max(10.0, ratio)
