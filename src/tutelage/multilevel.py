"""Levels: a method as an ordered list of "this variable minimises this loss, given the others".

The same list gives the hypergradient, through virtual steps, and the real updates, so no loss is
written twice. A level's gradient is used for both the virtual and the real step if the method's
order allows it; see `search_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tutelage.shares import average
from tutelage.trees import Tree, detach, leaves, norm, rebuild, tree_map
from tutelage.virtual import Rate, Via, descend, gradient_at, pass_gradient

Variables = Mapping[str, Tree]
Notes = dict[str, Any]
Loss = Callable[[SimpleNamespace, Any], "Tensor | tuple[Tensor, Notes]"]
Order = Literal["levels-first", "alphas-first"]


@dataclass(frozen=True)
class Level:
    """This variable minimises this loss, given the others.

    Raises:
        ValueError: A number is below 1, or a level of alphas has a setting of weights.
    """

    variable: str
    """Name of the variable that the level owns."""
    loss: Loss
    """Reads all variables and a batch; returns a scalar (), or the scalar and notes (trees)."""
    steps: int = 1
    """Steps of an update: virtual ones and, with `levels-first`, real ones, which are the same."""
    epochs: range | None = None
    """Epochs in which the level trains; None: all."""
    every: int = 1
    """Iterations between two real updates; between them, `levels-first` unrolls no step either."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further names by which the loss reads a variable: {alias: variable}. For an alias of the top
    variable in a lower level, its part of the gradient is reported separately. An alias of the
    level's own variable, also of the top's, is that variable's present value, held fixed (a finite
    difference shifts a detached one)."""
    optimiser: Literal["weights", "alphas"] = "weights"
    """The settings that train the variable."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate changes over the level's epochs."""
    clip: bool = True
    """Whether the gradient is clipped."""
    reads: Literal["virtual", "present"] = "virtual"
    """At the top: whether its loss reads lower variables after their virtual steps or before."""

    def __post_init__(self) -> None:
        for name, number in (("steps", self.steps), ("every", self.every)):
            if number < 1:
                raise ValueError(f"level {self.name}: {name} = {number} must be at least 1")
        if self.optimiser == "weights":
            if self.reads != "virtual":
                raise ValueError(
                    f"level {self.name}: reads = {self.reads!r} with optimiser = 'weights': only a "
                    "level at the top may read present values, so leave it out"
                )
            return
        for name, usual in (("steps", 1), ("schedule", "cosine"), ("clip", True)):
            if getattr(self, name) != usual:
                raise ValueError(
                    f"level {self.name}: {name} = {getattr(self, name)!r} with optimiser = "
                    f"'alphas': only levels trained like weights have it, so leave it out"
                )

    @property
    def name(self) -> str:
        """The loss's name, for metrics and error messages."""
        return self.loss.__name__

    def trains(self, epoch: int) -> bool:
        """Tell whether the level is active in this epoch, counted from 0."""
        return self.epochs is None or epoch in self.epochs


class Hypergradient(NamedTuple):
    """The top's gradient, and other values computed for it."""

    gradient: Tree
    """d(top loss)/d(top variable) through every level, a tree like the variable."""
    terms: dict[str, Tensor]
    """Norm () of its part through each level's loss, by name; an alias' part as `level: alias`."""
    gradients: list[list[Tree]]
    """Every lower level's gradients, one for each of its virtual steps; empty: not unrolled."""
    losses: dict[str, Tensor]
    """Value () of every level's loss, by the level's name."""
    notes: list[Notes]
    """Notes of the losses, inner level first."""


def tops(levels: Sequence[Level]) -> int:
    """Count the levels at the end that own the same variable: the top loss is their sum."""
    return next(
        (n for n, level in enumerate(reversed(levels)) if level.variable != levels[-1].variable),
        len(levels),
    )


def seen_by(level: Level, variables: Variables) -> dict[str, Tree]:
    """Return all variables as a level's loss reads them, with its aliases."""
    return {**variables, **{alias: variables[name] for alias, name in level.aliases.items()}}


def evaluate(level: Level, seen: Variables, batch: Any) -> tuple[Tensor, Notes]:
    """Evaluate a level's loss on its variables; return its value () and its notes, detached.

    A note with its graph would keep the whole graph in memory until the end of the iteration.
    """
    result = level.loss(SimpleNamespace(**seen), batch)
    value, notes = result if isinstance(result, tuple) else (result, {})
    return value, detach(notes)


def own_gradient(level: Level, variables: Variables, batch: Any) -> tuple[Tree, Tensor, Notes]:
    """Return the gradient of a level's loss in its own variable, with all others fixed.

    Returns:
        The gradient, a tree like the variable; the loss (); the notes.
    """
    w = tree_map(Tensor.requires_grad_, detach(variables[level.variable]))
    value, notes = evaluate(level, {**seen_by(level, variables), level.variable: w}, batch)
    return rebuild(w, iter(average(gradient_at(value, leaves(w))))), value.detach(), notes


