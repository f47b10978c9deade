"""How much operations differ: Eq. 4 by plain loops over what each puts out for the same inputs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from binding import binder
from chains import SMALL, own_size
from reference import NaiveBenchmark, NaiveCells, unstack
from test_search import KilledError, killed_at, run_toml
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.run.job import checkpoint
from tutelage.run.monitor import sampled
from tutelage.run.monitor.sampled import PROBES, operation_diversity
from tutelage.run.networks.factory import Maker
from tutelage.run.search import search_run
from tutelage.run.supernet.state import Searching
from tutelage.searches.diverse_paths import DiversePaths
from tutelage.searches.evolution import Evolution
from tutelage.spaces.base import Size
from tutelage.spaces.cells import DARTS
from tutelage.spaces.mixed_cell import dealt
from tutelage.spaces.nb201 import NASBENCH201
from written_runs import read_rows

IMAGES = 7


def plain_zeta(maps):
    """One minus the mean over images of the cosine, for every two operations' maps."""
    zeta = []
    for one in maps:
        row = []
        for other in maps:
            cosines = []
            for a, b in zip(one, other, strict=True):
                norms = float(a.square().sum().sqrt() * b.square().sum().sqrt())
                cosines.append(float((a * b).sum()) / norms if norms else 0.0)
            row.append(0.0 if one is other else 1 - sum(cosines) / len(cosines))
        zeta.append(row)
    return torch.tensor(zeta, dtype=torch.float64)


def deal(maps):
    """Give every image one operation's map: shuffled images take the operations in turn."""
    order = torch.randperm(IMAGES).tolist()
    return torch.stack([maps[place % len(maps)][image] for image, place in enumerate(order)])


def chain(supernet, x):
    x = supernet.frame.stem(x)
    for edge, layer in enumerate(supernet.layers):
        maps = [layer.blocks[name](x) for name in layer.names]
        yield "chain", edge, maps
        x = deal(maps)


def named(kind, space, size, supernet):
    """Make a naive supernet with the weights of a fast one."""
    with torch.random.fork_rng():
        naive = kind(space.operations, size).double()
    naive.load_state_dict(unstack(supernet, dict(supernet.named_parameters())))
    return naive


def through(cell, group, states):
    """All operations of a naive cell's edges; appends its nodes to the states."""
    edge = 0
    for _ in range(cell.nodes):
        total = 0
        for state in list(states):
            maps = [operation(state) for operation in cell.edges[edge]]
            yield group, edge, maps
            total, edge = total + deal(maps), edge + 1
        states.append(total)


def benchmark(supernet, x):
    naive = named(NaiveBenchmark, NASBENCH201, Size(2, 2, 3), supernet)
    x, halves = naive.stem(x), iter(naive.halves)
    for width, cell in zip(naive.stages, naive.cells, strict=True):
        states = [next(halves)(x) if width > x.shape[1] else x]
        yield from through(cell, "cell", states)
        x = states[-1]


def cells(supernet, x):
    naive = named(NaiveCells, DARTS, Size(2, 3, 3), supernet)
    before = last = naive.stem(x)
    for group, cell in zip(naive.groups, naive.cells, strict=True):
        states = [cell.before(before), cell.last(last)]
        yield from through(cell, group, states)
        before, last = last, torch.cat(states[2:], 1)


@pytest.mark.parametrize(
    ("space", "size", "naive"),
    [
        (SMALL, own_size(SMALL, 3), chain),
        (NASBENCH201, Size(2, 2, 3), benchmark),
        (DARTS, Size(2, 3, 3), cells),
    ],
    ids=["chain", "nasbench201", "darts"],
)
def test_diversity_is_that_of_plain_loops_on_the_same_inputs(space, size, naive):
    maker = Maker(binder(DiversePaths()), [space], size, Clock(), 1, torch.device("cpu"), None)
    net = maker.supernet()
    net.module.double()
    weights = {name: p.detach() for name, p in net.module.named_parameters()}
    batches = [torch.randn(IMAGES, 3, 8, 8, dtype=torch.float64) for _ in range(2)]
    state = torch.get_rng_state()
    found = operation_diversity(net, weights, [lambda x=x: Batch(x, None, None) for x in batches])
    torch.set_rng_state(state)
    measured = {}
    with torch.no_grad():
        for x in batches:
            for group, edge, maps in naive(net.module, x):
                measured.setdefault((group, edge), []).append(plain_zeta(maps))
    assert {(g, e) for g, each in found.items() for e in range(len(each))} == set(measured)
    shapes = {group: (len(each), len(each[0])) for group, each in found.items()}
    assert shapes == space.choices
    for (group, edge), each in measured.items():
        expected = torch.stack(each).mean(0)  # over batches, and over cells that share the choice
        torch.testing.assert_close(found[group][edge], expected, rtol=0, atol=1e-9)
        assert found[group][edge].device.type == "cpu"
    assert max(float(zeta.max()) for zeta in found[next(iter(found))]) > 0.3


