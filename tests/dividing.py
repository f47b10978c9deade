"""What processes of a test compute, in a module that is quick to import: see test_divided.py."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import torch
from PIL import Image

from chains import SMALL
from launched import computing, searching
from tutelage import ranks
from tutelage.data.images import OnDisk, Source
from tutelage.problem import Net
from tutelage.run.cost.table import Cost, Costs
from tutelage.run.one_shot.evolution import Evolve
from tutelage.searches.evolution import Evolution
from tutelage.shares import by_learners
from tutelage.trees import leaves

PRICED = Costs(
    Cost(0, 5),
    {"chain": [{n: Cost(c, 2 * c) for c, n in enumerate(SMALL.candidates)} for _ in range(3)]},
    [(1, 1)] * 3,
    keeps_none=True,
)
TOYS = {
    "lbt": {"student": "resnet18"},
    "mkd": {},
    "pamkd": {},
    "sgl": {},
    "single": {},
}


def toy(method, via, **more):
    """The settings of a toy search, whose learners are divided."""
    return {
        "method": {"name": method, **TOYS[method]},
        "search": {"name": "darts"},
        "space": {"name": "nasbench201"},
        "channels": 2,
        "cells": 1,
        "epochs": 3,
        "batch_size": 6,
        "device": "cpu",
        "via": via,
        "divide": "learners",
        **more,
    }


def steps_of(method, via):
    """Take two steps; return the variables, the metrics, and which networks were computed here."""
    called, compute = Counter(), Net._called

    def counted(self, weights, inputs):
        called[self.number] += 1
        return compute(self, weights, inputs)

    with computing(torch.float64), by_learners(True), patch.object(Net, "_called", counted):
        work = searching(toy(method, via))
        for _ in range(2):
            work.advance()
        work.check()
        work.check_state()
        return leaves(dict(work.phase.variables)), dict(work.meter.last), called


def drawing(said):
    """Take a step of networks that draw random numbers, which the other ranks would not draw.

    What rank 0 says of it is written to a file.
    """
    skips = {"name": "pdarts", "skip_dropout": (0.5, 0.5, 0.5), "deeper": (0, 1)}
    cells = {"space": {"name": "darts"}, "cells": 3}
    with by_learners(True):
        try:
            searching(toy("mkd", "first-order", search=skips, **cells)).advance()
        except ValueError as error:
            if ranks.rank() == 0:
                said.write_text(str(error))
            raise


class Scorer:
    """Scores architectures by their text, and counts them."""

    quantity = "accuracy"

    def __init__(self):
        self.scored = 0

    def score(self, genotype):
        assert ranks.count() == 1  # on its own
        self.scored += 1
        return (hash_of(genotype) % 1000) / 1000


def hash_of(genotype):
    """A number that depends on an architecture alone, not on the process."""
    return sum(place * ord(sign) for place, sign in enumerate(genotype.to_json()))


def evolved(stop=0):
    """Evolve to the end; return the history and how many candidates this rank scored."""
    scorer = Scorer()
    settings = Evolution(population=7, generations=3, parents=3)
    evolve = Evolve(SMALL, scorer, PRICED, lambda cost: True, settings, seed=1)
    while evolve.epoch < evolve.epochs:
        evolve.advance()
        if evolve.step == evolve.steps:
            evolve.end_epoch()
        if evolve.done == stop:  # resumed from a checkpoint, in the middle of a generation
            state, stop = evolve.state(), 0
            evolve = Evolve(SMALL, scorer, PRICED, lambda cost: True, settings, seed=1)
            evolve.restore(state)
    return evolve.evolving.history, scorer.scored


def taken(paths):
    """Take batches from files; return them and which files were opened here."""
    opened = []

    def counted(path):
        opened.append(path.name)
        return Image.open(path)

    disk = OnDisk(paths, torch.zeros(len(paths)), (3, 4, 4), source=Source(opened=counted))
    index = torch.tensor([4, 0, 6, 2, 5])
    disk.expect(index)
    with ranks.apart():
        alone = disk.take(torch.tensor([1, 3]))
    return disk.take(index), disk.take(torch.tensor([6])), alone, sorted(opened)
