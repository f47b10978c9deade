"""Write the table of searches and spaces in searches.md again, from what the code does.

    python docs/pairs.py

Every method is joined with every search in every space, phase by phase, in networks of one cell (in
nasbench201, one a stage).
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from tutelage.clock import Clock
from tutelage.methods import METHODS
from tutelage.parts import make_part
from tutelage.run.maker import Maker
from tutelage.searches import SEARCHES
from tutelage.spaces import SPACES
from tutelage.spaces.base import Size

PAGE = Path(__file__).parent / "searches.md"
BEGIN, END = "<!-- from docs/pairs.py -->\n", "<!-- to here -->\n"
SIZE = Size(channels=12, cells=1)
IMAGES = {"train": 2, "valid": 2}
SMALL = {"lbt": {"student": "DARTS_V1"}}
"""Settings that make a part quick to build."""


@cache
def join(method: str, search: str, space: str) -> str:
    """Return the channels and cells of a combination's supernets by default.

    Raises:
        ValueError: It does not work; says why.
    """
    relaxation = make_part("search", {"name": search})
    fitted = relaxation.fit(make_part("space", {"name": space}))
    phases = relaxation.phases(fitted)
    for phase in phases:
        varied = fitted.varied(partial=phase.partial or 1)
        if phase.operations:
            first = list(range(phase.operations))
            varied = varied.narrowed({g: [first] * n for g, (n, _) in fitted.choices.items()})
        cpu = torch.device("cpu")
        maker = Maker(relaxation, [varied], SIZE, Clock(), 3, cpu, amp=None, images=IMAGES)
        make_part("method", {"name": method, **SMALL.get(method, {})})(maker)
    channels, cells = relaxation.size(fitted)
    depths = dict.fromkeys(str(cells + phase.cells) for phase in phases)  # each once, in order
    return f"{channels} × {', '.join(depths)}" if relaxation.trains else "yes"


def refusal(method: str, search: str, space: str) -> str | None:
    """Return the sentence that refuses a combination; None where it works."""
    try:
        join(method, search, space)
    except ValueError as error:
        return str(error).replace(f"'{space}'", "…")
    return None


def rows() -> Iterator[list[str]]:
    """Yield the table's rows, a search each."""
    yield ["", *(f"`{space}`" for space in SPACES)]
    yield ["---"] * (1 + len(SPACES))
    for search in SEARCHES:
        row = [f"`{search}`"]
        for space in SPACES:
            able = [method for method in METHODS if not refusal(method, search, space)]
            only = "" if len(able) == len(METHODS) else f" with {', '.join(able)}"
            row.append(join(able[0], search, space) + only if able else "–")
        yield row


def refusals() -> dict[tuple[str, str], Any]:
    """Map every search and sentence that refuses to the spaces it speaks of, and the methods."""
    found: dict[tuple[str, str], Any] = {}
    for search in SEARCHES:
        for space in SPACES:
            for method in METHODS:
                if sentence := refusal(method, search, space):
                    spaces, methods = found.setdefault((search, sentence), ({}, {}))
                    spaces[space] = methods[method] = None
    return found


def text() -> str:
    """Return what stands between the marks."""
    lines = ["| " + " | ".join(row) + " |" for row in rows()]
    lines[0] = lines[0].replace("|  |", "| |")
    lines += ["", "What does not work is refused before anything is written:", ""]
    for (search, sentence), (spaces, methods) in refusals().items():
        named = ", ".join(f"`{space}`" for space in spaces)
        only = "" if len(methods) == len(METHODS) else f", {', '.join(methods)}"
        lines.append(
            fill(f"- `{search}` in {named}{only}: “{sentence}”", 118, subsequent_indent="  ")
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page again."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{text()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
