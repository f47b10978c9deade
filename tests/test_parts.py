"""Settings: from dataclasses to flags, from recipes and files to a run, and back."""

from __future__ import annotations

import itertools
import re
import sys
from dataclasses import dataclass, fields

import pytest
import torch

from binding import problems, small
from teachers import FakeTimm
from tutelage import cli
from tutelage.config import Data, Evolution, Machine, Retrain, Run, Weights
from tutelage.flags import flags_of, heading, nested
from tutelage.parts import (
    PARTS,
    field_help,
    init_fields,
    make_part,
    part_named,
    part_settings,
    summary,
)
from tutelage.recipes import layered, read_recipe, recipe_names
from tutelage.run.job.settings import plain
from tutelage.searches.needs import fit
from tutelage.spaces.base import ArchWeights

TRIPLES = [
    *((method, "darts", "darts") for method in PARTS["method"]),
    *itertools.product(["single"], PARTS["search"], PARTS["space"]),
]


@dataclass(frozen=True)
class Clashing:
    """A part whose setting has the name of a run's."""

    epochs: int = 3
    """Not the run's epochs."""

    def __call__(self, make):
        """Make no problem at all."""


@dataclass(frozen=True)
class Own:
    """A part of a user's own."""

    depth: int = 2
    """How deep."""
    wide: bool = True
    """Whether it is wide."""
    inner: float | None = None
    """None or a number."""

    def __call__(self, make):
        """Make no problem at all."""


@pytest.fixture
def searched(monkeypatch):
    """Call `tutelage search`; return the settings that the search would have got."""

    def call(line):
        caught = []

        class CaughtError(ValueError):
            pass

        def catch(settings, out, resume, accept):
            caught.append(settings)
            raise CaughtError

        monkeypatch.setattr("tutelage.run.search.search_run", catch)
        with pytest.raises(SystemExit):
            cli.main(["search", *line.split(), "--out", "nowhere"])
        assert caught, line
        return caught[0]

    return call


# Flags ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("triple", TRIPLES, ids=" ".join)
def test_no_two_flags_share_a_name_and_each_has_help(triple):
    tokens = [x for kind, name in zip(PARTS, triple, strict=True) for x in (f"--{kind}", name)]
    flags = cli.search_flags(tokens)
    names = [flag.name for flag in flags] + ["recipe", "out", "resume", "quick", "help", "version"]
    assert len(names) == len(set(names))
    assert len({flag.path for flag in flags}) == len(flags)
    for flag in flags:
        assert re.match(r"[\dA-Z].*\.$", flag.help), (flag.name, flag.help)
        assert re.fullmatch(r"[a-z0-9.-]+", flag.name)


def test_every_setting_of_a_run_has_exactly_one_flag():
    flags = cli.search_flags(["--method", "sgl"])
    tables = {"method", "search", "space", "data", "weights", "alphas", "evolution", "retrain"}
    assert {flag.path[-1] for flag in flags if len(flag.path) == 1} == {
        f.name for f in fields(Run)
    } - tables - {"quick", "row"}
    sections = {"data": Data, "weights": Weights, "evolution": Evolution, "retrain": Retrain}
    for name, of in sections.items():
        mine = [flag.path[1] for flag in flags if flag.path[0] == name]
        own = [f.name for f in init_fields(of) if f.name != "start"]  # of a retraining, its --from
        assert mine == own
    assert [flag.path[1] for flag in flags if flag.path[0] == "method"] == [
        "name",
        *(f.name for f in init_fields(part_named("method", "sgl"))),
    ]


def test_a_parts_setting_named_as_a_runs_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["search", "--method", f"{__name__}:Clashing", "--out", "x"])
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert "--epochs would be a flag of the run and of method: rename the setting" in error


@pytest.mark.parametrize("name", ["out", "resume", "recipe", "quick", "help"])
def test_a_parts_setting_named_as_the_commands_is_refused(name, monkeypatch):
    monkeypatch.setattr(Own, "__dataclass_fields__", {name: Own.__dataclass_fields__["depth"]})
    monkeypatch.setattr(Own.__dataclass_fields__[name], "name", name)
    monkeypatch.setattr(Own, "__annotations__", {name: "int"})
    with pytest.raises(ValueError, match=f"--{name} would be a flag of the command and of method"):
        cli.search_flags(["--method", f"{__name__}:Own"])


