"""What an architecture scores with a supernet's weights, and the ranking of architectures by it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from chains import SMALL, chosen, own_size
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.config import Data, Run
from tutelage.data.augment import Augmentation
from tutelage.data.batches import Stream
from tutelage.data.read import read
from tutelage.problem import Net
from tutelage.records.typed import present
from tutelage.run.cost.table import Cost, Costs
from tutelage.run.one_shot.batches import at_once, in_order
from tutelage.run.one_shot.evolution import Evolve
from tutelage.run.one_shot.ranking import Known, Ranking
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.one_shot.statistics import recalibrate
from tutelage.searches.evolution import Evolution
from tutelage.spaces.base import Size, one_hot
from tutelage.spaces.cells import S4
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.paths import bounds, genotype

SIZE = own_size(SMALL, 3)
CPU = torch.device("cpu")


def parts(sizes, seed=0):
    """Batches of images of three classes that can be distinguished a little by their brightness."""
    draws = torch.Generator().manual_seed(seed)
    found = []
    for count in sizes:
        y = torch.randint(3, (count,), generator=draws)
        x = torch.randn(count, 3, 6, 6, generator=draws) + y.view(-1, 1, 1, 1)
        found.append(Batch(x, y, torch.arange(count)))
    return found


def scorer_of(space, size, fitted, judged):
    net = Net(lambda: space.supernet(size), None, Clock())
    weights = {name: 1.3 * x for name, x in net.weights().items()}
    return Scorer(net, weights, space, size, lambda: iter(fitted), lambda: iter(judged))


def test_statistics_are_means_over_batches_by_images():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    twin, fitted = copy.deepcopy(network), parts((4, 4, 3))
    network(parts((6,), seed=1)[0].x + 5)  # what was there before does not count
    recalibrate(network, fitted)
    means, variances = [], []
    with torch.no_grad():
        for x, _, _ in fitted:
            y = twin[0](x)
            for _ in range(2):
                mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=True)
                means.append(mean)
                variances.append(variance)
                biased = y.var((0, 2, 3), unbiased=False)[:, None, None]
                y = ((y - mean[:, None, None]) / (biased + 1e-5).sqrt()).relu()
    for place, layer in enumerate((1, 3)):
        for running, found in (("running_mean", means), ("running_var", variances)):
            expected = sum(n * x for n, x in zip((4, 4, 3), found[place::2], strict=True)) / 11
            torch.testing.assert_close(getattr(network[layer], running), expected)


@pytest.mark.parametrize("columns", [(1, 2, 3), (0, 3, 1), (2, 0, 0)])
def test_the_accuracy_of_a_chain_is_that_of_its_network_fitted_by_hand(columns):
    torch.manual_seed(1)
    fitted, judged = parts((8, 8, 5)), parts((7, 7, 7, 2), seed=1)
    scorer = scorer_of(SMALL, SIZE, fitted, judged)
    found = chosen(SMALL, columns)
    # the blocks of the supernet themselves, their statistics recorded on the way
    supernet = SMALL.supernet(SIZE)
    supernet.load_state_dict(scorer.weights)
    network = nn.Sequential(
        *supernet.frame.stem,
        *(
            layer.blocks[SMALL.candidates[c]]
            for layer, c in zip(supernet.layers, columns, strict=True)
        ),
        *supernet.frame.end,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        supernet.frame.classifier,
    )
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    seen = {norm: [] for norm in norms}
    for norm in norms:
        norm.register_forward_pre_hook(
            lambda module, x: seen[module].append(
                (x[0].mean((0, 2, 3)), x[0].var((0, 2, 3), unbiased=True))
            )
        )
    right = 0
    with torch.no_grad():
        for x, _, _ in fitted:
            network(x)
        for norm in norms:
            means, variances = zip(*seen[norm], strict=True)
            norm.running_mean = torch.stack(means).mean(0)
            norm.running_var = torch.stack(variances).mean(0)
        network.eval()
        for x, y, _ in judged:
            right += int((network(x).argmax(1) == y).sum())
    before = {name: x.clone() for name, x in scorer.weights.items()}
    assert scorer.accuracy(found) == right / 23
    assert scorer.accuracy(found) == right / 23  # nothing of the first time is left
    assert all(torch.equal(x, before[name]) for name, x in scorer.weights.items())
    assert 0 < right < 23


@pytest.mark.parametrize("affine", [True, False])
def test_several_batches_at_once_give_the_statistics_of_each(affine):
    """Of 3 batches, then 2, then one that is smaller."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=affine), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, affine=affine)).double()
    for norm in (network[1], network[4]):
        for x in norm.parameters():
            nn.init.normal_(x)
    twin = copy.deepcopy(network)
    single = [Batch(b.x.double() + 3, b.y, b.position) for b in parts((4, 4, 4, 4, 4, 3))]
    joined = [
        Batch(*(torch.cat(each) for each in zip(*single[places], strict=True)))
        for places in (slice(0, 3), slice(3, 5), slice(5, 6))
    ]
    recalibrate(network, single)
    recalibrate(twin, joined, 4)
    for place in (1, 4):
        for name in ("running_mean", "running_var"):
            mine, theirs = (getattr(each[place], name) for each in (twin, network))
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    x = joined[0].x
    torch.testing.assert_close(twin.eval()(x), network.eval()(x), rtol=1e-11, atol=1e-11)


