"""The state of one phase: its variables, and all else that the next phase replaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tutelage.clock import Clock
from tutelage.config import Weights
from tutelage.data.seeding import generator
from tutelage.likeness import refuse_moments, refuse_others, refuse_unlike
from tutelage.multilevel import Level
from tutelage.problem import Problem
from tutelage.run.job.agreement import same_everywhere
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.relaxation import Bound
from tutelage.run.supernet import optimizers
from tutelage.run.supernet.setup import Setup, Stretch
from tutelage.run.supernet.strategy import Strategy
from tutelage.run.supernet.transition import carried, carry_moments
from tutelage.run.supernet.view import alphas_of
from tutelage.spaces.base import Space
from tutelage.spaces.narrowing import Kept, strongest
from tutelage.trees import Tree, leaves, rebuild, tree_map
from tutelage.virtual import Rate


@dataclass(eq=False)
class PhaseState:
    """A problem in progress: its variables, their momentum and their optimisers."""

    stretch: Stretch
    """The phase among the epochs."""
    kept: list[Kept]
    """The operations of every edge, for each learner; one entry for all before they differ."""
    spaces: list[Space]
    """The spaces with those operations; the last one serves the learners that follow."""
    bound: list[Bound]
    """For every supernet, what relaxes its choices or samples its paths."""
    problem: Problem
    variables: dict[str, Tree]
    optimisers: dict[str, torch.optim.Adam]
    """The optimiser of every variable that is trained like alphas."""
    velocities: dict[str, Tree] = field(default_factory=dict)

    def levels(self, epoch: int) -> list[Level]:
        """List the levels that train in an epoch of the search, inner first."""
        own, thawed = epoch - self.stretch.initialised, epoch >= self.stretch.thaw
        return [
            level
            for level in self.problem.levels
            if level.trains(own) and (thawed or level.optimiser != "alphas")
        ]

    def rate(self, level: Level, weights: Weights, epoch: int, gone: float) -> Rate:
        """Return the step size of a level's variable: it falls over its epochs.

        Args:
            level: A level whose variable is trained like weights.
            weights: The settings of weights.
            epoch: The present epoch of the search.
            gone: The share of that epoch that is done.
        """
        own = float(epoch - self.stretch.initialised) + (gone if weights.anneal == "step" else 0)
        return optimizers.rate(weights, level, own, self.stretch.span)

    def move(self, name: str, gradient: Tree, clip: float) -> None:
        """Let Adam update alphas in place, with the gradient's norm clipped; 0: no clipping."""
        optimizers.move(self.optimisers[name], self.variables[name], gradient, clip)

    def check(self, epoch: int, step: int) -> None:
        """Raise ValueError where the state is not finite, so that no checkpoint stores it."""
        held = {f"variable {name}": list(leaves(tree)) for name, tree in self.variables.items()}
        for name, tree in self.velocities.items():
            held[f"the momentum of variable {name}"] = list(leaves(tree))
        for name, optimiser in self.optimisers.items():
            moments = [x for each in optimiser.state.values() for x in each.values()]
            held[f"the optimiser's moments of variable {name}"] = moments
        for name, tensors in held.items():
            floats = [x for x in tensors if x.is_floating_point()]
            if not all(bool(torch.isfinite(x).all()) for x in floats):
                raise ValueError(
                    f"{name} is not finite at epoch {epoch}, step {step}, and is "
                    "not saved; a lower --weights.lr may help"
                )
        same_everywhere(self.variables, f"at epoch {epoch}, step {step}")

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "sampled": [state for each in self.bound if (state := each.state())],
            "kept": self.kept,
            "variables": self.variables,
            "velocities": self.velocities,
            "optimisers": {name: x.state_dict() for name, x in self.optimisers.items()},
        }

    def moved(self, done: int, steps: int) -> set[str]:
        """Name the variables that steps of this phase have trained.

        Args:
            done: Steps of the whole search.
            steps: Steps of an epoch.
        """
        found = set()
        for epoch in range(self.stretch.start, math.ceil(done / steps)):
            first, end = epoch * steps, min(done, (epoch + 1) * steps)
            found |= {
                level.variable
                for level in self.levels(epoch)
                if any(number % level.every == 0 for number in range(first, end))
            }
        return found

    def restore(
        self, state: Mapping[str, Any], device: torch.device, done: int, steps: int
    ) -> None:
        """Resume from a checkpoint of the same phase, after `done` steps, `steps` an epoch."""
        self._refuse_unlike(state, self.moved(done, steps))
        ended = done // steps > self.stretch.start
        for place, (each, stored) in enumerate(zip(self.bound, state["sampled"], strict=False)):
            each.restore(stored, measured=ended and place < len(self.problem.learners))

        def placed(x: Tensor) -> Tensor:
            return x.to(device)

        for name, tree in state["variables"].items():
            if name in self.optimisers:  # Adam holds these tensor objects
                for mine, stored in zip(leaves(self.variables[name]), leaves(tree), strict=True):
                    mine.copy_(stored)
            else:
                pairs = zip(leaves(tree), leaves(self.variables[name]), strict=True)
                self.variables[name] = rebuild(tree, (x.to(mine.device) for x, mine in pairs))
        self.velocities = {n: tree_map(placed, x) for n, x in state["velocities"].items()}
        for name, optimiser in self.optimisers.items():
            # its own settings, not those of an earlier release or of another device
            own = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({**state["optimisers"][name], "param_groups": own})

    def _refuse_unlike(self, state: Mapping[str, Any], moved: set[str]) -> None:
        """Raise ValueError if tensors of a checkpoint are not those of this phase.

        Args:
            state: The checkpoint's.
            moved: The variables that have been trained, whose momentum must be there.
        """
        refuse_unlike(state["variables"], self.variables, "variables")
        trained = {x.variable for x in self.problem.levels if x.optimiser == "weights"}
        moving = {n: self.variables[n] for n in {*state["velocities"], *moved} & trained}
        refuse_unlike(state["velocities"], moving, "velocities")
        refuse_others(state["optimisers"], self.optimisers, "optimisers")
        for name, optimiser in self.optimisers.items():
            moments = state["optimisers"][name]["state"]
            least = len(leaves(self.variables[name])) if name in moved else 0
            refuse_moments(moments, optimiser, optimizers.KEPT, least=least)


