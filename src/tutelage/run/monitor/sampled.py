"""The diagnostics of a search that samples paths, measured after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tutelage.batch import Batch
from tutelage.data.seeding import generator
from tutelage.extras import Answers, Probe, Score
from tutelage.problem import Net, Problem, pick
from tutelage.records import rows as records
from tutelage.run.supernet.view import View
from tutelage.searches.diversity import diversity
from tutelage.transfer import logit_distance
from tutelage.trees import Tree

PROBES: Final = 4
"""Batches of each half on which students, teacher and operations are compared."""
PATHS: Final = 2
"""Sub-networks that are sampled for each batch if the method sets no number."""


def after(view: View) -> dict[str, Any]:
    """Compare students with their teacher after an epoch.

    Returns:
        The epoch's entries in metrics.jsonl: `probe`, and `taught_by` where there is a teacher.
    """
    seed = generator(view.setup.settings.seed, "search/probe", view.epoch).integers(2**63)
    torch.manual_seed(int(seed))
    train, valid = (parts_of(view, half) for half in ("train", "valid"))
    row: dict[str, Any] = {
        "probe": records.Probe(**probed(view.problem, view.variables, train, valid))
    }
    if (probe := view.problem.extra(Probe)) and probe.teacher:
        row["taught_by"] = probe.teacher
    return row


def diversities(view: View) -> list[dict[str, list[Tensor]]]:
    """Measure how much the operations of every learner's supernet differ, after `after`."""
    train = parts_of(view, "train")
    return [operation_diversity(each.net, view.weights(each), train) for each in view.learners]


def parts_of(view: View, half: Literal["train", "valid"]) -> list[Callable[[], Batch]]:
    """Return functions that make the first batches of the epoch, of one half of the images."""
    stream = getattr(view.setup.streams, half)
    return [partial(stream.batch, view.epoch, step) for step in range(PROBES)]


@torch.no_grad()
def probed(
    problem: Problem,
    variables: dict[str, Tree],
    train: Sequence[Callable[[], Batch]],
    valid: Sequence[Callable[[], Batch]],
) -> dict[str, float]:
    """Compare sampled students with their teacher on validation images (EnNAS, Figures 1 and 2).

    Args:
        problem: The method's.
        variables: All variables of the search.
        train: Functions that make the batches that a teacher may be fitted to.
        valid: Functions that make the batches on which all are measured.

    Returns:
        `students_accuracy`; the mean Euclidean distance of two students' logits,
        `logit_distance`; and, if there is a teacher, `teacher_accuracy` and the `gap`. For a method
        with its own score, only the mean `score` of sampled paths.
    """
    sums: dict[str, float] = {}
    for fitted, judged in zip(train, valid, strict=True):
        batch = judged()
        if score := problem.extra(Score):
            (path,) = problem.learners[0].net.paths(1)
            found = {"score": float(score.ask(variables, path, batch))}
        elif probe := problem.extra(Probe):
            found = scores(probe.ask(variables, fitted(), batch), batch.y)
        else:
            found = scores(answers_of(problem, variables, batch), batch.y)
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value / len(valid)
    return sums


def answers_of(problem: Problem, variables: Mapping[str, Tree], batch: Batch) -> Answers:
    """Return the logits of sampled sub-networks of the first learner and of their teacher."""
    learner = problem.learners[0]
    weights = pick(variables, learner.weights)
    logits = [learner.net.under(weights, path, batch.x)[0] for path in learner.net.paths(PATHS)]
    return Answers(torch.stack(logits), None)


def scores(answers: Answers, y: Tensor) -> dict[str, float]:
    """Score students and teacher by the labels y (B,)."""
    students = float((answers.students.argmax(2) == y).double().mean())
    found = {
        "students_accuracy": students,
        "logit_distance": float(logit_distance(answers.students)),
    }
    if answers.teacher is not None:
        teacher = float((answers.teacher.argmax(1) == y).double().mean())
        found |= {"teacher_accuracy": teacher, "gap": teacher - students}
    return found


class OperationOutputs(nn.Module):
    """A supernet whose operations are compared on the same inputs."""

    def __init__(self, supernet: Any) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, x: Tensor) -> list[tuple[str, int, Tensor]]:
        """Return group, edge and diversity (ops, ops) of every choice."""
        found = self.supernet.outputs(x)
        return [(group, edge, diversity(maps)) for group, edge, maps in found]


@torch.no_grad()
def operation_diversity(
    net: Net, weights: Tree, batches: Sequence[Callable[[], Batch]]
) -> dict[str, list[Tensor]]:
    """Measure how much the operations of every edge differ (EnNAS, Eq. 4).

    Args:
        net: A supernet whose module can run all operations of an edge on the same inputs.
        weights: Its weights.
        batches: Functions that make the images.

    Returns:
        For every group and edge, the diversity of its operations (ops, ops): the mean over images
        and over the cells that share a choice.
    """
    measured: dict[tuple[str, int], list[Tensor]] = {}
    for make in batches:
        named = {f"supernet.{name}": x for name, x in weights.items()}
        for group, edge, zeta in functional_call(OperationOutputs(net.module), named, (make().x,)):
            measured.setdefault((group, edge), []).append(zeta.cpu())
    found: dict[str, list[Tensor]] = {}
    for (group, _), each in sorted(measured.items()):
        found.setdefault(group, []).append(torch.stack(each).mean(0))
    return found


def samples_of(counts: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the number of samples of each edge."""
    return {group: c.sum(1).long().tolist() for group, c in counts.items()}


def shares(counts: Mapping[str, Tensor]) -> dict[str, list[list[float]]]:
    """Return each operation's share of its edge's samples (edges, ops)."""
    return {
        group: [[round(x, 6) for x in row] for row in F.normalize(c.double(), p=1, dim=1).tolist()]
        for group, c in counts.items()
    }