def test_images_are_dealt_out_evenly_and_at_random():
    operations, images = 3, 8
    maps = torch.arange(operations * images).view(operations, images, 1, 1, 1)
    seen = Counter()
    for _ in range(300):
        given = dealt(maps).flatten()
        assert torch.equal(given % images, torch.arange(images))  # every image its own map
        counts = Counter((given // images).tolist())
        assert sorted(counts.values()) == [2, 3, 3]
        seen.update(enumerate((given // images).tolist()))
    assert len(seen) == operations * images
    assert all(60 < count < 150 for count in seen.values())  # 100 expected


# In a search ------------------------------------------------------------------------------------


def small(**changed):
    own = run_toml(
        "ennas",
        search={"name": "diverse-paths"},
        space={"name": "nasbench-macro", "widths": (4, 6), "depths": (1, 1), "strides": (2, 2)},
        evolution=Evolution(population=2, generations=1, parents=2, images=20, judged=20),
        save_every=0.0,
        cells=None,
        **changed,
    )
    return replace(own, method={"name": "ennas", "students": 2})


def test_it_is_measured_after_every_epoch_on_training_images(tmp_path, monkeypatch):
    calls = []

    def diagnose(net, weights, parts):
        positions = [part.position.tolist() for part in (make() for make in parts)]
        found = operation_diversity(net, weights, parts)
        calls.append(SimpleNamespace(positions=positions, found=found))
        return found

    advanced, used = Searching.advance, []

    def advance(self):
        used.append(self.phase.bound[0].diversity)
        advanced(self)

    monkeypatch.setattr(sampled, "operation_diversity", diagnose)
    monkeypatch.setattr(Searching, "advance", advance)
    search_run(small(epochs=3), tmp_path / "run")
    assert len(calls) == 3
    assert all(len(call.positions) == PROBES for call in calls)
    assert calls[0].positions != calls[1].positions
    before = [{}] + [call.found for call in calls]
    assert len(used) == 3 * 2
    for step, diversity in enumerate(used):  # of the epoch before; of none in the first
        assert diversity is before[step // 2] or diversity == before[step // 2] == {}
    stored = checkpoint.load(tmp_path / "run")["work"]["sampled"]
    for one, other in zip(stored[0]["diversity"]["chain"], calls[2].found["chain"], strict=True):
        assert torch.equal(one, other)


def test_a_search_that_samples_without_it_does_not_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(sampled, "operation_diversity", None)
    search_run(replace(small(epochs=1), search={"name": "single-path"}), tmp_path / "run")


def test_diversity_and_counts_go_on_from_a_checkpoint(tmp_path, monkeypatch):
    """Broken off in mid-epoch, gone on with and broken off again, as broken off there at once."""
    for name, steps in (("once", (7,)), ("twice", (5, 2))):
        for step in steps:
            with monkeypatch.context() as patch, pytest.raises(KilledError):
                killed_at(patch, step)
                own = small(epochs=3, limit_batches=4)
                search_run(own, tmp_path / name, resume=(tmp_path / name).exists())
    one, two = (checkpoint.load(tmp_path / name)["work"] for name in ("once", "twice"))
    assert (one["epoch"], one["step"]) == (two["epoch"], two["step"]) == (1, 3)
    (a,), (b,) = one["sampled"], two["sampled"]
    for x, y in zip(a["diversity"]["chain"], b["diversity"]["chain"], strict=True):
        assert x.shape == (3, 3) and torch.equal(x, y)
    assert torch.equal(a["counts"]["chain"], b["counts"]["chain"])
    # three steps of two sub-networks, and nothing of the probes or of what was drawn to see it can
    assert a["counts"]["chain"].sum(1).tolist() == [6, 6]
    stored = checkpoint.load(tmp_path / "twice")
    stored["work"]["sampled"][0]["diversity"] = {}
    checkpoint.save(tmp_path / "twice", stored)
    with pytest.raises(ValueError, match="diversity has no measurement"):
        search_run(own, tmp_path / "twice", resume=True)


def test_the_rows_say_how_often_each_operation_was_drawn(tmp_path):
    search_run(replace(small(epochs=1, limit_batches=3), seed=1), tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    (row,) = (row for row in rows if row["event"] == "epoch")
    for shares in row["sampled"][0]["chain"]:
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert all(round(6 * share, 3) in range(4) for share in shares)  # of 3 steps
