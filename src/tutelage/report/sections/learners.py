"""Every learner's alphas in a search, phase by phase, and the cells derived from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tutelage.report.figures.draw import cell_figure
from tutelage.report.figures.layout import cell_name
from tutelage.report.figures.theme import Drawn, drawn
from tutelage.report.runs.record import RunFiles
from tutelage.report.sections.alphas import Course, courses, derived, heat_maps
from tutelage.spaces.genotype import Genotype


@dataclass(frozen=True)
class Phase:
    """One learner's alphas in one phase of the search."""

    title: str
    open: bool
    """Whether it is shown without a click."""
    heat_maps: list[Drawn]


@dataclass(frozen=True)
class Learner:
    """One learner's alphas, and the cells derived from them now."""

    title: str
    open: bool
    """Whether it is shown without a click."""
    cells: list[Drawn]
    phases: list[Phase]


def cells(genotype: Genotype | None) -> list[Drawn]:
    """Draw every cell separately."""
    if genotype is None:
        return []
    return [drawn("", cell_figure(genotype, [group]), cell_name(group)) for group in genotype.cells]


def learners(files: RunFiles, kept: int | None) -> Iterator[Learner]:
    """Yield every learner's heat maps, and cells not shown at the top; the kept one first."""
    history = courses(files)
    found = sorted({learner for learner, _ in history}, key=lambda each: (each != kept, each))
    for learner in found:
        on_top = files.genotype is not None and (learner == kept or len(found) == 1)
        genotype = files.genotype if on_top else derived(files.last, learner)
        mine = [phases for (each, _), phases in history.items() if each == learner]
        shown = [] if on_top else cells(genotype)
        title = f"Learner {learner}" + (", kept" if learner == kept else "")
        yield Learner(title, kept in (None, learner), shown, list(_phases(mine)))


def _phases(groups: Sequence[Sequence[Course]]) -> Iterator[Phase]:
    """Draw the groups' heat maps phase by phase; only the last phase is open."""
    count = max(map(len, groups))
    for place in range(count):
        here = [each[place] for each in groups if place < len(each)]
        maps = [
            drawn(
                cell_name(each.group).capitalize(),
                heat_maps(each),
                f"weights of the operations of the {cell_name(each.group)} over epochs",
            )
            for each in here
        ]
        epochs, operations = here[0].epochs, here[0].weights.shape[2]
        title = f"Phase {place + 1} of {count}, epochs {epochs[0]} to {epochs[-1]}"
        yield Phase(f"{title}: {operations} operations on every edge", place == count - 1, maps)