def test_statistics_of_several_batches_do_not_mix_them():
    """Batches of brightness 0 and 10: no image is normalised by the other batch."""
    network = nn.Sequential(nn.BatchNorm2d(1))
    x = torch.cat([torch.randn(4, 1, 6, 6), 10 + torch.randn(4, 1, 6, 6)]).double()
    recalibrate(network.double(), [Batch(x, torch.zeros(8), torch.arange(8))], 4)
    assert float(network[0].running_mean) == pytest.approx(5, abs=0.3)
    assert float(network[0].running_var) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(("count", "sizes"), [(23, [12, 8, 3]), (21, [12, 8]), (24, [12, 12])])
def test_batches_at_once_are_the_same_images(count, sizes):
    train = read(Data("digits"), "train")
    stream = Stream(train, torch.arange(50, 110), 4, 0, "x", Augmentation(), CPU)
    found = list(in_order(stream, count, 3))
    assert [len(batch.y) for batch in found] == sizes
    single = list(stream.in_order(count))
    for mine, theirs in zip(zip(*found, strict=True), zip(*single, strict=True), strict=True):
        if mine[0].ndim > 1:
            assert torch.equal(torch.cat(mine), torch.cat(theirs))
    labels = [torch.cat([batch.y for batch in each]) for each in (found, single)]
    assert torch.equal(*labels)


def test_how_many_batches_run_at_once():
    cuda = torch.device("cuda")
    assert at_once(CPU, (3, 32, 32), 64) == 1
    assert at_once(cuda, (3, 32, 32), 64) == 21
    assert at_once(cuda, (3, 224, 224), 64) == 1
    assert at_once(cuda, (3, 32, 32), 1) == 1


@pytest.mark.parametrize("columns", [(1, 2, 3), (0, 3, 1)])
def test_a_score_is_the_same_of_several_batches_at_once(columns):
    torch.manual_seed(1)
    fitted, judged = parts((8, 8, 8, 8, 5)), parts((7, 7, 7, 2), seed=1)
    scorer = scorer_of(SMALL, SIZE, fitted, judged)

    def joined(batches):
        return Batch(*(torch.cat(each) for each in zip(*batches, strict=True)))

    wide = replace(
        scorer,
        fitted=lambda: [joined(fitted[:4]), fitted[4]],
        judged=lambda: [joined(judged)],
        batch_size=8,
    )
    assert wide.accuracy(chosen(SMALL, columns)) == scorer.accuracy(chosen(SMALL, columns))


def test_statistics_matter():
    """With other images to fit them to, the same weights answer otherwise."""
    judged = parts((50,), seed=2)
    dark = [Batch(part.x - 3, part.y, part.position) for part in parts((20, 20))]
    scores = []
    for fitted in (parts((20, 20)), dark):
        torch.manual_seed(1)
        scores.append(scorer_of(SMALL, SIZE, fitted, judged).accuracy(chosen(SMALL, (1, 2, 3))))
    assert scores[0] != scores[1]


def test_cells_are_scored_in_the_supernet_by_the_statistics_of_the_batch():
    torch.manual_seed(3)
    size, judged = Size(2, 1, 3), parts((6, 6, 4), seed=4)
    scorer = scorer_of(NASBENCH201, size, [], judged)
    found = genotype(NASBENCH201, (3, 1, 2, 4, 3, 2))
    net = NASBENCH201.supernet(size)
    net.load_state_dict(scorer.weights)
    arch = one_hot(NASBENCH201, found, torch.zeros(()))
    with torch.no_grad():
        right = sum(int((net(x, arch)[0].argmax(1) == y).sum()) for x, y, _ in judged)
    assert scorer.accuracy(found) == right / 16


