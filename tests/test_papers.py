"""The papers as data: every row can be read, built at its full size, and run."""

import json
import runpy
import sys
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from binding import problems
from teachers import FakeTimm
from tutelage.cli import main
from tutelage.commands.search import _evaluation, search_base
from tutelage.config import Data, Retrain, Run
from tutelage.papers import Row, every_row, paper_names, read_paper, read_table, row_named
from tutelage.parts import from_table, make_part
from tutelage.quick import quick_look
from tutelage.recipes import composed, layered, recipe_names, shared
from tutelage.report.papers.ledger import judged, ledger, rounding
from tutelage.report.papers.measured import as_json, measured, read_known
from tutelage.report.runs.tables import Statistic
from tutelage.run.cost.count import describe
from tutelage.run.job.settings import plain
from tutelage.run.search import search_run
from tutelage.searches.needs import fit, size_of
from tutelage.searches.random import Random
from tutelage.spaces.base import Size
from tutelage.spaces.published import resolve
from written_runs import write_retraining, write_search

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000, "imagenet16-120": 120}
ROWS = {row.name: row for row in every_row()}
RUNNING = {name: row for name, row in ROWS.items() if row.parts}


def settings_of(row: Row) -> Run:
    return from_table(Run, row.search(), row.name)


def retraining_of(row: Row) -> tuple[Retrain, Data]:
    table = layered(row.search(), row.retraining())
    return from_table(Retrain, table.get("retrain", {}), "retrain"), from_table(
        Data, table.get("data", {}), "data"
    )


def final_size(row: Row) -> Size:
    retrain, data = retraining_of(row)
    sizes = make_part("space", settings_of(row).space).sizes
    channels, cells = retrain.channels or sizes.final_channels, retrain.cells or sizes.final_cells
    return Size(channels, cells, CLASSES[data.name], stem=retrain.stem)


def test_the_papers_of_the_five_systems_are_here():
    assert set(paper_names()) == {"ennas", "lbt", "pamkd", "sd-darts", "sgl"}


def test_every_table_has_rows_and_every_row_runs_or_says_why_not():
    for name in paper_names():
        paper = read_paper(name)
        assert paper.title and paper.cited and paper.protocol
        for table in paper.each():
            assert table.title and table.rows, table.name
            for row in table.each():
                assert bool(row.parts) != bool(row.missing), row.name
                assert all(1 <= len(value) <= 2 for value in row.values.values()), row.name


@pytest.mark.parametrize("name", RUNNING)
def test_the_settings_of_a_row_resolve(name):
    row = ROWS[name]
    assert row_named(name) == row
    settings = settings_of(row)
    assert settings.row == name
    search, space = (make_part(kind, getattr(settings, kind)) for kind in ("search", "space"))
    make_part("method", settings.method)
    fit(search, space)
    retraining_of(row)


@cache
def supernet_builds(search: str, space: str, size: tuple) -> bool:
    """Build a supernet at its full size without memory, in every phase."""
    own = make_part("search", json.loads(search))
    fitted = fit(own, make_part("space", json.loads(space)))
    channels, cells = size_of(own, fitted)
    given, classes, stem = size
    with torch.device("meta"):
        full = Size(given[0] or channels, given[1] or cells, classes, stem=stem)
        net = fitted.supernet(full)
    assert sum(p.numel() for p in net.parameters()) > 0
    return True


@pytest.mark.parametrize("name", RUNNING)
def test_a_rows_networks_build_at_full_size(name):
    row = ROWS[name]
    settings, size = settings_of(row), final_size(row)
    classes = CLASSES[settings.data.name]
    given = (settings.channels, settings.cells), classes, settings.stem
    assert supernet_builds(json.dumps(settings.search), json.dumps(settings.space), given)
    space = make_part("space", settings.space)
    assert network_builds(json.dumps(settings.space), size), space


def problems_to_make():
    """Name the first row of every method, search and space with their settings and epochs."""
    first = {}
    for name, row in RUNNING.items():
        settings = settings_of(row)
        parts = settings.method, settings.search, settings.space, settings.epochs
        first.setdefault(json.dumps([*parts, settings.channels, settings.stem]), name)
    return list(first.values())


