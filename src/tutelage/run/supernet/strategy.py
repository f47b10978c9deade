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
    """What a strategy has observed so far: part of every checkpoint."""

    stopped: dict[str, Any] | None
    """Why the search stops early, and the epoch that counts; None: it continues."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resume from a checkpoint."""


class Strategy(Protocol):
    """What differs between searches by alphas, by sampled paths, and at random."""

    epochs: int
    """How many epochs there are."""

    @property
    def diagnostics(self) -> Observed:
        """What was observed of this search."""

    def check(self, view: View) -> None:
        """Refuse what cannot end well, before anything is trained for it.

        Raises:
            ValueError: It cannot.
        """

    def bind(self, space: Space) -> Bound:
        """Bind the search to the space of one supernet."""

    def train(self, problem: Problem, spaces: list[Space]) -> Problem:
        """Return the problem that is trained: a method's, in this kind of search.

        Args:
            problem: As the method makes it.
            spaces: Of the first supernet, the second, ...; the last one serves the others.
        """

    def observe(self, view: View) -> dict[str, Any]:
        """Measure what an epoch has led to; return entries of its row of metrics.jsonl."""

    def shown(self, view: View) -> dict[str, str]:
        """Return what progress shows of the architectures."""

    def conclude(self, view: View, directory: RunDirectory) -> Found:
        """Keep what was found; writes genotype.json last, which says that the search has ended."""
