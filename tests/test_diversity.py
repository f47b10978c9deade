"""EnNAS' sampler: Eq. 4 and 5 against plain loops, marginals that are uniform to the last digit."""

from __future__ import annotations

from itertools import permutations
from typing import get_args

import pytest
import torch
from torch import Tensor

from tutelage.searches.diversity import (
    FLOOR,
    Rule,
    Sequential,
    _offsets,
    diversity,
    sequential,
    uniform,
)

RULES = get_args(Rule)
GRID = [(T, m) for T in (1, 2, 3, 4, 7, 9) for m in range(1, T + 1)]
GRID += [(10, 4), (14, 4), (14, 8)]


def symmetric(values: Tensor) -> Tensor:
    upper = values.double().triu(1)
    return upper + upper.T


def apart(kinds: list[int]) -> Tensor:
    """Operators differ by 1 where they are of different kinds, else not at all."""
    kind = torch.tensor(kinds)
    return (kind.unsqueeze(0) != kind.unsqueeze(1)).double()


def zetas(T: int) -> dict[str, Tensor]:
    """Diversities that are ordinary, and those that leave the scaling least room."""
    generator = torch.Generator().manual_seed(T)
    random = symmetric(2 * torch.rand(T, T, generator=generator))
    one_pair = torch.zeros(T, T)
    one_pair[:1, 1:2] = 1
    return {
        "random": random,
        "sparse": random * symmetric(torch.rand(T, T, generator=generator) < 0.2),
        "heavy-tailed": symmetric((5 * torch.randn(T, T, generator=generator)).exp()),
        "a zero row": random * (torch.arange(T) > 0) * (torch.arange(T) > 0).unsqueeze(1),
        "all zero": torch.zeros(T, T),
        "one pair": symmetric(one_pair),
        "two kinds": apart([o % 2 for o in range(T)]),
        "one of its kind": apart([int(o == 0) for o in range(T)]),
        "two of their kind": apart([int(o < 2) for o in range(T)]),
        "rounded below zero": symmetric(torch.full((T, T), -1e-8)),
        "tiny": 1e-200 * random,
    }


def orders(T: int, m: int) -> Tensor:
    """All (T!/(T-m)!, m) orders in which m of T operators can be drawn."""
    return torch.tensor(list(permutations(range(T), m)))


def enumerated(sampler: Sequential, T: int, m: int) -> list[list[float]]:
    """Marginals (m, T), summed over all ordered sequences one by one."""
    marginals = [[0.0] * T for _ in range(m)]
    every = orders(T, m)
    for order, probability in zip(every.tolist(), sampler.probability(every).tolist(), strict=True):
        for pick, operator in enumerate(order):
            marginals[pick][operator] += probability
    return marginals


def expected(sampler: Sequential, zeta: Tensor, m: int) -> float:
    """Expected mean diversity of two of the m operators."""
    every = orders(len(zeta), m)
    pairs = [zeta[every[:, i], every[:, j]] for i in range(m) for j in range(i)]
    return float(sampler.probability(every) @ torch.stack(pairs).mean(0))


# Eq. 4 ------------------------------------------------------------------------------------------


def test_diversity_equals_plain_loops():
    torch.manual_seed(0)
    maps = torch.randn(4, 5, 6, dtype=torch.float64)
    found = diversity(maps)
    for o in range(4):
        for a in range(4):
            total = 0.0
            for i in range(5):
                inner = sum(float(maps[o, i, d] * maps[a, i, d]) for d in range(6))
                norms = [sum(float(maps[x, i, d]) ** 2 for d in range(6)) ** 0.5 for x in (o, a)]
                total += inner / (norms[0] * norms[1])
            assert found[o, a].item() == pytest.approx(0 if o == a else 1 - total / 5, abs=1e-14)


def test_diversity_by_hand():
    ahead, left = [1.0, 0.0], [0.0, 1.0]
    maps = torch.tensor([[ahead, ahead], [ahead, left], [[-3.0, 0.0], [-2.0, 0.0]]])
    assert diversity(maps).tolist() == [[0, 0.5, 2], [0.5, 0, 1.5], [2, 1.5, 0]]


