"""EnNAS' sampler: operators that differ, each sampled equally often.

One-shot NAS with ensemble distillation, under review at ICLR 2022 (OpenReview G9M4FU8Ggo), section
3.3. In a layer of T operators, m sub-networks take one operator each. The first is sampled
uniformly, the others by how much their outputs differ, on average, from those of the set A sampled
before:

    zeta(o, a) = 1 - mean_i cos(o(u_i), a(u_i))                                          (Eq. 4)
    g(o, A)    = mean_{a in A} zeta(o, a)
    p(o | A)   = g(o, A) / (T sum_{A'} g(o, A'))                                         (Eq. 5)

The paper wants every operator sampled with probability 1/T at every pick, so that all train
equally.

Deviations: Eq. 5 is not a distribution over o. If it is normalised ("printed"), marginals differ
from 1/T, by up to a quarter for random diversities (T = 10, m = 4) and more where operators form
groups of similar ones. By default
("exact") every pick has T offsets v, such that

    p(o | A) = softmax_o(log g(o, A) + v_o),        sum_A P(A) p(o | A) = 1/T

where P(A) is the true probability of A. This is the limit of Sinkhorn's scaling of P(A) g(o, A) to
these sums. It exists and is unique: the sums are those of uniform sampling outside of A (by
induction o is in A with probability |A| / T), which is positive wherever g is. From the third pick
on, zeta(o, o) = 0 does not prevent Eq. 5 from sampling an operator again. Here operators in A have
probability 0 under every rule. Other operators have positive probabilities: zeta has a floor.

For m >= T - 1, uniform marginals determine the sampler: every operator is left out equally often,
so sets of operators are as likely as in uniform sampling. In layers of three operators this is the
case for m = 2 and m = 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Rule = Literal["exact", "printed", "direct"]
"""How g becomes p: scaled to uniform marginals, Eq. 5 over its sum, g over its sum."""

FLOOR = 1e-3
"""Least diversity of two operators, as a share of the mean over all pairs."""

PRECISION = 1e-14
"""Largest distance of a marginal from 1/T at which Newton's method ends."""

STEPS = 100
"""Most steps of Newton's method; 75,000 sparse, equal and lognormal diversities took up to 12."""


def diversity(maps: Tensor) -> Tensor:
    """Diversity of operators, float64 (T, T): symmetric, at least 0, exactly 0 with themselves.

    One minus the mean over images of the cosine (Eq. 4). An output that is zero everywhere has
    cosine 0, so diversity 1, with every other operator's, zero or not.

    Args:
        maps: Flattened outputs of T operators for the same B inputs, (T, B, D).
    """
    precise = maps.to(torch.promote_types(maps.dtype, torch.float32))
    images = F.normalize(precise, dim=2).transpose(0, 1)
    with torch.autocast(maps.device.type, enabled=False):  # half precision has no cosines near 1
        cosines = images @ images.mT
    zeta = (1 - cosines.double().mean(0)).clamp_min(0)
    return ((zeta + zeta.T) / 2).fill_diagonal_(0)


def sequential(zeta: Tensor, m: int, rule: Rule = "exact") -> Sequential:
    """Make the sampler of one layer's operators; it is on the CPU, wherever `zeta` is.

    There is a row for every set of fewer than m operators: 470 for m = 4 of T = 14.

    Args:
        zeta: Diversity of the operators (T, T), symmetric; values below the floor are raised to it.
        m: Operators to sample.
        rule: How diversity becomes probability.

    Raises:
        ValueError: m is not 1 to T, a diversity is not finite, or the rule is unknown.
    """
    operators = len(zeta)
    if not 1 <= m <= operators:
        raise ValueError(
            f"{m} sub-networks in a layer of {operators} operators: must be 1 to {operators} since "
            "no two share an operator, so use fewer sub-networks or a space with more operators"
        )
    if rule not in get_args(Rule):
        raise ValueError(f"rule = {rule!r}: must be one of {', '.join(get_args(Rule))}")
    apart = _raised(zeta.detach().to("cpu", torch.float64))
    bits = 1 << torch.arange(operators)
    sets, probability = torch.zeros_like(bits[:1]), torch.ones(1, dtype=torch.float64)
    picks = []
    for size in range(m):
        inside = sets.unsqueeze(1) & bits != 0
        g = inside.double() @ apart / size if size else torch.ones_like(apart[:1])
        picks.append(Pick(sets, probability, _given(g.masked_fill(inside, 0), probability, rule)))
        joint = probability.unsqueeze(1) * picks[-1].conditional
        sets, place = (sets.unsqueeze(1) | bits)[~inside].unique(return_inverse=True)
        probability = apart.new_zeros(len(sets)).index_add_(0, place, joint[~inside])
    return Sequential(tuple(picks))