def hypergradient(
    levels: Sequence[Level],
    variables: Variables,
    batch: Any,
    rates: Mapping[str, Rate],
    via: Via,
    velocities: Mapping[str, Tree] | None = None,
) -> Hypergradient:
    """Differentiate the top loss in its variable through virtual steps of the lower levels.

    Args:
        levels: Inner levels first. The last one is the top; if several at the end own the same
            variable, the top loss is their sum.
        variables: All variables by name; they are not changed.
        batch: Passed to every loss.
        rates: Step sizes of lower variables; a level whose variable is missing is not unrolled.
        via: The rule for the derivative of a virtual step.
        velocities: Momentum buffers by variable, for variables that have one.

    Raises:
        ValueError: Two losses have the same name, so one would hide the other's part; or a lower
            level owns the top's variable, and the gradient would omit how its step changes it.
    """
    names = [level.name for level in levels]
    if len(set(names)) < len(names):
        raise ValueError(f"losses named {', '.join(names)}: every level's loss needs its own name")
    lower, top = levels[: -tops(levels)], levels[-tops(levels) :]
    target = top[0].variable
    if owners := [level.name for level in lower if level.variable == target]:
        raise ValueError(
            f"level {owners[0]} owns {target}, which is the top's variable: give the two levels "
            "different variables, or put the level at the end, where its loss is added"
        )
    velocities = dict(velocities or {})
    present: dict[str, Tree] = {name: detach(tree) for name, tree in variables.items()}
    values = dict(present)
    if all(level.reads == "present" for level in top):
        rates = {}  # nothing at the top reads a virtual step
    parts: dict[str, Tree] = {}

    def copies_for(level: Level) -> dict[str, Tree]:
        """Copies of the top variable, one for each name by which the gradient passes the level."""
        names = {target: level.name}
        if level.variable != target:  # a level's own variable is held fixed under its aliases
            names |= {a: f"{level.name}: {a}" for a, of in level.aliases.items() if of == target}
        for part in names.values():
            parts[part] = tree_map(Tensor.requires_grad_, detach(variables[target]))
        return {name: parts[part] for name, part in names.items()}

    gradients: list[list[Tree]] = []
    losses: dict[str, Tensor] = {}
    notes: list[Notes] = []
    for level in lower:
        gradients.append([])
        if level.variable not in rates:
            continue
        copies = copies_for(level)
        w = values[level.variable]
        for step in range(level.steps):
            others = {**seen_by(level, {**values, level.variable: detach(w)}), **copies}
            del others[level.variable]
            found: list[tuple[Tensor, Notes]] = []

            def loss(w: Tree, u: Variables, level: Level = level, found: Any = found) -> Tensor:
                found.append(evaluate(level, {**u, level.variable: w}, batch))
                return found[-1][0]

            g = pass_gradient(loss, w, others, via)
            gradients[-1].append(detach(g))
            if step == 0:
                losses[level.name] = found[0][0].detach()
                notes.append(found[0][1])
            w, velocities[level.variable] = descend(
                w, g, velocities.get(level.variable), rates[level.variable]
            )
        values[level.variable] = w

    evaluated = []
    for level in top:
        given = values if level.reads == "virtual" else present
        value, noted = evaluate(level, {**seen_by(level, given), **copies_for(level)}, batch)
        evaluated.append(value)
        losses[level.name] = value.detach()
        notes.append(noted)
    flat = average(gradient_at(torch.stack(evaluated).sum(), leaves(list(parts.values()))))
    by_part = rebuild(list(parts.values()), iter(flat))
    terms = {part: norm(leaves(tree)) for part, tree in zip(parts, by_part, strict=True)}
    total = [torch.stack(same).sum(0) for same in zip(*map(leaves, by_part), strict=True)]
    gradient = rebuild(variables[target], iter(total))
    return Hypergradient(gradient, terms, gradients, losses, notes)


# A search iteration -----------------------------------------------------------------------------


class Report(NamedTuple):
    """The result of one search iteration."""

    losses: dict[str, Tensor]
    """Value () of the loss of every level that was evaluated, by the level's name."""
    notes: list[Notes]
    """Notes of those losses."""
    terms: dict[str, dict[str, Tensor]]
    """For every top loss of a step of the alphas, norms () of its gradient's parts."""


