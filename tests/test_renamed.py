"""Names of 0.1: each still works for one release, and says what it is called now."""

import json
import sys
from dataclasses import dataclass, replace

import pytest
import torch

import tutelage
from tutelage.parts import make_part
from tutelage.recipes import read_recipe
from tutelage.renamed import FLAGS, SETTINGS, lifted_flags, lifted_settings
from tutelage.run.job.directory import RunDirectory
from tutelage.searches.darts import Darts
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.chain import NASBENCH_MACRO
from tutelage.spaces.genotype import Genotype

OLD = """
form = "imagenet"
epochs = 3

[retrain]
form = "imagenet"

[space]
name = "nasbench-macro"
stem = 8

[method]
name = "lbt"
teacher_exam = false
"""
NEW = {
    "stem": "imagenet",
    "epochs": 3,
    "retrain": {"stem": "imagenet"},
    "space": {"name": "nasbench-macro", "stem_channels": 8},
    "method": {"name": "lbt", "validate_teacher": False},
}


def test_a_run_of_0_1_is_read_in_silence(tmp_path, capsys):
    (tmp_path / "run.toml").write_text(OLD)
    assert RunDirectory.open(tmp_path).settings() == NEW
    assert capsys.readouterr() == ("", "")
    assert lifted_settings(NEW) == NEW


def test_a_recipe_of_0_1_is_read_with_a_warning(tmp_path, capsys):
    (tmp_path / "own.toml").write_text(OLD)
    assert read_recipe(str(tmp_path / "own.toml"))[0] == NEW
    told = capsys.readouterr().err
    for names in ("form is now stem", "retrain.form is now retrain.stem"):
        assert f"warning: {names}; " in told
    assert "space.stem is now space.stem_channels" in told
    assert "method.teacher_exam is now method.validate_teacher" in told


def test_settings_of_a_users_own_part_stay():
    own = {"space": {"name": "mine:Space", "stem": 3}, "method": {"name": "a:B", "teacher_exam": 1}}
    assert lifted_settings(own) == own


