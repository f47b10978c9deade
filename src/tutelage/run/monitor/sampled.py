"""What a search of sampled paths is watched for, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tutelage.problem import Net, Part, Problem, Taught, pick
from tutelage.records.rows import Probe
from tutelage.searches.diversity import diversity
from tutelage.transfer import logit_distance
from tutelage.virtual import Tree

PROBES: Final = 4
"""Batches of each half on which students, teachers and operations are compared."""
PATHS: Final = 2
"""Sub-networks that are drawn for each where the method has no number of its own."""


class Drawn(Protocol):
    """What of a supernet's sampling is watched, and set for the next epoch."""

    diversity: dict[str, list[Tensor]]
    """How much operations differ, as it was measured last."""
    counts: dict[str, Tensor]
    """How often each operation was drawn in the epoch, (edges, ops) for every group."""


def after(
    problem: Problem,
    variables: dict[str, Tree],
    supernets: Sequence[Drawn],
    train: Sequence[Callable[[], Part]],
    valid: Sequence[Callable[[], Part]],
    measures: bool,
) -> dict[str, Any]:
    """Compare students and teacher after an epoch; begin to count the next epoch's draws.

    Args:
        problem: The method's.
        variables: All variables of the search.
        supernets: What samples the paths of its supernets, those of the learners first.
        train: What make training batches.
        valid: What make validation batches.
        measures: Whether the next epoch's paths need how much operations differ.

    Returns:
        The epoch's entry in metrics.jsonl, `probe`.
    """
    row = {"probe": Probe(**probed(problem, variables, train, valid))}
    for learner, sampled in zip(problem.learners, supernets if measures else (), strict=False):
        weights = pick(variables, learner.weights)
        sampled.diversity = compared(learner.net, weights, train)
    for sampled in supernets:
        sampled.counts = {}
    return row


@torch.no_grad()
def probed(
    problem: Problem,
    variables: dict[str, Tree],
    train: Sequence[Callable[[], Part]],
    valid: Sequence[Callable[[], Part]],
) -> dict[str, float]:
    """Compare sampled students with their teacher on validation images (EnNAS, Figures 1 and 2).

    Args:
        problem: The method's.
        variables: All variables of the search.
        train: What make batches that a teacher may be fitted to.
        valid: What make the batches that all are judged by.

    Returns:
        `students_accuracy`; the mean Euclidean distance of two students' logits,
        `logit_distance`; and, where there is a teacher, `teacher_accuracy` and the `gap`. Of a
        method with a score of its own the mean `score` of sampled paths, and nothing else.
    """
    sums: dict[str, float] = {}
    for fitted, judged in zip(train, valid, strict=True):
        part = judged()
        if problem.score:
            (path,) = problem.learners[0].net.paths(1)
            found = {"score": float(problem.score(variables, path, part))}
        elif problem.probe:
            found = marks(problem.probe(variables, fitted(), part), part.y)
        else:
            found = marks(untaught(problem, variables, part), part.y)
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value / len(valid)
    return sums


def untaught(problem: Problem, variables: Mapping[str, Tree], part: Part) -> Taught:
    """Let sampled sub-networks of the first learner say what they think."""
    learner = problem.learners[0]
    weights = pick(variables, learner.weights)
    logits = [learner.net.under(weights, path, part.x)[0] for path in learner.net.paths(PATHS)]
    return Taught(torch.stack(logits), None)


def marks(taught: Taught, y: Tensor) -> dict[str, float]:
    """Judge students and teacher by the labels y (B,)."""
    students = float((taught.students.argmax(2) == y).double().mean())
    found = {
        "students_accuracy": students,
        "logit_distance": float(logit_distance(taught.students)),
    }
    if taught.teacher is not None:
        teacher = float((taught.teacher.argmax(1) == y).double().mean())
        found |= {"teacher_accuracy": teacher, "gap": teacher - students}
    return found


class Compared(nn.Module):
    """A supernet whose operations are compared on the same inputs."""

    def __init__(self, supernet: Any) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, x: Tensor) -> list[tuple[str, int, Tensor]]:
        """Return group, edge and diversity (ops, ops) of every choice."""
        found = self.supernet.compared(x)
        return [(group, edge, diversity(maps)) for group, edge, maps in found]


@torch.no_grad()
def compared(
    net: Net, weights: Tree, parts: Sequence[Callable[[], Part]]
) -> dict[str, list[Tensor]]:
    """Measure how much the operations of every edge differ (EnNAS, Eq. 4).

    Args:
        net: A supernet whose module can run all operations of an edge on the same inputs.
        weights: Its weights.
        parts: What make the images.

    Returns:
        For every group and edge the diversity of its operations (ops, ops), the mean over images
        and over the cells that share a choice.
    """
    measured: dict[tuple[str, int], list[Tensor]] = {}
    for make in parts:
        named = {f"supernet.{name}": x for name, x in weights.items()}
        for group, edge, zeta in functional_call(Compared(net.module), named, (make().x,)):
            measured.setdefault((group, edge), []).append(zeta.cpu())
    found: dict[str, list[Tensor]] = {}
    for (group, _), each in sorted(measured.items()):
        found.setdefault(group, []).append(torch.stack(each).mean(0))
    return found


def draws_of(counts: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return how many operations were drawn in all, for each edge."""
    return {group: c.sum(1).long().tolist() for group, c in counts.items()}


def shares(counts: Mapping[str, Tensor]) -> dict[str, list[list[float]]]:
    """Return how often each operation was drawn, as shares of its edge's draws (edges, ops)."""
    return {
        group: [[round(x, 6) for x in row] for row in F.normalize(c.double(), p=1, dim=1).tolist()]
        for group, c in counts.items()
    }
