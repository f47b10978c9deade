"""Early stopping: rules on the diagnostics of a search so far.

A rule reads one number for each epoch, `history[i]` for epoch i, and decides for the newest epoch.
It has no state, so a search that resumes from a checkpoint stops where the uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple


class Stop(NamedTuple):
    """Why a search stops now, and what it keeps."""

    reason: str
    """The reason, a plain sentence."""
    epoch: int
    """The epoch whose architecture is kept, counted from 0."""


def by_eigenvalue(
    history: Sequence[float | None],
    *,
    window: int = 5,
    back: int = 5,
    ratio: float = 0.75,
    start: int = 10,
) -> Stop | None:
    """Stop when the dominant eigenvalue grows too fast (R-DARTS).

    Zela et al., "Understanding and robustifying differentiable architecture search", ICLR 2020,
    arXiv:1909.09656, section 4.3: with m(i) the mean over `window` values around i, stop when

        m(i - back) / m(i) < ratio

    and keep the architecture of i - back. A mean around i uses values from after i, so the rule
    decides window // 2 values late; at the start the window is cut short.

    Values that are None or not finite were not measured. As in the release, window and back count
    measured values, so with one value every n epochs they cover n times as many epochs. Means that
    are not positive have no meaningful ratio and do not stop the search.

    Deviations: the release (automl/RobustDARTS) has ratio = 1 / 1.3, back = 4 and one value every
    2 epochs, and keeps no architecture from before epoch 10. Only the last is the default here:
    from alphas near zero the eigenvalue may grow without a collapse. `start=0` removes it.

    Args:
        history: The eigenvalue after every epoch; None where it was not measured.
        window: Number of values in a mean.
        back: Number of values between the two means.
        ratio: The search stops when the earlier mean divided by the newest is below this.
        start: The first epoch whose architecture may be kept.
    """
    measured = [(i, x) for i, x in enumerate(history) if x is not None and isfinite(x)]
    newest = len(measured) - 1 - window // 2

    def mean(centre: int) -> float:
        stop = centre + window // 2 + 1
        values = [x for _, x in measured[max(0, stop - window) : stop]]
        return sum(values) / len(values)

    if newest < back or measured[newest - back][0] < start:
        return None
    before, now = mean(newest - back), mean(newest)
    if not 0 < before < ratio * now:
        return None
    kept, until = measured[newest - back][0], measured[newest][0]
    reason = f"the dominant eigenvalue grew from {before:.3g} to {now:.3g}"
    return Stop(f"{reason} between epochs {kept} and {until}", kept)


def by_skips(history: Sequence[int], *, most: int = 1, start: int = 0) -> Stop | None:
    """Stop when the normal cell has more than `most` skip connections (DARTS+).

    Liang et al., "DARTS+: improved differentiable architecture search with early stopping",
    arXiv:1909.06035, criterion 1: two or more in one normal cell. The architecture is derived when
    the search stops, so it has those skip connections.

    Args:
        history: Number of skip connections of the normal cell after every epoch.
        most: Number that it may have.
        start: The first epoch after which the search may stop.
    """
    epoch = len(history) - 1
    if epoch < start or history[epoch] <= most:
        return None
    return Stop(f"the normal cell has {history[epoch]} skip connections", epoch)


def stop_now(
    history: list[list[dict[str, Any]]], rule: str, start: int, since: int = 0
) -> Stop | None:
    """Apply a rule of early stopping to every learner; the first that meets it stops the search.

    Args:
        history: The diagnostics after every epoch, of every learner.
        rule: never, eigenvalue or skips.
        start: The first epoch whose architecture may be kept.
        since: The epoch in which the weights were initialised.
    """
    for learner in range(len(history[-1])):
        if rule == "eigenvalue":
            stop = by_eigenvalue(eigenvalues(history, learner, since), start=start)
        elif rule == "skips":
            counts = [skips.get("normal", 0) for skips in column(history, learner, "skips")]
            stop = by_skips(counts, start=start)
        else:
            stop = None
        if stop:
            return stop
    return None


def eigenvalues(
    history: list[list[dict[str, Any]]], learner: int, since: int
) -> list[float | None]:
    """Return one learner's dominant eigenvalues, None before its weights were initialised.

    Those of an earlier phase are of another supernet, and tell nothing of this one's.
    """
    return [None] * since + column(history, learner, "eigenvalue")[since:]


def column(history: list[list[dict[str, Any]]], learner: int, name: str) -> list[Any]:
    """Return one learner's values of one diagnostic, one for each epoch."""
    return [epoch[learner][name] for epoch in history]
