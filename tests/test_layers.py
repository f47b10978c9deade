"""The direction of imports, which is the architecture."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tutelage

ROOT = Path(tutelage.__file__).parent

ALLOWED = {
    "checks": set(),
    "virtual": set(),
    "multilevel": {"virtual"},
    "transfer": set(),
    "ensembling": set(),
    "clock": set(),
    "cpus": set(),
    "problem": {"clock", "multilevel", "virtual"},
    "config": {"checks", "searches.evolution"},
    "quick": {"checks", "config", "parts"},
    "spaces": {"spaces", "checks"},
    "searches": {"spaces.base", "spaces.genotype", "spaces.paths", "searches", "clock", "checks"},
    "methods": {
        *("clock", "multilevel", "virtual", "problem", "transfer", "ensembling"),
        *("checks", "methods"),
    },
    "data": {"config", "data", "problem", "checks", "cpus"},
    "report": {"report", "spaces.genotype", "spaces.published", "checks"},
    "recipes": {"checks", "recipes"},
}
"""What every part may import of the package; parts that are not named may import everything."""


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, outside functions and for types alike."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = node.module
            if module == "tutelage":
                names |= {alias.name for alias in node.names}
            elif module.startswith("tutelage."):
                names.add(module.removeprefix("tutelage."))
    return names


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py") if part_of(path) in ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_in_the_allowed_direction(path):
    allowed = ALLOWED[part_of(path)]
    wrong = {
        name
        for name in imported(path)
        if not any(name == entry or name.startswith(f"{entry}.") for entry in allowed)
    }
    assert not wrong, f"{path.name} imports {', '.join(sorted(wrong))}"


def test_a_wrong_import_is_seen(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from tutelage.run.search import search\nfrom tutelage import methods\n")
    assert imported(file) == {"run.search", "methods"}


@pytest.mark.parametrize("module", ["cli", "config", "parts", "quick", "flags", "data", "recipes"])
def test_help_needs_no_torch(module):
    code = f"import sys, tutelage.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_shelf_for_everything():
    names = {path.stem for path in ROOT.rglob("*") if path.is_dir() or path.suffix == ".py"}
    assert not names & {"utils", "core", "common", "registry", "helpers", "trainer", "callbacks"}
