"""Phases: where they lie among the epochs, what they hand on, and kills in their midst."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from test_search import TINY, KilledError, killed_at, run_toml, same_runs, work_of
from tutelage.methods.lbt import LBT
from tutelage.methods.sgl import SGL
from tutelage.methods.single import Single
from tutelage.problem import pick
from tutelage.run import checkpoint
from tutelage.run.phases import everything, narrowed, placed, stretches, strongest
from tutelage.run.search import search_run
from tutelage.searches.base import Phase
from tutelage.searches.drnas import DrNas
from tutelage.searches.pdarts import PDarts
from tutelage.spaces.cells import DARTS, S3
from tutelage.virtual import leaves

PDARTS = {"search": {"name": "pdarts", "deeper": (0, 1)}, "epochs": 3}
DRNAS = {"search": {"name": "drnas"}, "channels": 12, "epochs": 4}


METHODS = [
    pytest.param(Single(), id="single"),
    pytest.param(SGL(), id="sgl", marks=pytest.mark.slow),
]


# Stretches --------------------------------------------------------------------------------------


def table(phases, epochs):
    return [(x.start, x.epochs, x.drawn, x.span, x.thaw) for x in stretches(phases, epochs)]


def test_one_phase_has_all_epochs():
    assert table([Phase()], 50) == [(0, 50, 0, 50, 0)]
    assert table([Phase(frozen=0.3)], 50) == [(0, 50, 0, 50, 15)]
    assert table([Phase(frozen=1.0)], 50) == [(0, 50, 0, 50, 50)]


def test_three_phases_share_75_epochs_and_10():
    fresh = [Phase(frozen=0.4)] * 3
    assert table(fresh, 75) == [(0, 25, 0, 25, 10), (25, 25, 25, 25, 35), (50, 25, 50, 25, 60)]
    # 10 are 3, 3 and 4; frozen for 1.2, 1.2 and 1.6 of them, rounded
    assert table(fresh, 10) == [(0, 3, 0, 3, 1), (3, 3, 3, 3, 4), (6, 4, 6, 4, 8)]
    assert table(fresh, 3) == [(0, 1, 0, 1, 0), (1, 1, 1, 1, 1), (2, 1, 2, 1, 2)]


def test_phases_that_carry_train_the_weights_of_one_before():
    """Two, then three of one draw; the fourth and fifth begin and end what is drawn at 20."""
    chain = [
        Phase(),
        Phase(carries=True, frozen=0.5),
        Phase(),
        Phase(carries=True),
        Phase(carries=True, frozen=0.2),
    ]
    assert table(chain, 50) == [
        (0, 10, 0, 20, 0),
        (10, 10, 0, 20, 15),
        (20, 10, 20, 30, 20),
        (30, 10, 20, 30, 30),
        (40, 10, 20, 30, 42),
    ]
    drnas = DrNas().phases(DrNas().fit(DARTS))
    assert table(drnas, 50) == [(0, 25, 0, 50, 10), (25, 25, 0, 50, 35)]


@pytest.mark.parametrize("epochs", range(3, 40))
def test_stretches_cover_the_epochs_without_a_gap(epochs):
    found = stretches([Phase(frozen=0.4)] * 3, epochs)
    assert [x.start for x in found] == [0, *(x.start + x.epochs for x in found[:-1])]
    assert found[-1].start + found[-1].epochs == epochs
    lengths = [x.epochs for x in found]
    assert max(lengths) - min(lengths) <= 1
    assert all(x.start <= x.thaw <= x.start + x.epochs for x in found)


def test_fewer_epochs_than_phases_are_refused(tmp_path):
    with pytest.raises(ValueError, match="epochs = 2: the search has 3 phases"):
        stretches([Phase()] * 3, 2)
    with pytest.raises(ValueError, match="epochs = 2: the search has 3 phases"):
        search_run(run_toml(**{**PDARTS, "epochs": 2}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# What is left of the operations -----------------------------------------------------------------


def test_the_strongest_operations_stay_in_their_order():
    alphas = {"normal": torch.tensor([[0.1, 0.9, 0.3, 0.5], [2.0, -1.0, -3.0, -2.0]])}
    kept, columns = strongest({"normal": [[0, 1, 2, 3]] * 2}, alphas, 2)
    assert kept == columns == {"normal": [[1, 3], [0, 1]]}


def test_columns_count_in_the_whole_space_however_often_it_is_narrowed():
    kept, columns = {"normal": [[1, 3, 4, 7], [0, 2, 5, 6]]}, None
    alphas = {"normal": torch.tensor([[0.0, 3.0, 1.0, 2.0], [3.0, 1.0, 0.0, 2.0]])}
    kept, columns = strongest(kept, alphas, 3)
    assert columns == {"normal": [[1, 2, 3], [0, 1, 3]]}
    assert kept == {"normal": [[3, 4, 7], [0, 2, 6]]}
    kept, columns = strongest(kept, narrowed(alphas, columns), 1)
    assert columns == {"normal": [[0], [0]]}
    assert kept == {"normal": [[3], [0]]}
    names = DARTS.operations["normal"][0]
    whole = {"normal": kept["normal"] * 7, "reduce": [[5]] * 14}
    left = DARTS.narrowed(whole).operations
    assert left["normal"] == ((names[3],), (names[0],)) * 7
    assert left["reduce"] == ((names[5],),) * 14


def test_everything_is_kept_at_first():
    assert everything(S3) == {"normal": [[0, 1, 2]] * 14, "reduce": [[0, 1, 2]] * 14}
    assert S3.narrowed(everything(S3)) == S3


def test_narrowed_takes_columns_where_there_are_any():
    a, b = torch.arange(8.0).view(2, 4), torch.arange(6.0).view(2, 3)
    betas = [torch.zeros(1), torch.ones(2)]
    tree = {"normal": a, "reduce": b, "normal betas": betas}
    found = narrowed(tree, {"normal": [[1, 3], [0, 2]]})
    assert found["normal"].tolist() == [[1.0, 3.0], [4.0, 6.0]]
    assert found["reduce"] is b
    assert found["normal betas"] is betas
    assert tree["normal"] is a


def test_placed_changes_one_place_of_a_copy():
    tree = {"W": [{"a": 1}, {"a": 2, "b": 3}], "S": {"a": 4}}
    found = placed(tree, ("W", 1, "b"), 30)
    assert found == {"W": [{"a": 1}, {"a": 2, "b": 30}], "S": {"a": 4}}
    assert tree["W"][1]["b"] == 3
    assert found["W"][0] is tree["W"][0]
    assert placed(tree, (), 5) == 5


# Phases of a run --------------------------------------------------------------------------------


def rows_of(path):
    """Return the rows of a run's epochs."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == "epoch"]