def test_a_zero_output_is_at_right_angles_to_every_other():
    maps = torch.randn(4, 3, 5)
    maps[1:3] = 0
    zeta = diversity(maps)
    assert zeta[1].tolist() == [1, 0, 1, 1]
    assert zeta[2].tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_diversity_of_low_precision(dtype):
    torch.manual_seed(0)
    maps = torch.randn(1, 8, 400) + 0.05 * torch.randn(5, 8, 400)
    maps = (100 * maps).to(dtype)
    zeta = diversity(maps)
    assert torch.equal(zeta, zeta.T)
    assert zeta.diagonal().tolist() == [0] * 5
    assert zeta.dtype == torch.float64
    torch.testing.assert_close(zeta, diversity(maps.double()), rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(diversity(maps), zeta)


def test_equal_operators_have_no_diversity():
    torch.manual_seed(0)
    for images in range(1, 20):  # rounding takes some cosines above 1
        zeta = diversity(torch.randn(1, images, 33).expand(3, -1, -1))
        assert (zeta >= 0).all()
        assert zeta.max() < 1e-6


# Eq. 5 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "m"), GRID)
def test_exact_marginals_are_uniform(T, m):
    for name, zeta in zetas(T).items():
        sampler = sequential(zeta, m)
        off = (sampler.marginals() - 1 / T).abs().max().item()
        assert off < 1e-12, name
        for pick in sampler.picks:
            torch.testing.assert_close(
                pick.conditional.sum(1), torch.ones_like(pick.probability), rtol=0, atol=1e-14
            )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("T", "m"), GRID)
def test_nothing_is_drawn_twice_and_all_else_can_be(T, m, rule):
    for name, zeta in zetas(T).items():
        for size, pick in enumerate(sequential(zeta, m, rule).picks):
            inside = pick.sets.unsqueeze(1) >> torch.arange(T) & 1
            assert (inside.sum(1) == size).all(), name
            assert torch.equal(pick.conditional > 0, inside == 0), name


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("T", "m"), [(1, 1), (3, 2), (3, 3), (5, 3), (6, 4)])
def test_marginals_equal_those_of_all_sequences(T, m, rule):
    for name, zeta in zetas(T).items():
        sampler = sequential(zeta, m, rule)
        loops = torch.tensor(enumerated(sampler, T, m), dtype=torch.float64)
        assert (sampler.marginals() - loops).abs().max() < 1e-14, name
        assert loops.sum().item() == pytest.approx(m, abs=1e-12), name


def test_direct_and_printed_rules_equal_plain_loops():
    T, m = 6, 4
    zeta = zetas(T)["random"]
    assert zeta[zeta > 0].min() > FLOOR * zeta[zeta > 0].mean()

    def g(o: int, A: tuple[int, ...]) -> float:
        return 0.0 if o in A else sum(float(zeta[o, a]) for a in A) / len(A)

    def printed(o: int, A: tuple[int, ...]) -> float:
        sets = {tuple(sorted(order)) for order in permutations(range(T), len(A))}
        return g(o, A) / (T * sum(g(o, other) for other in sets))

    for rule, score in (("direct", g), ("printed", printed)):
        found = sequential(zeta, m, rule).probability(orders(T, m)).tolist()
        for order, probability in zip(orders(T, m).tolist(), found, strict=True):
            wanted = 1 / T
            for size in range(1, m):
                A = tuple(order[:size])
                wanted *= score(order[size], A) / sum(score(o, A) for o in range(T))
            assert probability == pytest.approx(wanted, rel=1e-12)


def test_exact_rule_is_eq_5_but_for_one_factor_an_operator_and_one_a_set():
    T, m = 6, 4
    zeta = zetas(T)["random"]
    for size, pick in enumerate(sequential(zeta, m).picks):
        inside = pick.sets.unsqueeze(1) >> torch.arange(T) & 1
        g = inside.double() @ zeta if size else torch.ones(1, T, dtype=torch.float64)
        factors = (pick.conditional / g).log()
        for A in range(len(factors)):
            for other in range(A):
                both = (inside[A] + inside[other]) == 0
                differences = (factors[A] - factors[other])[both]
                assert len(differences) == 0 or differences.max() - differences.min() < 1e-10


def test_three_operators_leave_nothing_to_choose():
    zeta = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])
    direct = sequential(zeta, 2, "direct")
    assert (60 * direct.picks[1].conditional).tolist() == [[0, 20, 40], [15, 0, 45], [24, 36, 0]]
    exact = sequential(zeta, 2).picks[1].conditional
    torch.testing.assert_close(exact, (1 - torch.eye(3).double()) / 2, rtol=0, atol=1e-13)


def test_the_last_operator_needs_no_offsets():
    others = (1 - torch.eye(3).double()).bool()
    scores = torch.zeros(3, 3).double().masked_fill(others, -torch.inf)
    uneven = torch.tensor([0.3, 0.3, 0.4]).double()  # as rounding at earlier picks may leave them
    assert _offsets(scores, uneven).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("T", "m"), [(4, 3), (5, 4), (4, 4)])
def test_sets_are_uniform_where_at_most_one_operator_is_left_out(T, m):
    for name, zeta in zetas(T).items():
        every = orders(T, m)
        probability = sequential(zeta, m).probability(every)
        for left in range(T):
            without = probability[(every != left).all(1)].sum().item()
            assert without == pytest.approx(1 / T if m < T else 0, abs=1e-12), name


