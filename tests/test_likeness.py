"""Values of a checkpoint are like those that they are restored into, or named in a sentence."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from tutelage.likeness import refuse_moments, refuse_others, refuse_unlike
from tutelage.run.supernet.metrics import Meter
from tutelage.run.training.sgd import SGD
from tutelage.spaces.cells import DARTS
from tutelage.spaces.narrowing import check_kept, everything

LIKE = {"W": [{"a": torch.zeros(2, 3)}, {"a": torch.zeros(2, 3)}], "n": 1, "none": None}


def entry(x):
    """The same values with another tensor in one place."""
    return {**LIKE, "W": [LIKE["W"][0], {"a": x}]}


def test_equal_names_types_and_shapes_are_alike():
    refuse_unlike(entry(torch.ones(2, 3)), LIKE, "work")
    refuse_unlike(entry(torch.ones(3, 2).T), LIKE, "work")
    refuse_unlike({"n": 7, "none": None, "W": LIKE["W"]}, LIKE, "work")
    refuse_unlike(entry(nn.Parameter(torch.ones(2, 3), requires_grad=False)), LIKE, "work")
    refuse_unlike({"param_groups": [1]}, {"param_groups": {}}, "an optimiser keeps its own")


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (entry(torch.zeros(6)), "work.W.1.a is float32 (6,): must be float32 (2, 3)"),
        (entry(torch.zeros(2, 3).double()), "float64 (2, 3): must be float32"),
        (entry(torch.zeros(()).expand(2, 3)), "work.W.1.a is float32 (2, 3)"),
        (entry(torch.zeros(2, 3).to_sparse()), "work.W.1.a is float32 (2, 3)"),
        (entry(torch.zeros(2, 3, device="meta")), "work.W.1.a is float32 (2, 3)"),
        (entry(torch.zeros(2, 3).requires_grad_()), "work.W.1.a is float32 (2, 3)"),
        (entry([1]), "work.W.1.a is [1], of type list: must be of type Tensor"),
        ({**LIKE, "W": LIKE["W"][:1]}, "work.W has 1 entries: must be 2"),
        ({**LIKE, "n": 1.0}, "work.n is 1.0, of type float: must be of type int"),
        ({**LIKE, "n": True}, "work.n is True, of type bool: must be of type int"),
        ({**LIKE, "none": {}}, "work.none is {}, of type dict: must be of type NoneType"),
        ({**LIKE, "x" * 99: 1}, "work has an unknown entry xxx"),
        ({"n": 1, "none": None}, "work lacks W"),
        ([], "work is [], of type list: must be of type dict"),
    ],
)
def test_others_are_named(found, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        refuse_unlike(found, LIKE, "work")
    assert len(str(error.value)) < 200


def test_names_are_compared_without_the_values():
    refuse_others({"A": 1}, {"A": 2}, "optimisers")
    with pytest.raises(ValueError, match="optimisers is of type list: must be of type dict"):
        refuse_others([], {"A": 2}, "optimisers")


def test_an_optimisers_state_has_its_weights_shapes():
    weights = [torch.zeros(2, 3), torch.zeros(4)]
    optimiser = SGD(weights, 0.1, momentum=0.9)
    fits = {0: {"momentum_buffer": torch.ones(2, 3)}}  # the other weight had no gradient yet
    refuse_moments(fits, optimiser, SGD.kept)
    refuse_moments(fits, optimiser, SGD.kept, least=1)
    with pytest.raises(ValueError, match="is of 1 weights: must be of at least 2"):
        refuse_moments(fits, optimiser, SGD.kept, least=2)
    for found, sentence in (
        ({1: {"momentum_buffer": torch.ones(5)}}, "weight 1.momentum_buffer is float32 (5,)"),
        ({0: {}}, "the optimiser's state of weight 0 lacks momentum_buffer"),
        ({2: {"momentum_buffer": torch.ones(4)}}, "weight 2: there are 2 weights"),
        ({"x": {}}, "weight x: there are 2 weights"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            refuse_moments(found, optimiser, SGD.kept)


@pytest.mark.parametrize(
    ("sums", "counts"),
    [
        ({("loss", "W"): 1.0}, {}),
        ({("loss", "W"): 1.0}, {("loss", "W"): 0}),
        ({}, {("loss", "W"): 1}),
        ({("loss", 3): 1.0}, {("loss", 3): 1}),
        ({("learners", 0, "unknown"): 1.0}, {("learners", 0, "unknown"): 1}),
        ({("loss", "W"): "1"}, {("loss", "W"): 1}),
        ({"loss": 1.0}, {"loss": 1}),
        ([], {}),
    ],
)
def test_a_meter_takes_sums_and_counts_of_known_values(sums, counts):
    fits = {"sums": {("loss", "W"): 3.0}, "counts": {("loss", "W"): 2}}
    meter = Meter()
    meter.restore(fits)
    assert meter.means == {("loss", "W"): 1.5} and meter.state() == fits
    with pytest.raises((ValueError, TypeError)):
        Meter().restore({"sums": sums, "counts": counts})


def test_kept_columns_are_some_of_each_edges():
    whole = everything(DARTS)
    check_kept(DARTS, whole)
    check_kept(DARTS, {**whole, "normal": [[0, 2]] * 14})
    for row in ([], [-1], [2, 0], [1, 1], [8]):
        with pytest.raises(ValueError, match=r"columns .* of group normal are kept, of 8"):
            check_kept(DARTS, {**whole, "normal": [row, *whole["normal"][1:]]})
    with pytest.raises(ValueError, match="kept for the edges"):
        check_kept(DARTS, {"normal": whole["normal"]})
