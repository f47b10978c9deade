"""Search an architecture: join a method, a search and a space, and work to the last epoch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tutelage.config import Data, Run
from tutelage.data.draws import draws
from tutelage.data.splits import load_split, save_split
from tutelage.parts import from_table, part_settings
from tutelage.problem import Method, pick
from tutelage.quick import quick_look, stated
from tutelage.records.results import Origin
from tutelage.records.rows import SEARCH, EndRow, EnsembleScores, LearnerScores
from tutelage.records.typed import finite
from tutelage.run.job import threads
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.loop import run
from tutelage.run.job.settings import plain
from tutelage.run.networks import ensemble
from tutelage.run.networks.ensemble import Ensemble, forward_selection
from tutelage.run.one_shot import conclusion
from tutelage.run.one_shot.ranking import ranked, ranking_of
from tutelage.run.supernet.assemble import elements_of, joined
from tutelage.run.supernet.batches import halves_of, streams_of
from tutelage.run.supernet.state import Searching
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

    ensemble: Ensemble | None = None
    """The learners that a method keeps together, the kept one first; None: it keeps one alone."""

    evolved: str = ""
    """What the found path scores in the supernet, and costs; nothing where none evolved."""

    def network(self, size: Size | None = None, *, auxiliary: bool = False) -> nn.Module:
        """Build the found network, untrained, at the size of the supernet or another."""
        from tutelage.run.networks.files import build

        return build(self.genotype, size or self.size, auxiliary=auxiliary)

    def draw(self) -> str:
        """Draw the cells as SVG text."""
        from tutelage.report.figures.draw import draw

        return draw(self.genotype)


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
        method: Who teaches whom: a name or an instance.
        search: How choices are relaxed: a name or an instance.
        space: What can be built: a name or an instance.
        data: Which images: a name, a folder, or `Data` for all its settings.
        out: The run directory.
        resume: Go on in `out` where an earlier call was stopped.
        quick: Make small what is left at its default, so that the search ends within a minute.
        **settings: Further fields of `tutelage.config.Run`.

    Raises:
        ValueError: A setting, the data or the run directory cannot be used, or a loss is no number.
        StoppedError: SIGINT or SIGTERM came; everything is saved.
    """

    def table(kind: str, part: Any) -> dict[str, Any]:
        return {"name": part} if isinstance(part, str) else part_settings(kind, part)

    settings |= {
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
        resume: Go on in `out` where an earlier call was stopped.

    Raises:
        ValueError: A setting, the data or the run directory cannot be used, or a loss is no number.
        StoppedError: SIGINT or SIGTERM came; everything is saved.
    """
    with threads.restored(settings.threads):
        return _searched(settings, out, resume)


def _searched(settings: Run, out: Path, resume: bool) -> Found:
    parts = joined(settings)
    threads.settle(elements_of(parts), out if resume else None)
    settings, method, search, space, size, train, device = parts
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
        conclusion.check(work)
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
            try:
                return _keep(work, directory, size)
            finally:  # a ranking or an evolution that is stopped took its time too
                directory.save_session()


class Validated(NamedTuple):
    """How learners do on the whole validation half; all tensors are on the CPU."""

    marks: list[dict[str, float]]
    """Loss and accuracy of every learner; theirs in a first stage are `first_loss`, ..."""
    probabilities: list[Tensor]
    """Of every batch, (K, B, C); none where no ensemble is to be selected."""
    y: Tensor
    """Labels (N,)."""


def _keep(work: Searching, directory: RunDirectory, size: Size) -> Found:
    """Keep the learner with the lowest loss on the whole validation half, or an ensemble.

    Writes genotype.json last: it says that the search has ended.
    """
    learners = work.problem.learners
    work.set_clock()
    trained = work.search.kind != "draws" and not work.problem.score
    validated = validate(work) if trained else None
    marks = validated.marks if validated else [{} for _ in learners]
    if work.search.kind == "samples":
        return _evolve(work, directory, size, marks)
    genotypes = _genotypes(work)
    kept = min(range(len(marks)), key=lambda k: marks[k].get("valid_loss", 0.0))
    together = _select(work, validated, genotypes) if work.problem.members else None
    if together:
        kept = together.learners[0]
        directory.write_text(ensemble.FILE, together.to_json())
        print(together.as_text())
    stopped = work.watching.stopped
    epoch = stopped["epoch"] + 1 if stopped else work.epoch
    about = Origin(learner=kept, epoch=epoch, **marks[kept])
    drawn = work.search.kind == "draws"  # there was no epoch to say what the table knows
    end = EndRow(
        learners=[LearnerScores(**each) for each in marks],
        kept=kept,
        ensemble=EnsembleScores(**together.to_row()) if together else None,
        table=work.watching.looked_up(genotypes) if drawn else [],
    )
    _end(directory, end)
    directory.write_text("genotype.json", genotypes[kept].to_json(finite(about)))
    return Found(genotypes[kept], directory.path, kept, marks, size, together)


def _evolve(
    work: Searching, directory: RunDirectory, size: Size, marks: list[dict[str, float]]
) -> Found:
    """Evolve among the paths of the best learner's supernet, in a folder of its own."""
    kept = min(range(len(marks)), key=lambda k: marks[k].get("valid_loss", 0.0))
    scorer = conclusion.scorer_of(work, work.problem.learners[kept])
    scores = None
    if work.settings.ranked and work.watching.table:
        ranking = ranking_of(work, scorer, work.watching.table)
        conclusion.work_in(directory.path / conclusion.RANKING, ranking, work.settings)
        scores = ranked(ranking, work.watching.table)
    evolving = conclusion.evolve_of(work, scorer)
    conclusion.work_in(directory.path / conclusion.EVOLUTION, evolving, work.settings)
    found = evolving.genotype(evolving.evolving.best)
    best = evolving.described(evolving.evolving.best)
    end = EndRow(
        learners=[LearnerScores(**each) for each in marks],
        kept=kept,
        ranking=scores,
        evolution=best,
        table=work.watching.looked_up([found]),
    )
    _end(directory, end)
    about = Origin(kept, work.epoch, supernet_accuracy=best.accuracy, supernet_score=best.score)
    directory.write_text("genotype.json", found.to_json(finite(about)))
    said = evolving.said(evolving.evolving.best)
    return Found(found, directory.path, kept, marks, size, evolved=said)


def _end(directory: RunDirectory, end: EndRow) -> None:
    """Write the row that ends a search, once."""
    if not any(row.event == "end" for row in directory.rows(SEARCH)):
        directory.append(end)


def _genotypes(work: Searching) -> list[Genotype]:
    """Read every learner's architecture off: of the end, or the epoch that an early stop keeps."""
    watching = work.watching
    if watching.stopped:
        before = watching.history[watching.stopped["epoch"]]
        return [Genotype.from_dict(learner["genotype"]) for learner in before]
    return [work.genotype(learner) for learner in work.problem.learners]


def _select(
    work: Searching, validated: Validated | None, genotypes: Sequence[Genotype]
) -> Ensemble:
    """Select an ensemble on the validation half; the first learners where nothing was trained."""
    chosen = list(range(work.problem.members))
    marks: dict[str, float] = {}
    if validated:
        probabilities = torch.cat(validated.probabilities, 1)
        chosen = forward_selection(probabilities, validated.y, work.problem.members)
        marks = ensemble.marks(probabilities[chosen], validated.y)
    return Ensemble(tuple(chosen), tuple(genotypes[k] for k in chosen), marks)


@torch.no_grad()
def validate(work: Searching) -> Validated:
    """Measure every learner on the whole validation half."""
    sums: dict[tuple[int, str], float] = defaultdict(float)
    probabilities, labels = [], []
    for logits, y in _answers(work):
        for k, stages in enumerate(logits):
            for stage, z in zip(("valid", "first"), stages, strict=False):
                loss = nn.functional.cross_entropy(z, y, reduction="sum")
                sums[k, f"{stage}_loss"] += loss.item()
                sums[k, f"{stage}_accuracy"] += int((z.argmax(1) == y).sum())
        labels.append(y.cpu())
        if work.problem.members:
            each = [own.double().softmax(1).cpu() for own, *_ in logits]
            probabilities.append(torch.stack(each))
    y = torch.cat(labels)
    marks: list[dict[str, float]] = [{} for _ in work.problem.learners]
    for (k, mark), value in sums.items():
        marks[k][mark] = value / len(y)
    return Validated(marks, probabilities, y)


def _answers(work: Searching) -> Iterator[tuple[list[list[Tensor]], Tensor]]:
    """Yield batches of the validation half, not augmented: all learners' logits, and labels (B,).

    Where a learner has weights of a first stage, their logits (B, C) follow its own.
    """
    torch.manual_seed(int(draws(work.settings.seed, "search/validate").integers(2**63)))
    for x, y, _ in work.validation():
        logits = []
        for learner in work.problem.learners:
            alphas = pick(work.variables, learner.alphas)
            paths = (learner.weights, *learner.drafts[:1])
            logits.append([learner.net(pick(work.variables, path), alphas, x) for path in paths])
        yield logits, y