def operations_of(row, learner):
    """Return the operations of every edge of a learner; a row writes equal ones once."""
    return {
        group: [edges] * 14 if isinstance(edges[0], str) else edges
        for group, edges in row["operations"][learner].items()
    }


@pytest.fixture(scope="module")
def progressive(tmp_path_factory):
    """P-DARTS with two learners, a step a phase; not to be written to."""
    path = tmp_path_factory.mktemp("phases") / "run"
    search_run(run_toml("sgl", limit_batches=1, **PDARTS), path)
    return path


def test_each_learner_keeps_its_own_strongest_operations(progressive):
    rows = rows_of(progressive)
    assert [row["phase"] for row in rows] == [0, 1, 2]
    for before, after, count in ((rows[0], rows[1], 5), (rows[1], rows[2], 3)):
        for learner in range(2):
            left = operations_of(after, learner)
            for group, edges in operations_of(before, learner).items():
                mixes = before["mix"][learner][group]
                for names, mix, kept in zip(edges, mixes, left[group], strict=True):
                    assert list(kept) == [name for name in names if name in kept]
                    # figures are rounded to six digits: of equal ones either may stay
                    chosen = sorted(mix[names.index(name)] for name in kept)
                    assert chosen == sorted(mix)[-count:]
    assert operations_of(rows[1], 0) != operations_of(rows[1], 1)


def test_the_found_cells_have_only_operations_of_the_last_phase(progressive):
    found = json.loads((progressive / "genotype.json").read_text())
    left = operations_of(rows_of(progressive)[2], found["about"]["learner"])
    for group, cell in found["cells"].items():
        first = 0
        for node, pairs in enumerate(cell["nodes"]):
            assert all(name in left[group][first + source] for name, source in pairs)
            first += node + 2


