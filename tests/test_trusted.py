"""Code that files name is imported only where the user says so."""

from __future__ import annotations

import sys

import pytest

import tutelage
from commands import BRIEF
from pages import forgotten
from tutelage.parts import part_named
from tutelage.run.networks.files import build
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import Cell, Genotype
from tutelage.trusted import VARIABLE, TrustError, is_trusted, modules_of, trust

METHOD = """
from dataclasses import dataclass
from tutelage.methods.single import Single

@dataclass(frozen=True)
class Mine(Single):
    pass
"""


@pytest.fixture(autouse=True)
def _apart():
    with forgotten("foreign_code", "own_method"):
        yield


def foreign(tmp_path):
    """A genotype of others, whose operation writes a file when it is imported."""
    (tmp_path / "foreign_code.py").write_text(
        "import pathlib\npathlib.Path('ran').touch()\nfrom torch import nn\n"
        "def bad(inputs, outputs, stride, style):\n    return nn.Identity()\n"
    )
    table = {"module": "foreign_code:bad"}
    layout = {
        **{"skeleton": "chain", "operations": {"bad": table}, "candidates": ["bad"]},
        **{"widths": [4], "depths": [1], "strides": [1], "stem_channels": 4, "last": 0},
    }
    return Genotype.of_chain("theirs", ["bad"], layout)


def test_a_genotype_of_others_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    genotype = foreign(tmp_path)
    with pytest.raises(TrustError, match=r"space 'theirs': operations\.bad\.module = .* --trust"):
        build(genotype, Size(4, 1))
    assert "foreign_code" not in sys.modules and not (tmp_path / "ran").exists()
    tutelage.trust("foreign_code")
    build(genotype, Size(4, 1))
    assert (tmp_path / "ran").exists()


def test_a_layout_cannot_name_another_space(tmp_path, monkeypatch):
    """Neither as a module nor as a page; the genotype's own name counts."""
    monkeypatch.chdir(tmp_path)
    foreign(tmp_path)
    for name in ("foreign_code:bad", "page.toml"):
        genotype = Genotype.of_chain("shuffle", ["identity"], {"name": name})
        with pytest.raises(ValueError):
            build(genotype, Size(4, 1))
    assert "foreign_code" not in sys.modules


def test_a_run_cannot_name_a_page(here, refused):
    (here / "run").mkdir()
    (here / "run" / "run.toml").write_text('[space]\nname = "run/evil.toml"\n')
    refused("search --resume run", "run: space = 'run/evil.toml' is a page that may name code")


def test_what_is_trusted(monkeypatch):
    assert not is_trusted("os:system")
    trust("my.ops", "other:one")
    assert is_trusted("my.ops:f") and is_trusted("my.ops.deep:f") and is_trusted("other:one")
    assert not any(map(is_trusted, ("my:f", "my.opsx:f", "other:two", "other.one:f")))
    monkeypatch.setenv(VARIABLE, "a, b.c")
    assert is_trusted("a:f") and is_trusted("b.c:f") and not is_trusted("b:f")
    for wrong in ("", "my ops", "a:b:c", "../x", "a."):
        with pytest.raises(ValueError, match="must be a module, or an object as module:name"):
            trust(wrong)
    own = {"a": {"module": "m.n:f", "cost": "c:g"}, "b": {"module": "x:f"}}
    assert modules_of(own, ["a"]) == ["c", "m.n"]


@pytest.mark.slow
def test_a_part_of_a_run_is_imported_where_the_user_names_it(tutelage, refused, here):
    """A class beside the user is found, and a run of others that names one imports nothing."""
    (here / "own_method.py").write_text(METHOD)
    with forgotten("own_method"):
        line = f"search --method own_method:Mine {BRIEF}"
        assert tutelage(f"{line} --out run")[0] == 0
    with forgotten("own_method"):
        refused(
            "search --resume run", r"run: method = 'own_method:Mine' names code .*--trust own_m"
        )
        assert "own_method" not in sys.modules
        assert tutelage("search --resume run --method own_method:Mine")[0] == 0
    with forgotten("own_method"):
        assert tutelage("search --resume run --trust own_method")[0] == 0


def test_a_module_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_method.py").write_text("1 / 0")
    with pytest.raises(ValueError, match="'own_method:Mine' cannot be imported: ZeroDivision"):
        part_named("method", "own_method:Mine")


def test_a_cell_of_others_with_an_unknown_operation():
    cell = Cell((((("bad", 0)),),), (1,), inputs=1)
    with pytest.raises(ValueError, match="unknown space 'theirs'"):
        build(Genotype("theirs", {"cell": cell}), Size())
