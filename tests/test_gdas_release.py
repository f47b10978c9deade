"""GDAS as its authors' code has it: what a node keeps, the network, what was not sampled."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.func import functional_call

from reference import NaiveBenchmark, NaiveCells, NaiveNodes, unstack
from tutelage.clock import Clock
from tutelage.searches.gdas import Gdas
from tutelage.searches.needs import fit
from tutelage.spaces.base import Size
from tutelage.spaces.cells import DARTS, S1, S2, S3, S4
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.ready import ready

CELLS = [DARTS, S1, S2, S3, S4]
STARTS = (0, 2, 5, 9, 14)
"""The first edge of every node, and the number of edges."""


def drawn(space, scale=1.0):
    return {
        group: scale * torch.randn(shape, dtype=torch.float64)
        for group, shape in space.choices.items()
    }


# What a node keeps ------------------------------------------------------------------------------


def slow_pairs(space, alphas):
    """Take the largest probability of a node twice, without `none`: cells as lists of nodes."""
    found = {}
    for group, edges in space.operations.items():
        probabilities, found[group] = alphas[group].softmax(1), []
        for first, last in pairwise(STARTS):
            left = {
                (name, edge - first): float(probabilities[edge, column])
                for edge in range(first, last)
                for column, name in enumerate(edges[edge])
                if name != "none"
            }
            best = max(left, key=left.__getitem__)
            left.pop(best)
            found[group].append((best, max(left, key=left.__getitem__)))
    return found


def test_a_node_keeps_its_two_best_pairs():
    """For 1,000 random alphas; DARTS' rule gives another architecture for many of them."""
    torch.manual_seed(0)
    other, shared = 0, 0
    for _ in range(1000):
        alphas = drawn(DARTS)
        found = Gdas().derive(DARTS, alphas)
        slow = slow_pairs(DARTS, alphas)
        assert {g: list(cell.nodes) for g, cell in found.cells.items()} == slow
        edges = Gdas(derivation="edges").derive(DARTS, alphas)
        assert edges == DARTS.genotype(Gdas().expected(alphas))
        other += found != edges
        shared += any(one[1] == two[1] for nodes in slow.values() for one, two in nodes)
    assert other == shared > 300  # only where two of an edge were best


@pytest.mark.parametrize("space", CELLS, ids=lambda space: space.name)
def test_pairs_in_every_space_of_cells(space):
    for _ in range(20):
        alphas = drawn(space)
        found = Gdas().derive(fit(Gdas(), space), alphas)
        nodes = {group: list(cell.nodes) for group, cell in found.cells.items()}
        assert nodes == slow_pairs(space, alphas)
        assert found.space == space.name


def test_other_spaces_derive_by_their_rule():
    alphas = drawn(NASBENCH201)
    expected = NASBENCH201.genotype(Gdas().expected(alphas))
    assert Gdas().derive(NASBENCH201, alphas) == expected


# The network ------------------------------------------------------------------------------------


def test_the_normalisations_are_the_releases_or_those_of_darts():
    released = {"final_norm": True, "normalised_pools": False}
    for space in CELLS:
        assert fit(Gdas(), space) == space.varied(**released)
        assert fit(Gdas(normalisation="pools"), space) == space
    assert fit(Gdas(), NASBENCH201) == NASBENCH201


def run_sampled(self, states, weights, edges, auxiliary):
    """Of every edge, run what has the largest weight alone: in place of `NaiveNodes.run`."""
    edge = 0
    for _ in range(self.nodes):
        total = 0
        for state in list(states):
            column = int(weights[edge].argmax())
            total = total + weights[edge][column] * self.edges[edge][column](state)
            edge += 1
        states.append(total)


def run_added(self, states, weights, edges, auxiliary):
    """Besides, add the weights of all other operations as numbers."""
    edge = 0
    for _ in range(self.nodes):
        total = 0
        for state in list(states):
            for column, weight in enumerate(weights[edge]):
                sampled = column == int(weights[edge].argmax())
                total = total + (weight * self.edges[edge][column](state) if sampled else weight)
            edge += 1
        states.append(total)


def compared(space, unsampled):
    """Logits and the gradients of a weighted sum of them: ours, the naive network's."""
    search = Gdas(unsampled=unsampled)
    space = fit(search, space)
    size = Size(channels=4, cells=1 if space.name == "nasbench201" else 3)
    naive = (NaiveBenchmark if space.name == "nasbench201" else NaiveCells)(
        space.operations, size, space.variant
    ).double()
    net = space.supernet(size).double()
    alphas = drawn(space)
    for a in alphas.values():
        a[:, 0] -= 6  # a path of `none` would have no gradient
        a.requires_grad_()
    weights = {name: torch.randn_like(p) for name, p in net.named_parameters()}
    weights = {name: p.requires_grad_() for name, p in weights.items()}
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    variables, results = [*alphas.values(), *weights.values()], []
    for ours in (True, False):
        torch.manual_seed(1)
        arch = search.relax(alphas, Clock(epoch=1, epochs=3))
        if ours:
            logits, _ = functional_call(net, weights, (x, arch))
        else:
            logits, _ = functional_call(naive, unstack(net, weights), (x, arch.operations))
        value = (logits * torch.arange(30.0, dtype=torch.float64).view(3, 10)).sum()
        gradients = torch.autograd.grad(value, variables, materialize_grads=True)
        results.append([logits.detach(), *gradients])
    return results


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("space", "unsampled", "run"),
    [
        (DARTS, "left-out", run_sampled),
        (NASBENCH201, "left-out", run_sampled),
        (DARTS, "added", run_added),
        (NASBENCH201, "added", run_added),
    ],
    ids=lambda each: getattr(each, "name", getattr(each, "__name__", each)),
)
def test_the_supernet_is_the_naive_one(space, unsampled, run, seed, monkeypatch):
    """In float64: logits, and gradients in alphas and weights."""
    monkeypatch.setattr(NaiveNodes, "run", run)
    torch.manual_seed(seed)
    ours, naive = compared(space, unsampled)
    assert ours[1].abs().max() > 1e-3  # alphas
    for one, other in zip(ours, naive, strict=True):
        scale = float(other.abs().max()) or 1.0
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=1e-9)


def test_added_numbers_give_alphas_another_gradient_and_the_same_logits():
    found = []
    for unsampled in ("left-out", "added"):
        torch.manual_seed(3)
        found.append(compared(NASBENCH201, unsampled)[0])
    (logits, left, *_), (same, added, *_) = found
    assert torch.equal(logits, same)
    assert (left - added).abs().max() > 1e-3


def test_numbers_cannot_be_added_in_a_chain():
    chains = [space for space in ready() if "chain" in space.operations]
    assert chains
    for space in chains:
        with pytest.raises(ValueError, match="unsampled = 'added'"):
            fit(Gdas(unsampled="added"), space)


@pytest.mark.parametrize("setting", ["derivation", "normalisation", "unsampled"])
def test_refuses_unknown_words(setting):
    with pytest.raises(ValueError, match=f"{setting} = 'other'"):
        Gdas(**{setting: "other"})
