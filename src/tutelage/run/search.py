"""Search an architecture: join a method, a search and a space, and work to the last epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.config import Data, Run
from tutelage.data.draws import draws
from tutelage.data.splits import load_split, save_split
from tutelage.parts import part_settings
from tutelage.problem import Method, pick
from tutelage.run.directory import RunDirectory, plain
from tutelage.run.joined import joined
from tutelage.run.loop import run
from tutelage.run.searching import Searching
from tutelage.run.streams import halves_of, streams_of
from tutelage.run.watch import looked_up
from tutelage.searches.base import Search
from tutelage.spaces.base import Size, Space
from tutelage.spaces.genotype import Genotype

SPLIT = "split.npz"


@dataclass(frozen=True)
class Found:
    """What a search found."""

    genotype: Genotype
    """The kept learner's architecture."""
    path: Path
    """The run directory."""
    learner: int
    """Which learner was kept."""
    marks: list[dict[str, float]]
    """Loss and accuracy of every learner on the whole validation half."""
    size: Size
    """Size of the supernet that searched; `network` takes another."""

    def network(self, size: Size | None = None, *, auxiliary: bool = False) -> nn.Module:
        """Build the found network, untrained, at the size of the supernet or another."""
        from tutelage.run.network import build

        return build(self.genotype, size or self.size, auxiliary=auxiliary)

    def draw(self) -> str:
        """Draw the cells as SVG text."""
        from tutelage.report.draw import draw

        return draw(self.genotype)


def search(
    method: Method | str = "single",
    search: Search | str = "darts",
    space: Space | str = "darts",
    data: Data | str = "digits",
    *,
    out: Path | str,
    resume: bool = False,
    **settings: Any,
) -> Found:
    """Search an architecture, as `tutelage search` does.

    Args:
        method: Who teaches whom: a name or an instance.
        search: How choices are relaxed: a name or an instance.
        space: What can be built: a name or an instance.
        data: Which images: a name, a folder, or `Data` for all its settings.
        out: The run directory.
        resume: Go on in `out` where an earlier call was stopped.
        **settings: Further fields of `tutelage.config.Run`.

    Raises:
        ValueError: A setting, the data or the run directory cannot be used, or a loss is no number.
        StoppedError: SIGINT or SIGTERM came; everything is saved.
    """

    def table(kind: str, part: Any) -> dict[str, Any]:
        return {"name": part} if isinstance(part, str) else part_settings(kind, part)

    run_settings = Run(
        method=table("method", method),
        search=table("search", search),
        space=table("space", space),
        data=Data(name=data) if isinstance(data, str) else data,
        **settings,
    )
    return search_run(run_settings, Path(out), resume)


def search_run(settings: Run, out: Path, resume: bool = False) -> Found:
    """Search, write the run directory, and return what was found.

    Args:
        settings: Every setting of the run.
        out: The run directory.
        resume: Go on in `out` where an earlier call was stopped.

    Raises:
        ValueError: A setting, the data or the run directory cannot be used, or a loss is no number.
        StoppedError: SIGINT or SIGTERM came; everything is saved.
    """
    settings, method, search, space, size, train, device = joined(settings)
    opened = RunDirectory.resume if resume else RunDirectory.create
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(settings.seed)
        # All before there is a directory, so that a mistake leaves none behind.
        stored = resume and (out / SPLIT).exists()
        halves = (
            load_split(out / SPLIT, len(train.images)) if stored else halves_of(settings, train)
        )
        streams = streams_of(settings, train, halves, device)
        work = Searching(method, search, space, size, streams, settings)
        if work.problem.remark:
            print(work.problem.remark, flush=True)
        with opened(out, plain(settings)) as directory:
            if not stored:
                save_split(out / SPLIT, *halves)
            run(
                work,
                directory,
                log_every=settings.log_every,
                save_every=settings.save_every,
                title=f"search {out}",
                go_on=f"tutelage search --resume {out}",
                gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            )
            return _keep(work, directory, size)


def _keep(work: Searching, directory: RunDirectory, size: Size) -> Found:
    """Keep the learner with the lowest loss on the whole validation half; write genotype.json."""
    learners = work.problem.learners
    work.set_clock()
    marks = validate(work) if work.search.trains else [{} for _ in learners]
    kept = min(range(len(marks)), key=lambda k: marks[k].get("valid_loss", 0.0))
    genotype = work.genotype(learners[kept])
    if work.stopped:
        before = work.history[work.stopped["epoch"]][kept]["genotype"]
        genotype = Genotype.from_dict(before)
    epoch = work.stopped["epoch"] + 1 if work.stopped else work.epoch
    about: Mapping[str, Any] = {"learner": kept, "epoch": epoch, **marks[kept]}
    if not any(row["event"] == "end" for row in directory.rows()):
        end: dict[str, Any] = {"event": "end", "learners": marks, "kept": kept}
        if work.table and not work.search.trains:  # there was no epoch to say it
            end["table"] = [looked_up(work.table, work.genotype(x)) for x in learners]
        directory.append(end)
    directory.write_text("genotype.json", genotype.to_json(about))
    directory.save_session()
    return Found(genotype, directory.path, kept, marks, size)


@torch.no_grad()
def validate(work: Searching) -> list[dict[str, float]]:
    """Return loss and accuracy of every learner on the validation half."""
    torch.manual_seed(int(draws(work.settings.seed, "search/validate").integers(2**63)))
    sums = torch.zeros(len(work.problem.learners), 2, dtype=torch.float64)
    images = 0
    for x, y, _ in work.validation():
        images += len(y)
        for k, learner in enumerate(work.problem.learners):
            weights = pick(work.variables, learner.weights)
            logits = learner.net(weights, pick(work.variables, learner.alphas), x)
            sums[k, 0] += nn.functional.cross_entropy(logits, y, reduction="sum").item()
            sums[k, 1] += int((logits.argmax(1) == y).sum())
    means = (sums / images).tolist()
    return [{"valid_loss": loss, "valid_accuracy": accuracy} for loss, accuracy in means]
