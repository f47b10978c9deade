"""Make the table of NAS-Bench-201 from the official files of NATS-Bench, which are pickles.

Dong, Liu, Musial, Gabrys: NATS-Bench: benchmarking NAS algorithms for architecture topology and
size. TPAMI 2021, arXiv:2009.00437. Its topology benchmark is NAS-Bench-201; its package
`nats_bench` reads it. Nothing in this file imports torch.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from tutelage.benchmark.build import Row, check_out, read_csv, write_table
from tutelage.benchmark.nasbench201 import EPOCHS

SETS = {
    "c10_valid": ("cifar10-valid", "x-valid"),
    "c10_test": ("cifar10", "ori-test"),
    "c100_valid": ("cifar100", "x-valid"),
    "c100_test": ("cifar100", "x-test"),
    "in16_valid": ("ImageNet16-120", "x-valid"),
    "in16_test": ("ImageNet16-120", "x-test"),
}
"""NATS-Bench's names of the training, and of the images for the test."""

UNREADABLE = (
    AssertionError, AttributeError, EOFError, ImportError, IndexError, KeyError, OSError, TypeError,
    ValueError, pickle.UnpicklingError,
)  # fmt: skip
"""Errors that the package and pickle raise for files that are cut short or of another kind."""


def build_from_api(
    path: Path, out: Path, *, trust_pickle: bool = False, latency_files: Sequence[Path] = ()
) -> None:
    """Make the table from NATS-Bench's topology files.

    Args:
        path: the folder NATS-tss-v1_0-3ffb9-simple or the file NATS-tss-v1_0-3ffb9.pickle.pbz2.
        out: the table to write; an older table is replaced.
        trust_pickle: whether code in the files may run.
        latency_files: CSV files with latencies.

    Raises:
        ValueError: the files are not trusted or not NATS-Bench's, or the package is missing.
    """
    if not trust_pickle:
        raise ValueError(
            f"{path} is a pickle, and unpickling runs any code in it: give --trust-pickle if you "
            "trust its source, or make the table from CSV files"
        )
    try:
        from nats_bench import create
    except ImportError:
        raise ValueError(
            "NATS-Bench's files are read by its own package: pip install 'tutelage[bench]'"
        ) from None
    check_out(out)
    latencies = {each: read_csv(each) for each in latency_files}
    for each, rows in latencies.items():
        if "arch" in rows[0]:
            raise ValueError(f"{each} has architectures: besides {path} give only latencies")
    try:
        api = create(str(path), "tss", fast_mode=path.is_dir(), verbose=False)
        found = list(read_rows(api))
    except UNREADABLE as error:
        raise ValueError(f"{path} does not hold NATS-Bench's topology files: {error}") from None
    write_table(out, path, found, latencies)


def read_rows(api: Any) -> Iterator[Row]:
    """Read every architecture as a row of `build.CORE`; figures are means over training runs.

    Args:
        api: the object that `nats_bench.create` returns.
    """
    screen = Console(stderr=True)
    for index in track(range(len(api)), "Reading", console=screen, disable=not sys.stderr.isatty()):
        if api.fast_mode:
            api.reload(api.archive_dir, index)
        results = api.arch2infos_dict.pop(index)  # all of them together are tens of gigabytes
        full = results["200"]
        half, cifar10, cifar100, imagenet16 = (
            full.get_compute_costs(training)
            for training in ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120")
        )
        yield {
            "arch": api.arch(index),
            "index": index,
            "n_seeds": len(full.get_dataset_seeds("cifar10-valid")),
            **{
                f"{column}_{epochs}": results[str(epochs)].get_metrics(*images)["accuracy"]
                for column, images in SETS.items()
                for epochs in EPOCHS
            },
            **own_cost(api.arch(index)),
            "params_M": cifar10["params"],
            "flops_M": cifar10["flops"],
            "flops_M_in16": imagenet16["flops"],
            "train_s_c10valid_200": half["T-train@total"],
            "train_s_c100_200": cifar100["T-train@total"],
            "train_s_in16_200": imagenet16["T-train@total"],
        }


def own_cost(architecture: str) -> dict[str, float]:
    """Count parameters and FLOPs of an architecture's network for CIFAR-10, in millions.

    Of a cell's operations only convolutions have a cost. A k x k convolution on C channels and its
    normalisation have k^2 C^2 + 2 C parameters. The network has five cells at each of C = 16, 32
    and 64, on images of side 512 / C, so that FLOPs are the same in all of them.
    """
    ones, threes = architecture.count("nor_conv_1x1"), architecture.count("nor_conv_3x3")
    return {
        "params_M_arch": (73_306 + 28_000 * ones + 243_040 * threes) / 1e6,
        "flops_M_arch": (7_783_050 + 3_932_160 * (ones + 9 * threes)) / 1e6,
    }
