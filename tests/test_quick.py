"""A quick look: what it makes small, what it leaves, and what it says and records of that."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest
import torch

import tutelage as library
from tutelage.commands.search import search_base
from tutelage.config import Evolution, Run
from tutelage.parts import PARTS, from_table, make_part
from tutelage.quick import quick_look, stated
from tutelage.recipes import layered, read_recipe, recipe_names
from tutelage.run.networks.teacher import untrained
from tutelage.spaces.base import Size
from tutelage.spaces.chain import NASBENCH_MACRO
from tutelage.spaces.genotype import Genotype

COMBINATIONS = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "combinations.py"))


def look(*parts, **given):
    """The settings of a quick look at a method, a search and a space, and what was given."""
    table = {kind: {"name": name} for kind, name in zip(PARTS, parts, strict=True)}
    given = layered(table, given)
    return quick_look(given, given)


# What it makes small ----------------------------------------------------------------------------


def test_every_size_is_small_and_what_changed_is_told():
    table = look("single", "darts", "darts")
    message = table.pop("quick")
    assert table == {
        "method": {"name": "single"},
        "search": {"name": "darts"},
        "space": {"name": "darts"},
        **{"epochs": 2, "batch_size": 16, "limit_batches": 1, "channels": 4, "cells": 3},
        "retrain": {
            **{"epochs": 2, "batch_size": 16, "limit_batches": 1, "channels": 4, "cells": 3}
        },
    }
    assert message["epochs"] == "50 -> 2" and message["cells"] == "8 -> 3"
    assert message["limit_batches"] == "not set -> 1"
    assert message["retrain.channels"] == "36 -> 4"
    assert len(message) == 10


def test_a_search_that_samples_evolves_little_and_one_that_draws_has_no_epochs_to_shrink():
    sampled = look("single", "single-path", "nasbench201")
    assert sampled["evolution"] == {
        **{"population": 4, "generations": 2, "parents": 2, "images": 32, "judged": 32}
    }
    drawn = look("single", "random", "nasbench201")
    assert "epochs" not in drawn and "evolution" not in drawn
    assert (drawn["cells"], drawn["retrain"]["cells"]) == (1, 1)


@pytest.mark.parametrize(
    ("search", "given", "channels", "epochs"),
    [
        ("pcdarts", {}, 4, 2),
        ("pcdarts", {"partial": 3}, 6, 2),
        ("drnas", {}, 12, 4),
        ("drnas", {"progressive": False}, 4, 2),
        ("pdarts", {}, 4, 6),
    ],
)
def test_channels_divide_into_shares_and_every_phase_has_two_epochs(
    search, given, channels, epochs
):
    table = look("single", search, "darts", search=given)
    assert (table["channels"], table["epochs"]) == (channels, epochs)


def test_long_chains_lose_layers_and_those_of_a_benchmark_none():
    assert look("single", "darts", "ennas-s3")["space"]["depths"] == [1] * 6
    for space in ("nasbench-macro", "resnet"):
        assert "depths" not in look("single", "darts", space)["space"]


def test_parts_say_what_else_is_small():
    ensemble = look("nes", "pdarts", "darts")
    assert ensemble["method"] == {"name": "nes", "learners": 3, "members": 2}
    assert ensemble["search"] == {"name": "pdarts", "deeper": [1, 2]}
    assert look("ennas", "diverse-paths", "s2")["method"]["students"] == 2
    assert look("dna", "single-path", "dna")["method"]["teacher"] == "untrained"


# What it leaves ---------------------------------------------------------------------------------


def test_what_is_given_stays_and_is_not_told_of():
    given = {
        "epochs": 7,
        "channels": 8,
        "method": {"students": 3},
        "space": {"depths": [2, 1, 1, 1, 1, 1]},
        "evolution": {"population": 90},
    }
    table = look("ennas", "single-path", "ennas-s1", **given)
    assert (table["epochs"], table["channels"], table["method"]["students"]) == (7, 8, 3)
    assert table["space"]["depths"] == [2, 1, 1, 1, 1, 1]
    assert table["evolution"]["population"] == 90 and table["evolution"]["generations"] == 2
    told = {"epochs", "channels", "method.students", "space.depths", "evolution.population"}
    assert not told & set(table["quick"])


def test_numbers_are_only_lowered():
    given = {"name": "pdarts", "deeper": [0, 5]}
    table = quick_look({"method": {"name": "nes", "learners": 2, "members": 1}, "search": given,
                        "space": {"name": "darts"}, "epochs": 3, "batch_size": 4}, {})  # fmt: skip
    assert table["method"] == {"name": "nes", "learners": 2, "members": 1}
    assert table["search"]["deeper"] == [0, 2]
    assert (table["epochs"], table["batch_size"]) == (3, 4)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_quick_look(name):
    base = search_base(name, None)
    settings = from_table(Run, quick_look(base, {}), "a search")
    recipe = from_table(Run, read_recipe(name)[0], "a recipe")
    assert settings.epochs <= 6 and settings.limit_batches == settings.retrain.limit_batches == 1
    assert settings.weights == recipe.weights and settings.alphas == recipe.alphas
    assert settings.data == recipe.data and settings.via == recipe.via
    assert settings.retrain.epochs == 2 and settings.retrain.warm_up <= 1
    assert settings.evolution.population <= 50 and settings.quick
    if settings.method["name"] == "dna":
        assert settings.method["teacher"] == "untrained" and not settings.method.get("maps")


def test_of_python_objects_what_is_no_default_counts_as_given():
    method, space = library.EnNAS(temperature=2.0), library.NASBENCH_MACRO
    given = stated(
        {
            "method": {"name": "ennas", **vars(method)},
            "space": {"name": "nasbench-macro", **space.layout},
            "evolution": Evolution(population=9),
            "epochs": 3,
        }
    )
    assert given == {
        "method": {"name": "ennas", "temperature": 2.0},
        "space": {"name": "nasbench-macro"},
        "evolution": {"population": 9},
        "epochs": 3,
    }


# Searches ---------------------------------------------------------------------------------------


def test_it_prints_and_records_what_it_changed(tutelage, here):
    code, out, error = tutelage(
        "search --quick --search random --space nasbench201 --recipe digits-demo --channels 2 "
        "--method single --out run"
    )
    assert (code, error) == (0, "")
    stored = tomllib.loads((here / "run" / "run.toml").read_text())
    line = "quick: " + ", ".join(f"{name} {message}" for name, message in stored["quick"].items())
    assert out.splitlines()[0] == line
    assert stored["channels"] == 2 and "channels" not in stored["quick"]
    assert stored["quick"]["retrain.epochs"].endswith(" -> 2")
    assert stored["retrain"]["epochs"] == 2
    assert tutelage("report run")[0] == 0
    assert "A quick look (--quick)" in (here / "run" / "report.html").read_text()
    code, _, error = tutelage("search --resume run --quick")
    assert code == 1 and error.count("\n") == 1
    assert "--quick with --resume run: a run resumes with its own settings" in error
    assert tutelage("search --resume run")[0] == 0
    code, out, error = tutelage("retrain run")
    assert (code, error) == (0, "") and "test error" in out


def test_a_plain_run_is_no_quick_look(tutelage, here):
    tutelage("search --search random --space nasbench201 --channels 2 --cells 1 --out run")
    assert tomllib.loads((here / "run" / "run.toml").read_text())["quick"] == {}
    assert tutelage("report run")[0] == 0
    assert "A quick look" not in (here / "run" / "report.html").read_text()


def test_the_students_of_ennas_fit_three_operations(tutelage, here):
    line = "search --method ennas --search diverse-paths --space nasbench-macro --out run"
    code, _, error = tutelage(line)
    assert code == 1 and "give --students 3 or fewer" in error and not (here / "run").exists()
    assert tutelage(f"{line} --quick --students 4")[0] == 1  # what is given wins
    code, out, error = tutelage(f"{line} --quick")
    assert (code, error) == (0, "") and "method.students 4 -> 2" in out
    found = Genotype.from_dict(json.loads((here / "run" / "genotype.json").read_text()))
    assert found.space == "nasbench-macro" and len(found.names) == 8


def test_dna_has_a_teacher_that_says_nothing(tutelage, here):
    line = "search --method dna --search single-path --space nasbench-macro --out run"
    code, _, error = tutelage(line)
    assert code == 1 and "give --teacher" in error and "timm:resnet18" in error
    assert "untrained" in error and not (here / "run").exists()
    code, out, error = tutelage(f"{line} --quick")
    assert (code, error) == (0, "") and "method.teacher not set -> untrained" in out
    assert "the teacher is untrained: the architecture that this run finds has no meaning" in out


def test_an_untrained_teacher_has_a_map_a_stage_and_is_the_same_again():
    size, cpu = Size(4, 8, image_channels=1), torch.device("cpu")
    x = torch.randn(3, 1, 8, 8)
    state = torch.get_rng_state()
    maps, again = (untrained(NASBENCH_MACRO, size, cpu)(x) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert [each.shape[1:] for each in maps] == [(8, 4, 4), (16, 2, 2), (32, 1, 1)]
    assert all(torch.equal(one, two) for one, two in zip(maps, again, strict=True))
    assert all(torch.isfinite(each).all() and each.std() > 0 for each in maps)


def test_in_python_what_is_given_wins_too(tmp_path):
    method = library.EnNAS()  # four students, by default
    asked = {"method": method, "search": "diverse-paths", "space": "nasbench-macro"}
    found = library.search(**asked, out=tmp_path, quick=True, epochs=1, batch_size=8)
    settings = tomllib.loads((tmp_path / "run.toml").read_text())
    assert (settings["epochs"], settings["batch_size"]) == (1, 8)
    assert settings["method"]["students"] == 2 and found.genotype.space == "nasbench-macro"
    again = library.search(**asked, out=tmp_path, quick=True, epochs=1, batch_size=8, resume=True)
    assert again.genotype == found.genotype


@pytest.mark.parametrize("data", ["no-such-folder", library.Data(name="no-such-folder")])
def test_in_python_the_images_are_those_that_were_given(data, tmp_path):
    with pytest.raises(ValueError, match="no-such-folder"):
        library.search("single", "random", "darts", data=data, out=tmp_path / "run", quick=True)


def test_where_nothing_is_left_to_change_that_is_said(tutelage, here):
    given = (
        "--batch-size 8 --limit-batches 1 --channels 4 --cells 3 --ranked 0 --retrain.epochs 1 "
        "--retrain.batch-size 8 --retrain.limit-batches 1 --retrain.channels 4 --retrain.cells 3 "
        "--retrain.warm-up 0 --epochs 1"
    )
    code, out, error = tutelage(f"search --quick --search random --space darts {given} --out run")
    assert (code, error) == (0, "")
    assert out.splitlines()[0] == "quick: nothing is left to make small"


def test_settings_of_a_quick_run_make_no_quick_run(tutelage, here):
    tutelage("search --quick --search random --space nasbench201 --out one")
    assert tutelage("search --recipe one/run.toml --channels 8 --out two")[0] == 0
    assert tomllib.loads((here / "two" / "run.toml").read_text())["quick"] == {}


# Every part -------------------------------------------------------------------------------------

SAMPLED = ("ennas", "dna")
LINES = [
    *((m, "single-path" if m in SAMPLED else "darts", "nasbench-macro") for m in PARTS["method"]),
    *(("single", search, "darts") for search in PARTS["search"]),
    *(("single", "single-path", space) for space in PARTS["space"]),
]


@pytest.mark.slow
@pytest.mark.parametrize("parts", LINES, ids=" ".join)
def test_every_part_ends_with_a_genotype(parts, tutelage, here):
    method, search, space = parts
    line = f"search --quick --method {method} --search {search} --space {space} --out run"
    code, _, error = tutelage(line)
    assert (code, error) == (0, "")
    assert COMBINATIONS["wrong"](here / "run", space) == ""
    genotype = Genotype.from_dict(json.loads((here / "run" / "genotype.json").read_text()))
    settings = tomllib.loads((here / "run" / "run.toml").read_text())
    make_part("space", settings["space"]).network(genotype, Size(12, genotype_cells(settings)))


def genotype_cells(settings):
    """Cells of a network; of a chain its layers."""
    return sum(settings["space"].get("depths", ())) or 3


# The benchmark ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "written", "worked", "outcome"),
    [
        (0, "", "nasbench201", 5.0, "ran"),
        (0, "", "nasbench201", 61.0, "too long"),
        (0, "", "darts", 5.0, "crashed"),
        (0, "", "", 5.0, "crashed"),
        (1, "tutelage: it does not fit: use darts\n", "", 5.0, "refused"),
        (1, "tutelage: it does not fit: use darts\n", "nasbench201", 5.0, "crashed"),
        (1, "Traceback\ntutelage: it does not fit\n", "", 5.0, "crashed"),
        (-6, "free(): invalid pointer\n", "", 5.0, "crashed"),
        (70, "ZeroDivisionError\n", "", 5.0, "crashed"),
    ],
)
def test_a_combination_is_told_by_what_it_leaves(code, error, written, worked, outcome, tmp_path):
    folder = tmp_path / "combination"
    folder.mkdir()
    (folder / "stderr").write_text(error)
    if written:
        (folder / "run").mkdir()
        space = make_part("space", {"name": written})
        arch = {group: torch.ones(shape) for group, shape in space.choices.items()}
        found = space.genotype(library.spaces.base.ArchWeights(arch))
        (folder / "run" / "genotype.json").write_text(found.to_json({}))
    combination = COMBINATIONS["Combination"]("single", "darts", "nasbench201")
    child = COMBINATIONS["Child"](combination, folder, 0.0)
    status = -code if code < 0 else code << 8
    usage = type("Usage", (), {"ru_maxrss": 2048, "ru_utime": worked, "ru_stime": 0})
    row = COMBINATIONS["judged"](child, status, usage, 60.0)
    assert row.outcome == outcome and row.code == code and not folder.exists()
    assert bool(row.message) == (outcome in ("refused", "crashed"))


def test_a_sweep_reads_back_what_it_wrote_but_for_half_a_row(tmp_path):
    make, path = COMBINATIONS["Row"], tmp_path / "rows.csv"
    rows = [make("a", "b", "c", "ran", 1.5, 300, 0, ""), make("d", "e", "f", "refused", 0.1, 2, 1,
            "no, not: so")]  # fmt: skip
    COMBINATIONS["write"](path, rows)
    assert COMBINATIONS["read"](path) == rows
    with path.open("a") as file:
        file.write("g,h,i,ran,2.0")
    assert COMBINATIONS["read"](path) == rows
    told = COMBINATIONS["summary"](rows)
    assert re.search(r"^2 combinations: 1 ran, 1 refused, 0 too long, 0 crashed$", told, re.M)
    assert "| `a` | 1 / 0 / 0 / 0 | 0 / 0 / 0 / 0 |" in told
