"""Whole searches on a GPU: short ones twice, and those of NAS-Bench-201 seed after seed."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from gpu_steps import CASES, modes, settings_of
from tutelage.benchmark.table import open_table
from tutelage.config import Run
from tutelage.parts import from_table
from tutelage.run.job.signals import StoppedError
from tutelage.run.search import search_run

Row = dict[str, Any]


def repeats(options: argparse.Namespace, *keys: str) -> Iterator[Row]:
    """Run short searches twice, and compare their files to the bit; replayed with eager, too."""
    for case in (case for case in CASES if case.key in keys):
        files = {}
        for graph in modes(options):
            runs = []
            for index in range(2):
                out = options.scratch / f"repeat-{case.key}-{graph}-{index}"
                changed: Row = {"epochs": 1, "limit_batches": 2 if options.tiny else 8}
                changed |= {"log_every": 1, "deterministic": True}
                search_run(settings_of(options, case, graph, **changed), out)
                runs.append((out / "metrics.jsonl").read_bytes())
            files[graph] = runs[0]
            same = runs[0] == runs[1]
            yield {
                "what": f"{case.what}, {graph}, twice",
                "key": f"{case.key}/{graph}",
                "same": same,
            }
        if len(files) > 1:
            same = files["on"] == files["off"]
            yield {"what": f"{case.what}, replayed and eager", "key": case.key, "same": same}


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Ask this process to stop after some seconds; a search then saves what it has."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # outside of a search nothing happens
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


def searches(options: argparse.Namespace, seconds: float) -> Iterator[Row]:
    """Search NAS-Bench-201, seed after seed, until the time is up."""
    ends = time.monotonic() + seconds
    for seed in count() if not options.tiny else range(1):
        if time.monotonic() >= ends:
            return
        settings, out = whole(options, seed), options.scratch / f"search-{seed}"
        begun, row = time.monotonic(), {"what": f"whole search, seed {seed}", "key": f"seed-{seed}"}
        try:
            with alarm(ends - time.monotonic()):
                found = search_run(settings, out)
        except StoppedError as error:
            yield row | {"seconds": time.monotonic() - begun, "note": f"not ended: {error}"}
            return
        row |= {"seconds": time.monotonic() - begun, "epochs": settings.epochs}
        row |= {"genotype": found.genotype.to_nasbench201()}
        if options.table:
            row |= open_table(options.table).query(found.genotype).as_dict()
        yield row


def whole(options: argparse.Namespace, seed: int) -> Run:
    """Return the settings of a whole search: DARTS, first order, 50 epochs."""
    small = {"channels": 4, "cells": 1, "batch_size": 8, "limit_batches": 2, "epochs": 1}
    table = {"space": {"name": "nasbench201"}, "via": "first-order", "seed": seed}
    table |= {"data": options.images_of, "device": options.device}
    return from_table(Run, table | (small if options.tiny else {}), "a search")
