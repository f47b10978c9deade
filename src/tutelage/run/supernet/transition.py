"""What the next phase of a search takes over: weights, alphas and moments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from tutelage.problem import Learner, Problem, pick
from tutelage.spaces.grow import grow
from tutelage.spaces.narrowing import Kept
from tutelage.trees import Tree, leaves, rebuild


def narrowed(alphas: Tree, columns: Kept) -> Tree:
    """Keep some columns of alphas (edges, ops), or of tensors of the same shapes."""
    return {
        name: a.gather(1, torch.tensor(columns[name], device=a.device)) if name in columns else a
        for name, a in alphas.items()
    }


def placed(tree: Tree, path: Sequence[str | int], value: Tree) -> Tree:
    """Return a tree with another value at a path."""
    if not path:
        return value
    changed = placed(tree[path[0]], path[1:], value)
    if isinstance(tree, dict):
        return {**tree, path[0]: changed}
    return [changed if key == path[0] else each for key, each in enumerate(tree)]


def carried(
    before: Problem,
    after: Problem,
    variables: dict[str, Tree],
    velocities: dict[str, Tree],
    columns: Sequence[Kept],
) -> tuple[dict[str, Tree], dict[str, Tree]]:
    """Transfer variables and momentum to the problem of the next phase.

    Learners' weights grow and their alphas lose columns. Variables of no learner are kept, or
    initialised again if the next phase has other shapes for them.

    Args:
        before: The problem of the phase that ends.
        after: The problem of the next phase, with the same learners.
        variables: Values of the former.
        velocities: Momentum of the former.
        columns: For every learner, which of its alphas are kept.

    Returns:
        Variables and velocities of the latter.
    """
    owned = {
        path[0]
        for each in before.learners
        for path in (each.weights, each.alphas, *each.drafts, *each.averages, *each.rehearsals)
    }
    new, moving = dict(variables), dict(velocities)
    for name, fresh in after.variables.items():
        old = variables[name]
        if name not in owned and [x.shape for x in leaves(old)] != [x.shape for x in leaves(fresh)]:
            new[name] = fresh
            moving.pop(name, None)
    pairs = list(zip(before.learners, after.learners, columns, strict=True))
    for old, learner, kept in pairs:
        for path in (learner.alphas, *learner.rehearsals):
            new = placed(new, path, narrowed(pick(variables, path), kept))
        copies = grow(old.net.module, learner.net.module)
        for path in (learner.weights, *learner.drafts, *learner.averages):
            new = placed(new, path, copies(pick(variables, path)))
            if path[0] in velocities:
                moving = placed(moving, path, copies(pick(velocities, path)))
    return new, moving


def carry_moments(
    before: Optimizer,
    after: Optimizer,
    name: str,
    variable: Tree,
    learners: Sequence[Learner],
    columns: Sequence[Kept],
) -> None:
    """Transfer Adam's moments of some alphas to the optimiser of narrower ones.

    Args:
        before: Adam on the alphas of the phase that ends.
        after: Adam on those of the next one.
        name: The alphas' name among the variables.
        variable: The former alphas.
        learners: The learners that the alphas belong to.
        columns: For every learner, which of its alphas are kept.
    """
    states = [before.state[x] for x in leaves(variable) if x in before.state]
    if not states:  # the alphas have not been trained yet
        return
    moments = {}
    for key in ("exp_avg", "exp_avg_sq"):
        tree = {name: rebuild(variable, iter([state[key] for state in states]))}
        for learner, kept in zip(learners, columns, strict=True):
            for path in (learner.alphas, *learner.rehearsals):
                if path[0] == name:
                    tree = placed(tree, path, narrowed(pick(tree, path), kept))
        moments[key] = leaves(tree[name])
    targets = after.param_groups[0]["params"]
    for x, state, mean, square in zip(
        targets, states, moments["exp_avg"], moments["exp_avg_sq"], strict=True
    ):
        after.state[x] = {"step": state["step"].clone(), "exp_avg": mean, "exp_avg_sq": square}
