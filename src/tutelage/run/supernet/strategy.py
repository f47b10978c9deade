"""How a search is carried out: the protocol of the strategies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tutelage.problem import Problem
from tutelage.run.job.directory import RunDirectory
from tutelage.run.networks.found import Found
from tutelage.run.networks.relaxation import Bound
from tutelage.run.supernet.view import View
from tutelage.spaces.base import Space


class Observed(Protocol):
    """The observations of a strategy so far, a part of every checkpoint."""

    stopped: dict[str, Any] | None
    """Why the search stops early, and the epoch to keep; None: it continues."""

    @property
    def caveat(self) -> str | None:
        """What must be said of figures that are looked up; None: nothing."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""

    def restore(self, state: Mapping[str, Any], epochs: int, learners: int) -> None:
        """Resume from a checkpoint after so many epochs of so many learners."""


class Strategy(Protocol):
    """The differences between searches by alphas, by sampled paths, and at random."""

    epochs: int
    """How many epochs there are."""

    @property
    def diagnostics(self) -> Observed:
        """The observations of this search."""

    def check(self, view: View) -> None:
        """Refuse a search that cannot find an architecture, before any training.

        Raises:
            ValueError: It cannot find one.
        """

    def bind(self, space: Space) -> Bound:
        """Bind the search to the space of one supernet."""

    def train(self, problem: Problem, spaces: list[Space]) -> Problem:
        """Return the problem to train: a method's, adapted to this kind of search.

        Args:
            problem: The problem of the method.
            spaces: Those of the first supernet, the second, ...; the last one serves the others.
        """

    def observe(self, view: View) -> dict[str, Any]:
        """Measure diagnostics after an epoch; return entries of its row of metrics.jsonl."""

    def shown(self, view: View) -> dict[str, str]:
        """Return what the progress display shows of the architectures."""

    def conclude(self, view: View, directory: RunDirectory) -> Found:
        """Keep the result; write genotype.json last, which shows that the search has ended."""
