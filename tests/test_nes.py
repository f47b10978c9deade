"""NES: the selection by hand, and what a search keeps."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from ensembles import GENOTYPES, TOGETHER, pool
from test_search import TINY, KilledError, killed_at, same_runs, work_of
from tutelage.methods.nes import NES
from tutelage.run.job.directory import RunDirectory
from tutelage.run.networks import ensemble
from tutelage.run.networks.ensemble import Ensemble, forward_selection, scores
from tutelage.run.search import search_run
from tutelage.run.strategies.validation import validate
from tutelage.trees import leaves
from written_runs import read_rows

# Selection --------------------------------------------------------------------------------------


def loss_of(probabilities, y, members):
    """Cross-entropy of the mean probability of the right class, image by image."""
    total = 0.0
    for n, label in enumerate(y.tolist()):
        mean = sum(probabilities[k][n][label].item() for k in members) / len(members)
        total -= math.log(mean)
    return total / len(y)


def by_loops(probabilities, y, members):
    chosen = []
    for _ in range(members):
        rest = [k for k in range(len(probabilities)) if k not in chosen]
        losses = [loss_of(probabilities, y, [*chosen, k]) for k in rest]
        chosen.append(rest[losses.index(min(losses))])
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_forward_selection_is_that_of_plain_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(7, 11, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (11,), generator=generator)
    p = logits.softmax(2)
    for members in (1, 3, 7):
        chosen = forward_selection(p, y, members)
        assert chosen == by_loops(p, y, members)
        assert len(set(chosen)) == members
        found = scores(p[chosen], y)
        assert found["valid_loss"] == pytest.approx(loss_of(p, y, chosen), rel=1e-12)
        right = sum(int(p[chosen, n].sum(0).argmax()) == y[n] for n in range(11))
        assert found["valid_accuracy"] == pytest.approx(float(right) / 11)


def test_a_learner_that_complements_is_taken_before_a_better_one():
    """0 is best and 1 nearly so, with the same mistake; 2 is worse, but right where they err."""
    own = torch.tensor([[0.9, 0.9, 0.1], [0.9, 0.9, 0.09], [0.3, 0.3, 0.6]])
    p = torch.stack([own, 1 - own], 2).double()
    y = torch.zeros(3, dtype=torch.long)
    alone = [loss_of(p, y, [k]) for k in range(3)]
    assert alone == sorted(alone)
    assert forward_selection(p, y, 2) == [0, 2]


def test_a_probability_of_zero_is_the_worst_and_nobody_is_taken_twice():
    own = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.2, 0.2]], dtype=torch.float64)
    p = torch.stack([own, 1 - own], 2)
    assert forward_selection(p, torch.zeros(2, dtype=torch.long), 3) == [2, 0, 1]


@pytest.mark.parametrize("members", [0, 4])
def test_no_more_members_than_learners(members):
    with pytest.raises(ValueError, match=f"members = {members} of 3 learners: "):
        forward_selection(torch.full((3, 2, 2), 0.5), torch.tensor([0, 1]), members)


# The method and its search ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"members": 6}, "members = 6 with learners = 5: an ensemble has at most"),
        ({"members": 0}, "members = 0: must be a number of at least 1"),
        ({"learners": 0}, "learners = 0"),
        ({"order": "both"}, "order = 'both'"),
    ],
)
def test_wrong_settings_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        NES(**settings)


def rows_of(path):
    return read_rows(path)


def test_a_search_keeps_the_ensemble_that_its_learners_answers_select(tmp_path, monkeypatch):
    import tutelage.run.strategies.relaxed as module

    seen = []

    def recorded(view):
        seen.append(validate(view))
        return seen[-1]

    monkeypatch.setattr(module, "validate", recorded)
    found = search_run(pool(epochs=1), tmp_path / "run")
    p, y = torch.cat(seen[0].probabilities, 1), seen[0].y
    assert p.shape == (3, 8, 10)
    for k, each in enumerate(found.scores):
        assert loss_of(p, y, [k]) == pytest.approx(each["valid_loss"], rel=1e-5)
    chosen = by_loops(p, y, 2)
    written = json.loads((tmp_path / "run" / ensemble.FILE).read_text())
    assert [each["learner"] for each in written["members"]] == chosen
    assert written["valid_loss"] == pytest.approx(loss_of(p, y, chosen), rel=1e-12)
    end = rows_of(tmp_path / "run")[-1]
    assert end["ensemble"] == {
        "members": chosen,
        "valid_loss": written["valid_loss"],
        "valid_accuracy": written["valid_accuracy"],
    }
    assert end["kept"] == found.learner == chosen[0]


def test_every_member_is_what_was_derived_and_the_first_is_genotype_json(searched_pool):
    last = [row for row in rows_of(searched_pool.path) if row["event"] == "epoch"][-1]
    written = json.loads((searched_pool.path / ensemble.FILE).read_text())
    for each in written["members"]:
        assert each["genotype"] == last["genotype"][each["learner"]]
    single = json.loads((searched_pool.path / "genotype.json").read_text())
    assert single["about"]["learner"] == written["members"][0]["learner"]
    assert single["cells"] == written["members"][0]["genotype"]["cells"]


def test_a_search_says_what_it_keeps(tutelage):
    line = "search --method nes --learners 2 --members 2 --channels 2 --cells 3 --batch-size 4"
    more = "--limit-batches 1 --epochs 1 --via first-order --device cpu --out run"
    code, out, _ = tutelage(f"{line} {more}")
    assert code == 0
    assert any(f"ensemble of learners {one}, {1 - one}: validation loss " in out for one in (0, 1))
    assert "Found: run/ensemble.json; train its members with: tutelage retrain run" in out


@pytest.mark.slow
def test_killed_and_resumed_selects_the_same(searched_pool, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, 3)
        search_run(pool(save_every=0.0), tmp_path / "killed")
    assert not (tmp_path / "killed" / ensemble.FILE).exists()
    search_run(pool(save_every=0.0), tmp_path / "killed", resume=True)
    same_runs(searched_pool.path, tmp_path / "killed")
    one, two = (path / ensemble.FILE for path in (searched_pool.path, tmp_path / "killed"))
    assert one.read_bytes() == two.read_bytes()


def test_a_search_killed_while_it_keeps_goes_on(tmp_path, monkeypatch):
    """A run without genotype.json has not ended, so the ensemble's file comes before it."""
    write = RunDirectory.write_text

    def dying(self, name, text):
        if name == "genotype.json":
            raise KilledError
        write(self, name, text)

    settings, path = pool(epochs=1, limit_batches=1), tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(RunDirectory, "write_text", dying)
        search_run(settings, path)
    rows, before = rows_of(path), (path / ensemble.FILE).read_bytes()
    found = search_run(settings, path, resume=True)
    assert (rows_of(path), (path / ensemble.FILE).read_bytes()) == (rows, before)
    assert (path / "genotype.json").exists()
    assert list(found.ensemble.learners) == rows[-1]["ensemble"]["members"]