KILLS = [
    pytest.param("single", PDARTS, 0.0, [3], id="pdarts"),
    pytest.param("sgl", PDARTS, 0.0, [3, 1], id="pdarts-sgl", marks=pytest.mark.slow),
    pytest.param("sgl", PDARTS, 1e6, [3], id="pdarts-sgl-seldom-saved", marks=pytest.mark.slow),
    pytest.param("single", DRNAS, 0.0, [5], id="drnas"),
    pytest.param("sgl", DRNAS, 0.0, [5, 2], id="drnas-sgl", marks=pytest.mark.slow),
]
"""Method, settings, minutes between checkpoints, and the steps after which each process dies.

Epochs have two steps: the second phase begins after two of them, that of DrNAS after four.
"""


@pytest.mark.parametrize(("method", "settings", "minutes", "steps"), KILLS)
def test_killed_in_the_second_phase_and_resumed_equals_uninterrupted(
    method, settings, minutes, steps, tmp_path, monkeypatch
):
    """In mid-epoch, at its end, or with all of it lost that far."""
    run = run_toml(method, save_every=minutes, **settings)
    search_run(run, tmp_path / "whole")
    for step in steps:
        resume = (tmp_path / "killed").exists()
        with monkeypatch.context() as patch:
            killed_at(patch, step)
            with pytest.raises(KilledError):
                search_run(run, tmp_path / "killed", resume)
        if not resume:
            last = checkpoint.load(tmp_path / "killed")["work"]
            assert (last["phase"], last["step"]) == (1, 0 if minutes else 1)
    search_run(run, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")


# What a phase hands on --------------------------------------------------------------------------


def at_the_second_phase(tmp_path, monkeypatch, method, search=None, **settings):
    """A search at the end of its first phase, as it was, and in its second phase."""
    settings = {**TINY, "epochs": 4, "channels": 12, **settings, "search": search or DrNas()}
    work = work_of(settings, tmp_path, monkeypatch, method)
    while work.epoch < work.stretches[0].epochs - 1 or work.step < work.steps:
        if work.step == work.steps:
            work.end_epoch()
        work.advance()
    was = SimpleNamespace(
        problem=work.problem,
        variables=work.variables,
        velocities=work.velocities,
        moments={
            name: [dict(x.state.get(p, {})) for p in leaves(work.variables[name])]
            for name, x in work.optimisers.items()
        },
        alphas=[work.alphas(learner) for learner in work.problem.learners],
    )
    work.end_epoch()
    return was, work


def assert_grown(new, old, moved, before):
    """What has a weight's place in the new phase has the place of the same weight in the old."""
    assert new.keys() == moved.keys()
    widened = 0
    for name, weight in new.items():
        if weight.shape == old[name].shape and ".nodes." not in name:
            assert torch.equal(weight, old[name])
            assert torch.equal(moved[name], before[name])
            continue
        values, order = old[name].flatten().sort()
        assert (values.diff() > 0).all()  # no two alike, so that each names its place
        index = torch.searchsorted(values, weight.flatten())
        assert torch.equal(values[index], weight.flatten())
        places = order[index]
        assert torch.equal(before[name].flatten()[places], moved[name].flatten())
        widened += weight.numel() > len(places.unique())
    assert widened > 10


@pytest.mark.parametrize("method", METHODS)
def test_weights_and_their_momentum_are_carried_on_alike(method, tmp_path, monkeypatch):
    was, work = at_the_second_phase(tmp_path, monkeypatch, method)
    assert work.clock.phase == 1
    learners = zip(was.problem.learners, work.problem.learners, strict=True)
    for old, learner in learners:
        assert [old.weights, *old.drafts] == [learner.weights, *learner.drafts]
        for path in (learner.weights, *learner.drafts):
            own = {name: p.shape for name, p in learner.net.module.named_parameters()}
            new = pick(work.variables, path)
            assert {name: x.shape for name, x in new.items()} == own
            before = pick(was.velocities, path)
            assert all(x.abs().max() > 0 for name, x in before.items() if "classifier" in name)
            assert_grown(new, pick(was.variables, path), pick(work.velocities, path), before)


@pytest.mark.parametrize("method", METHODS)
def test_alphas_and_their_moments_are_carried_on(method, tmp_path, monkeypatch):
    was, work = at_the_second_phase(tmp_path, monkeypatch, method)
    assert work.optimisers.keys() == {"A"}
    states = iter(was.moments["A"])
    tensors = iter(leaves(work.variables["A"]))
    assert len(was.moments["A"]) == len(leaves(work.variables["A"]))
    for k, learner in enumerate(work.problem.learners):
        for group, alphas in was.alphas[k].items():
            columns = alphas.topk(4).indices.sort().values
            kept = next(tensors)
            assert kept is pick(work.variables, learner.alphas)[group]
            assert torch.equal(kept, alphas.gather(1, columns))
            before, after = next(states), work.optimisers["A"].state[kept]
            assert after["step"] == before["step"] == 2  # the second of two epochs, two steps
            for key in ("exp_avg", "exp_avg_sq"):
                assert before[key].abs().max() > 0
                assert torch.equal(after[key], before[key].gather(1, columns))
            # a space that has these operations
            names = [op for op in DARTS.operations[group][0] if op != "none"]
            expected = tuple(tuple(names[c] for c in row) for row in columns.tolist())
            assert work.space_of(learner).operations[group] == expected
    work.advance()  # Adam goes on counting where the alphas move; they are frozen in this epoch
    work.epoch = 3
    work.advance()
    assert work.optimisers["A"].state[kept]["step"] == 3


def test_the_rate_goes_on_falling_where_weights_are_carried_on(tmp_path, monkeypatch):
    _, work = at_the_second_phase(tmp_path, monkeypatch, Single())
    (level,) = [each for each in work.problem.levels if each.variable == "w"]
    weights = work.settings.weights
    assert work.epoch == 2  # half of the way down the cosine
    assert work.rate(level).lr == pytest.approx((weights.lr + weights.lr_min) / 2)
    work.set_clock()
    assert (work.clock.epoch, work.clock.epochs) == (2, 4)


def test_what_starts_afresh_does_so_in_all(tmp_path, monkeypatch):
    """P-DARTS' second phase has new weights, alphas, momentum, moments and schedules."""
    search = PDarts(deeper=(0, 1))
    was, work = at_the_second_phase(
        tmp_path, monkeypatch, Single(), search, epochs=6, channels=2, cells=3
    )
    assert work.clock.phase == 1
    assert work.velocities == {}
    assert not work.optimisers["A"].state
    stem = "stem.0.0.weight"
    assert work.variables["w"][stem].shape == was.variables["w"][stem].shape
    assert not torch.equal(work.variables["w"][stem], was.variables["w"][stem])
    assert all(x.abs().max() < 0.01 for x in leaves(work.variables["A"]))
    assert [tuple(x.shape) for x in leaves(work.variables["A"])] == [(14, 5)] * 2
    (level,) = [each for each in work.problem.levels if each.variable == "w"]
    assert work.rate(level).lr == work.settings.weights.lr
    work.set_clock()
    assert (work.clock.epoch, work.clock.epochs) == (0, 2)
    for epoch in (2, 3):  # one of two epochs is frozen
        work.epoch = epoch
        assert [each.variable for each in work.levels()] == ["w", "A"][: epoch - 1]


def test_what_is_not_searched_is_carried_on_too(tmp_path, monkeypatch):
    """LBT's student has no operations to lose: its weights and momentum stay as they are."""
    method = LBT(student="DARTS_V1")
    was, work = at_the_second_phase(tmp_path, monkeypatch, method, epochs=2, limit_batches=1)
    for name, x in was.variables["S"].items():
        assert torch.equal(work.variables["S"][name], x)
        assert torch.equal(work.velocities["S"][name], was.velocities["S"][name])


@pytest.mark.slow
def test_alphas_of_a_separate_first_stage_are_carried_on_too(tmp_path, monkeypatch):
    """SGL's B (Eq. 13) weighs the operations of V, which learners keep by their A."""
    method = SGL(first_stage="separate", pretrain=3)  # B moves in the epoch between 2 and 3
    was, work = at_the_second_phase(tmp_path, monkeypatch, method, epochs=8, limit_batches=1)
    before = iter(was.moments["B"])
    for k, alphas in enumerate(was.alphas):
        for group, a in alphas.items():
            columns = a.topk(4).indices.sort().values
            kept, state = work.variables["B"][k][group], next(before)
            assert torch.equal(kept, was.variables["B"][k][group].gather(1, columns))
            assert state["exp_avg"].abs().max() > 0
            moved = work.optimisers["B"].state[kept]["exp_avg"]
            assert torch.equal(moved, state["exp_avg"].gather(1, columns))
