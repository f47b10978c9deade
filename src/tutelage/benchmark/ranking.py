"""How well predicted scores order architectures whose true accuracies are known.

Yu et al. (Evaluating the search phase of neural architecture search, ICLR 2020) evaluate a supernet
by Kendall's tau. But a search keeps only the best predicted, so the top is evaluated too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """Predicted scores compared with true accuracies, of the same architectures.

    True ranks are among these architectures: 1 is the best, and equal ones share the best of their
    ranks. Of architectures with the same score, those of lower true accuracy count as chosen first,
    so that equal scores bring no advantage.
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
    """The number of best predicted architectures for the following figures."""
    precision: float
    """The share of them whose true rank is no more than `top`."""
    best_rank: int
    """The best true rank among them."""
    regret: float
    """The loss from training only them: the best accuracy of all minus the best of theirs."""


def compare(scores: Sequence[float], accuracies: Sequence[float], top: int = 10) -> Ranking:
    """Compare predicted scores with true accuracies; of both, more is better.

    Raises:
        ValueError: there are fewer than two, their numbers differ, some are NaN, or `top` is not
            from 1 to their number.
    """
    predicted, true = (np.asarray(each, dtype=np.float64) for each in (scores, accuracies))
    count = len(predicted)
    if count < 2 or predicted.shape != true.shape:
        raise ValueError(
            f"{count} scores with {len(true)} accuracies: a ranking needs two or more, and equally "
            "many of both"
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
    """Return Kendall's tau-b and Spearman's rho; None if all of x, or all of y, are equal."""
    if (x == x[0]).all() or (y == y[0]).all():
        return None, None
    from scipy.stats import kendalltau, spearmanr  # takes 2 s, which a query does not need

    return float(kendalltau(x, y).statistic), float(spearmanr(x, y).statistic)


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank values, 1 for the highest; equal ones share the best of their ranks.

    >>> ranks(np.array([10.0, 94.4, 10.0, 91.0])).tolist()
    [3, 1, 3, 2]
    """
    return len(values) + 1 - np.searchsorted(np.sort(values), values, side="right")
