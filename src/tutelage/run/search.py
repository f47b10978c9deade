"""Search an architecture: join a method, a search and a space, and work to the last epoch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.config import Data, Run
from tutelage.data.given import Given, taken, using
from tutelage.data.halves import halves
from tutelage.data.splits import load_split, remarks, save_split
from tutelage.extras import Notice
from tutelage.parts import from_table, part_settings
from tutelage.problem import Method
from tutelage.quick import quick_look, stated
from tutelage.renamed import lifted_settings, warn
from tutelage.run.conditions import conditions
from tutelage.run.cost import latency
from tutelage.run.inputs import Comparison
from tutelage.run.job import checkpoint
from tutelage.run.job.agreement import same_images
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.loop import run
from tutelage.run.job.opened import opened, resumes
from tutelage.run.job.settings import plain
from tutelage.run.machine import threads
from tutelage.run.networks.found import Found
from tutelage.run.step.recorders import chosen
from tutelage.run.strategies.assemble import Joined, joined
from tutelage.run.supernet.state import Searching
from tutelage.searches.base import Search
from tutelage.shares import by_learners
from tutelage.spaces.base import Space
from tutelage.trackers import available
from tutelage.trackers.follow import following

SPLIT = "split.npz"


def search(
    method: Method | str = "single",
    search: Search | str = "darts",
    space: Space | str = "darts",
    data: Data | Given | str | Any = "digits",
    *,
    out: Path | str,
    resume: bool = False,
    quick: bool = False,
    accept_changed_data: bool = False,
    **settings: Any,
) -> Found:
    """Search an architecture, as `tutelage search` does.

    Args:
        method: Which models teach which: a name or an instance.
        search: How choices are relaxed: a name or an instance.
        space: What can be built: a name, a page of TOML's path, or an instance.
        data: Which images: a name, a folder or file, `Data` for all its settings, or images that
            the program holds, as `Given` or `Given.train` takes them.
        out: The run directory.
        resume: Resume in `out` where an earlier call was stopped.
        quick: Make settings small that are left at their defaults: the search ends in a minute.
        accept_changed_data: Resume also if images have changed, and record that.
        **settings: Further fields of `tutelage.config.Run`.

    Raises:
        ValueError: A setting, the data or the run directory is unusable, or a loss is not finite.
        StoppedError: SIGINT, SIGTERM or SIGHUP came; everything is saved.
    """

    def table(kind: str, part: Any) -> dict[str, Any]:
        return {"name": part} if isinstance(part, str) else part_settings(kind, part)

    chosen_data, given_data = taken(data)
    settings = lifted_settings(settings, partial(warn, level=4)) | {
        "method": table("method", method),
        "search": table("search", search),
        "space": table("space", space),
        "data": chosen_data,
    }
    if settings.get("row") is not None:
        raise ValueError(
            f"row = {settings['row']!r}: a paper's row is run by `tutelage search --row`; give its "
            "settings here"
        )
    if quick:
        given = stated(settings)
        run_settings = from_table(Run, quick_look(given, given), "a search")
    else:
        run_settings = Run(**settings)
    with using(given_data):
        return search_run(run_settings, Path(out), resume, accept_changed_data)


def search_run(
    settings: Run, out: Path, resume: bool = False, accept_changed_data: bool = False
) -> Found:
    """Search, write the run directory, and return what was found.

    Args:
        settings: Every setting of the run.
        out: The run directory.
        resume: Resume in `out` where an earlier call was stopped.
        accept_changed_data: Resume also if images have changed, and record that.

    Raises:
        ValueError: A setting, the data or the run directory is unusable, images have changed, or a
            loss is not finite.
        StoppedError: SIGINT, SIGTERM or SIGHUP came; everything is saved.
    """
    with conditions(settings, repeatable=True), by_learners(settings.divide == "learners"):
        return _searched(settings, out, resume, accept_changed_data)


def _searched(settings: Run, out: Path, resume: bool, accept: bool) -> Found:
    available(settings.log)
    resume = resumes(out, resume)
    parts = joined(settings, out if resume else None)
    threads.settle(parts.elements, out if resume else None)
    settings, device = parts.settings, parts.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        # All checks come before the directory is made, so that a mistake leaves none behind.
        if resume:  # before the split, which other data settings would make unusable
            RunDirectory.open(out).refuse_changes(plain(settings))
        read = Comparison(out, resume=resume, accept=accept)
        read.add("train", parts.train)
        stored = resume and ((out / SPLIT).exists() or checkpoint.exists(out))
        divided = _halves(parts, out / SPLIT if stored else None)
        same_images(parts.train.images, divided)
        setup = parts.setup(divided)
        if settings.data.unlabelled != "train":
            read.add("unlabelled", setup.streams.unlabelled.data)
        strategy = parts.strategy(setup)
        work = Searching(setup, strategy)
        strategy.check(work.view())
        if notice := work.phase.problem.extra(Notice):
            print(notice.text, flush=True)
        if caveat := strategy.diagnostics.caveat:
            print(f"--table {settings.table}: figures {caveat}", flush=True)
        with (
            opened(out, plain(settings), resume=resume) as directory,
            following(out, settings.log if directory.writes else ()),
        ):
            read.save(directory)
            if parts.latencies:
                directory.write_text(latency.FILE, parts.latencies.content.as_text())
            if directory.writes and not stored:
                save_split(out / SPLIT, *divided)
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


def _halves(parts: Joined, stored: Path | None) -> tuple[Tensor, Tensor]:
    """Read or make the halves, and say what they lack."""
    settings, train = parts.settings, parts.train
    divided = load_split(stored, len(train.images)) if stored else halves(settings, train)
    for sentence in remarks(train.images.labels, train.classes, divided, settings.batch_size):
        print(sentence, flush=True)
    return divided
