"""Count what a search step exchanges between processes: collectives and their bytes, by purpose.

    python benchmarks/collectives.py                  # every method and search, at toy size
    python benchmarks/collectives.py --size papers    # the supernets of the papers
    python benchmarks/collectives.py --only sgl single/gdas --rules exact

One process computes as rank 0 of several: its exchanges are counted and not made, so the values are
wrong and the numbers of exchanges right, which depend on no value. Each rank has one image. Maps
are joined as on a GPU. Nothing is timed: docs/distributed.md says what the counts mean for a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from tutelage.config import Run
from tutelage.data.streams import halves_of
from tutelage.parts import PARTS, from_table, make_part
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.state import Searching
from tutelage.shares import statistics

PURPOSES = {
    ("average", "own_gradient"): "gradient",
    ("average", "_PassGradient.forward"): "gradient",
    ("average", "_PassGradient.backward"): "v",
    ("average", "hypergradient"): "alphas",
    ("_Gathered.forward", "gathered"): "outputs",
    ("_Gathered.forward", "_Own.backward"): "outputs",
    ("_Total.forward", "total"): "forward",
    ("_Total.forward", "_Total.backward"): "backward",
}
"""What an exchange is for, by what makes it and by what calls that: the gradient of a level, the
cotangent of its virtual step, the gradient of the alphas, the outputs of networks, and statistics
of batches, either their values or their derivatives."""
NAMES = ("gradient", "v", "alphas", "outputs", "forward", "backward")
RULES = ("first-order", "exact", "finite-difference")
SMALL: Mapping[str, Mapping[str, Any]] = {
    "dna": {"teacher": "untrained"},
    "ennas": {"students": 2},
    "lbt": {"student": "DARTS_V1"},
    "nes": {"learners": 2, "members": 2},
    "pamkd": {"group_size": 2},
    "pdarts": {"deeper": (0, 1)},
}
"""Settings of parts at toy size."""
CHANNELS = {"pcdarts": 4, "drnas": 12}
CHAIN = {"name": "nasbench-macro", "widths": (4, 6, 8), "depths": (1, 1, 1)}
CHAIN |= {"first": 0, "last": 8, "stem_channels": 4}
SPACES = {"darts": 8, "nasbench201": 5}
"""The papers' spaces and cells; in the second it is N, the cells of a stage."""
PUBLISHED = ("single", "sgl", "lbt", "pamkd", "sd-darts")


@dataclass
class Counted:
    """How many collectives there were, and of how many bytes, by purpose."""

    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))

    def add(self, x: Tensor) -> None:
        """Count an exchange of a tensor, for what called this."""
        purpose = PURPOSES[_callers(sys._getframe(1))]
        self.calls[purpose] += 1
        self.bytes[purpose] += x.numel() * x.element_size()


def _callers(frame: FrameType | None) -> tuple[str, str]:
    """Return what makes an exchange, and what calls that."""
    makers = {maker for maker, _ in PURPOSES}
    names = []
    while frame and len(names) < 2:
        name = frame.f_code.co_qualname
        if (names and name not in ("Function.apply", "_Gathered.apply")) or name in makers:
            names.append(name)
        frame = frame.f_back
    return names[0], names[1]


@contextmanager
def pretended(ranks: int) -> Iterator[Counted]:
    """Compute as rank 0 of several, whose exchanges are counted and not made."""
    found = Counted()
    with patch.multiple(
        dist,
        is_initialized=lambda: True,
        get_world_size=lambda: ranks,
        get_rank=lambda: 0,
        all_reduce=lambda x, *_: found.add(x),
    ):
        yield found


@contextmanager
def observed() -> Iterator[Counted]:
    """Count the exchanges that processes make."""
    found, make = Counted(), dist.all_reduce

    def counting(x: Tensor, *more: Any) -> Any:
        found.add(x)
        return make(x, *more)

    with patch.object(dist, "all_reduce", counting):
        yield found