def search_step(
    levels: Sequence[Level],
    variables: dict[str, Tree],
    velocities: dict[str, Tree],
    batch: Any,
    *,
    rates: Mapping[str, Rate],
    virtual: Mapping[str, Rate],
    via: Via,
    order: Order,
    move: Callable[[str, Tree], None],
    joint: bool = True,
    iteration: int = 0,
) -> Report:
    """Update every variable of the active levels once.

    `levels-first`: the lower levels whose turn it is take their steps, inner first, then the alphas
    step at the result. Each lower gradient is computed once, for both the virtual and the real
    step, so the code may write the alphas before the weights. `alphas-first`: the alphas step
    first, after a look ahead over the steps of all lower levels; then the lower levels whose turn
    it is take one step each, with their own gradients at the new alphas.

    Args:
        levels: The active levels, inner first; those at the end that are trained by the alphas'
            settings are the top.
        variables: All variables by name; entries of lower levels are replaced.
        velocities: Momentum buffers by variable; entries of lower levels are replaced.
        batch: Passed to every loss.
        rates: Step sizes of lower variables.
        virtual: Step sizes of their virtual steps, if they differ.
        via: The rule for the derivative of a virtual step.
        order: What trains first.
        move: Updates the top variable, given its name and gradient.
        joint: Step on the sum of several top losses; otherwise once for each, in turn.
        iteration: Counted from 0; a level steps if it is a multiple of the level's `every`.

    Raises:
        ValueError: as `hypergradient`, levels that are added have different `every`, or with
            levels-first the top reads no virtual step.
    """
    count = tops(levels) if levels[-1].optimiser == "alphas" else 0
    lower, top = levels[: len(levels) - count], levels[len(levels) - count :]
    report = Report({}, [], {})
    moving = [level for level in lower if iteration % level.every == 0]
    ahead = moving if order == "levels-first" else lower
    shared: list[list[Tree]] = [[] for _ in moving]
    if joint and len({level.every for level in top}) > 1:
        given = ", ".join(f"{level.name}: every = {level.every}" for level in top)
        raise ValueError(f"{given}: levels whose losses are added step together, so give them one")

    unrolled = virtual if via.unrolls or order == "levels-first" else {}
    for together in [top] if joint else [[level] for level in top]:
        if not together or iteration % together[0].every:
            continue
        if order == "levels-first" and all(level.reads == "present" for level in together):
            raise ValueError(
                f"level {together[0].name}: reads = 'present' with levels-first, which steps the "
                "lower levels before the top: let it read virtual steps, or take alphas-first"
            )
        found = hypergradient([*ahead, *together], variables, batch, unrolled, via, velocities)
        if order == "levels-first" and not report.notes:
            shared = found.gradients
        report.losses.update(found.losses)
        report.terms[" + ".join(level.name for level in together)] = found.terms
        report.notes.extend(found.notes)
        move(together[0].variable, found.gradient)
    for level, gradients in zip(moving, shared, strict=True):
        steps, rate = level.steps if order == "levels-first" else 1, rates[level.variable]
        if first := real_steps(level, variables, velocities, batch, rate, steps, gradients):
            report.losses[level.name], notes = first
            report.notes.append(notes)
    return report


def real_steps(
    level: Level,
    variables: dict[str, Tree],
    velocities: dict[str, Tree],
    batch: Any,
    rate: Rate,
    steps: int,
    gradients: Sequence[Tree] = (),
) -> tuple[Tensor, Notes] | None:
    """Take a level's real steps; entries of its variable are replaced.

    Args:
        level: The level.
        variables: All variables by name.
        velocities: Momentum buffers by variable.
        batch: Passed to the loss.
        rate: The step size.
        steps: The number of steps.
        gradients: One for each step; empty: they are computed.

    Returns:
        The loss () at the first step and its notes; None if the gradients were given.
    """
    name, first = level.variable, None
    for step in range(steps):
        if gradients:
            g = gradients[step]
        else:
            g, value, notes = own_gradient(level, variables, batch)
            first = first or (value, notes)
        with torch.no_grad():
            variables[name], velocities[name] = descend(
                variables[name], g, velocities.get(name), rate
            )
    return first


def summands(
    levels: Sequence[Level],
    variables: dict[str, Tree],
    velocities: dict[str, Tree],
    batch: Any,
    virtual: Mapping[str, Rate],
    via: Via,
    order: Order,
    iteration: int = 0,
) -> dict[str, dict[str, float]]:
    """Measure the gradient of every term of the top loss separately.

    Args:
        levels: The active levels, inner first; the terms are the last ones, of one variable.
        variables: All variables.
        velocities: Their momentum.
        batch: Passed to every loss.
        virtual: Step sizes of the lower levels' virtual steps.
        via: How a virtual step is differentiated.
        order: What trains first.
        iteration: Counted from 0, as in `search_step`.

    Returns:
        For every term's level the norms of its gradient's parts, by name, as in
        `Hypergradient`; empty if there is only one.
    """
    count = tops(levels) if levels[-1].optimiser == "alphas" else 0
    if count < 2:
        return {}
    rates = virtual if via.unrolls or order == "levels-first" else {}
    lower = [
        level
        for level in levels[:-count]
        if order == "alphas-first" or iteration % level.every == 0
    ]
    found = {}
    for level in levels[-count:]:
        alone = [*lower, level]
        terms = hypergradient(alone, variables, batch, rates, via, velocities).terms
        found[level.name] = {part: float(x) for part, x in terms.items()}
    return found