@pytest.mark.parametrize("before", FLAGS)
def test_an_old_flag_is_taken_and_named(before, capsys):
    now = FLAGS[before]
    assert lifted_flags(["search", f"--{before}", "1"]) == ["search", f"--{now}", "1"]
    assert lifted_flags([f"--{before}=1", "--seed", "2"]) == [f"--{now}=1", "--seed", "2"]
    assert capsys.readouterr().err.count(f"warning: --{before} is now --{now}; ") == 2
    assert lifted_flags([]) == []
    known = {before.removeprefix("no-")}
    assert lifted_flags([f"--{before}", "1"], known) == [f"--{before}", "1"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("tokens", [["--stem", "8"], ["--stem=8"]])
def test_channels_of_a_stem_have_a_flag_of_their_own(tokens, capsys):
    now = [tokens[0].replace("--stem", "--stem-channels"), *tokens[1:]]
    assert lifted_flags(tokens, {"stem", "stem-channels"}) == now
    assert "warning: --stem is now --stem-channels; " in capsys.readouterr().err
    assert lifted_flags(tokens, {"stem"}) == tokens  # no chain
    assert lifted_flags(["--stem", "cifar"], {"stem", "stem-channels"}) == ["--stem", "cifar"]
    assert capsys.readouterr().err == ""


OWN = """
from dataclasses import dataclass
from tutelage.methods.single import Single

@dataclass(frozen=True)
class Own(Single):
    taught_weight: float = 1.0
    \"\"\"A setting that is named as one of 0.1.\"\"\"
"""


def test_a_part_of_ones_own_keeps_its_flags_and_the_run_has_the_old_ones(
    tmp_path, monkeypatch, tutelage
):
    (tmp_path / "own_part.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.toml").write_text('form = "cifar"\n[method]\nname = "own_part:Own"\n')
    small = "--space nasbench201 --quick --dry-run --taught-weight 2"
    code, _, err = tutelage(f"search --recipe {tmp_path / 'own.toml'} {small}")
    assert code == 0 and err.count("form is now stem") == 1 and "taught" not in err
    code, _, err = tutelage(f"search --method own_part:Own --form cifar {small}")
    assert code == 0 and err.count("--form is now --stem") == 1


def test_the_command_line_takes_an_old_flag(tutelage):
    code, out, err = tutelage("describe DARTS_V2 --form imagenet --channels 4 --cells 3")
    assert code == 0 and "darts, imagenet stem" in out
    assert "--form is now --stem" in err


def test_old_names_in_python_work_and_warn():
    with pytest.warns(DeprecationWarning, match=r"Size\(form=\.\.\.\) is now stem"):
        assert Size(form="imagenet") == Size(stem="imagenet")
    with pytest.warns(DeprecationWarning, match=r"Chain\(stem=\.\.\.\) is now stem_channels"):
        assert replace(NASBENCH_MACRO, stem=4).stem_channels == 4
    with pytest.warns(DeprecationWarning, match=r"LBT\(teacher_exam=\.\.\.\)"):
        assert not tutelage.LBT(teacher_exam=False).validate_teacher
    for value, before, now in (
        (Size(), "form", "stem"),
        (NASBENCH_MACRO, "stem", "stem_channels"),
        (tutelage.LBT(), "teacher_exam", "validate_teacher"),
    ):
        with pytest.warns(DeprecationWarning, match=rf"\.{before} is now {now}"):
            assert getattr(value, before) == getattr(value, now)
    for module, before, now in (
        (tutelage.spaces.base, "Mix", "ArchWeights"),
        (tutelage.spaces.paths, "genes", "encode"),
        (tutelage.problem, "Part", "tutelage.batch.Batch"),
        (tutelage.problem, "Taught", "tutelage.extras.Answers"),
    ):
        home, _, own = now.rpartition(".")
        with pytest.warns(DeprecationWarning, match=f"{before} is now {now}"):
            assert getattr(module, before) is getattr(sys.modules.get(home, module), own)
    with pytest.raises(AttributeError, match="has no attribute 'Mixture'"):
        tutelage.spaces.base.Mixture  # noqa: B018


def test_the_warning_about_a_setting_of_search_names_the_line_of_the_script(tmp_path):
    with (
        pytest.warns(DeprecationWarning, match="form is now stem") as told,
        pytest.raises(ValueError, match="epochs"),
    ):
        tutelage.search(out=tmp_path / "run", form="cifar", epochs=-1)
    assert [each.filename for each in told] == [__file__]


def test_scores_of_a_result_by_their_old_name(tmp_path):
    from tutelage.run.search import Found

    found = Found(None, tmp_path, 0, [{"valid_loss": 1.0}], Size())
    with pytest.warns(DeprecationWarning, match=r"Found\.marks is now scores"):
        assert found.marks is found.scores


@dataclass(frozen=True)
class Old:
    """A search as a user wrote it for 0.1."""

    kind = "relaxes"
    needs, alphas = Darts.needs, Darts.alphas
    expected, derive = Darts.expected, Darts.derive

    def mix(self, alphas, clock):
        return ArchWeights({name: a.softmax(-1) for name, a in alphas.items()})


def test_a_users_search_of_0_1_works_and_warns():
    with pytest.warns(FutureWarning) as told:
        search = make_part("search", {"name": f"{__name__}:Old"})
    said = [str(each.message).partition(";")[0] for each in told]
    assert said == ["Old.mix is now relax", "kind = 'relaxes' of Old is now 'relaxed'"]
    assert search.kind == "relaxed"
    found = search.relax({"cell": torch.zeros(6, 5)}, None)
    assert found.operations["cell"].allclose(torch.tensor(0.2))
    make_part("search", {"name": f"{__name__}:Old"})  # once is enough: warnings are errors here


def test_a_genotype_of_0_1_keeps_its_layout():
    now = Genotype.of_chain("nasbench-macro", ["identity"] * 8, NASBENCH_MACRO.layout)
    data = now.to_dict()
    layout = dict(data["layout"])
    names = {"stem_channels": "stem"}
    before = {**data, "layout": {names.get(name, name): x for name, x in layout.items()}}
    assert Genotype.from_dict(before) == now
    texts = [json.dumps(each) for each in (before, data)]
    assert lifted_settings({"genotype": texts[0]}) == {"genotype": texts[1]}
    assert lifted_settings({"genotype": texts[:1]}) == {"genotype": texts[1:]}


def test_every_new_name_is_a_setting():
    from tutelage.parts import init_fields

    known = {f.name for each in (tutelage.LBT, tutelage.EnNAS) for f in init_fields(each)}
    assert set(SETTINGS["method",].values()) <= known
    assert set(SETTINGS["space",].values()) <= {f.name for f in init_fields(NASBENCH_MACRO)}


@dataclass(frozen=True)
class Heir(Darts):
    """A search of 0.1 that changes one of the package."""

    def mix(self, alphas, clock):
        return ArchWeights({name: torch.zeros_like(a) for name, a in alphas.items()})


def test_what_a_users_search_of_0_1_overrides_stays_overridden():
    with pytest.warns(FutureWarning, match=r"Heir\.mix is now relax"):
        search = make_part("search", {"name": f"{__name__}:Heir"})
    assert not search.relax({"cell": torch.ones(6, 5)}, None).operations["cell"].any()
