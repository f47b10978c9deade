"""Scores of candidates in their order, of which several ranks compute one each at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import final

from tutelage import ranks
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Encoding


@final
class Ahead:
    """Scores candidates one after another; every rank gets the same numbers in the same order.

    A candidate's score does not depend on which rank computes it, so neither does a result on the
    number of ranks.
    """

    def __init__(self, score: Callable[[Genotype], float], read: Callable[[Encoding], Genotype]):
        """Score nothing yet; `read` makes an architecture of its encoding."""
        self._score, self._read = score, read
        self._ready: deque[float] = deque()

    def first_of(self, following: Sequence[Encoding]) -> float:
        """Return the score of the first candidate; those that follow it may be scored already.

        Args:
            following: This candidate and all that are known to come after it, in order.
        """
        if not self._ready:
            found = None
            if ranks.rank() < len(following):
                own = self._read(following[ranks.rank()])
                with ranks.apart():
                    found = self._score(own)
            every = ranks.everyones(found)
            self._ready.extend(score for score in every if score is not None)
        return self._ready.popleft()
