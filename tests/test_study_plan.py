"""The file of a study: which configurations it has, and what is refused."""

import tomllib
from pathlib import Path

import pytest

from tutelage.config import Run
from tutelage.parts import from_table, make_part
from tutelage.searches.needs import fit
from tutelage.study.jobs import prepare
from tutelage.study.plan import listed, placed, with_baseline
from tutelage.study.reading import read_study, study_of

ROOT = Path(__file__).parent.parent


def plan(text):
    return study_of(tomllib.loads(text))


def names(text):
    return list(plan(f"[study]\nseeds = [1]\n{text}").configurations)


def test_configurations_override_the_base():
    study = plan("""
        [study]
        seeds = [3, 1]
        baseline = "plain"
        [base]
        recipe = "digits-study"
        epochs = 2
        method.learners = 3
        [configurations.plain]
        method.name = "single"
        [configurations.taught]
        epochs = 4
        then = []
    """)
    assert study.head.seeds == (3, 1)
    plain, taught = (each.search() for each in study.configurations.values())
    assert plain["method"] == {"name": "single"}  # the settings of another method are not its own
    assert (plain["epochs"], plain["weights"]["lr"]) == (2, 0.1)
    assert (taught["epochs"], taught["method"]) == (4, {"name": "sgl", "learners": 3})
    assert [each.then for each in study.configurations.values()] == [("retrain",), ()]


def test_a_grid_names_its_configurations():
    grid = '[grid]\nmethod.name = ["sgl", "lbt"]\nalphas.lr = [0.001, 1e-2]\n'
    product = ["method=sgl,lr=0.001", "method=sgl,lr=0.01", "method=lbt,lr=0.001"]
    assert names(grid) == [*product, "method=lbt,lr=0.01"]
    assert names(grid + "[configurations.a]\n")[0] == "a,method=sgl,lr=0.001"
    assert names("[grid]\nweights.lr = [0.1]\nalphas.lr = [0.1]\n") == [
        "weights.lr=0.1,alphas.lr=0.1"
    ]
    assert names(
        '[configurations.a]\n[configurations.b]\n[configurations.b.grid]\nvia = ["exact"]'
    ) == [
        "a",
        "b,via=exact",
    ]
    assert names("") == ["run"]


def test_rows_of_papers_run_with_what_their_table_says():
    study = plan("""
        [study]
        seeds = [1]
        rows = ["pamkd/table-2"]
        [base]
        epochs = 3
        retrain.epochs = 7
    """)
    assert len(study.configurations) > 10
    for name, each in study.configurations.items():
        assert name.startswith("pamkd/table-2/")
        assert each.search()["row"] == name
        assert each.search()["epochs"] == 3
        assert each.then == ("retrain",)
        assert each.retraining() == {"retrain": {"epochs": 7}}


def test_a_row_replaces_the_recipe_of_the_base():
    row = next(iter(plan('[study]\nseeds=[1]\nrows=["sgl/table-2"]').configurations))
    (each,) = plan(
        f'[study]\nseeds=[1]\n[base]\nrecipe="digits-demo"\n[configurations.a]\nrow="{row}"'
    ).configurations.values()
    assert (each.row, each.search()["row"]) == (row, row)
    assert each.search()["data"]["name"].startswith("cifar")


