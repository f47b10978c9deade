"""Penalties on architectures, in the loss of the alphas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tutelage.multilevel import Notes, evaluate, tops
from tutelage.problem import Learner, Problem, pick
from tutelage.trees import Tree, leaves


def with_penalty(problem: Problem, budgets: Sequence[Callable[[Tree], Tensor]] = ()) -> Problem:
    """Add the penalties of the search and of the budget to the first loss of the alphas.

    A search's penalty is of the samples that this loss runs, and their mean if a learner runs
    several. `budgets` maps every learner's alphas to its penalty, ().
    """
    levels, learners = list(problem.levels), problem.learners
    place = len(levels) - tops(levels)
    top = levels[place]

    def limits(variables: Mapping[str, Tree]) -> list[Tensor]:
        alphas = (pick(variables, learner.alphas) for learner in learners)
        return [budget(each) for budget, each in zip(budgets, alphas, strict=False)]

    def loss(s: SimpleNamespace, batch: Any) -> tuple[Tensor, Notes]:
        with ExitStack() as stack:
            ran = [
                stack.enter_context(learner.net.recorded(pick(vars(s), learner.alphas)))
                for learner in learners
            ]
            value, notes = evaluate(top, vars(s), batch)
        pairs = zip(learners, ran, strict=True)
        own = [penalties(learner, vars(s), archs) for learner, archs in pairs]
        asked = [torch.stack(each).mean() for each in own if each] + limits(vars(s))
        return value + torch.stack(asked).sum(), notes

    fresh = [each for learner in learners for each in penalties(learner, problem.variables)]
    if not fresh and not budgets:
        return problem
    loss.__name__ = top.name
    levels[place] = replace(top, loss=loss)
    return problem._replace(levels=levels)


def penalties(
    learner: Learner, variables: Mapping[str, Tree], ran: Sequence[Any] = ()
) -> list[Tensor]:
    """List the penalties () of what a learner ran; of a fresh sample if it ran nothing."""
    archs = ran or [learner.net.relax(pick(variables, learner.alphas))]
    return [arch.penalty for arch in archs if arch.penalty is not None]


def without_alphas(problem: Problem) -> Problem:
    """Leave out the levels whose variable is empty: the alphas, where paths are sampled."""
    levels = [level for level in problem.levels if leaves(problem.variables[level.variable])]
    return problem._replace(levels=levels)
