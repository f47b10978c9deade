"""A search and a space: checks what the search needs, and adapts the space to it."""

from __future__ import annotations

from tutelage.searches.base import Needs, Search, fewest
from tutelage.spaces.base import Space
from tutelage.spaces.ready import ready


def fit(search: Search, space: Space) -> Space:
    """Return the space, adapted to what a search needs.

    Raises:
        ValueError: It lacks something, or the search's settings are impossible in it. The message
            names the ready spaces that fit.
    """
    needs = search.needs(space)
    if lacking := lacks(needs, space):
        sentence = (f"space {space.name!r} {lacking}", needs.why, advice(search))
        raise ValueError(": ".join(filter(None, sentence)))
    return made(needs, space)


def size_of(search: Search, space: Space) -> tuple[int, int]:
    """Return the channels and cells of a search's supernets if the user gives none."""
    needs, own = search.needs(space), space.sizes
    return needs.channels or own.channels, needs.cells or own.cells


def lacks(needs: Needs, space: Space) -> str:
    """Describe what a space lacks; empty if it lacks nothing."""
    if needs.groups and set(space.operations) != needs.groups:
        there, wanted = (" and ".join(sorted(each)) for each in (space.operations, needs.groups))
        return f"has choices in {there}, not in {wanted}"
    if needs.operations is not None and space.operations != needs.operations:
        return "has other operations on its edges"
    count = fewest(space, needs.left_out)
    few = f"has edges of {count} operations, and at least {needs.least} are needed"
    return few if count < needs.least else ""


def made(needs: Needs, space: Space) -> Space:
    """Return a space without the operations that are left out, in the variant of the search.

    Raises:
        ValueError: The space does not have this variant, or that of a phase.
    """
    if needs.left_out:
        columns = {
            group: [[c for c, n in enumerate(names) if n not in needs.left_out] for names in edges]
            for group, edges in space.operations.items()
        }
        space = space.narrowed(columns)
    if needs.variant:
        space = space.varied(**needs.variant)
    for phase in needs.phases:
        if phase.partial:
            space.varied(partial=phase.partial)  # only to refuse it early: each phase makes it
    return space


def fits(search: Search, space: Space) -> bool:
    """Tell whether a space has what a search needs."""
    try:
        needs = search.needs(space)
        made(needs, space)
    except ValueError:
        return False
    return not lacks(needs, space)


def advice(search: Search) -> str:
    """Name the ready spaces that a search can use instead; empty if there are none."""
    names = [space.name for space in ready() if fits(search, space)]
    return f"use the space {' or '.join(names)}" if names else ""
