"""NES: the selection by hand, what a search keeps, and retraining and reporting an ensemble."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import tutelage
from retraining import DIGITS, SMALL, TEST_IMAGES
from test_search import TINY, KilledError, killed_at, same_runs
from tutelage.config import Run
from tutelage.data.read import read
from tutelage.methods.nes import NES
from tutelage.report.page import write_report
from tutelage.report.read import read_run
from tutelage.report.sections import status, tiles
from tutelage.report.tables import as_text, comparison
from tutelage.run import ensemble, retrain, training
from tutelage.run.directory import RunDirectory
from tutelage.run.ensemble import Ensemble, forward_selection, marks
from tutelage.run.network import about, load
from tutelage.run.search import search_run, validate
from tutelage.spaces.published import PUBLISHED
from tutelage.virtual import leaves

POOL = {"name": "nes", "learners": 3, "members": 2}
GENOTYPES = tuple(PUBLISHED[name] for name in ("DARTS_V2", "PDARTS", "DARTS_V1"))
TOGETHER = Ensemble((2, 0, 1), GENOTYPES, {"valid_loss": 0.5, "valid_accuracy": 0.75})
RECIPE = replace(SMALL, epochs=1, limit_batches=2, channels=2)


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
        found = marks(p[chosen], y)
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


def pool(**settings):
    return Run(method=POOL, **{**TINY, **settings})


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search of two epochs; not to be written to."""
    path = tmp_path_factory.mktemp("nes") / "run"
    return search_run(pool(save_every=0.0), path)


def rows_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_search_keeps_the_ensemble_that_its_learners_answers_select(tmp_path, monkeypatch):
    import tutelage.run.search as module

    seen = []

    def recorded(work):
        seen.append(validate(work))
        return seen[-1]

    monkeypatch.setattr(module, "validate", recorded)
    found = search_run(pool(epochs=1), tmp_path / "run")
    p, y = torch.cat(seen[0].probabilities, 1), seen[0].y
    assert p.shape == (3, 8, 10)
    for k, each in enumerate(found.marks):
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


def test_every_member_is_what_was_read_off_and_the_first_is_genotype_json(searched):
    last = [row for row in rows_of(searched.path) if row["event"] == "epoch"][-1]
    written = json.loads((searched.path / ensemble.FILE).read_text())
    for each in written["members"]:
        assert each["genotype"] == last["genotype"][each["learner"]]
    single = json.loads((searched.path / "genotype.json").read_text())
    assert single["about"]["learner"] == written["members"][0]["learner"]
    assert single["cells"] == written["members"][0]["genotype"]["cells"]


def test_a_search_says_what_it_keeps(tutelage):
    line = "search --method nes --learners 2 --members 2 --channels 2 --cells 3 --batch-size 4"
    more = "--limit-batches 1 --epochs 1 --via first-order --device cpu --out run"
    code, out, _ = tutelage(f"{line} {more}")
    assert code == 0
    assert any(f"ensemble of learners {one}, {1 - one}: validation loss " in out for one in (0, 1))
    assert "Found: run/ensemble.json; train its members with: tutelage retrain run" in out


def test_killed_and_resumed_selects_the_same(searched, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, 3)
        search_run(pool(save_every=0.0), tmp_path / "killed")
    assert not (tmp_path / "killed" / ensemble.FILE).exists()
    search_run(pool(save_every=0.0), tmp_path / "killed", resume=True)
    same_runs(searched.path, tmp_path / "killed")
    one, two = (path / ensemble.FILE for path in (searched.path, tmp_path / "killed"))
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


def test_learners_know_nothing_of_each_other(tmp_path):
    """The first learner of a pool is the lone learner that its weights and alphas make."""
    before, after = [], {}
    for learners in (1, 3):
        work = work_of(NES(learners=learners, members=1), tmp_path / str(learners))
        first = [x for name in ("W", "A") for x in leaves(work.variables[name][0])]
        before = before or [x.clone() for x in first]
        for x, lone in zip(first, before, strict=True):
            x.copy_(lone)
        work.advance()
        work.advance()
        after[learners] = [x for name in ("W", "A") for x in leaves(work.variables[name][0])]
    for one, three, x in zip(after[1], after[3], before, strict=True):
        assert torch.equal(one, three)
        assert not torch.equal(one, x)