def counted(settings: Mapping[str, Any], ranks: int = 0, together: bool = True) -> Counted:
    """Count the exchanges of one step of a search's third epoch, in which everything trains.

    Args:
        settings: Those of a run.
        ranks: Processes that share its batch, if this one pretends to be one of them.
        together: Whether statistics are those of the whole batch.
    """
    run = from_table(Run, dict(settings), "a search")
    parts = joined(run)
    torch.manual_seed(run.seed)
    setup = parts.setup(halves_of(run, parts.train))
    work = Searching(setup, parts.strategy(setup))
    work.epoch, work.step = 2, 1  # the first step of an epoch measures more
    on_a_gpu = patch("tutelage.spaces.fused.JOINED", sys.maxsize)
    with pretended(ranks) if ranks else observed() as found, statistics(together), on_a_gpu:
        work.advance()
    return found


def toy(method: str, search: str, via: str, ranks: int = 2) -> dict[str, Any]:
    """Settings of a search at toy size, a rank an image."""
    given = {
        "method": {"name": method, **SMALL.get(method, {})},
        "search": {"name": search, **SMALL.get(search, {})},
        "space": {"name": "nasbench201"},
        "cells": 1,
        "channels": CHANNELS.get(search, 2),
        "via": via,
        **_common(ranks),
    }
    if search in ("pdarts", "prdarts"):
        given |= {"space": {"name": "darts"}, "cells": 3}
    if make_part("search", {"name": search}).kind == "one-shot":
        del given["cells"], given["channels"]
        given["space"] = CHAIN
    return given


def published(method: str, space: str, via: str, ranks: int) -> dict[str, Any]:
    """Settings of a search with the papers' supernet of 16 channels, a rank an image.

    The images are those of the digits, of one colour: the first convolution is smaller.
    """
    return {
        "method": {"name": method},
        "search": {"name": "darts"},
        "space": {"name": space},
        "cells": SPACES[space],
        "channels": 16,
        "via": via,
        "recompute": via == "exact" and method != "single",
        "stem": "cifar",
        **_common(ranks),
    }


def _common(ranks: int) -> dict[str, Any]:
    common = {"batch_size": max(ranks, 2), "epochs": 3, "limit_batches": 8, "device": "cpu"}
    return common | {"data": {"name": "digits"}}


def cases(size: str) -> Iterator[tuple[str, str]]:
    """List what is joined: methods with searches at toy size, with spaces at the papers'."""
    if size == "papers":
        yield from ((method, space) for space in SPACES for method in PUBLISHED)
        return
    kinds = {name: make_part("search", {"name": name}).kind for name in PARTS["search"]}
    chains = [("ennas", "single-path"), ("cream", "single-path"), ("dna", "single-path")]
    yield from ((m, "darts") for m in PARTS["method"] if m not in ("ennas", "dna"))
    yield from ((m, s) for m, s in chains)
    yield from (("single", s) for s, kind in kinds.items() if kind == "relaxed" and s != "darts")


def row(names: Sequence[str], found: Counted) -> str:
    """Write a row of a table in Markdown."""
    cells = [f"{found.calls[name]} · {_size(found.bytes[name])}" for name in NAMES]
    cells = [cell if not cell.startswith("0 ") else "" for cell in cells]
    total = f"{sum(found.calls.values())} · {_size(sum(found.bytes.values()))}"
    return "| " + " | ".join([*names, *cells, total]) + " |"


def _size(number: int) -> str:
    for unit in ("B", "kB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number = number / 1000  # type: ignore[assignment]
    return f"{number:.3g} MB"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("toy", "papers"), default="toy")
    parser.add_argument("--ranks", type=int, help="2 at toy size, 8 at the papers'")
    parser.add_argument("--rules", nargs="*", default=RULES, choices=RULES)
    parser.add_argument("--only", nargs="*", help="methods, or METHOD/SEARCH or METHOD/SPACE")
    parser.add_argument("--statistics", choices=("batch", "rank"), default="batch")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ranks = given.ranks or {"toy": 2, "papers": 8}[given.size]
    other = {"toy": "search", "papers": "space"}[given.size]
    print("| method | " + " | ".join([other, "via", *NAMES, "all"]) + " |")
    print("|---" * (4 + len(NAMES)) + "|")
    make = {"toy": toy, "papers": published}[given.size]
    for method, second in cases(given.size):
        if given.only and not {method, f"{method}/{second}"} & set(given.only):
            continue
        unrolls = second != "single-path"  # which has no alphas
        for via in given.rules if unrolls else given.rules[:1]:
            found = counted(make(method, second, via, ranks), ranks, given.statistics == "batch")
            print(row((method, second, via if unrolls else ""), found), flush=True)


if __name__ == "__main__":
    main()