def test_what_is_written_is_read_as_the_same_study(tmp_path):
    study = plan("""
        [study]
        about = "A question?"
        seeds = [1, 2]
        then = ["query"]
        table = "table.bin"
        baseline = "pamkd/table-2/c10/s3/okddip"
        rows = ["pamkd/table-2/c10/s3/okddip"]
        [base]
        recipe = "digits-study"
        [configurations.a]
        then = []
        [configurations.a.grid]
        epochs = [5]
    """)
    (tmp_path / "study.toml").write_text(study.as_toml())
    again = read_study(tmp_path)
    assert again.configurations == study.configurations
    assert again.head.seeds == study.head.seeds and again.head.table == study.head.table
    assert again.as_toml() == study.as_toml()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no seeds"),
        ("[study]\nseeds = []", "no seeds"),
        ("[study]\nseeds = [1, 1]", "different"),
        ("[study]\nseeds = [-1]", "from 0 on"),
        ("[study]\nseeds = 3", "must be numbers"),
        ("[study]\nseeds = [1]\nseed = 2", "did you mean seeds"),
        ("[study]\nseeds = [1]\n[base]\nseed = 3", r"seed = 3: .* give \[study\] seeds"),
        ("[study]\nseeds = [1]\n[base]\nretrain.seed = 3", r"give \[study\] seeds"),
        ("[study]\nseeds = [1]\n[configurations.a]\nseed = 3", r"give \[study\] seeds"),
        ("[study]\nseeds = [1]\n[configurations.a.grid]\nseed = [3, 4]", r"give \[study\] seeds"),
        ("[study]\nseeds = [1]\n[grid]\nretrain.seed = [3]", r"give \[study\] seeds"),
        ('[study]\nseeds = [1]\nthen = ["test"]', "must be one of retrain, query"),
        ('[study]\nseeds = [1]\nbaseline = "rum"', "did you mean run"),
        ('[study]\nseeds = [1]\nrows = ["sgl/table-99"]', "table-99"),
        ("[study]\nseeds = [1]\n[bases]\n", "did you mean base"),
        ("[study]\nseeds = [1]\n[base]\nepoch = 1", "did you mean epochs"),
        ("[study]\nseeds = [1]\n[base]\nepochs = 0", "configuration run: epochs = 0"),
        ("[study]\nseeds = [1]\n[base]\nretrain.epochs = 0", "epochs = 0"),
        ("[study]\nseeds = [1]\n[base]\ndata.crop = -1", "crop = -1"),
        ("[study]\nseeds = [1]\n[grid]\nepochs = 1", "must be a list"),
        ("[study]\nseeds = [1]\n[grid]\nepochs = []", "must be a list"),
        ("[study]\nseeds = [1]\n[grid]\nepochs = [1, 1]", "two configurations"),
        ('[study]\nseeds = [1]\n[configurations."../a"]', "consists of letters"),
        ('[study]\nseeds = [1]\n[configurations."seed-1"]', "not that of another file"),
        ('[study]\nseeds = [1]\n[configurations."study.toml"]', "not that of another file"),
        ("[study]\nseeds = [1]\n[configurations]\na = 1", r"must be a table \[configurations.a\]"),
        ("study = 3", r"must be a table \[study\]"),
        (
            '[study]\nseeds = [1]\n[base]\nrecipe = "digits-demo"\nrow = "sgl/table-2/a"',
            "give one of them",
        ),
        ('[study]\nseeds = [1]\n[base]\nrecipe = "digits-damo"', "did you mean digits-demo"),
    ],
)
def test_mistakes_are_named(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        plan(text)


def test_the_seed_of_a_recipe_is_no_mistake_also_in_a_folder(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("seed = 7\nretrain.seed = 7\n")
    study = plan(f'[study]\nseeds = [1]\n[base]\nrecipe = "{recipe}"')
    (tmp_path / "study.toml").write_text(study.as_toml())
    assert read_study(tmp_path).configurations == study.configurations


def test_files_that_are_no_study(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_study(tmp_path)
    (tmp_path / "study.toml").write_text("[study")
    with pytest.raises(ValueError, match="is not TOML"):
        read_study(tmp_path)
    (tmp_path / "study.toml").write_text("")
    with pytest.raises(ValueError, match=r"study.toml: \[study\] has no seeds"):
        read_study(tmp_path)


def test_the_listing_has_what_differs():
    text = listed(plan('[study]\nseeds=[1,2]\n[base]\nepochs=9\n[grid]\nmethod.name=["sgl","lbt"]'))
    assert text.splitlines()[0] == "4 runs: 2 configurations, seeds [1, 2]"
    assert "  method=sgl: method.name = sgl; then retrain" in text
    assert "epochs" not in text


def test_another_baseline():
    study = plan("[study]\nseeds=[1]\n[configurations.a]\n[configurations.b]")
    assert with_baseline(study, None) is study
    assert with_baseline(study, "b").head.baseline == "b"
    with pytest.raises(ValueError, match="must be one of a, b"):
        with_baseline(study, "zzz")


def test_places_of_this_machine():
    study = plan('[study]\nseeds=[1]\nthen=["query"]\n[base]\ndata.name="cifar10"')
    with pytest.raises(ValueError, match="run queries a table: give --table FILE"):
        placed(study, None, None)
    found = placed(study, Path("data"), Path("t.bin"))
    assert found.head.table == Path("t.bin")
    settings = found.configurations["run"].search()
    assert settings["data"] == {"name": "cifar10", "root": "data"}
    assert settings["table"] == "t.bin"
    assert placed(found, None, None) == found


def test_images_given_by_a_path_that_is_there_have_no_other_place(tmp_path):
    configurations = f'[configurations.a]\ndata.name="{tmp_path}"\n[configurations.b]'
    study = plan(f'[study]\nseeds=[1]\n[base]\ndata.name="cifar10"\n{configurations}')
    found = placed(study, Path("data"), None).configurations
    assert found["a"].search()["data"] == {"name": str(tmp_path)}
    assert found["b"].search()["data"]["root"] == "data"
    moved = plan('[study]\nseeds=[1]\n[base]\ndata.name="a/b"')
    assert (
        placed(moved, Path("data"), None).configurations["run"].search()["data"]["root"] == "data"
    )


@pytest.mark.parametrize("base", ['recipe = "digits-study"', 'row = "sgl/table-2/darts1/sgl"'])
def test_runs_that_have_begun_get_the_places_too(base, tmp_path):
    study = plan(f'[study]\nseeds=[1]\nthen=["retrain"]\n[base]\n{base}')
    (job,) = prepare(study, tmp_path)
    job.run.mkdir()
    (job.run / "run.toml").write_text('data.root = "/gone"')
    assert job.step().words == ("search", "--resume", str(job.run))
    (job,) = prepare(placed(study, Path("mine"), Path("t.bin")), tmp_path)
    places = ("--data-root", "mine", "--table", "t.bin")
    assert job.step().words == ("search", "--resume", str(job.run), *places)
    (job.run / "genotype.json").write_text("{}")
    assert job.step().words[-4:] == ("--seed", "1", "--data-root", "mine")


def test_the_example_of_the_docs_has_the_names_that_they_say():
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    example = text.partition("```toml\n")[2].partition("```")[0]
    assert list(plan(example).configurations) == ["alone", "taught,learners=2", "taught,learners=3"]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.toml")), ids=lambda p: p.stem)
def test_the_studies_of_the_repository_are_read(path, monkeypatch):
    monkeypatch.syspath_prepend(path.parent)  # one has a method of its own there
    study = read_study(path)
    assert study.head.baseline in study.configurations
    assert study.head.about and len(study.head.seeds) > 2
    for each in study.configurations.values():
        settings = from_table(Run, each.search(), each.name)
        search, space = (make_part(kind, getattr(settings, kind)) for kind in ("search", "space"))
        make_part("method", settings.method)
        fit(search, space)
