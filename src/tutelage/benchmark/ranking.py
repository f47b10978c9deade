"""How well predicted scores order architectures whose true accuracies are known.

Yu et al. (Evaluating the search phase of neural architecture search, ICLR 2020) judge a supernet by
Kendall's tau; but a search keeps the best predicted alone, so the top is judged as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """Predicted scores against true accuracies, of the same architectures.

    True ranks are among these: 1 is the best, and equal ones share the best of their ranks. Of
    architectures with the same score the truly worse are taken as chosen first, so that a score
    gains nothing by leaving it to luck.
    """

    count: int
    """Architectures."""
    tau: float | None
    """Kendall's tau-b; None where all scores, or all accuracies, are equal."""
    rho: float | None
    """Spearman's rho; None as above."""
    accuracy: float
    """True accuracy of the best predicted."""
    rank: int
    """Its true rank."""
    top: int
    """How many of the best predicted are looked at for the following."""
    precision: float
    """The share of them whose true rank is no more than `top`."""
    best_rank: int
    """The best true rank among them."""
    regret: float
    """What is lost by training only them: the best accuracy of all less the best of theirs."""


def compare(scores: Sequence[float], accuracies: Sequence[float], top: int = 10) -> Ranking:
    """Compare predicted scores with true accuracies; of both, more is better.

    Raises:
        ValueError: there are fewer than two, not as many of one as of the other, NaN among them,
            or `top` is not among their numbers.
    """
    predicted, true = (np.asarray(each, dtype=np.float64) for each in (scores, accuracies))
    count = len(predicted)
    if count < 2 or predicted.shape != true.shape:
        raise ValueError(
            f"{count} scores with {len(true)} accuracies: a ranking needs two or more, and as many "
            "of one as of the other"
        )
    for name, values in (("scores", predicted), ("accuracies", true)):
        if np.isnan(values).any():
            raise ValueError(f"{np.isnan(values).sum()} of {count} {name} are NaN: leave them out")
    if not 1 <= top <= count:
        raise ValueError(f"top = {top}: must be from 1 to {count}, the number of architectures")
    true_ranks = ranks(true)
    chosen = np.lexsort((true, -predicted))[:top]
    tau, rho = correlations(predicted, true)
    return Ranking(
        count=count,
        tau=tau,
        rho=rho,
        accuracy=float(true[chosen[0]]),
        rank=int(true_ranks[chosen[0]]),
        top=top,
        precision=float((true_ranks[chosen] <= top).mean()),
        best_rank=int(true_ranks[chosen].min()),
        regret=float(true.max() - true[chosen].max()),
    )


def correlations(x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None]:
    """Give Kendall's tau-b and Spearman's rho; None where all of x, or all of y, are equal."""
    if (x == x[0]).all() or (y == y[0]).all():
        return None, None
    from scipy.stats import kendalltau, spearmanr  # 2 s, which a query need not wait

    return float(kendalltau(x, y).statistic), float(spearmanr(x, y).statistic)


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank values, 1 for the highest; equal ones share the best of their ranks.

    >>> ranks(np.array([10.0, 94.4, 10.0, 91.0])).tolist()
    [3, 1, 3, 2]
    """
    return len(values) + 1 - np.searchsorted(np.sort(values), values, side="right")