@pytest.mark.parametrize("name", problems_to_make())
def test_a_rows_problem_is_made_for_its_epochs(name, monkeypatch):
    """A method refuses epochs that leave none for a stage of it."""
    monkeypatch.setitem(sys.modules, "timm", FakeTimm("tf_efficientnet_b7", widths=(1,) * 7))
    assert list(problems(settings_of(ROWS[name])))


@cache
def network_builds(space: str, size: Size) -> bool:
    part = make_part("space", json.loads(space))
    torch.manual_seed(0)
    genotype = Random().derive(part, Random().alphas(part))
    return describe(genotype, size).params > 0


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.genotype])
def test_published_networks_have_the_printed_parameters(name):
    row = ROWS[name]
    (printed,) = row.values["params"]
    counted = describe(resolve(row.genotype), final_size(row)).params / 1e6
    assert round(counted, 1) == printed


def rows_to_run() -> list[Any]:
    """List all rows that run: the first of each table for the slow run, and if its kind is new.

    A kind is a method, a search and a space with their settings. The exhaustive run has all rows.
    """
    kinds, tables, found = set(), set(), []
    for name, row in RUNNING.items():
        settings = settings_of(row)
        kind = json.dumps([settings.method, settings.search, settings.space, settings.via])
        table = "/".join(name.split("/")[:2])
        first = kind not in kinds and table not in tables
        kinds.add(kind)
        if first:
            tables.add(table)
        marks = [pytest.mark.slow] if first else [pytest.mark.slow, pytest.mark.exhaustive]
        found.append(pytest.param(name, marks=marks))
    return found


@pytest.mark.parametrize("name", rows_to_run())
def test_a_search_of_every_row_runs(name, tmp_path):
    given = {"data": {"name": "digits"}, "stem": "cifar"}
    table = search_base(None, None, name) | given
    found = search_run(from_table(Run, quick_look(table, given), name), tmp_path / "run")
    assert found.genotype.space == make_part("space", table["space"]).name


# The command line --------------------------------------------------------------------------------

ROW = "sgl/table-2/darts1/sgl"


def told(words):
    """Run a command that ends well."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code


def test_a_row_runs_by_its_name(tmp_path, capsys):
    out = tmp_path / "run"
    digits = ["--data", "digits", "--unlabelled", "train"]
    told(["search", "--row", ROW, *digits, "--quick", "--seed", "3", "--out", str(out)])
    settings = tomllib.loads((out / "run.toml").read_text())
    assert settings["row"] == ROW and settings["method"]["name"] == "sgl"
    assert measured([tmp_path]) == []  # no figure yet
    told(["retrain", str(out)])
    capsys.readouterr()
    (one,) = measured([tmp_path])
    assert one.row == ROW and 0 <= one.runs["3"]["error"] <= 100
    assert one.seeds == [3] and any(change.startswith("epochs = 2 (50)") for change in one.changed)
    told(["papers", "sgl", "table-2", "--runs", str(tmp_path)])
    text = capsys.readouterr().out
    assert "18.54 ± 0.21" in text and "settings differ" in text


def test_a_rows_retraining_has_its_own_data(tmp_path, capsys):
    """As with rows that retrain on ImageNet what a search on CIFAR found."""
    out = tmp_path / "run"
    name = "sgl/table-4/darts1-c10/sgl"
    digits = ["--data", "digits", "--unlabelled", "train"]
    told(["search", "--row", name, *digits, "--quick", "--out", str(out)])
    with pytest.raises(SystemExit):
        main(["retrain", str(out)])
    assert "needs its images" in capsys.readouterr().err


def test_a_rows_retraining_leaves_what_the_search_was_given():
    """Flags and a quick look at search time outlast the row's own settings of the retraining."""
    row = row_named("sd-darts/table-3/darts2")
    own = layered(row.search(), {"retrain": {"epochs": 3, "channels": 4}})
    asked = _evaluation(row, own)["retrain"]
    assert {"epochs", "channels"} & asked.keys() == set()
    assert "warm_up" not in asked and asked["cells"] == 14 and asked["stem"] == "imagenet"
    assert _evaluation(row, row.search()) == row.retraining()


