"""Phases: where they lie among the epochs, what they leave, and kills in their midst."""

from __future__ import annotations

import json

import pytest
import torch

from test_search import KilledError, killed_at, run_toml, same_runs
from tutelage.run.job import checkpoint
from tutelage.run.search import search_run
from tutelage.run.supernet.setup import stretches
from tutelage.run.supernet.transition import narrowed, placed
from tutelage.searches.base import Phase
from tutelage.searches.drnas import DrNas
from tutelage.searches.needs import fit
from tutelage.spaces.cells import DARTS, S3
from tutelage.spaces.narrowing import everything, strongest
from written_runs import read_rows

PDARTS = {"search": {"name": "pdarts", "deeper": (0, 1)}, "epochs": 3}
DRNAS = {"search": {"name": "drnas"}, "channels": 12, "epochs": 4}


# Stretches --------------------------------------------------------------------------------------


def table(phases, epochs):
    return [(x.start, x.epochs, x.initialised, x.span, x.thaw) for x in stretches(phases, epochs)]


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
    drnas = DrNas().needs(fit(DrNas(), DARTS)).phases
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
    rows = read_rows(path)
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
                archs = before["arch_weights"][learner][group]
                for names, arch, kept in zip(edges, archs, left[group], strict=True):
                    assert list(kept) == [name for name in names if name in kept]
                    # figures are rounded to six digits: of equal ones either may stay
                    chosen = sorted(arch[names.index(name)] for name in kept)
                    assert chosen == sorted(arch)[-count:]
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
    pytest.param("sgl", PDARTS, 0.0, [3, 1], id="pdarts-sgl"),
    pytest.param("sgl", PDARTS, 1e6, [3], id="pdarts-sgl-seldom-saved"),
    pytest.param("single", DRNAS, 0.0, [5], id="drnas"),
    pytest.param("sgl", DRNAS, 0.0, [5, 2], id="drnas-sgl"),
]
"""Method, settings, minutes between checkpoints, and the steps after which each process dies.

Epochs have two steps: the second phase begins after two of them, that of DrNAS after four.
"""


@pytest.mark.slow
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
