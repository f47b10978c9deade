"""The table of NAS-Bench-Macro: all 6,561 chains of the space, each trained and tested three times.

Su et al.: Prioritized architecture sampling with Monto-Carlo tree search. CVPR 2021,
arXiv:2103.11922. The benchmark's JSON is read without conversion, in less than 0.1 seconds.
Nothing in this file imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.benchmark.ranking import ranks
from tutelage.formats import from_json, read_packed
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.notation import MACRO_LAYERS, MACRO_OPERATIONS

COUNT = len(MACRO_OPERATIONS) ** MACRO_LAYERS
"""Architectures of the space, three operations in eight layers: 6,561."""

TEST = "cifar10_test"
"""The name of the mean accuracy of an architecture's runs on CIFAR-10's test images."""

DIGITS = 4
"""Decimals of percent that are kept.

The file's accuracies are hundredths that were rounded to float32. Without this rounding, equal
means would differ in the sixth decimal, and equal architectures would not share a rank.
"""

LAYOUT: Mapping[str, Any] = {
    "widths": [64, 128, 256],
    "depths": [2, 3, 3],
    "strides": [2, 2, 2],
    "stem_channels": 32,
    "first": 0,
    "last": 1280,
    "squeeze": 0.0,
    "activation": "relu",
}
"""The layout of a genotype of the benchmark's chain."""


@dataclass(frozen=True)
class Answer:
    """NAS-Bench-Macro's entry for one architecture."""

    architecture: str
    """NAS-Bench-Macro's digits."""
    accuracy: Mapping[str, float]
    """Percent by name; the only name is cifar10_test, the mean of the runs."""
    rank: Mapping[str, int]
    """By the same name: 1 for the best of 6,561 architectures; equal ones share a rank."""
    runs: tuple[float, ...]
    """Test accuracy of every training run, percent."""
    deviation: float
    """Standard deviation of the runs, with n in the denominator as in the benchmark."""
    parameters: int
    """Parameters of the network."""
    flops: int
    """FLOPs of the network for one image."""
    best: str
    """The best architecture of the table."""
    best_accuracy: float
    """Its mean test accuracy, percent."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `query --json` prints."""
        return asdict(self)

    def as_text(self) -> str:
        """Return what `query` prints."""
        accuracy, rank = self.accuracy[TEST], self.rank[TEST]
        runs = ", ".join(f"{each:.2f}" for each in self.runs)
        return "\n".join(
            [
                self.architecture,
                "",
                f"CIFAR-10 test  {accuracy:.2f} %, rank {rank:,} of {COUNT:,}",
                f"runs           {runs}, standard deviation {self.deviation:.2f}",
                f"best           {self.best_accuracy:.2f} %, {self.best}",
                f"parameters     {self.parameters:,}",
                f"FLOPs          {self.flops:,}",
            ]
        )


class Table:
    """The benchmark's JSON.

    Attributes:
        spaces: Name of its only space.
        caveat: Empty, because its figures were measured.
        ranked_by: Name of its only accuracy.
        path: The file.
    """

    spaces = ("nasbench-macro",)
    caveat = ""
    ranked_by = TEST

    def __init__(self, path: Path | str) -> None:
        """Read the file, plain or compressed as .xz or .gz.

        Raises:
            ValueError: it is another file, damaged, or lacks an architecture.
        """
        self.path = Path(path)
        entries = _entries(self.path)
        self._runs = _numbers(self.path, entries, "test_acc", 2).round(DIGITS)
        self._parameters = _numbers(self.path, entries, "params", 1)
        self._flops = _numbers(self.path, entries, "flops", 1)
        self._accuracy = self._runs.mean(axis=1).round(DIGITS)
        self._ranks = ranks(self._accuracy)
        # several digits name one network; the last of them has each stage's identities at the end
        self._best = int(np.flatnonzero(self._ranks == 1)[-1])

    def query(self, genotype: Genotype) -> Answer:
        """Look up an architecture.

        Raises:
            ValueError: it is of another space.
        """
        text = architecture(genotype)
        place = int(text, len(MACRO_OPERATIONS))
        return Answer(
            architecture=text,
            accuracy={TEST: float(self._accuracy[place])},
            rank={TEST: int(self._ranks[place])},
            runs=tuple(self._runs[place].tolist()),
            deviation=float(self._runs[place].std()),
            parameters=int(self._parameters[place]),
            flops=int(self._flops[place]),
            best=np.base_repr(self._best, len(MACRO_OPERATIONS)).zfill(MACRO_LAYERS),
            best_accuracy=float(self._accuracy[self._best]),
        )


def architecture(genotype: Genotype) -> str:
    """Write a genotype as the benchmark's digits.

    Raises:
        ValueError: it has another space or layout.
    """
    text = genotype.to_macro()
    for name, value in genotype.layout.items():
        if name in LAYOUT and value != LAYOUT[name]:
            raise ValueError(
                f"a chain with {name} = {value}: the table's networks have {LAYOUT[name]}"
            )
    return text


def _entries(path: Path) -> list[Mapping[str, Any]]:
    """Read the file's entries of all architectures, in the order of their digits."""
    content: Any = None
    with suppress(ValueError):
        content = from_json(read_packed(path))
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is no table, or cut short: give a table of NAS-Bench-201 made by "
            "`tutelage table build`, or NAS-Bench-Macro's JSON as it was downloaded"
        )
    digits = map(str, range(len(MACRO_OPERATIONS)))
    names = list(map("".join, product(digits, repeat=MACRO_LAYERS)))
    missing = next((name for name in names if name not in content), None)
    if missing or len(content) != COUNT:
        raise ValueError(
            f"{path} is not NAS-Bench-Macro's JSON: it has {len(content):,} entries"
            + (f" and none for {missing}" if missing else f" where {COUNT:,} architectures are")
        )
    return [content[name] for name in names]


def _numbers(
    path: Path, entries: Sequence[Mapping[str, Any]], field: str, dimensions: int
) -> np.ndarray:
    """Read one field of every architecture."""
    try:
        values = np.array([entry[field] for entry in entries], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        values = np.empty(())
    if (
        values.ndim != dimensions
        or not values.size
        or not (np.isfinite(values) & (values >= 0)).all()
    ):
        kind = "a number from 0 up" if dimensions == 1 else "as many numbers from 0 up"
        raise ValueError(f"{path}: {field} must be {kind} in every entry of NAS-Bench-Macro")
    return values
