"""The evolution among a supernet's paths: its progress and its candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from tutelage.report.figures.scatter import Limit, Points, scatter
from tutelage.report.figures.theme import LIGHT, Drawn, drawn
from tutelage.report.runs.record import RunFiles, number
from tutelage.report.runs.scores import quantity_of
from tutelage.report.sections.tiles import quantity


class Counted(NamedTuple):
    """A cost of a candidate."""

    cost: str
    """The entry of a row."""
    limit: str
    """The setting that limits it."""
    objectives: str
    """Those that minimise it."""
    name: str
    unit: float = 1e6
    """The unit of the limit."""
    words: str = "millions"


COSTS = (
    Counted("flops", "max_flops", "accuracy-flops", "FLOPs"),
    Counted("params", "max_params", "accuracy-params", "parameters"),
    Counted("latency", "max_latency", "accuracy-latency", "latency", 1.0, "ms"),
)


class Scored(NamedTuple):
    """An architecture that was scored with the supernet's weights."""

    generation: int
    score: float
    """Its accuracy in percent, or the method's own score."""
    params: int
    flops: int
    encoding: tuple[int, ...]
    latency: float = 0.0
    """Milliseconds; 0: there was no table."""
    given: bool = False
    """Whether the method gave it to the first generation; else it was sampled or bred."""


def candidates(files: RunFiles) -> list[Scored]:
    """List the scored candidates, in order; rows without all numbers are left out."""
    found, quantity = [], quantity_of(files.scored)
    for row in files.scored:
        score, encoding = quantity.of(row), tuple(row.encoding)
        if not (score is None or row.epoch is None or row.params is None or row.flops is None):
            costs = (row.params, row.flops, encoding, number(row.latency) or 0.0)
            found.append(Scored(row.epoch, score, *costs, given=row.given is True))
    return found


def best(found: Sequence[Scored], cost: str = "") -> Scored | None:
    """Return the best candidate; of equals the one of lower cost, if given, or the first."""
    return max(
        found, key=lambda each: (each.score, -getattr(each, cost) if cost else 0), default=None
    )


def front(found: Sequence[Scored], cost: str) -> list[Scored]:
    """List the candidates that none of at most their cost beats, the cheapest first."""
    members: list[Scored] = []
    for each in sorted(found, key=lambda each: (getattr(each, cost), -each.score)):
        if not members or each.score > members[-1].score:
            members.append(each)
    return members


def traded(files: RunFiles) -> str:
    """Name the cost objective beside accuracy; empty if accuracy was the only objective."""
    asked = files.setting("evolution", "objectives")
    return next((each.cost for each in COSTS if each.objectives == asked), "")


def evolved(files: RunFiles) -> Iterator[Drawn]:
    """Plot candidates by generation, and by their costs."""
    found, against = candidates(files), traded(files)
    if not found:
        return
    scored = quantity_of(files.scored).caption
    caption = f"By generation: {scored}"
    yield drawn(caption, by_generation(found), caption)
    for counted in COSTS:
        allowed = number(files.setting(counted.limit))
        if counted.cost == (against or "flops") or allowed:
            caption = f"By {counted.name}: {scored}"
            members = front(found, against) if counted.cost == against else []
            figure = by_cost(found, counted, allowed, members, best(found, against))
            yield drawn(caption, figure, caption)


def by_generation(found: Sequence[Scored]) -> Figure:
    """Plot every candidate in its generation, the best so far and every generation's mean."""
    x: list[float] = []
    means: list[tuple[float, float]] = []
    most = 1
    for generation, group in groupby(found, key=attrgetter("generation")):
        each = list(group)
        most = max(most, len(each))  # a generation in progress counts as large as earlier ones
        x += [generation - 0.4 + 0.8 * (place + 0.5) / most for place in range(len(each))]
        means.append((generation, sum(c.score for c in each) / len(each)))
    y = [each.score for each in found]
    return scatter(
        [
            Points("candidates", x, y, LIGHT["slate"], alpha=0.45),
            Points("best so far", x, list(accumulate(y, max)), LIGHT["blue"], 0, line="after"),
            Points(
                "mean of a generation",
                [generation for generation, _ in means],
                [mean for _, mean in means],
                LIGHT["vermilion"],
                line="straight",
            ),
        ],
        "generation",
        whole=True,
    )


def by_cost(
    found: Sequence[Scored],
    counted: Counted,
    allowed: float | None = None,
    members: Sequence[Scored] = (),
    chosen: Scored | None = None,
) -> Figure:
    """Plot every candidate by its cost, the limit, the Pareto front and the chosen ones.

    Args:
        found: Every candidate.
        counted: Which cost.
        allowed: The limit of the cost, in its unit.
        members: The front, the cheapest first; later candidates are more opaque.
        chosen: The candidates that the search keeps.
    """

    def points(label: str, each: Sequence[Scored], colour: str, **style: Any) -> Points:
        x = [getattr(c, counted.cost) / counted.unit for c in each]
        y = [c.score for c in each]
        return Points(label, x, y, colour, **style)

    last = max(each.generation for each in found) or 1
    strengths = [0.3 + 0.7 * each.generation / last for each in members]
    return scatter(
        [
            points("candidates", found, LIGHT["slate"], alpha=0.4),
            points(
                "Pareto front (darker: later)", members, LIGHT["blue"], size=32.0, alpha=strengths,
                line="after",
            ),
            points("chosen", [chosen] if chosen else [], LIGHT["vermilion"], size=80.0, ring=True),
        ],
        f"{counted.name} ({counted.words})",
        [Limit(allowed, f"limit {allowed:g}")] if allowed else [],
    )  # fmt: skip


def front_rows(files: RunFiles) -> list[tuple[str, ...]]:
    """Return the members of the Pareto front, the best first."""
    against, scored = traded(files), quantity_of(files.scored)
    return [
        (
            scored.written(each.score),
            quantity(each.flops),
            quantity(each.params),
            f"{each.latency:.4g} ms" if each.latency else "–",
            str(each.generation),
            " ".join(map(str, each.encoding)),
        )
        for each in reversed(front(candidates(files), against) if against else [])
    ]


FRONT = ("score", "FLOPs", "parameters", "latency", "generation", "encoding")
"""The columns of `front_rows`."""


def progress(files: RunFiles) -> str:
    """Describe the progress of the evolution."""
    found, generations = candidates(files), files.setting("evolution", "generations")
    done = files.epochs_done
    return f"{done} of {generations} generations, {len(found)} architectures scored"


def described(files: RunFiles) -> str:
    """Describe the best architecture, and its generation."""
    found, scored = candidates(files), quantity_of(files.scored)
    chosen = best(found, traded(files))
    if chosen is None:
        return "No architecture is scored yet."
    text = f"{progress(files)}. By {scored.name} the best has {scored.written(chosen.score)}"
    first = [each for each in found if each.generation == 0]
    text += f" and is from generation {chosen.generation}"
    if chosen.generation == 0 or not first:
        return f"{text}; generation 0 is {origin(first)}."
    best_first = scored.written(max(each.score for each in first))
    return f"{text}; the best of generation 0, which is {origin(first)}, has {best_first}."


def origin(first: Sequence[Scored]) -> str:
    """Describe the origin of the architectures of generation 0."""
    given = sum(each.given for each in first)
    if given in (0, len(first)):
        return "the method’s own choice" if given else "random"
    return f"the method’s own choice in {given} of {len(first)} architectures, otherwise random"