@cache
def uniform(operators: int, m: int) -> Sequential:
    """Make the sampler, cached, of m distinct operators with all orders equally likely.

    Raises:
        ValueError: m is not 1 to the number of operators.
    """
    return sequential(torch.ones(operators, operators), m)


def _raised(zeta: Tensor) -> Tensor:
    """Raise diversities (T, T) to the floor, in units of their mean; all equal if that is 0."""
    if not zeta.isfinite().all():
        raise ValueError(
            "the diversity of two operators is not a finite number, because outputs of the "
            "supernet are not finite: use a smaller learning rate"
        )
    pairs = zeta.clamp_min(0).fill_diagonal_(0)
    mean = pairs.sum() / max(1, len(zeta) * (len(zeta) - 1))
    return (pairs / mean if mean > 0 else torch.ones_like(pairs)).clamp_min(FLOOR)


def _given(g: Tensor, probability: Tensor, rule: Rule) -> Tensor:
    """Make p(o | A) (sets, T) of g (sets, T), which is zero for operators in the set."""
    if rule == "exact":
        return (g.log() + _offsets(g.log(), probability)).softmax(1)
    if rule == "printed":
        g = g / g.sum(0)
    return g / g.sum(1, keepdim=True)


def _offsets(scores: Tensor, probability: Tensor) -> Tensor:
    """Find v (T,) such that softmax(scores + v), (sets, T), has uniform marginals.

    v minimises the convex sum_A P(A) logsumexp(scores + v) - mean(v), whose gradient is the
    marginals minus 1/T. Newton's step is shortened by the rule for functions whose third derivative
    is at most the range of a direction times the second (Sun, Tran-Dinh, 2019), so no step ascends.
    """
    operators = scores.shape[1]
    v = scores.new_zeros(operators)
    if scores[0].isfinite().sum() == 1:  # all but one are sampled: there is no choice
        return v
    for _ in range(STEPS):
        conditional = (scores + v).softmax(1)
        marginal = probability @ conditional
        if (marginal - 1 / operators).abs().max() <= PRECISION:
            break
        curvature = marginal.diag() - (probability.unsqueeze(1) * conditional).T @ conditional
        # v is defined up to a constant: the 1 makes the matrix regular and the step's mean 0
        step = torch.linalg.solve(curvature + 1, 1 / operators - marginal)
        reach = step.max() - step.min()
        v = v + reach.log1p() / reach * step
    return v


class Pick(NamedTuple):
    """One of the m picks: probabilities given the operators sampled before."""

    sets: Tensor
    """The sets A that may have been sampled, int64 (sets,), ascending; bit o stands for o."""
    probability: Tensor
    """P(A), float64 (sets,)."""
    conditional: Tensor
    """p(o | A), float64 (sets, T)."""

    def given(self, sampled: Tensor) -> Tensor:
        """Look p(o | A) up, (count, T), for sets A (count,)."""
        return self.conditional[torch.searchsorted(self.sets, sampled)]


@dataclass(frozen=True)
class Sequential:
    """Draws m distinct operators of a layer, one after the other."""

    picks: tuple[Pick, ...]

    def draw(self, count: int = 1) -> Tensor:
        """Sample operators, int64 (count, m), from torch's generator."""
        sampled = torch.zeros(count, dtype=torch.int64)
        operators = []
        for pick in self.picks:
            operators.append(torch.multinomial(pick.given(sampled), 1).squeeze(1))
            sampled = sampled | 1 << operators[-1]
        return torch.stack(operators, 1)

    def probability(self, orders: Tensor) -> Tensor:
        """Probability, float64 (count,), of sampling operators (count, m) in that order."""
        sampled = torch.zeros(len(orders), dtype=torch.int64)
        probability = torch.ones(len(orders), dtype=torch.float64)
        for pick, operator in zip(self.picks, orders.T, strict=True):
            probability *= pick.given(sampled).gather(1, operator.unsqueeze(1)).squeeze(1)
            sampled = sampled | 1 << operator
        return probability

    def marginals(self) -> Tensor:
        """Probability of every operator at every pick, float64 (m, T)."""
        return torch.stack([pick.probability @ pick.conditional for pick in self.picks])
