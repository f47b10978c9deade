"""Search an architecture: join a method, a search and a space, and work to the last epoch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from tutelage.config import Data, Run
from tutelage.data.splits import load_split, save_split
from tutelage.data.streams import halves_of
from tutelage.extras import Notice
from tutelage.parts import from_table, part_settings
from tutelage.problem import Method
from tutelage.quick import quick_look, stated
from tutelage.renamed import lifted_settings, warn
from tutelage.run.conditions import conditions
from tutelage.run.job import checkpoint, threads
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.loop import run
from tutelage.run.job.settings import plain
from tutelage.run.networks.found import Found
from tutelage.run.step.recorders import chosen
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.state import Searching
from tutelage.searches.base import Search
from tutelage.spaces.base import Space

SPLIT = "split.npz"


def search(
    method: Method | str = "single",
    search: Search | str = "darts",
    space: Space | str = "darts",
    data: Data | str = "digits",
    *,
    out: Path | str,
    resume: bool = False,
    quick: bool = False,
    **settings: Any,
) -> Found:
    """Search an architecture, as `tutelage search` does.

    Args:
        method: Which models teach which: a name or an instance.
        search: How choices are relaxed: a name or an instance.
        space: What can be built: a name or an instance.
        data: Which images: a name, a folder, or `Data` for all its settings.
        out: The run directory.
        resume: Resume in `out` where an earlier call was stopped.
        quick: Make settings small that are left at their defaults: the search ends in a minute.
        **settings: Further fields of `tutelage.config.Run`.

    Raises:
        ValueError: A setting, the data or the run directory is unusable, or a loss is not finite.
        StoppedError: SIGINT, SIGTERM or SIGHUP came; everything is saved.
    """

    def table(kind: str, part: Any) -> dict[str, Any]:
        return {"name": part} if isinstance(part, str) else part_settings(kind, part)

    settings = lifted_settings(settings, partial(warn, level=4)) | {
        "method": table("method", method),
        "search": table("search", search),
        "space": table("space", space),
        "data": Data(name=data) if isinstance(data, str) else data,
    }
    if quick:
        given = stated(settings)
        return search_run(from_table(Run, quick_look(given, given), "a search"), Path(out), resume)
    return search_run(Run(**settings), Path(out), resume)


def search_run(settings: Run, out: Path, resume: bool = False) -> Found:
    """Search, write the run directory, and return what was found.

    Args:
        settings: Every setting of the run.
        out: The run directory.
        resume: Resume in `out` where an earlier call was stopped.

    Raises:
        ValueError: A setting, the data or the run directory is unusable, or a loss is not finite.
        StoppedError: SIGINT, SIGTERM or SIGHUP came; everything is saved.
    """
    with conditions(settings, repeatable=True):
        return _searched(settings, out, resume)


def _searched(settings: Run, out: Path, resume: bool) -> Found:
    parts = joined(settings)
    threads.settle(parts.elements, out if resume else None)
    settings, device = parts.settings, parts.device
    opened = RunDirectory.resume if resume else RunDirectory.create
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        # All checks come before the directory is made, so that a mistake leaves none behind.
        if resume:  # before the split, which other data settings would make unusable
            RunDirectory.open(out).refuse_changes(plain(settings))
        stored = resume and ((out / SPLIT).exists() or checkpoint.exists(out))
        images = parts.train
        halves = (
            load_split(out / SPLIT, len(images.images)) if stored else halves_of(settings, images)
        )
        setup = parts.setup(halves)
        strategy = parts.strategy(setup)
        work = Searching(setup, strategy)
        strategy.check(work.view())
        if notice := work.phase.problem.extra(Notice):
            print(notice.text, flush=True)
        with opened(out, plain(settings)) as directory:
            if not stored:
                save_split(out / SPLIT, *halves)
            run(
                work,
                directory,
                log_every=settings.log_every,
                save_every=settings.save_every,
                title=f"search {out}",
                resume_with=f"tutelage search --resume {out}",
                gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
                graph=chosen(settings.graph, device),
                notices=work.programs.notices,
            )
            try:
                work.set_clock()
                return strategy.conclude(work.view(), directory)
            finally:  # the time of a stopped ranking or evolution counts too
                directory.save_session()
