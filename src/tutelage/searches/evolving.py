"""Evolution among the architectures of a space, one candidate at a time.

Guo et al.: Single path one-shot neural architecture search with uniform sampling. ECCV 2020,
arXiv:1904.00420, algorithm 1: the best architectures so far are parents, and a generation consists
of their crossovers and mutations. No architecture is scored twice, or if it exceeds the limits.

With two objectives the parents are selected as in NSGA-II (`pareto`): the best of population and
children survive, and binary tournaments choose parents among them.

Deviations:
    NSGA-II's children are crossed and then mutated; here they are one or the other, as in SPOS.
    SPOS may cross a parent with itself; here the two differ.
    SPOS samples random architectures until a generation is full, so it never ends if the limits
    leave too few. Here a generation holds the architectures that are found, and the search ends if
    none is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, product
from math import isfinite, prod
from typing import Any, NamedTuple, final

import numpy as np

from tutelage.searches.evolution import Evolution
from tutelage.searches.pareto import Scores, front, ranked
from tutelage.spaces.paths import Encoding

TRIES = 10
"""Crossovers, then mutations, that are tried for each place in a generation (SPOS)."""
RANDOM_TRIES = 100_000
"""Random architectures that are tried to fill a generation; a smaller space is searched
completely."""


class Scored(NamedTuple):
    """An architecture, its scores, and its generation."""

    encoding: Encoding
    scores: Scores
    generation: int


@final
class Evolving:
    """The state of an evolution: `ask` for a candidate, `tell` its scores, until done.

    Attributes:
        generation: The present generation, counted from 0.
        candidate: The present candidate's place in it.
        history: All scored candidates, in order.
    """

    def __init__(
        self,
        choices: Sequence[int],
        settings: Evolution,
        allowed: Callable[[Encoding], bool],
        seed: int,
        first: Iterable[Encoding] = (),
    ) -> None:
        """Sample the first generation, uniformly.

        Args:
            choices: Number of choices at each place.
            settings: Sizes, rates and objectives.
            allowed: Whether an architecture is within the limits; called up to `RANDOM_TRIES`
                times a generation, so it should be quick.
            seed: Seed of all random numbers.
            first: Further members of the first generation, if the limits allow them.

        Raises:
            ValueError: The limits allow no architecture that was tried.
        """
        self.generation = self.candidate = 0
        self.history: list[Scored] = []
        self._choices, self._settings, self._allowed = tuple(choices), settings, allowed
        self._objectives = 1 if settings.objectives == "accuracy" else 2
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._candidates: list[Encoding] = []
        self._parents: list[int] = []  # places in the history, best first
        self._seen: set[Encoding] = set()
        self._fill(settings.population, first)
        self._breed()
        if self.done:
            tried = min(prod(self._choices), RANDOM_TRIES)
            raise ValueError(
                f"the limits allow none of {tried:,} architectures that were tried: raise "
                "max_params, max_flops or max_latency"
            )

    @property
    def done(self) -> bool:
        """Whether all generations are scored, or no new architecture can be found."""
        return not self._candidates

    @property
    def size(self) -> int:
        """Candidates of the present generation."""
        return len(self._candidates)

    @property
    def best(self) -> Scored:
        """The best so far: highest in the first objective, then in the second, then earliest."""
        return max(self.history, key=lambda scored: scored.scores)

    @property
    def front(self) -> list[Scored]:
        """All that no other dominates so far, the best in the second objective (cost) first."""
        places = front([scored.scores for scored in self.history])
        members = [self.history[place] for place in places]
        return sorted(members, key=lambda scored: scored.scores[-1], reverse=True)

    def ask(self) -> Encoding:
        """Return the present candidate: the same one until its scores are given."""
        return self._candidates[self.candidate]

    @property
    def following(self) -> list[Encoding]:
        """The present candidate and those that follow it in its generation."""
        return self._candidates[self.candidate :]

    def tell(self, scores: Sequence[float]) -> None:
        """Score the present candidate and go to the next.

        Args:
            scores: One number for each objective, to be maximised: costs are negated.

        Raises:
            ValueError: There is another number of scores, or one is not finite.
        """
        if len(scores) != self._objectives or not all(map(isfinite, scores)):
            raise ValueError(f"scores = {scores}: must be finite, and {self._objectives} of them")
        self.history.append(Scored(self.ask(), tuple(map(float, scores)), self.generation))
        self.candidate += 1
        if self.candidate == len(self._candidates):
            self._select()
            self.generation, self.candidate, self._candidates = self.generation + 1, 0, []
            if self.generation < self._settings.generations:
                self._breed()

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint needs, as plain values."""
        return {
            "generator": dict(self._random.bit_generator.state),
            "generation": self.generation,
            "candidate": self.candidate,
            "candidates": list(self._candidates),
            "parents": list(self._parents),
            "history": [tuple(scored) for scored in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state of an evolution with the same arguments."""
        self._random.bit_generator.state = state["generator"]
        self.generation, self.candidate = state["generation"], state["candidate"]
        self._candidates, self._parents = list(state["candidates"]), list(state["parents"])
        self.history = [Scored(*values) for values in state["history"]]
        self._check()
        self._seen = {scored.encoding for scored in self.history} | set(self._candidates)

    def _check(self) -> None:
        """Raise ValueError for numbers that no evolution with these arguments has."""

        def number(x: Any, below: int) -> bool:
            return type(x) is int and 0 <= x < below

        def encoded(x: Any) -> bool:
            return type(x) is tuple and len(x) == len(bounds) and all(map(number, x, bounds))

        def scored(x: Any, generation: Any) -> bool:
            right = type(x) is tuple and len(x) == self._objectives
            right = right and all(type(each) is float and isfinite(each) for each in x)
            return right and number(generation, self._settings.generations)

        bounds, candidates = self._choices, self._candidates
        if not (
            number(self.generation, self._settings.generations + 1)
            and number(self.candidate, max(1, len(candidates)))
            and self.candidate == sum(x.generation == self.generation for x in self.history)
            and all(map(encoded, candidates))
            and all(number(each, len(self.history)) for each in self._parents)
            and all(encoded(x.encoding) and scored(x.scores, x.generation) for x in self.history)
            and len(candidates) <= self._settings.population
        ):
            raise ValueError("the evolution has numbers that its settings do not allow")

    # A generation ----------------------------------------------------------------------------

    def _select(self) -> None:
        """Keep the best of the parents and of the scored generation."""
        most = self._settings.parents if self._objectives == 1 else self._settings.population
        born = len(self.history) - len(self._candidates)
        pool = self._parents + list(range(born, len(self.history)))
        order = ranked([self.history[place].scores for place in pool])
        self._parents = [pool[place] for place in order[:most]]

    def _breed(self) -> None:
        """Make a generation by crossover, by mutation, and by random sampling for the rest."""
        population, tries = self._settings.population, range(TRIES * self._settings.population)
        if len(self._parents) > 1:
            crossed = round(self._settings.crossover * population)
            self._fill(crossed, (self._crossed() for _ in tries))
        if self._parents:
            self._fill(population, (self._mutated() for _ in tries))
        self._fill(population, self._sampled())

    def _fill(self, size: int, samples: Iterable[Encoding]) -> None:
        """Add new allowed samples until the generation has `size` candidates."""
        new = (each for each in samples if each not in self._seen and self._allowed(each))
        for encoding in islice(new, size - len(self._candidates)):
            self._candidates.append(encoding)
            self._seen.add(encoding)

    def _crossed(self) -> Encoding:
        """Take each number of the encoding from one of two different parents."""
        ours, theirs = self._chosen(2)
        return _encoding(np.where(self._random.random(len(ours)) < 0.5, ours, theirs))

    def _mutated(self) -> Encoding:
        """Copy a parent; sample each number again with the probability of a mutation."""
        (ours,) = self._chosen(1)
        mutated = self._random.random(len(ours)) < self._settings.mutation
        return _encoding(np.where(mutated, self._random.integers(self._choices), ours))

    def _sampled(self) -> Iterator[Encoding]:
        """Sample uniformly; in a small space without replacement, until it is exhausted."""
        if prod(self._choices) <= RANDOM_TRIES:
            every = list(product(*map(range, self._choices)))
            yield from (every[place] for place in self._random.permutation(len(every)))
        else:
            for _ in range(RANDOM_TRIES):
                yield _encoding(self._random.integers(self._choices))

    def _chosen(self, count: int) -> list[Encoding]:
        """Choose different parents: uniformly, or by binary tournaments with two objectives."""
        pool = list(self._parents)
        winners = [
            pool.pop(self._random.integers(len(pool), size=self._objectives).min())
            for _ in range(count)
        ]
        return [self.history[place].encoding for place in winners]


def _encoding(values: np.ndarray) -> Encoding:
    return tuple(values.tolist())
