"""Write the tables of searches and spaces in searches.md again, from what the code does.

    python docs/pairs.py

Every method is joined with every search in every space, phase by phase, in networks of one cell (in
nasbench201 one a stage, in chains one layer a stage).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from math import nan
from pathlib import Path
from textwrap import fill
from typing import Any, cast

import torch

from tutelage.clock import Clock
from tutelage.methods import METHODS
from tutelage.parts import make_part
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.relaxation import Bound, BoundAlphas, BoundPaths
from tutelage.searches import SEARCHES
from tutelage.searches.base import Relaxing, Sampling, Search
from tutelage.searches.needs import fit, size_of
from tutelage.spaces import SPACES
from tutelage.spaces.base import Size, Space
from tutelage.spaces.chain import Chain

PAGE = Path(__file__).parent / "searches.md"
BEGIN, END = "<!-- from docs/pairs.py -->\n", "<!-- to here -->\n"
SIZE = Size(channels=12, cells=1)
IMAGES = {"train": 2, "valid": 2}
SMALL = {"lbt": {"student": "DARTS_V1"}, "ennas": {"students": 2}}
"""Settings that make a part quick to build, and fit it to spaces of few operations."""


CHAINS = [name for name in SPACES if isinstance(make_part("space", {"name": name}), Chain)]
"""Chains differ in their settings alone, so the first one meets all methods, the others one."""
CELLS = [name for name in SPACES if name not in CHAINS]


class Trained(Maker):
    """A maker that has a trained network at hand, of six stages."""

    def teacher(self, name: str) -> Any:
        """Give maps (B, 4, 2, 2) after every stage, whichever is asked for."""
        return lambda x: [x.new_zeros(len(x), 4, 2, 2)] * 6


def binder(search: Search) -> Callable[[Space], Bound]:
    """Return what binds a search to a space, on the CPU."""
    cpu = torch.device("cpu")
    if search.kind == "one-shot":
        return partial(BoundPaths, cast(Sampling, search), device=cpu, flops=lambda found: nan)
    return partial(BoundAlphas, cast(Relaxing, search), device=cpu)


def join(method: str, search: str, space: str) -> None:
    """Build a combination's supernets, small.

    Raises:
        ValueError: It does not work; says why.
    """
    relaxation, small, cells = make_part("search", {"name": search}), part(space), 1
    if space in CHAINS:
        cells = len(small.depths)
        small = replace(small, depths=(1,) * cells)
    small = fit(relaxation, small)
    for phase in relaxation.needs(small).phases:
        varied = small.varied(partial=phase.partial or 1)
        if phase.operations:
            first = list(range(phase.operations))
            varied = varied.narrowed({g: [first] * n for g, (n, _) in small.choices.items()})
        size, cpu = replace(SIZE, cells=cells), torch.device("cpu")
        maker = Trained(binder(relaxation), [varied], size, Clock(), 3, cpu, None, IMAGES)
        make_part("method", {"name": method, **SMALL.get(method, {})})(maker)


@cache
def part(space: str) -> Any:
    """Make a space once."""
    return make_part("space", {"name": space})


@cache
def refusal(method: str, search: str, space: str) -> str | None:
    """Return the sentence that refuses a combination; None where it works."""
    if space in CHAINS[1:] and method != "single":
        return refusal("single", search, space) or refusal(method, search, CHAINS[0])
    try:
        join(method, search, space)
    except ValueError as error:
        return str(error).replace(f"'{space}'", "…")
    return None


def able(search: str, spaces: Sequence[str]) -> list[str]:
    """List the methods that work with a search in one of some spaces."""
    return [m for m in METHODS if not all(refusal(m, search, space) for space in spaces)]


def entry(search: str, space: str) -> str:
    """Return the channels and cells, or layers, of a pair's supernets by default."""
    relaxation = make_part("search", {"name": search})
    fitted = fit(relaxation, part(space))
    channels, cells = size_of(relaxation, fitted)
    phases = relaxation.needs(fitted).phases
    depths = dict.fromkeys(str(cells + phase.cells) for phase in phases)  # each once, in order
    return "yes" if relaxation.kind == "random" else f"{channels} × {', '.join(depths)}"


def rows(spaces: Sequence[str]) -> Iterator[list[str]]:
    """Yield a table's rows, a search each, of those that work in one of the spaces."""
    yield ["", *(f"`{space}`" for space in spaces)]
    yield ["---"] * (1 + len(spaces))
    for search in SEARCHES:
        row = [f"`{search}`"]
        for space in spaces:
            methods = able(search, [space])
            only = "" if methods == able(search, spaces) else f" with {', '.join(methods)}"
            row.append(entry(search, space) + only if methods else "–")
        if set(row[1:]) != {"–"}:
            yield row


def refused() -> Iterator[tuple[str, str]]:
    """Yield what does not work, and the sentence that says so: methods, then spaces."""
    methods: dict[tuple[str, tuple[str, ...]], tuple[dict[str, None], dict[str, None]]] = {}
    spaces: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for search in SEARCHES:
        groups = [group for group in (CELLS, CHAINS) if able(search, group)]
        for method in METHODS:
            lacking = [group for group in groups if method not in able(search, group)]
            for group in lacking[:1]:
                space = next(space for space in group if able(search, [space]))
                where = () if lacking == groups else tuple(group)
                whom = methods.setdefault((refusal(method, search, space) or "", where), ({}, {}))
                whom[0][method] = whom[1][search] = None
        sentences = {s: refusal("single", search, s) for s in SPACES}
        for sentence in dict.fromkeys(filter(None, sentences.values())):
            where = tuple(space for space in SPACES if sentences[space] == sentence)
            spaces.setdefault((sentence, where), []).append(search)
    for (sentence, where), (those, searches) in methods.items():
        inside = f" in {named(where)}" if where else ""
        yield f"{named(list(those))} with {named(list(searches))}{inside}", sentence
    for (sentence, where), searches in spaces.items():
        yield f"{named(searches)} in {named(where)}", sentence


def named(names: Sequence[str]) -> str:
    """Write names as code."""
    return ", ".join(f"`{name}`" for name in names)


def text() -> str:
    """Return what stands between the marks."""
    lines = []
    for spaces in (CELLS, CHAINS):
        table = ["| " + " | ".join(row) + " |" for row in rows(spaces)]
        lines += [table[0].replace("|  |", "| |"), *table[1:], ""]
    lines += ["What does not work is refused before anything is written:", ""]
    for what, sentence in refused():
        told = f"- {what}: “{sentence}”"
        lines.append(fill(told, 118, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page again."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{text()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
