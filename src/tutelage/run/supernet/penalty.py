"""Penalties on architectures, in the loss of the alphas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tutelage.multilevel import Notes, evaluate
from tutelage.problem import Problem, pick
from tutelage.virtual import Tree, leaves


def with_penalty(problem: Problem, budgets: Sequence[Callable[[Tree], Tensor]] = ()) -> Problem:
    """Add the penalties of the search and of the budget to the last loss of the alphas.

    `budgets` maps every learner's alphas to its penalty, ().
    """
    learners, top = problem.learners, problem.levels[-1]

    def penalty(variables: Mapping[str, Tree]) -> list[Tensor]:
        alphas = [pick(variables, learner.alphas) for learner in learners]
        archs = [x.net.relax(each) for x, each in zip(learners, alphas, strict=True)]
        asked = [arch.penalty for arch in archs if arch.penalty is not None]
        return asked + [budget(each) for budget, each in zip(budgets, alphas, strict=False)]

    def loss(s: SimpleNamespace, batch: Any) -> tuple[Tensor, Notes]:
        value, notes = evaluate(top, vars(s), batch)
        return value + torch.stack(penalty(vars(s))).sum(), notes

    if not penalty(problem.variables):
        return problem
    loss.__name__ = top.name
    return problem._replace(levels=[*problem.levels[:-1], replace(top, loss=loss)])


def without_alphas(problem: Problem) -> Problem:
    """Leave out the levels whose variable is empty: the alphas, where paths are sampled."""
    levels = [level for level in problem.levels if leaves(problem.variables[level.variable])]
    return problem._replace(levels=levels)
