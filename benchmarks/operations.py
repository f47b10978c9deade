"""Count the operations that one whole search step dispatches.

    python benchmarks/operations.py [--top 10]

An operation is a call of torch's dispatcher below autograd; views and allocations are left out,
since no kernel runs for them. A step is what a search does between two batches: the alphas move,
then the weights. Images are the digits, of 8 x 8 pixels, in batches so small that all maps have the
forms of small ones: then the number is the same on every machine without a GPU.
The first step is not counted: it fills caches. The first table has the steps with a budget
(`tests/test_operations.py`), the second every search and every method at the size of the first
demo. A search that samples runs other operations at every step: its number is the mean of four.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.config import Run
from tutelage.data.streams import halves_of
from tutelage.methods import METHODS
from tutelage.parts import from_table
from tutelage.recipes import read_recipe
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.state import Searching
from tutelage.searches import SEARCHES


class Count(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if not function.is_view and "empty" not in name:
            self.operations[name] += 1
        return function(*args, **(kwargs or {}))


class Step(NamedTuple):
    """A step that is counted."""

    what: str
    settings: Run


def demo(**changes: Any) -> Run:
    """Return the settings of the first `make demo`, SGL with two learners in DARTS' cells."""
    table = {"method": {"name": "sgl", "learners": 2}, "batch_size": 16, "channels": 4, "cells": 3}
    return from_table(Run, table | changes, "a search")


def first_order(search: str, space: str, channels: int, cells: int) -> Run:
    """Return the settings of a search of one learner, by first order."""
    table = {"search": {"name": search}, "space": {"name": space}, "via": "first-order"}
    table |= {"channels": channels, "cells": cells, "batch_size": 4}
    return from_table(Run, table, "a search")


STEPS = [
    Step("DARTS, 16 channels, 8 cells, first order", first_order("darts", "darts", 16, 8)),
    Step("PC-DARTS, 16 channels, 8 cells, first order", first_order("pcdarts", "darts", 16, 8)),
    Step("NAS-Bench-201, N = 5, first order", first_order("darts", "nasbench201", 16, 5)),
    Step("SGL, two learners, 4 channels, 3 cells, exact", demo()),
    Step("the same, finite difference", demo(via="finite-difference")),
    Step("the same, first order", demo(via="first-order")),
    Step("what `make demo` runs", from_table(Run, read_recipe("digits-demo")[0], "a search")),
]
"""What is counted, with its name in the table."""


SAMPLING = {"single-path": "nasbench-macro", "diverse-paths": "nasbench-macro"}
"""Searches that sample paths, and a space for each."""
TEACHERS = {"lbt": {"student": "DARTS_V1"}, "dna": {"teacher": "untrained"}}
"""Settings that a method needs."""
PATHS = ("single-path", "nasbench-macro")
WHERE = {"ennas": PATHS, "cream": PATHS, "dna": ("single-path", "dna")}
"""A search and a space for each method that does not run in DARTS' cells."""


def others() -> Iterator[Step]:
    """Yield a step of every search, then one of every method by each rule that it has."""
    for search in SEARCHES:
        space = SAMPLING.get(search, "darts")
        if search != "random":  # it trains nothing
            small = {} if search in SAMPLING else {"channels": 12, "cells": 3}
            table = {"search": {"name": search}, "space": {"name": space}, "batch_size": 16} | small
            table["via"] = "first-order"
            yield Step(f"`{search}` in `{space}`", from_table(Run, table, "a search"))
    for method in METHODS:
        parts: dict[str, Any] = {"method": {"name": method} | TEACHERS.get(method, {})}
        if method in WHERE:
            parts["search"], parts["space"] = ({"name": name} for name in WHERE[method])
            parts |= {"channels": None, "cells": None}
        for via in ("first-order",) if method in WHERE else ("first-order", "exact"):
            yield Step(f"`{method}`, {via}", demo(**parts, via=via))


def count(settings: Run, steps: int = 1) -> Counter[str]:
    """Count the operations of the steps of a search on the digits that follow its first one."""
    parts = joined(settings)
    torch.manual_seed(settings.seed)
    setup = parts.setup(halves_of(settings, parts.train))
    work = Searching(setup, parts.strategy(setup))
    work.epoch = work.phase.stretch.thaw  # from here on alphas train too
    work.advance()
    with Count() as counted:
        for _ in range(steps):
            work.advance()
    return counted.operations


def main() -> None:
    """Print the tables; of every step its most frequent operations too, where asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--top", type=int, default=0, help="operations to list for every step")
    top = parser.parse_args().top
    print(f"torch {torch.__version__}")
    for steps, times in ((STEPS, 1), (others(), 4)):
        print("\n| step | operations |\n|---|---|")
        for step in steps:
            operations = count(step.settings, times)
            print(f"| {step.what} | {operations.total() / times:,.0f} |", flush=True)
            for name, number in operations.most_common(top):
                print(f"|     {name} | {number / times:,.0f} |")


if __name__ == "__main__":
    main()
