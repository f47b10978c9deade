"""NATS-Bench's size space: 32,768 networks of one cell that differ in the channels of five layers.

Dong, Liu, Musial, Gabrys: NATS-Bench: benchmarking NAS algorithms for architecture topology and
size. TPAMI 2021, arXiv:2009.00437. Its archive NATS-sss-v1_0-50262-simple is a folder with a pickle
for each network, and one with the names of all. They are read as plain values: no code in them
runs. A query of the folder reads two files; a table made of all has ranks too.
Nothing in this file imports torch.
"""

from __future__ import annotations

import bz2
import sys
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import track

from tutelage.benchmark.absent import AbsentError
from tutelage.benchmark.pickled import read_pickle
from tutelage.benchmark.stored import Answer, Head, text_of, write_table
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.notation import SIZE_LAYERS, SIZES

SPACE: Final = "nats-size"
TITLE: Final = "NATS-Bench size"
COUNT: Final = len(SIZES) ** SIZE_LAYERS
META: Final = "meta.pickle.pbz2"
LARGEST: Final = 1 << 23
"""Bytes of a pickle: those of the archive have less than 600,000."""
EPOCHS: Final = {"01": 1, "12": 12, "90": 90}
"""Names of the trainings, and their epochs."""
SETS: Final = {
    "cifar10_valid": ("cifar10-valid", "x-valid"),
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_valid": ("cifar100", "x-valid"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_valid": ("ImageNet16-120", "x-valid"),
    "imagenet16_test": ("ImageNet16-120", "x-test"),
}
"""The archive's names of a training, and of the images for the test."""
ACCURACIES: Final = tuple(f"{name}_{n}" for name in SETS for n in EPOCHS.values())
COSTS: Final = ("seeds", "parameters", "flops", "flops_imagenet16", "seconds_cifar10")


class Folder:
    """The archive as its authors publish it, unpacked.

    Attributes:
        spaces: Name of its only space.
        ranked_by: Name of the accuracy that results of searches are ranked by.
        caveat: Empty, because its figures were measured.
        path: The folder.
    """

    spaces = (SPACE,)
    ranked_by = "cifar10_test_90"
    caveat = ""

    def __init__(self, path: Path | str) -> None:
        """Read the names of all networks.

        Raises:
            ValueError: It is another archive, or damaged.
        """
        self.path = Path(path)
        meta = _read(self.path / META)
        names = meta.get("meta_archs") if isinstance(meta, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{self.path / META} does not name the networks of NATS-Bench")
        if len(names) != COUNT or len(set(names)) != COUNT or names[0].count(":") != 4:
            raise ValueError(
                f"{self.path / META} names {len(names):,} networks, the first one {names[:1]}: "
                f"NATS-Bench's size space has {COUNT:,}, such as 64:32:16:8:40; for its topology "
                "space use `tutelage table build --nats`"
            )
        self.names = names

    def query(self, genotype: Genotype) -> Answer:
        """Read the file of a network.

        Raises:
            ValueError: It is of another space, or the file is damaged.
            AbsentError: The folder lacks the file.
        """
        text = text_of(genotype, self.spaces)
        if text not in self.names:
            raise AbsentError(f"{self.path} does not name {text}")
        figures = self.figures(self.names.index(text))
        return Answer(
            architecture=text,
            title=TITLE,
            accuracy={name: figures[name] for name in ACCURACIES},
            rank={},
            count=COUNT,
            costs={name: figures[name] for name in COSTS},
        )

    def figures(self, index: int) -> dict[str, float]:
        """Read the file of a network by its number: percent, parameters, FLOPs and seconds.

        Raises:
            ValueError: It is damaged or of another network.
            AbsentError: The folder lacks it.
        """
        path = self.path / f"{index:06d}.pickle.pbz2"
        if not path.is_file():
            raise AbsentError(f"{path} is missing: {self.names[index]} cannot be looked up")
        content = _read(path)
        try:
            found = _figures(content)
            named = content["90"]["arch_str"]
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is not a file of NATS-Bench's size space: {error}") from None
        if named != self.names[index]:
            raise ValueError(f"{path} is of {named}, and not of {self.names[index]}")
        return found


def is_size(path: Path) -> bool:
    """Tell whether a path is the folder of the size space, and not of the topology space.

    Raises:
        ValueError: It is the size space's benchmark in one file, which memory does not hold.
    """
    if path.is_file() and path.name.startswith("NATS-sss"):
        raise ValueError(
            f"{path} holds all networks in one pickle: give the archive in which each has its own, "
            "the unpacked folder NATS-sss-v1_0-50262-simple"
        )
    if not (path / META).is_file():
        return False
    meta = _read(path / META)
    return isinstance(meta, dict) and ":" in str(meta.get("meta_archs"))[:20]


def build(folder: Path, out: Path) -> None:
    """Make a table with ranks from the archive, whose files are all read: about 20 minutes.

    Raises:
        ValueError: It is another archive, a file is missing or damaged.
    """
    archive, columns = Folder(folder), (*ACCURACIES, *COSTS)
    values = np.empty((COUNT, len(columns)))
    screen, quiet = Console(stderr=True), not sys.stderr.isatty()
    for index in track(range(COUNT), "Reading", console=screen, disable=quiet):
        figures = archive.figures(index)
        values[index] = [figures[name] for name in columns]
    better = dict.fromkeys(ACCURACIES, 1)
    head = Head(TITLE, Folder.ranked_by, {SPACE: COUNT}, archive.names, columns, better)
    write_table(out, head, values)


def _figures(content: Mapping[str, Any]) -> dict[str, float]:
    """Read all figures of a network; those of several training runs are means."""
    found: dict[str, float] = {}
    for name, (training, images) in SETS.items():
        for key, epochs in EPOCHS.items():
            runs = _runs(content[key], training)
            found[f"{name}_{epochs}"] = _mean(
                [run["eval_acc1es"][f"{images}@{epochs - 1}"] for run in runs]
            )
    cifar10, imagenet16 = (_runs(content["90"], name)[0] for name in ("cifar10", "ImageNet16-120"))
    found["seeds"] = len(_runs(content["90"], "cifar10"))
    found["parameters"] = round(1e6 * _mean([cifar10["params"]]))
    found["flops"] = round(1e6 * _mean([cifar10["flop"]]))
    found["flops_imagenet16"] = round(1e6 * _mean([imagenet16["flop"]]))
    found["seconds_cifar10"] = round(_mean([sum(cifar10["train_times"].values())]), 3)
    return found


def _runs(results: Mapping[str, Any], training: str) -> Sequence[Mapping[str, Any]]:
    seeds = results["dataset_seed"][training]
    return [results["all_results"][training, seed] for seed in seeds]


def _mean(values: Sequence[float]) -> float:
    numbers = [float(value) for value in values]
    if not numbers or not all(isfinite(value) and value >= 0 for value in numbers):
        raise ValueError(f"{numbers} must be numbers from 0 up")
    return sum(numbers) / len(numbers)


def _read(path: Path) -> Any:
    """Read a compressed pickle of plain values."""
    try:
        with bz2.open(path) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        return read_pickle(content)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
