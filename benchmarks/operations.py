"""Count the operations that one whole search step dispatches: the same number on every machine.

    python benchmarks/operations.py [--top 10]

An operation is a call of torch's dispatcher below autograd; views and allocations are left out,
since no kernel runs for them. A step is what a search does between two batches: the alphas move,
then the weights. Images are the digits, of 8 x 8 pixels: the number does not depend on the batch,
and on the images' size only where a map is so small that part of a kernel never leaves the padding.
The first step is not counted: it fills caches.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.config import Run
from tutelage.data.streams import halves_of
from tutelage.parts import from_table
from tutelage.recipes import read_recipe
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.state import Searching


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


def count(settings: Run) -> Counter[str]:
    """Count the operations of the second step of a search on the digits."""
    parts = joined(settings)
    torch.manual_seed(settings.seed)
    setup = parts.setup(halves_of(settings, parts.train))
    work = Searching(setup, parts.strategy(setup))
    work.advance()
    with Count() as counted:
        work.advance()
    return counted.operations


def main() -> None:
    """Print a table; of every step its most frequent operations too, where asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--top", type=int, default=0, help="operations to list for every step")
    top = parser.parse_args().top
    print(f"torch {torch.__version__}\n\n| step | operations |\n|---|---|")
    for step in STEPS:
        operations = count(step.settings)
        print(f"| {step.what} | {operations.total():,} |", flush=True)
        for name, times in operations.most_common(top):
            print(f"|     {name} | {times:,} |")


if __name__ == "__main__":
    main()