def work_of(method, path):
    """The state of a search before its first step."""
    import tutelage.run.search as module

    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run", lambda work, *rest, **options: kept.append(work))
        patch.setattr(module, "_keep", lambda *rest: None)
        tutelage.search(method, out=path, **{**TINY, "via": "exact"})
    return kept[0]


def test_an_early_stop_keeps_the_members_of_its_epoch(tmp_path, monkeypatch):
    """The supernets of the end select; what is read off is the epoch's that the stop keeps."""
    import tutelage.run.search as module

    def stopping(work, directory, **options):
        earlier = [genotype.to_dict() for genotype in GENOTYPES]
        work.watching.history = [[{"genotype": each} for each in earlier]]
        work.watching.stopped = {"reason": "as asked", "epoch": 0}
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


# Retraining -------------------------------------------------------------------------------------


def train(out, settings=RECIPE, resume=False):
    return retrain.retrain_ensemble(TOGETHER, DIGITS, settings, out, resume)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An ensemble of three, retrained; not to be written to."""
    out = tmp_path_factory.mktemp("ensemble") / "retrain"
    train(out)
    return out


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_every_member_is_a_retraining_of_its_own_seed(trained, tmp_path):
    for place, genotype in enumerate(GENOTYPES):
        folder = trained / f"member-{place}"
        assert RunDirectory.open(folder).settings()["retrain"]["seed"] == place
        assert result_of(folder)["genotype"] == genotype.to_dict()
    alone = tmp_path / "alone"
    retrain.retrain(GENOTYPES[1], DIGITS, replace(RECIPE, seed=1), alone)
    for name in ("metrics.jsonl", "network.safetensors"):
        assert (alone / name).read_bytes() == (trained / "member-1" / name).read_bytes()


def test_the_result_is_that_of_the_mean_probabilities(trained):
    details = about(trained / "member-0")
    data = read(DIGITS, "test").images
    pixels = data.take(torch.arange(len(data))) / 255
    x = (pixels - torch.tensor(details.mean)) / torch.tensor(details.std)
    with torch.no_grad():
        each = [load(trained / f"member-{k}")(x.float()).double().softmax(1) for k in range(3)]
        mean = sum(each) / 3
        together = load(trained)
        torch.testing.assert_close(
            together(x.float()).double().softmax(1), mean, rtol=1e-4, atol=1e-6
        )
    result = result_of(trained)
    assert result["test_accuracy"] == pytest.approx((mean.argmax(1) == data.labels).double().mean())
    assert result["test_loss"] == pytest.approx(
        float(F.nll_loss(mean.log(), data.labels)), rel=1e-4
    )
    assert result["test_error"] == 1 - result["test_accuracy"]
    assert result["test_images"] == TEST_IMAGES
    members = [result_of(trained / f"member-{k}") for k in range(3)]
    assert result["ensemble"] == [each["test_error"] for each in members]
    for name in ("parameters", "multiply_adds"):
        assert result[name] == sum(each[name] for each in members)
    assert result["parameters"] == sum(x.numel() for x in together.parameters())


def test_a_finished_ensemble_is_not_trained_again(trained, capsys, monkeypatch):
    monkeypatch.setattr(retrain, "read", None)
    assert train(trained, resume=True) == result_of(trained)
    said = f"{trained} is finished: test error of the ensemble of 3 networks"
    assert said in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"other settings: retrain.lr = 0.1 \(was 0.025\)"):
        train(trained, replace(RECIPE, lr=0.1))


def same_ensembles(one, other):
    files = [
        "result.json",
        *(f"member-{k}/{name}" for k in range(3) for name in ("metrics.jsonl", "result.json")),
    ]
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("step", [2, 3])  # between two members, and in mid-epoch
def test_killed_and_resumed_equals_uninterrupted(trained, tmp_path, monkeypatch, step):
    advance, done = training.Training.advance, itertools.count()

    def dying(self):
        if next(done) == step:
            raise KilledError
        advance(self)

    settings = replace(RECIPE, save_every=0.0)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(training.Training, "advance", dying)
        train(tmp_path / "out", settings)
    assert (tmp_path / "out" / "member-0" / "result.json").exists()
    assert not (tmp_path / "out" / "member-1" / "result.json").exists()
    with pytest.raises(ValueError, match=r"member-1 has no network.safetensors"):
        load(tmp_path / "out")
    train(tmp_path / "out", settings, resume=True)
    same_ensembles(trained, tmp_path / "out")


def test_the_test_set_is_read_for_the_ensemble_once_and_last(tmp_path, monkeypatch):
    out, parts = tmp_path / "out", []

    def recorded(settings, part):
        parts.append((part, len(list(out.glob("member-*/result.json")))))
        return read(settings, part)

    monkeypatch.setattr(retrain, "read", recorded)
    train(out, replace(RECIPE, limit_batches=1))
    assert [part for part in parts if part[1] == 3] == [("test", 3)]
    assert [part for part, _ in parts].count("test") == 4  # and each member's own


def test_random_numbers_and_folders_of_others_are_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(tmp_path / "out", replace(RECIPE, limit_batches=1))
    assert torch.equal(torch.rand(3), expected)
    with pytest.raises(ValueError, match="unknown data set 'digit'"):
        retrain.retrain_ensemble(
            TOGETHER, replace(DIGITS, name="digit"), RECIPE, tmp_path / "other"
        )
    assert not (tmp_path / "other").exists()


def test_one_network_is_asked_for_where_one_is_needed(trained):
    with pytest.raises(ValueError, match=r"holds 3 networks, an ensemble: give .*member-0"):
        about(trained)


# The command line and the report ----------------------------------------------------------------

COMMAND = "--epochs 1 --limit-batches 1 --batch-size 32 --channels 2 --cells 3 --log-every 1"


def test_a_run_is_retrained_loaded_and_reported_as_an_ensemble(searched, tutelage, here):
    run = shutil.copytree(searched.path, here / "run")
    code, out, error = tutelage(f"retrain run {COMMAND} --device cpu")
    assert (code, error) == (0, "")
    result = result_of(run / "retrain")
    said = f"test error of the ensemble of 2 networks {100 * result['test_error']:.2f} %"
    assert said in out
    for again in (f"retrain run {COMMAND} --device cpu", "retrain run/retrain"):
        assert f"is finished: {said}" in tutelage(again)[1]
    assert len(load(Path("run")).members) == 2
    code, out, _ = tutelage("report run")
    assert code == 0
    record = read_run(run)
    stored = Ensemble.read(run / ensemble.FILE)
    names = ", ".join(map(str, stored.learners))
    found = {tile.name: tile for tile in tiles(record)}
    own = ", ".join(f"{100 * each:.2f} %" for each in result["ensemble"])
    assert found["test error"].value == f"{100 * result['test_error']:.2f} %"
    assert found["test error"].remark == (
        f"of the ensemble, after 1 epochs of training of each network; by themselves {own}"
    )
    accuracy = found["valid accuracy"]
    assert accuracy.value == f"{100 * stored.marks['valid_accuracy']:.2f} %"
    assert accuracy.remark == f"ensemble of learners {names}"
    page = (run / "report.html").read_text()
    assert f"the first of the ensemble of learners {names}," in page
    assert "No epoch has ended yet." not in page
    assert len(record.retraining.sessions) == 2


def test_a_retraining_on_its_way_and_a_comparison_say_that_it_is_an_ensemble(
    searched, trained, tmp_path
):
    run = shutil.copytree(searched.path, tmp_path / "run")
    shutil.copytree(trained, run / "retrain")
    rows = as_text(comparison([read_run(run), read_run(searched.path)])).splitlines()
    assert "nes × darts × darts × digits, ensemble of 3" in rows[2]
    error = 100 * result_of(trained)["test_error"]
    assert f"{error:.2f} (n = 1)" in rows[2]
    (run / "retrain" / "result.json").unlink()
    (run / "retrain" / "member-2" / "result.json").unlink()
    assert status(read_run(run)).endswith("retraining in progress, 2 of 3 networks.")
    write_report([run / "retrain"], tmp_path / "page.html")
    (run / ensemble.FILE).write_text("{")
    assert any("ensemble.json is damaged" in note for note in read_run(run).search.notes)


def test_the_first_member_trained_alone_is_no_ensemble(searched, trained, tmp_path):
    run = shutil.copytree(searched.path, tmp_path / "run")
    shutil.copytree(trained / "member-0", run / "retrain")
    record = read_run(run)
    found = {tile.name: tile.remark for tile in tiles(record)}
    assert found["test error"] == "after 1 epochs of training"
    assert found["valid accuracy"] == f"learner {record.kept}, kept"
    (row,) = comparison([record])
    assert row.cells()["runs"] == "nes × darts × darts × digits"
