"""The end of a search whose learners have architectures of their own: which of them is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tutelage.extras import Members
from tutelage.records import metrics
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
) -> Found:
    """Keep the learner with the lowest loss on the whole validation half, or an ensemble.

    Writes genotype.json last: it says that the search has ended.

    Args:
        view: The search at its end.
        directory: Where files go.
        genotypes: Every learner's architecture.
        epoch: How many epochs led to them.
        validated: How learners do; None: nothing was trained, so the first one is kept.
        table: What the table of the settings says, where no epoch has said it.
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
    )
    append_once(directory, end)
    about = Origin(learner=kept, epoch=epoch, **scores[kept])
    directory.write_text("genotype.json", genotypes[kept].to_json(finite(about)))
    return Found(genotypes[kept], directory.path, kept, scores, view.setup.size, together)


def best(scores: Sequence[Mapping[str, float]]) -> int:
    """Return the learner with the lowest validation loss; the first where there is none."""
    return min(range(len(scores)), key=lambda k: scores[k].get("valid_loss", 0.0))


def append_once(directory: RunDirectory, end: EndRow) -> None:
    """Append the last row, unless a search that was stopped after it has done so.

    Rows that are damaged are none of it: a search can end in spite of them.
    """
    rows, _ = metrics.read((directory.path / "metrics.jsonl").read_bytes(), SEARCH)
    if not any(row.event == "end" for row in rows):
        directory.append(end)


def select(
    view: View, validated: Validated | None, genotypes: Sequence[Genotype]
) -> Ensemble | None:
    """Select an ensemble on the validation half; the first learners where nothing was trained.

    None: the method keeps one learner alone.
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