def test_a_part_of_ones_own_has_flags(searched):
    settings = searched(f"--method {__name__}:Own --depth 5 --no-wide --inner 0.5")
    assert settings.method == {"name": f"{__name__}:Own", "depth": 5, "wide": False, "inner": 0.5}
    made = make_part("method", settings.method)
    assert made == Own(5, False, 0.5)
    assert part_settings("method", made) == settings.method


def test_given_values_go_where_their_flags_say():
    flags = flags_of(Weights, path=("weights",), prefix="weights.", group=heading("Weights", 0))
    assert nested(flags, {"weights__lr": 0.5}) == {"weights": {"lr": 0.5}}
    assert nested(flags, {}) == {}


def test_help_is_the_text_under_the_field_on_one_line():
    texts = field_help(Own)
    assert texts == {
        "depth": "How deep.",
        "wide": "Whether it is wide.",
        "inner": "None or a number.",
    }
    assert "\n" not in "".join(field_help(Data).values())


def test_inherited_settings_have_their_help():
    @dataclass(frozen=True)
    class Deeper(Own):
        depth: int = 3
        """Deeper still."""
        last: int = 0
        """What it adds."""

    texts = field_help(Deeper)
    assert texts == field_help(Own) | {"depth": "Deeper still.", "last": "What it adds."}
    for of in (Run, Retrain):
        assert field_help(Machine).items() < field_help(of).items()


def test_listings_show_each_parts_first_line():
    for names in PARTS.values():
        for target in names.values():
            assert re.match(r"\S.{10,90}\.$", summary(target)), target
    lines = [summary(target) for names in PARTS.values() for target in names.values()]
    assert len(set(lines)) == len(lines)
    assert "NAS-Bench-Macro" in summary(PARTS["space"]["nasbench-macro"])
    assert summary(PARTS["method"]["single"]).startswith("No teaching")


# Layers -----------------------------------------------------------------------------------------


def test_flags_lie_over_a_recipe_and_a_recipe_over_the_defaults(searched):
    recipe = read_recipe("sgl-darts-cifar10-release")[0]
    settings = searched("--recipe sgl-darts-cifar10-release --epochs 9 --alphas.clip 2")
    assert settings.epochs == 9
    assert settings.alphas.clip == 2.0
    assert settings.batch_size == recipe["batch_size"] == 50
    assert settings.method == recipe["method"]
    assert settings.weights == Weights()
    settings = searched("--recipe sgl-darts-cifar10-release --peer-weight 0.5")
    assert settings.method == recipe["method"] | {"peer_weight": 0.5}


def test_a_flag_may_give_back_the_default(searched):
    settings = searched("--recipe sgl-darts-cifar10-release --epochs 50 --batch-size 64")
    assert settings.batch_size == 64


def test_a_part_of_another_name_starts_afresh(searched):
    settings = searched("--recipe sgl-darts-cifar10 --method lbt --student DARTS_V1")
    assert settings.method == {"name": "lbt", "student": "DARTS_V1"}
    assert settings.data.unlabelled == "cifar100"
    settings = searched("--recipe sgl-darts-cifar10 --method sgl --learners 3")
    assert settings.method["paths"] == "printed" and settings.method["learners"] == 3


def test_layers():
    low = {"method": {"name": "sgl", "learners": 3}, "weights": {"lr": 1.0, "clip": 2.0}}
    assert layered(low, {"method": {"learners": 4}}, {"weights": {"lr": 3.0}}) == {
        "method": {"name": "sgl", "learners": 4},
        "weights": {"lr": 3.0, "clip": 2.0},
    }
    assert layered(low, {"method": {"name": "lbt"}}, {"method": {"name": "sgl"}})["method"] == {
        "name": "sgl"
    }
    assert low["weights"] == {"lr": 1.0, "clip": 2.0}  # nothing is changed in place
    with pytest.raises(ValueError, match="weights = 3: must be a table"):
        layered(low, {"weights": 3})


# Recipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_is_valid(name, searched):
    recipe, about = read_recipe(name)
    assert about and "\n" not in about and len(about) < 100
    settings = searched(f"--recipe {name}")
    for kind in PARTS:
        make_part(kind, getattr(settings, kind))
    asked = plain(settings)
    for key, value in recipe.items():
        if isinstance(value, dict):
            assert value.items() <= asked[key].items(), key
        else:
            assert asked[key] == value


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_joins_its_parts_in_every_phase(name, searched, monkeypatch):
    """In networks of the recipe's channels with one cell, or one a stage; chains are narrow."""
    monkeypatch.setitem(sys.modules, "timm", FakeTimm("tf_efficientnet_b7", widths=(1,) * 7))
    for problem, sampled in problems(searched(f"--recipe {name}")):
        levels = problem.levels
        assert levels[0 if sampled else -1].optimiser == ("weights" if sampled else "alphas")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_retrains_what_its_space_builds(name, searched):
    settings = searched(f"--recipe {name}")
    space, asked = make_part("space", settings.space), settings.retrain
    size = small(space, 4, asked.stem, cells=3)
    auxiliary = space.sizes.auxiliary if asked.auxiliary is None else asked.auxiliary
    arch = ArchWeights({group: torch.rand(shape) for group, shape in space.choices.items()})
    network = space.network(space.genotype(arch), size, auxiliary=auxiliary > 0)
    side = 64 if asked.stem == "imagenet" else 32
    logits, other = network.train()(torch.zeros(2, 3, side, side))
    assert logits.shape == (2, 10)
    assert (other is not None) == (auxiliary > 0)


def test_recipes_of_the_package_differ():
    texts = {name: repr(read_recipe(name)[0]) for name in recipe_names()}
    assert len(set(texts.values())) == len(texts) >= 40


def test_there_is_a_recipe_for_every_search_and_for_those_of_the_papers():
    """Every relaxed search, on both CIFARs and in NAS-Bench-201 where it works there."""
    names = set(recipe_names())
    for search in PARTS["search"]:
        own = part_named("search", search)()
        stems = {"darts": ["darts1", "darts2"]}.get(search, [search])
        for stem in stems if own.kind == "relaxed" else []:
            for data in ("cifar10", "cifar100"):
                assert f"{stem}-{data}" in names, f"no src/tutelage/recipes/{stem}-{data}.toml"
            try:
                fit(own, make_part("space", {"name": "nasbench201"}))
            except ValueError:
                assert f"{stem}-nasbench201" not in names
            else:
                assert f"{stem}-nasbench201" in names, f"no recipe {stem}-nasbench201.toml"
    for data in ("cifar10", "cifar100"):
        for on in ("darts", "darts-minus", "pdarts", "pcdarts"):
            assert f"sgl-{on}-{data}" in names
        for on in ("darts1", "darts2", "pdarts", "pcdarts"):
            assert f"lbt-{on}-{data}" in names
    ons = ("darts1", "pdarts", "pcdarts", "prdarts", "s1")
    cifar = {f"pamkd-{on}-{data}" for on in ons for data in ("cifar10", "cifar100")}
    pamkd = {name for name in names if name.startswith("pamkd-")}
    assert pamkd == cifar | {"pamkd-drnas-nasbench201"}
    sd_darts = {name for name in names if name.startswith("sd-darts-")}
    assert sd_darts == {"sd-darts-cifar10", "sd-darts-nasbench201"}
    table = {
        f"{row}-{space}-imagenet"
        for row in ("ennas", "ennas-random", "spos", "dna", "cream")
        for space in ("s1", "s2", "s3")
    }
    ablation = {"ennas-mean-s1-imagenet", "ennas-printed-s1-imagenet"}
    macro = {f"{row}-nasbench-macro" for row in ("ennas", "ennas-random", "spos", "cream")}
    searches = {name: read_recipe(name)[0].get("search", {}).get("name") for name in names}
    sampled = {name for name in names if searches[name] in ("single-path", "diverse-paths")}
    assert sampled == table | ablation | macro | {"spos-imagenet", "ennas-digits"}


def test_a_recipe_by_path(tmp_path, searched):
    (tmp_path / "mine.toml").write_text("epochs = 7\n[method]\nname = 'sgl'\n")
    settings = searched(f"--recipe {tmp_path / 'mine.toml'}")
    assert (settings.epochs, settings.method) == (7, {"name": "sgl"})
