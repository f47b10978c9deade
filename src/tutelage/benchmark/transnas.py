"""TransNAS-Bench-101: 7,352 networks, each trained for seven tasks of vision.

Duan, Chen, Xu, Chen, Liang, Zhang, Li: TransNAS-Bench-101: improving transferability and
generalizability of cross-task neural architecture search. CVPR 2021, arXiv:2105.11871. Its file
transnas-bench_v10141024.pth was written by torch.save. A table is made of it, which needs neither
torch nor the file again, and no code in it runs. Nothing in this file imports torch.

Deviations: the benchmark's interface answers with the best of all epochs by default, also of the
test images, which is a selection by them. The table has the figures of the last epoch.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any, Final

import numpy as np

from tutelage.benchmark.pickled import read_pickle
from tutelage.benchmark.stored import Head, write_table

TITLE: Final = "TransNAS-Bench-101"
SPACES: Final = {"macro": "transnas-macro", "micro": "transnas-micro"}
"""The file's names of the spaces, and ours."""
RANKED_BY: Final = "class_object_valid_top1"
"""The score by which results are ranked, if the file has it; otherwise its first score."""
LARGEST: Final = 1 << 30
"""Bytes of the pickle in the file."""
LEGACY: Final = 0x1950A86A20F9469CFC6C
"""The number with which torch.save began a file until torch 1.5."""


def build(path: Path, out: Path) -> None:
    """Make a table of the file; of every task all metrics of the last epoch, and all costs.

    Raises:
        ValueError: It is another file, or damaged.
    """
    content = _read(path)
    try:
        tasks = _texts(content["task_list"])
        metrics = {task: _texts(content["metrics_dict"][task]) for task in tasks}
        costs, data = _texts(content["info_names"]), content["data"]
        found = {SPACES[name]: data[name] for name in SPACES if name in data}
        networks = {text: each for group in found.values() for text, each in group.items()}
        rows = [_row(each, metrics, costs) for each in networks.values()]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not the file of {TITLE}: {error!r} is wrong") from None
    if not rows:
        raise ValueError(f"{path} has no networks of {', '.join(SPACES)}")
    scores = [f"{task}_{metric}" for task in tasks for metric in metrics[task]]
    columns = [*scores, *(f"{task}_{cost}" for task in tasks for cost in costs)]
    better = {name: 1 if up else -1 for name in scores if (up := more_is_better(name)) is not None}
    head = Head(
        TITLE,
        RANKED_BY if RANKED_BY in better else next(iter(better)),
        {space: len(group) for space, group in found.items()},
        list(map(str, networks)),
        columns,
        better,
    )
    write_table(out, head, np.array(rows))


def more_is_better(metric: str) -> bool | None:
    """Tell from the name of a metric whether more of it is better; None: it is no score.

    >>> [more_is_better(x) for x in ("test_top1", "test_l1_loss", "valid_neg_loss", "time_elapsed")]
    [True, False, True, None]
    """
    if "time" in metric:
        return None
    return "neg_loss" in metric or "loss" not in metric


def _row(
    results: Mapping[str, Any], metrics: Mapping[str, Sequence[str]], costs: Sequence[str]
) -> list[float]:
    """Return a network's row; a task or a metric that it lacks is NaN."""
    empty: dict[str, Any] = {"metrics": {}, "model_info": {}}
    row: list[float] = []
    for task, names in metrics.items():
        curves = results.get(task, empty)["metrics"]
        row += [float(curves[name][-1]) if name in curves else nan for name in names]
    for task in metrics:
        known = results.get(task, empty)["model_info"]
        row += [float(known[name]) if name in known else nan for name in costs]
    return row


def _texts(values: Any) -> list[str]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(x, str) for x in values):
        raise ValueError(f"{type(values).__name__} where names must be")
    return list(values)


def _read(path: Path) -> Any:
    """Read what torch.save wrote, without torch."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        if zipfile.is_zipfile(path):
            return read_pickle(_inside(path))
        return _legacy(path.read_bytes())
    except Exception as error:  # for broken bytes zipfile raises almost any error
        raise ValueError(f"{path} cannot be read as {TITLE}: {error}") from None


def _inside(path: Path) -> bytes:
    """Return the pickle in a file of torch 1.6 and later."""
    with zipfile.ZipFile(path) as file:
        names = [each for each in file.infolist() if each.filename.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it was not written by torch.save")
        with file.open(names[0]) as inner:
            content = inner.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"its values have more than {LARGEST:,} bytes")
    return content


def _legacy(content: bytes) -> Any:
    """Return the values of an earlier file: the fourth of the pickles that it consists of."""
    if len(content) < 16:
        raise ValueError("it was not written by torch.save")
    pickles, rest = [], io.BytesIO(content)
    for _ in range(4):
        start = rest.tell()
        for operation, _, _ in pickletools.genops(rest):
            if operation.name == "STOP":
                break
        pickles.append(content[start : rest.tell()])
        if len(pickles) == 1 and read_pickle(pickles[0]) != LEGACY:
            raise ValueError("it was not written by torch.save")
    return read_pickle(pickles[3])
