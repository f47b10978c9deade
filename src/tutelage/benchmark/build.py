"""Make the table of NAS-Bench-201 from CSV files.

One file has the columns CORE, with one row for each architecture. Any others have the official
`index` and a column of milliseconds for each device. Nothing in this file imports torch.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.benchmark import stored
from tutelage.benchmark.nasbench201 import ACCURACIES, COUNT, MAGIC, header, layout, position
from tutelage.benchmark.ranking import ranks
from tutelage.files import write_bytes
from tutelage.formats import read_packed
from tutelage.spaces.genotype import Genotype

Row = Mapping[str, Any]

SHORT = {"cifar10": "c10", "cifar100": "c100", "imagenet16": "in16"}
ACCURACY_COLUMNS = tuple(
    f"{SHORT[data]}_{part}_{epochs}"
    for data, part, epochs in (name.split("_") for name in ACCURACIES)
)
COST_COLUMNS = ("params_M_arch", "params_M", "flops_M_arch", "flops_M", "flops_M_in16")
SECONDS_COLUMNS = ("train_s_c10valid_200", "train_s_c100_200", "train_s_in16_200")
NUMBERS = ("n_seeds", *ACCURACY_COLUMNS, *COST_COLUMNS, *SECONDS_COLUMNS)
CORE = ("index", "arch", *NUMBERS)
"""The columns that a CSV of the benchmark must have; percent, millions and seconds."""


def build(csv_files: Sequence[Path], out: Path) -> None:
    """Make the table from CSV files, plain or compressed as .xz or .gz.

    Args:
        csv_files: one with the columns CORE, and any number with latencies.
        out: the table to write; an older table is replaced.

    Raises:
        ValueError: a file is damaged, has other columns, or lacks or repeats an architecture.
    """
    check_out(out)
    files = {path: read_csv(path) for path in csv_files}
    cores = [path for path, rows in files.items() if set(CORE[1:]) & set(rows[0])]
    if len(cores) != 1:
        raise ValueError(
            f"{len(cores) or 'none'} of the CSV files have architectures and accuracies: give "
            "exactly one such file, and any number of files with latencies"
        )
    write_table(out, cores[0], files.pop(cores[0]), files)


def check_out(out: Path) -> None:
    """Make the folder of a table; raise ValueError if it would replace any other file."""
    if out.exists():
        with out.open("rb") as file:
            if not file.read(len(stored.MAGIC) + len(MAGIC)).startswith((MAGIC, stored.MAGIC)):
                raise ValueError(f"{out} exists and is no table: give another --out")
    out.parent.mkdir(parents=True, exist_ok=True)


def read_csv(path: Path) -> list[Row]:
    """Read a CSV file, plain or compressed, as rows by column.

    Raises:
        ValueError: it is not a CSV file, is cut short, or has no rows with the official index.
    """
    try:
        text = io.StringIO(read_packed(path).decode(), newline="")
        lines = list(csv.reader(text, strict=True))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file, or cut short: {error}") from None
    columns = lines[0] if lines else []
    for number, line in enumerate(lines, start=1):
        if len(line) != len(columns):
            raise ValueError(
                f"{path} line {number} has {len(line)} values where {len(columns)} columns are "
                "named: it is cut short or damaged"
            )
    if "index" not in columns or len(columns) == 1 or len(lines) == 1:
        raise ValueError(f"{path} has no rows of architectures with the official `index`")
    return [dict(zip(columns, line, strict=True)) for line in lines[1:]]


def write_table(
    out: Path, source: Path, rows: Sequence[Row], latencies: Mapping[Path, Sequence[Row]]
) -> None:
    """Write the table, completely or not at all.

    Args:
        out: the file.
        source: the file of the rows.
        rows: the columns CORE of every architecture.
        latencies: by file, rows with the official index and milliseconds by device.

    Raises:
        ValueError: a column or an architecture is missing or repeated, or a value is not a number.
    """
    missing = [column for column in CORE if not rows or column not in rows[0]]
    if missing:
        raise ValueError(f"{source} lacks the columns {', '.join(missing)}")
    core, devices = _numbers(source, rows, NUMBERS), _devices(latencies)

    def table(of: Mapping[str, np.ndarray], columns: Sequence[str]) -> np.ndarray:
        return np.array([of[column] for column in columns]).reshape(len(columns), COUNT).T

    records = np.zeros(COUNT, layout(list(devices)))  # in the official order, first
    records["index"] = np.arange(COUNT)
    records["seeds"] = core["n_seeds"]
    records["accuracy"] = table(core, ACCURACY_COLUMNS)
    records["rank"] = np.apply_along_axis(ranks, 0, records["accuracy"])
    records["cost"] = np.rint(1e6 * table(core, COST_COLUMNS))
    records["seconds"] = table(core, SECONDS_COLUMNS)
    records["latency"] = table(devices, list(devices))
    sorted_records = np.empty_like(records)
    sorted_records[_positions(source, rows)] = records
    sources = [path.name for path in (source, *latencies)]
    write_bytes(out, header(list(devices), sources) + sorted_records.tobytes())


def _devices(latencies: Mapping[Path, Sequence[Row]]) -> dict[str, np.ndarray]:
    """Collect milliseconds by device, in the order of the official index."""
    devices: dict[str, np.ndarray] = {}
    for path, rows in latencies.items():
        found = _numbers(path, rows, [name for name in rows[0] if name != "index"])
        if devices.keys() & found.keys():
            raise ValueError(f"{path} and another file both give {min(devices.keys() & found)}")
        devices |= found
    return devices


def _positions(path: Path, rows: Sequence[Row]) -> np.ndarray:
    """Return the place in the table of every architecture, in the order of the official index."""
    index_at: dict[int, int] = {}
    for row in rows:
        try:
            place = position(Genotype.from_nasbench201(row["arch"]))
        except ValueError as error:
            raise ValueError(f"{path} index {row['index']}: {error}") from None
        if place in index_at:
            raise ValueError(f"{path} has the architecture {row['arch']} twice")
        index_at[place] = int(_number(path, row, "index"))
    return np.array(sorted(index_at, key=lambda place: index_at[place]))


def _numbers(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Read columns of numbers in the order of the official index; each index must be there once."""
    found: dict[int, Row] = {}
    for row in rows:
        index = _number(path, row, "index")
        if index >= COUNT or index % 1:
            raise ValueError(f"{path} has the index {row['index']}: must be 0 to {COUNT - 1:,}")
        if index in found:
            raise ValueError(f"{path} has the index {row['index']} twice")
        found[int(index)] = row
    if len(found) != COUNT:
        missing = next(index for index in range(COUNT) if index not in found)
        raise ValueError(
            f"{path} has {len(found):,} of {COUNT:,} architectures: index {missing} is missing"
        )
    ordered = [found[index] for index in range(COUNT)]
    return {name: np.array([_number(path, row, name) for row in ordered]) for name in columns}


def _number(path: Path, row: Row, column: str) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = nan
    if not (isfinite(value) and value >= 0):
        raise ValueError(
            f"{path} index {row['index']}: {column} = {row[column]!r} must be a number from 0 up"
        )
    return value