@pytest.mark.parametrize("seed", range(8))
def test_other_rules_miss_the_uniform_marginal(seed):
    T, m = 10, 4
    torch.manual_seed(seed)
    zeta = symmetric(torch.rand(T, T))
    off = {rule: (T * sequential(zeta, m, rule).marginals() - 1).abs().max() for rule in RULES}
    assert 0.14 < off["direct"] < 0.63  # the ratio of a marginal to 1/T, less 1
    assert 0.04 < off["printed"] < 0.13
    assert off["exact"] < 1e-12
    assert off["printed"] < off["direct"] / 2


def test_printed_rule_where_one_operator_is_of_its_kind():
    sampler = sequential(0.1 + 0.8 * apart([1, 0, 0, 0, 0, 0, 0]), 4, "printed")
    ratio = 7 * sampler.marginals()
    assert ratio[1].tolist() == pytest.approx([1.909] + 6 * [0.848], abs=1e-3)


def test_uniform_sampler_is_that_of_equal_diversities():
    for T, m in ((5, 3), (4, 4)):
        equal = sequential(torch.full((T, T), 0.3), m)
        for found, wanted in zip(equal.picks, uniform(T, m).picks, strict=True):
            torch.testing.assert_close(found.conditional, wanted.conditional, rtol=0, atol=1e-15)
        every = orders(T, m)
        probability = uniform(T, m).probability(every)
        torch.testing.assert_close(probability, torch.full_like(probability, 1 / len(every)))


@pytest.mark.parametrize(("T", "m"), [(4, 2), (5, 3), (7, 2), (7, 4)])
def test_draws_are_more_diverse_than_uniform_ones(T, m):
    for seed in range(5):
        torch.manual_seed(seed)
        zeta = symmetric(torch.rand(T, T))
        gain = expected(sequential(zeta, m), zeta, m) / expected(uniform(T, m), zeta, m)
        assert gain > 1.01
    kinds = apart([o % 2 for o in range(T)])
    assert expected(sequential(kinds, m), kinds, m) > expected(uniform(T, m), kinds, m)


# Draws ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_draws_follow_the_probabilities(rule):
    T, m, count = 5, 3, 100_000
    torch.manual_seed(0)
    sampler = sequential(zetas(T)["random"], m, rule)
    drawn = sampler.draw(count)
    assert drawn.shape == (count, m)
    place = torch.tensor([T**2, T, 1])
    seen = (drawn @ place).bincount(minlength=T**m).double()
    every = orders(T, m)
    assert seen[every @ place].sum() == count  # in no order is an operator drawn twice
    probability = sampler.probability(every)
    deviation = (count * probability * (1 - probability)).sqrt()
    assert ((seen[every @ place] - count * probability).abs() < 5 * deviation).all()
    chi_square = ((seen[every @ place] - count * probability) ** 2 / (count * probability)).sum()
    assert chi_square < 59 + 5 * 118**0.5  # mean and variance of 60 - 1 degrees of freedom


@pytest.mark.parametrize(("T", "m"), [(7, 4), (14, 4), (8, 8)])
def test_drawn_marginals_are_uniform_within_sampling_error(T, m):
    torch.manual_seed(1)
    count = 100_000
    drawn = sequential(zetas(T)["sparse"], m).draw(count)
    bound = 5 * (count / T * (1 - 1 / T)) ** 0.5
    for pick in range(m):
        assert (drawn[:, pick].bincount(minlength=T) - count / T).abs().max() < bound
    ordered = drawn.sort(1).values
    assert (ordered[:, 1:] > ordered[:, :-1]).all()


def test_same_seed_draws_the_same():
    sampler = sequential(zetas(7)["random"], 4)
    torch.manual_seed(3)
    first = sampler.draw(20)
    torch.manual_seed(3)
    assert torch.equal(sampler.draw(20), first)
    assert not torch.equal(sampler.draw(20), first)


def test_repeated_operators_have_no_probability():
    sampler = sequential(zetas(5)["random"], 3)
    repeated = torch.tensor([[0, 0, 1], [1, 0, 1], [4, 2, 2], [3, 3, 3], [4, 4, 4]])
    assert sampler.probability(repeated).tolist() == [0] * 5


# Mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [0, 4])
def test_refuses_more_subnetworks_than_operators(m):
    with pytest.raises(ValueError, match=rf"^{m} sub-networks in a layer of 3 .* must be 1 to 3 "):
        sequential(torch.ones(3, 3), m)
    with pytest.raises(ValueError, match=r"use fewer sub-networks or a space with more operators$"):
        uniform(3, m)


def test_refuses_what_is_no_number_and_no_rule():
    with pytest.raises(ValueError, match="not a finite number"):
        sequential(torch.tensor([[0.0, float("nan")], [float("nan"), 0.0]]), 2)
    with pytest.raises(ValueError, match="'sinkhorn': must be one of exact, printed, direct"):
        sequential(torch.ones(3, 3), 2, "sinkhorn")