def test_a_score_does_not_depend_on_what_was_scored_before():
    """The operation `noise` draws again in every pass: a resumed run would score otherwise."""
    torch.manual_seed(3)
    scorer = scorer_of(S4, Size(4, 2, 3), [], parts((20,) * 5, seed=4))
    found = genotype(S4, [0] * len(bounds(S4)))
    assert {name for node in found.cells["normal"].nodes for name, _ in node} == {"noise"}
    first = scorer.score(found)
    assert [scorer.score(found) for _ in range(4)] == [first] * 4


# Ranking and evolution as work ------------------------------------------------------------------


class Counting:
    """Scores by the share of MBConv, and remembers what was asked."""

    quantity = "accuracy"

    quantity = "accuracy"

    def __init__(self):
        self.asked = []

    def score(self, found: Genotype) -> float:
        self.asked.append(found)
        return found.names.count("mbconv3_3x3") / 3


def known(found: Genotype) -> dict[str, int]:
    return {"identities": found.names.count("identity")}


PRICED = Costs(
    Cost(0, 5, 1.5),
    {
        "chain": [
            {n: Cost(c, 2 * c, 3.0 * c) for c, n in enumerate(SMALL.candidates)} for _ in range(3)
        ]
    },
    [(1, 1)] * 3,
    keeps_none=True,
)


def test_a_ranking_scores_every_architecture_once_and_goes_on_where_it_was():
    drawn = [(0, 0, 0), (1, 0, 1), (1, 1, 1), (2, 3, 1)]

    def known(found):
        return Known(len(found.names), {"rank": 2})

    first, scorer = Ranking(SMALL, Counting(), drawn, known), Counting()
    for _ in range(3):
        first.advance()
    row = present(first.row("step"))
    assert list(row.items()) == [
        ("event", "step"),
        ("epoch", 0),
        ("step", 3),
        ("encoding", [1, 1, 1]),
        ("accuracy", 1.0),
        ("flops", 3),
        ("table", {"rank": 2}),
    ]
    second = Ranking(SMALL, scorer, drawn, known)
    second.restore(first.state())
    assert (second.done, second.epoch, second.step, second.steps) == (3, 0, 3, 4)
    second.advance()
    assert scorer.asked == [genotype(SMALL, (2, 3, 1))]
    assert second.scores == [0, 2 / 3, 1, 1 / 3]
    second.end_epoch()
    third = Ranking(SMALL, scorer, drawn, known)
    third.restore(second.state())
    assert (third.epoch, third.step, third.done) == (second.epoch, second.step, 4) == (1, 0, 4)


def test_an_evolution_keeps_its_limits_and_says_what_candidates_cost():
    settings = Evolution(population=6, generations=3, parents=3)
    evolve = Evolve(SMALL, Counting(), PRICED, lambda cost: cost.params <= 4, settings, seed=0)
    while evolve.epoch < evolve.epochs:
        evolve.advance()
        row = evolve.row("step")
        assert row.params == sum(row.encoding) <= 4
        assert row.flops == 5 + 2 * row.params
        assert row.accuracy == row.encoding.count(1) / 3
        if evolve.step == evolve.steps:
            best = evolve.end_epoch()
    assert best.encoding == [1, 1, 1]
    asked = [tuple(found.names) for found in evolve.scorer.asked]
    assert len(asked) == len(set(asked)) == 18
    assert evolve.genotype(evolve.evolving.best).names == ["mbconv3_3x3"] * 3


def test_a_second_objective_is_the_cost_negated():
    for place, least in (("params", 0), ("flops", 5), ("latency", 1.5)):
        objectives = f"accuracy-{place}"
        settings = Evolution(population=8, generations=4, parents=2, objectives=objectives)
        evolve = Evolve(SMALL, Counting(), PRICED, lambda cost: True, settings, seed=1)
        while evolve.epoch < evolve.epochs:
            evolve.advance()
            row = evolve.row("step")
            assert evolve.evolving.history[-1].scores == (row.accuracy, -getattr(row, place))
            if evolve.step == evolve.steps:
                front = evolve.end_epoch().front
        costs = [getattr(each, place) for each in front]
        assert costs == sorted(costs) and costs[0] == least
        assert all(each.params == each.encoding.count(1) for each in front)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranked": 5}, "ranked = 5 without a table: give the file of true accuracies, --table"),
        ({"ranked": 1, "table": "x"}, "ranked = 1: a ranking needs two architectures or more"),
        ({"ranked": -1}, "ranked = -1: must be a number of at least 0"),
    ],
)
def test_rankings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Run(**settings)


@pytest.mark.parametrize("name", ["images", "judged"])
def test_one_image_is_no_batch(name):
    with pytest.raises(ValueError, match=f"{name} = 1: must be a number of at least 2"):
        Evolution(**{name: 1})
