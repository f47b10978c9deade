"""Steps of a search by the settings of a recipe, without its data and its run directory."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import torch

from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.config import Run
from tutelage.methods.single import Single
from tutelage.parts import from_table
from tutelage.problem import Net
from tutelage.recipes import read_recipe
from tutelage.run.supernet import optimizers
from tutelage.run.supernet.iteration import Iteration
from tutelage.run.supernet.phase import PhaseState
from tutelage.run.supernet.setup import Stretch
from tutelage.searches.base import Phase
from tutelage.transfer import cross_entropy


def settings_of(recipe, **more):
    """The settings of a recipe, but for some of them."""
    return replace(from_table(Run, read_recipe(recipe)[0], f"recipe {recipe}"), **more)


def single_problem(module, search, alphas):
    """One learner's problem, from given weights and alphas."""
    relaxation = SimpleNamespace(alphas=lambda: alphas, relax=search.relax)
    net = Net(lambda: deepcopy(module), relaxation, Clock())
    return Single()(SimpleNamespace(supernet=lambda: net, cross_entropy=cross_entropy))


def begun(settings, problem):
    """A search before its first step."""
    variables = dict(problem.variables)
    adams = optimizers.adams(settings.alphas, problem.levels, variables)
    stretch = Stretch(Phase(), 0, settings.epochs, 0, settings.epochs)
    return PhaseState(stretch, [], [], [], problem, variables, adams)


def take_step(settings, state, number, batches):
    """Take one step of the first epoch, as a search does."""
    levels = state.levels(0)
    rates = {
        level.variable: state.rate(level, settings.weights, 0, 0.0)
        for level in levels
        if level.optimiser == "weights"
    }
    iteration = Iteration(settings, state, optimizers.rule(settings), levels, rates, number)
    iteration.take(batches, {name: rate.lr for name, rate in rates.items()})


def draw_batches(count, images=8, side=8, channels=3, dtype=torch.float64):
    """Random batches, other images for the weights than for the alphas."""

    def part():
        x = torch.randn(images, channels, side, side, dtype=dtype)
        return Batch(x, torch.randint(10, (images,)), torch.arange(images))

    return [SimpleNamespace(train=part(), valid=part()) for _ in range(count)]