@pytest.mark.parametrize(
    "given, message",
    [
        (["search", "--row", "sgl/table-2/darts1/sgk", "--dry-run"], "did you mean darts1/sgl"),
        (["search", "--row", "sgl/table-22/x", "--dry-run"], "did you mean table-2"),
        (["search", "--row", "sgl", "--dry-run"], "must be PAPER/TABLE/ROW"),
        (["search", "--row", "sgl/table-2/enas", "--dry-run"], "cannot run: not a search of"),
        (["search", "--row", ROW, "--recipe", "digits-demo", "--dry-run"], "give one of them"),
        (["papers", "slg"], "did you mean sgl"),
        (["papers", "--cost"], "--cost needs a paper, a table or a row"),
        (["papers", "sgl", "table-2", "--runs", "/nowhere"], "no such directory"),
    ],
)
def test_mistakes_are_told_in_a_sentence(given, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code and message in capsys.readouterr().err


def test_every_paper_table_and_row_is_printed(capsys):
    told(["papers"])
    text = capsys.readouterr().out
    assert all(f"{name}: {read_paper(name).title}" in text for name in paper_names())
    for name in paper_names():
        told(["papers", name])
        assert read_paper(name).title in capsys.readouterr().out
        for table in read_paper(name).each():
            told(["papers", *table.name.split("/")])
            text = capsys.readouterr().out
            assert all(
                f"\n{row.name.removeprefix(table.name + '/')}" in text for row in table.each()
            )


def test_a_row_says_what_runs_it(capsys):
    told(["papers", ROW])
    text = capsys.readouterr().out
    assert f"tutelage search --row {ROW} --seed 1 --out RUN" in text
    assert tomllib.loads(text[text.index("via =") :]) == {
        key: value for key, value in ROWS[ROW].search().items() if key != "row"
    }


def test_the_cost_of_a_row_without_its_images_is_a_sentence(capsys, tmp_path):
    told(["papers", ROW, "--cost", "--data-root", str(tmp_path)])
    assert "not measured:" in capsys.readouterr().out


# The ledger --------------------------------------------------------------------------------------


def test_the_ledger_in_the_docs_is_the_one_that_the_papers_give():
    page = Path(__file__).parents[1] / "docs" / "ledger.md"
    known = read_known(page.with_suffix(".json"))
    assert page.read_text(encoding="utf-8") == ledger(known)
    assert page.with_suffix(".json").read_text() == as_json(known)


def test_every_line_of_the_ledger_has_a_verdict_and_a_reason():
    lines = [line for line in ledger([]).splitlines() if line.startswith("| ")]
    rows = [line for line in lines if not line.startswith("| row")]
    assert len(rows) == len(ROWS)
    assert all(len(line.split("not run: ")[1].strip(" |")) > 8 for line in rows)


@pytest.mark.parametrize(
    "values, reduced, expected",
    [
        ((2.40, 2.44, 2.41), False, "reproduced"),
        ((3.40, 3.44, 3.41), False, "not reproduced"),
        ((2.40,), False, "not told apart"),
        ((2.40, 2.44, 2.41), True, "not told apart"),
    ],
)
def test_verdicts(values, reduced, expected):
    assert judged(Statistic(values), (2.41, 0.06), 10, reduced) == expected
    assert judged(Statistic(values), (2.41,), 10, reduced) == "not told apart"


def searched_and_retrained(folder, row, **data):
    """The files of a row's search and retraining at their full size; what is filled in, is."""
    settings = ROWS[row].search()
    retrain, images = retraining_of(ROWS[row])
    sizes = make_part("space", settings_of(ROWS[row]).space).sizes
    write_search(folder, seed=1, epochs=1)
    (folder / "run.toml").write_text(tomli_w.dumps({**settings, "seed": 1}))
    write_retraining(folder / "retrain", seed=1, epochs=1)
    size = {"channels": retrain.channels or sizes.final_channels, "cutout": 16}
    size |= {"cells": retrain.cells or sizes.final_cells, "seed": 1}
    size["auxiliary"] = sizes.auxiliary if retrain.auxiliary is None else retrain.auxiliary
    if retrain.cutout is not None:
        size["cutout"] = retrain.cutout
    stored = {
        "genotype": "{}",
        "data": plain(replace(images, root=Path("/mine"), cutout=size["cutout"])) | data,
        "retrain": plain(retrain) | size,
    }
    (folder / "retrain" / "run.toml").write_text(tomli_w.dumps(stored))


@pytest.mark.parametrize("row", [ROW, "sgl/table-4/darts1-c10/sgl"])
@pytest.mark.parametrize("data", [{}, {"name": "digits"}, {"held_out": 5000}])
def test_a_retraining_on_other_images_is_no_full_size(row, data, tmp_path):
    searched_and_retrained(tmp_path / "run", row, **data)
    (one,) = measured([tmp_path])
    assert one.figure("error").values == pytest.approx((2.65,))
    assert [each.partition(" (")[0] for each in one.changed] == [
        f"retrain.data.{name} = {value}" for name, value in data.items()
    ]


QUERIED = "pamkd/table-4/c10/drnas/nes"


def queried(folder, members):
    """A search of a row whose table is queried afterwards, which keeps an ensemble."""
    settings = layered(ROWS[QUERIED].search(), {"seed": 1, "method": {"members": members}})
    write_search(folder, seed=1, epochs=1)
    (folder / "run.toml").write_text(tomli_w.dumps(settings))
    kept = [{"learner": k, "genotype": {}} for k in range(members)]
    (folder / "ensemble.json").write_text(json.dumps({"members": kept}))
    (folder / "query.json").write_text('{"accuracy": {"cifar10_test_200": 93.5}}')


def test_a_table_that_is_queried_after_the_search_is_in_the_ledger(tmp_path):
    queried(tmp_path / "run", 1)  # an ensemble of one network is that network
    (one,) = measured([tmp_path])
    assert one.figure("c10_test").values == (93.5,) and one.changed == ()
    assert "| 93.50 (n = 1) | 1: 1 | full |" in ledger([one])


def test_an_ensemble_without_a_figure_says_why(tmp_path):
    queried(tmp_path / "run", 2)
    (one,) = measured([tmp_path])
    assert one.runs == {"1": {}} and one.changed == ("method.members = 2 (1)",)
    (line,) = [x for x in ledger([one]).splitlines() if "method.members = 2 (1)" in x]
    assert "| – | 1: 1 |" in line and "single networks" in line and "no machine" not in line


@pytest.mark.parametrize(
    "measured, value, expected",
    [
        ((54.2966,) * 3, (54.30, 0.0), "reproduced"),
        ((54.35,) * 3, (54.30, 0.0), "not reproduced"),
        ((54.306, 54.307, 54.308), (54.30, 0.0), "reproduced"),  # 0.0 may be nearly 0.005
        ((2.4101, 2.4102, 2.4103), (2.41, 0.06), "reproduced"),
    ],
)
def test_printed_figures_are_rounded(measured, value, expected):
    assert judged(Statistic(measured), value, 3, False) == expected


def test_the_rounding_of_a_table_is_that_of_all_its_figures():
    table = read_table("pamkd", "table-4")
    assert rounding(table, "c10_test") == 0.005
    ends = {row.values["c10_test"][0] for row in table.each() if "c10_test" in row.values}
    assert 54.3 in ends  # printed as 54.30


def test_neighbours_are_the_nearest_by_cosine():
    path = Path(__file__).parents[1] / "benchmarks" / "neighbours.py"
    found = runpy.run_path(str(path))["neighbours"]
    torch.manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(30, 5))
    for i, nearest in enumerate(found(z).tolist()):
        others = [j for j in range(30) if j != i]
        assert nearest == sorted(others, key=lambda j: -float(z[i] @ z[j]))[:4]


# Parts -------------------------------------------------------------------------------------------


def test_parts_are_merged_in_order_and_unknown_ones_are_refused():
    found = composed(["darts1-cifar10", "held-out-5000"])
    assert found["data"] == {"name": "cifar10", "held_out": 5000} and "about" not in found
    with pytest.raises(ValueError, match="did you mean held-out-5000"):
        composed(["held-out-500"])


def test_no_shared_piece_has_the_name_of_a_recipe_and_each_is_used():
    used = {part for row in ROWS.values() for part in (*row.parts, *row.evaluate)}
    assert not set(shared()) & set(recipe_names())
    assert set(shared()) <= used