def begin(
    setup: Setup, strategy: Strategy, clock: Clock, index: int, kept: list[Kept]
) -> PhaseState:
    """Begin a phase: make its problem, initialise its variables, and make optimisers for them."""
    clock.phase, stretch = index, setup.phases[index]
    partial = stretch.phase.partial or setup.space.variant.partial
    varied = setup.space.varied(partial=partial)
    spaces = [varied.narrowed(each) for each in kept]
    maker = Maker(
        bind=strategy.bind,
        spaces=spaces,
        size=replace(setup.size, cells=setup.size.cells + stretch.phase.cells),
        clock=clock,
        epochs=stretch.span,
        device=setup.device,
        amp=torch.bfloat16 if setup.settings.precision == "bf16" else None,
        images=setup.images,
        flops=setup.flops,
        pictures=setup.pictures,
        class_weights=setup.class_weights,
    )
    problem = setup.method(maker)
    if setup.class_weights is not None and not maker.weighs:
        raise ValueError(
            "class_weights = 'balanced': the losses of this method compare no outputs with labels "
            "through make.cross_entropy; give --data.balanced, which samples classes equally often"
        )
    optimizers.check_shared(problem.levels)
    if setup.settings.divide == "learners" and maker.nets < 2:
        raise ValueError(
            "divide = 'learners': this method has one network, so use --divide images, or a "
            "method with several learners"
        )
    for each in maker.bound:
        each.begin_epoch()  # do not count paths that a method samples as a check
    problem = strategy.train(problem, spaces)
    variables = dict(problem.variables)
    optimisers = optimizers.adams(setup.settings.alphas, problem.levels, variables)
    return PhaseState(stretch, kept, spaces, maker.bound, problem, variables, optimisers)


def follow(setup: Setup, strategy: Strategy, clock: Clock, before: PhaseState) -> PhaseState:
    """Begin the next phase, with the strongest operations by the alphas of the previous one."""
    index = clock.phase + 1
    seed = generator(setup.settings.seed, "search/phase", index).integers(2**63)
    torch.manual_seed(int(seed))  # for the new weights
    to = setup.phases[index].phase
    kept = before.kept
    columns: list[Kept] = [{} for _ in before.problem.learners]
    if to.operations:
        kept, columns = _favoured(setup, before, to.operations)
    now = begin(setup, strategy, clock, index, kept)
    if to.carries:
        _carry(setup, before, now, columns)
    return now


def _favoured(setup: Setup, before: PhaseState, count: int) -> tuple[list[Kept], list[Kept]]:
    """Choose every learner's strongest operations, and the columns of its alphas they stand in."""
    learners = before.problem.learners
    alphas = [alphas_of(before.variables, learner) for learner in learners]
    wholes = (before.kept * len(alphas))[: len(alphas)]  # in the first phase all share one
    if setup.budget:
        spaces = (before.spaces * len(alphas))[: len(alphas)]
        spared = setup.budget.spared
        alphas = [spared(*pair, count) for pair in zip(spaces, alphas, strict=True)]
    pairs = [strongest(whole, each, count) for whole, each in zip(wholes, alphas, strict=True)]
    return [left for left, _ in pairs], [chosen for _, chosen in pairs]


def _carry(setup: Setup, before: PhaseState, now: PhaseState, columns: list[Kept]) -> None:
    """Copy what the previous phase has learnt."""
    now.variables, now.velocities = carried(
        before.problem, now.problem, before.variables, before.velocities, columns
    )
    now.optimisers = optimizers.adams(setup.settings.alphas, now.problem.levels, now.variables)
    for name, optimiser in now.optimisers.items():
        moved, learners = before.variables[name], before.problem.learners
        carry_moments(before.optimisers[name], optimiser, name, moved, learners, columns)
