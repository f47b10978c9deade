"""The end of a search in which every learner has its own architecture: which one is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tutelage.extras import Members
from tutelage.records.results import Origin
from tutelage.records.rows import SEARCH, Answer, EndRow, EnsembleScores, LearnerScores
from tutelage.records.typed import finite
from tutelage.run.job.directory import RunDirectory
from tutelage.run.networks import ensemble
from tutelage.run.networks.ensemble import Ensemble, forward_selection
from tutelage.run.networks.found import Found
from tutelage.run.strategies.validation import Validated
from tutelage.run.supernet.view import View
from tutelage.spaces.genotype import Genotype


def keep(
    view: View,
    directory: RunDirectory,
    genotypes: Sequence[Genotype],
    epoch: int,
    validated: Validated | None,
    table: list[Answer],
    caveat: str | None = None,
) -> Found:
    """Keep the learner with the lowest loss on the whole validation half, or an ensemble.

    It writes genotype.json last: that file shows that the search has ended.

    Args:
        view: The search at its end.
        directory: Where files go.
        genotypes: Every learner's architecture.
        epoch: How many epochs led to them.
        validated: The learners' scores; None: nothing was trained, so the first one is kept.
        table: The table's entries for the genotypes, if no epoch's row holds them.
        caveat: What must be said of these entries.
    """
    scores = validated.scores if validated else [{} for _ in genotypes]
    kept = best(scores)
    together = select(view, validated, genotypes)
    if together:
        kept = together.learners[0]
        directory.write_text(ensemble.FILE, together.to_json())
        print(together.as_text())
    end = EndRow(
        learners=[LearnerScores(**each) for each in scores],
        kept=kept,
        ensemble=EnsembleScores(**together.to_row()) if together else None,
        table=table,
        table_caveat=caveat,
    )
    append_once(directory, end)
    about = Origin(learner=kept, epoch=epoch, **scores[kept])
    directory.write_text("genotype.json", genotypes[kept].to_json(finite(about)))
    return Found(genotypes[kept], directory.path, kept, scores, view.setup.size, together)


def best(scores: Sequence[Mapping[str, float]]) -> int:
    """Return the learner with the lowest validation loss; the first one if nothing was measured."""
    return min(range(len(scores)), key=lambda k: scores[k].get("valid_loss", 0.0))


def append_once(directory: RunDirectory, end: EndRow) -> None:
    """Append the last row, unless a search that was stopped later has already done so.

    Damaged rows are ignored: a search can end in spite of them.
    """
    if not any(row.event == "end" for row in directory.metrics.intact(SEARCH)):
        directory.metrics.append(end)


def select(
    view: View, validated: Validated | None, genotypes: Sequence[Genotype]
) -> Ensemble | None:
    """Select an ensemble on the validation half, or the first learners if nothing was trained.

    None: the method keeps only one learner.
    """
    members = view.problem.extra(Members)
    if not members:
        return None
    chosen = list(range(members.count))
    scores: dict[str, float] = {}
    if validated:
        probabilities = torch.cat(validated.probabilities, 1)
        chosen = forward_selection(probabilities, validated.y, members.count)
        scores = ensemble.scores(probabilities[chosen], validated.y)
    return Ensemble(tuple(chosen), tuple(genotypes[k] for k in chosen), scores)
