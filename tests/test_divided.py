"""What ranks divide beside the images of a batch: learners, candidates, and files to decode."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch.multiprocessing.spawn import ProcessRaisedException

from launched import computing, searching, together
from test_scoring import PRICED, SMALL
from test_static_step import settings_of
from tutelage import ranks
from tutelage.config import Run
from tutelage.data.images import OnDisk
from tutelage.parts import from_table
from tutelage.problem import Net
from tutelage.run.one_shot.evolution import Evolve
from tutelage.searches.evolution import Evolution
from tutelage.shares import by_learners
from tutelage.virtual import leaves

BY_LEARNERS = {"batch_size": 6, "divide": "learners"}


# Learners ---------------------------------------------------------------------------------------


def steps_of(method, via, more):
    """Take two steps; return the variables, the metrics, and which networks were computed here."""
    called, compute = Counter(), Net._called

    def counted(self, weights, inputs):
        called[self.number] += 1
        return compute(self, weights, inputs)

    with computing(torch.float64), by_learners(True), patch.object(Net, "_called", counted):
        work = searching(settings_of(method, via=via, **BY_LEARNERS, **more))
        for _ in range(2):
            work.advance()
        work.check()
        work.check_state()
        return leaves(dict(work.phase.variables)), dict(work.meter.last), called


@pytest.mark.parametrize(
    ("method", "via"),
    [("sgl", "finite-difference"), ("pamkd", "first-order"), ("lbt", "finite-difference")],
)
def test_learners_of_several_ranks_are_those_of_one_process_to_the_bit(method, via):
    variables, metrics, every = steps_of(method, via, {})
    found = together(2, steps_of, method, via, {})
    for place, (theirs, measured, called) in enumerate(found):
        assert all(map(torch.equal, variables, theirs))
        assert measured == metrics
        assert called == {place: every[place]}  # a rank computes its own network, as often
    assert len(every) == 2


def test_a_second_derivative_needs_all_learners_everywhere():
    with pytest.raises(ValueError, match="--divide images, or --via finite-difference"):
        from_table(Run, settings_of("sgl", via="exact", divide="learners"), "a search")


def test_one_network_is_not_divided():
    with pytest.raises(ValueError, match="this method has one network"):
        searching(settings_of("single", via="first-order", divide="learners"))


def drawing():
    """Take a step of networks that draw random numbers, which the other ranks would not draw."""
    skips = {"name": "pdarts", "skip_dropout": (0.5, 0.5, 0.5), "deeper": (0, 1)}
    settings = settings_of("mkd", "pdarts", via="first-order", **BY_LEARNERS)
    with by_learners(True):
        searching(settings | {"search": skips}).advance()


def test_networks_that_draw_are_not_divided():
    with pytest.raises(ProcessRaisedException, match="use --divide images"):
        together(2, drawing, seconds=60)


# Candidates -------------------------------------------------------------------------------------


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


def test_candidates_are_scored_once_and_in_the_same_order():
    history, scored = evolved()
    assert scored == len(history) == 21
    every = together(3, evolved)
    assert all(each == history for each, _ in every)
    assert sorted(count for _, count in every) == [6, 6, 9]  # of 3, 3 and 1, in each generation
    assert evolved(stop=10)[0] == history
    assert all(each == history for each, _ in together(2, evolved, 10))


# Files ------------------------------------------------------------------------------------------


def taken(paths):
    """Take batches from files; return them and which files were opened here."""
    opened = []

    def counted(path):
        opened.append(path.name)
        return Image.open(path)

    disk = OnDisk(paths, torch.zeros(len(paths)), (3, 4, 4), opened=counted)
    index = torch.tensor([4, 0, 6, 2, 5])
    disk.expect(index)
    with ranks.apart():
        alone = disk.take(torch.tensor([1, 3]))
    return disk.take(index), disk.take(torch.tensor([6])), alone, sorted(opened)


def test_each_rank_decodes_its_share(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(7, 4, 4, 3), dtype=np.uint8)
    paths = [tmp_path / f"{k}.png" for k in range(7)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    *whole, _ = taken(paths)
    first, second = together(2, taken, paths)
    for *found, _ in (first, second):
        assert all(map(torch.equal, whole, found))
    # of five images two and three; all of a single one, and of a batch that is not shared
    assert first[-1] == ["0.png", "1.png", "3.png", "4.png", "6.png"]
    assert second[-1] == ["1.png", "2.png", "3.png", "5.png", "6.png", "6.png"]
