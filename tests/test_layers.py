"""The direction of imports, which is the architecture."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tutelage

ROOT = Path(tutelage.__file__).parent

ROOMS = ("job", "networks", "cost", "training", "monitor", "supernet", "one_shot", "measure")
"""The folders of `run`, from the lowest: none imports one after it, nor the verbs at the root."""

BASE = {
    *("checks", "clock", "config", "data", "files", "multilevel", "problem", "records", "spaces"),
    "virtual",
}
"""What any folder of `run` may import besides the folders before it."""

ALLOWED = {
    "checks": set(),
    "files": set(),
    "records": {"records"},
    "virtual": set(),
    "multilevel": {"virtual"},
    "transfer": set(),
    "ensembling": set(),
    "clock": set(),
    "cpus": set(),
    "problem": {"clock", "multilevel", "virtual"},
    "config": {"checks", "searches.evolution"},
    "quick": {"checks", "config", "parts"},
    "parts": {"checks", "methods", "searches", "spaces"},
    "flags": {"checks", "config", "parts"},
    "spaces": {"spaces", "checks"},
    "searches": {"spaces.base", "spaces.genotype", "spaces.paths", "searches", "clock", "checks"},
    "methods": {
        *("clock", "multilevel", "virtual", "problem", "transfer", "ensembling"),
        *("checks", "methods"),
    },
    "data": {"config", "data", "problem", "checks", "cpus"},
    "benchmark": {"benchmark", "files", "spaces.genotype", "spaces.notation"},
    "report.runs": {"report.runs", "records", "spaces.genotype", "checks"},
    "report.figures": {"report.runs", "report.figures", "records", "spaces.genotype", "checks"},
    "report.sections": {"report", "records", "spaces.genotype", "checks"},
    "report": {"report", "spaces.genotype", "spaces.published", "checks"},
    "recipes": {"checks", "recipes"},
    "run.job": {"run.job", "records", "files", "cpus", "spaces.base"},
    "run.networks": {*BASE, "run.networks", "parts"},
    "run.cost": {*BASE, "run.networks", "run.cost", "searches"},
    "run.training": {*BASE, "run.networks", "run.cost", "run.training"},
    "run.monitor": {*BASE, "run.monitor", "searches", "transfer", "benchmark"},
    "run.supernet": {
        *(*BASE, *(f"run.{room}" for room in ("job", "networks", "cost", "monitor", "supernet"))),
        *("searches", "transfer", "parts"),
    },
    "run.one_shot": {
        *(*BASE, *(f"run.{room}" for room in ROOMS[: ROOMS.index("measure")])),
        *("searches", "benchmark"),
    },
    "run.measure": {*BASE, *(f"run.{room}" for room in ROOMS)},
    "run": {*BASE, "run", "searches", "parts", "quick", "benchmark", "report.figures"},
    "verbs": {"checks", "config", "flags", "parts", "quick", "recipes", "benchmark", "run"}
    | {"report", "spaces", "data"},
    "cli": {"verbs", "flags", "config", "checks", "parts", "cpus", "recipes", "__version__"}
    | {"searches.evolution"},
    "__init__": {
        "config",
        "methods",
        "multilevel",
        "problem",
        "report",
        "run",
        "searches",
        "spaces",
    }
    | {"parts", "virtual"},
    "__main__": {"cli"},
}
"""What every part, and every folder of `run`, may import of the package: types, too."""


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
    """Name the part of a file: a folder of `run` or `report`, or what stands at the root."""
    names = path.relative_to(ROOT).with_suffix("").parts
    inside = names[0] in ("run", "report") and len(names) > 2
    return ".".join(names[:2]) if inside else names[0]


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_in_the_allowed_direction(path):
    allowed = ALLOWED[part_of(path)]
    wrong = {
        name
        for name in imported(path)
        if not any(name == entry or name.startswith(f"{entry}.") for entry in allowed)
    }
    assert not wrong, f"{path.name} imports {', '.join(sorted(wrong))}"


def test_every_folder_of_run_has_a_place():
    folders = {path.name for path in (ROOT / "run").iterdir() if (path / "__init__.py").exists()}
    assert folders == set(ROOMS)
    for index, room in enumerate(ROOMS):
        later = {f"run.{other}" for other in ROOMS[index + 1 :]}
        assert not later & ALLOWED[f"run.{room}"]
        assert len(list((ROOT / "run" / room).glob("*.py"))) <= 12


def test_no_imports_go_in_a_circle():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}

    def targets(path: Path) -> set[str]:
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tutelage."):
                base = node.module.removeprefix("tutelage.")
                names |= {f"{base}.{alias.name}" for alias in node.names} | {base}
        return names & modules.keys()

    graph = {name: targets(path) for name, path in modules.items() if name != "__init__"}
    list(TopologicalSorter(graph).static_order())  # raises where there is one


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
