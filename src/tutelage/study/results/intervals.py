"""The 95 % interval of a mean over seeds: by Student's t, or by the bootstrap.

`scipy` is imported inside functions: it takes seconds.
"""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Sequence
from typing import Literal

LEVEL = 0.05
"""Level of tests; intervals cover 1 - LEVEL."""
FEWEST = 10
"""Values below which there is no bootstrap interval: of 5 normal ones it covers 84 %, not 95."""
ENOUGH = 20
"""Values below which a bootstrap interval is marked as too narrow."""
RESAMPLES = 9999
"""Samples that are drawn from the values, with replacement."""
SEED = 0
"""Of the generator that draws them, so that a report is the same each time."""
Kind = Literal["t", "bootstrap"]
"""How an interval is computed."""
Bounds = tuple[float, float]


def interval(values: Sequence[float], kind: Kind) -> Bounds | None:
    """Return the interval of the mean; None: the values are too few for it.

    Args:
        values: One for each seed, or one difference for each pair.
        kind: t: symmetric, exact for normal values, from two values on. bootstrap: bias-corrected
            and accelerated (BCa, Efron 1987), which follows the skewness of the values and stays
            within their range, from FEWEST values on.
    """
    return _by_t(values) if kind == "t" else _by_bootstrap(values)


def quantile(share: float, freedom: int) -> float:
    """Return a quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(share, freedom))


def _by_t(values: Sequence[float]) -> Bounds | None:
    n = len(values)
    if n < 2:
        return None
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = quantile(1 - LEVEL / 2, n - 1) * deviation / math.sqrt(n)
    return mean - half, mean + half


def _by_bootstrap(values: Sequence[float]) -> Bounds | None:
    if len(values) < FEWEST:
        return None
    if min(values) == max(values):  # BCa divides by the spread
        return values[0], values[0]
    import numpy as np
    from scipy.stats import bootstrap

    # scipy renamed this argument in 1.15
    name = "rng" if "rng" in inspect.signature(bootstrap).parameters else "random_state"
    found = bootstrap(
        (np.asarray(values),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - LEVEL,
        method="BCa",
        **{name: np.random.default_rng(SEED)},
    ).confidence_interval
    return float(found.low), float(found.high)