@pytest.mark.slow
def test_learners_know_nothing_of_each_other(tmp_path):
    """The first learner of a pool is the lone learner that its weights and alphas make."""
    before, after = [], {}
    for learners in (1, 3):
        method = NES(learners=learners, members=1)
        with pytest.MonkeyPatch.context() as patch:
            work = work_of({**TINY, "via": "exact"}, tmp_path / str(learners), patch, method)
        first = [x for name in ("W", "A") for x in leaves(work.phase.variables[name][0])]
        before = before or [x.clone() for x in first]
        for x, lone in zip(first, before, strict=True):
            x.copy_(lone)
        work.advance()
        work.advance()
        after[learners] = [x for name in ("W", "A") for x in leaves(work.phase.variables[name][0])]
    for one, three, x in zip(after[1], after[3], before, strict=True):
        assert torch.equal(one, three)
        assert not torch.equal(one, x)


def test_an_early_stop_keeps_the_members_of_its_epoch(tmp_path, monkeypatch):
    """The supernets of the end select; what is derived is the epoch's that the stop keeps."""
    import tutelage.run.search as module

    def stopping(work, directory, **options):
        earlier = [genotype.to_dict() for genotype in GENOTYPES]
        work.strategy.diagnostics.history = [[{"genotype": each} for each in earlier]]
        work.strategy.diagnostics.stopped = {"reason": "as asked", "epoch": 0}
        work.epoch = work.epochs = 2
        directory.begin_session(0, 0)

    monkeypatch.setattr(module, "run", stopping)
    found = search_run(pool(), tmp_path / "run")
    stored = Ensemble.read(tmp_path / "run" / ensemble.FILE)
    assert stored.genotypes == tuple(GENOTYPES[k] for k in stored.learners)
    assert found.genotype == GENOTYPES[stored.learners[0]]
    assert json.loads((tmp_path / "run" / "genotype.json").read_text())["about"]["epoch"] == 1


def test_where_nothing_trains_the_first_learners_are_the_members(tmp_path, capsys):
    settings = replace(pool(), search={"name": "random"})
    found = search_run(settings, tmp_path / "run")
    assert "ensemble of learners 0, 1, the first: nothing was trained" in capsys.readouterr().out
    assert rows_of(tmp_path / "run")[-1]["ensemble"] == {"members": [0, 1]}
    assert found.ensemble == Ensemble.read(tmp_path / "run" / ensemble.FILE)
    assert len({genotype.to_json() for genotype in found.ensemble.genotypes}) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: "{", "is damaged: "),
        (lambda data: "[]", 'is no ensemble: its "format" must be'),
        (lambda data: data | {"version": 2}, "has version 2 and this release reads 1"),
        (lambda data: data | {"members": []}, "is damaged: it has no members"),
        (lambda data: data | {"members": [{"learner": 0}]}, "is damaged: "),
        (lambda data: data | {"members": [{"learner": 0, "genotype": {}}]}, "damaged: not a geno"),
        (lambda data: data | {"valid_loss": "low"}, "is damaged: "),
    ],
)
def test_a_damaged_file_is_one_sentence(change, sentence, tmp_path):
    path = tmp_path / ensemble.FILE
    path.write_text(TOGETHER.to_json())
    assert Ensemble.read(path) == TOGETHER
    changed = change(json.loads(TOGETHER.to_json()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(ValueError, match=sentence) as caught:
        Ensemble.read(path)
    assert "\n" not in str(caught.value)
