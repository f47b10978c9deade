"""run.toml: every setting written, and the same run read back."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
import tomli_w

from test_parts import TRIPLES
from tutelage.config import Data, Retrain, Run, Weights
from tutelage.parts import (
    PARTS,
    from_table,
    init_fields,
    make_part,
    part_named,
    part_settings,
)
from tutelage.run.job.settings import plain


@pytest.mark.parametrize("triple", TRIPLES, ids=" ".join)
def test_run_toml_holds_every_setting_and_gives_the_same_run(triple):
    tables = {
        kind: part_settings(kind, make_part(kind, {"name": name}))
        for kind, name in zip(PARTS, triple, strict=True)
    }
    settings = replace(Run(), **tables, data=Data("folder", Path("images"), crop=2), epochs=7)
    stored = tomllib.loads(tomli_w.dumps(plain(settings)))
    for kind, name in zip(PARTS, triple, strict=True):
        own = {f.name for f in init_fields(part_named(kind, name))}
        part = make_part(kind, {"name": name})
        unset = {field for field in own if getattr(part, field) is None}  # TOML has no null
        assert set(stored[kind]) == {"name"} | own - unset
        assert part_settings(kind, make_part(kind, stored[kind])) == tables[kind]
    assert from_table(Run, stored, "a run") == settings


def changed(value):
    """Another value of the same type as a setting's."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 + 0.125
    if isinstance(value, int):
        return value - 1 if value > 1 else value + 1
    return value


@pytest.mark.parametrize("of", [Run, Data, Weights, Retrain])
def test_reading_back_keeps_every_value_that_is_not_the_default(of):
    default = of(name="folder", root=Path("x"), crop=1, flip=True) if of is Data else of()
    values = {f.name: changed(getattr(default, f.name)) for f in fields(of)}
    if of is Run:
        values |= {"table": Path("a.json"), "ranked": 2}  # a ranking needs both
    if of is Data:
        values |= {"unlabelled": "rest", "sample": 0.25}  # what is left out has 0.625
    if of is Retrain:
        values |= {"schedule": "linear"}  # the one that has a tail
    settings = of(**values)
    assert from_table(of, tomllib.loads(tomli_w.dumps(plain(settings))), "it") == settings


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"epoch": 3}, r"unknown setting 'epoch' of a run: did you mean epochs\?"),
        ({"epochs": 3.5}, "epochs = 3.5: must be a whole number"),
        ({"epochs": True}, "epochs = True: must be a whole number"),
        ({"save_every": "5"}, "save_every = '5': must be a number"),
        ({"save_every": float("inf")}, "save_every = inf: must be a finite number"),
        ({"via": "exakt"}, r"via = 'exakt': did you mean exact\?"),
        ({"limit_batches": "all"}, "limit_batches = 'all': must be a whole number"),
        ({"data": {"root": 3}}, "data: root = 3: must be a path"),
        ({"data": {"download": 1}}, "data: download = 1: must be true or false"),
        ({"alphas": {"lr": -1}}, r"alphas: lr = -1.0: must be .*above 0"),
        ({"method": "sgl"}, "method = 'sgl': must be a table"),
        ({"weights": "sgd"}, "weights = 'sgd': must be a table"),
    ],
)
def test_a_bad_value_is_refused_by_name(table, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        from_table(Run, table, "a run")
    assert "\n" not in str(caught.value)


def test_whole_numbers_widen_and_nothing_narrows():
    settings = from_table(Run, {"save_every": 5, "data": {"root": "here"}}, "a run")
    assert type(settings.save_every) is float
    assert settings.data.root == Path("here")
