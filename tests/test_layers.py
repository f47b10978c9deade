"""The direction of imports, which is the architecture."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tutelage

ROOT = Path(tutelage.__file__).parent

ROOMS = (
    *("machine", "job", "networks", "trained", "cost", "step", "training", "supernet", "monitor"),
    "one_shot",
    *("strategies", "measure"),
)
"""The folders of `run`, from the lowest: none imports one after it, nor the verbs at the root."""

BASE = {
    *("batch", "checks", "classification", "clock", "config", "data", "extras", "files"),
    *("likeness", "multilevel", "problem", "ranks", "records", "shares", "spaces", "trees"),
    "virtual",
}
"""What any folder of `run` may import besides the folders before it."""

ALLOWED = {
    "checks": set(),
    "renamed": set(),
    "files": set(),
    "formats": set(),
    "records": {"records"},
    "meeting": set(),
    "likeness": set(),
    "ranks": {"meeting"},
    "shares": {"ranks"},
    "trees": set(),
    "virtual": {"trees", "shares"},
    "multilevel": {"trees", "virtual", "shares"},
    "transfer": set(),
    "ensembling": set(),
    "classification": set(),
    "clock": set(),
    "cpus": set(),
    "batch": set(),
    "extras": {"batch", "checks", "multilevel", "trees"},
    "problem": {"clock", "extras", "multilevel", "trees", "virtual", "shares"},
    "config": {"checks", "config", "searches.evolution"},
    "quick": {"checks", "config", "parts", "searches.needs"},
    "installed": set(),
    "trusted": set(),
    "tables": {"checks"},
    "parts": {"installed", "checks", "methods", "searches", "spaces", "tables", "trusted"},
    "flags": {"checks", "config", "parts"},
    "spaces.kernels": {"spaces.kernels"},
    "spaces": {"spaces", "checks", "installed", "ranks", "shares", "tables", "trusted"},
    "searches": {
        *("spaces.base", "spaces.genotype", "spaces.paths", "spaces.ready"),
        *("searches", "clock", "checks"),
    },
    "methods": {
        *("batch", "clock", "extras", "multilevel", "trees", "virtual", "problem", "transfer"),
        *("ensembling", "checks", "methods"),
    },
    "data": {"installed", "batch", "config", "data", "checks", "cpus", "files", "shares"},
    "benchmark": {"benchmark", "files", "spaces.genotype", "spaces.notation"},
    "papers": {"checks", "parts", "recipes"},
    "report.papers": {
        *("report.runs", "report.papers", "papers", "parts", "config", "files", "records"),
    },
    "report.runs": {"report.runs", "records", "spaces.genotype", "checks"},
    "report.figures": {
        *("report.runs", "report.figures", "records", "spaces.genotype", "checks", "files"),
        "classification",
    },
    "report.sections": {"report", "records", "classification", "spaces.genotype", "checks"},
    "trackers": {"trackers", "checks", "files", "records", "report.figures", "spaces.genotype"},
    "report": {"report", "spaces.genotype", "spaces.published", "checks", "files"},
    "recipes": {"checks", "recipes", "renamed"},
    "run.machine": {"run.machine", "cpus", "records", "spaces.base"},
    "run.job": {
        "run.job",
        "run.machine",
        "records",
        "files",
        "likeness",
        "cpus",
        "spaces.base",
        "ranks",
        "trees",
    },
    "run.networks": {
        *(*BASE, "run.networks", "parts", "searches.base", "report.figures", "transfer", "trusted"),
    },
    "run.trained": {
        *(*BASE, "cpus", "parts", "run.machine", "run.job", "run.networks", "run.trained"),
        "trusted",
    },
    "run.cost": {*BASE, "run.machine", "run.networks", "run.cost", "searches"},
    "run.training": {
        *(*BASE, "run.job", "run.networks", "run.trained", "run.cost", "run.step", "run.training"),
    },
    "run.step": {"batch", "clock", "ranks", "trees", "virtual", "spaces", "run.step"},
    "run.supernet": {
        *(*BASE, *(f"run.{room}" for room in ("job", "networks", "cost", "step", "supernet"))),
        *("searches", "transfer"),
    },
    "run.monitor": {*BASE, "run.supernet", "run.monitor", "searches", "transfer", "benchmark"},
    "run.one_shot": {
        *(*BASE, *(f"run.{room}" for room in ("job", "cost", "supernet", "one_shot"))),
        *("searches", "benchmark"),
    },
    "run.strategies": {
        *(*BASE, *(f"run.{room}" for room in ROOMS[: ROOMS.index("measure")])),
        *("searches", "parts"),
    },
    "run.measure": {*BASE, *(f"run.{room}" for room in ROOMS), "benchmark", "cpus"},
    "run": {*BASE, "run", "searches", "parts", "quick", "benchmark", "papers", "recipes"}
    | {"trackers", "cpus"},
    "study": {
        *("study", "checks", "config", "cpus", "data", "files", "papers", "parts", "recipes"),
        *("report", "run.job"),
    },
    "commands": {
        *("benchmark", "checks", "commands", "config", "data", "flags", "installed", "papers"),
        *("parts", "quick", "recipes", "report", "run", "searches.evolution", "spaces", "study"),
        *("trackers", "trusted"),
    },
    "crash": set(),
    "cli": {"commands", "cpus", "crash", "flags", "meeting", "parts", "trusted"}
    | {"run.job.signals", "__version__"},
    "__init__": {
        "config",
        *("data.given", "data.sheet", "data.survey"),
        "methods",
        "multilevel",
        "problem",
        "report",
        "run",
        "searches",
        "spaces",
    }
    | {"parts", "trusted", "virtual"},
    "__main__": {"cli"},
}
"""What every part, and every folder of `run`, may import of the package: types, too."""

EVERYWHERE = {"renamed", "formats"}
"""What anything may import: names of 0.1, and the readers of JSON and TOML."""


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
    """Name the part of a file: a folder of one of three parts, or what stands at the root."""
    names = path.relative_to(ROOT).with_suffix("").parts
    inside = names[0] in ("run", "report", "spaces") and len(names) > 2
    return ".".join(names[:2]) if inside else names[0]


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_in_the_allowed_direction(path):
    allowed = ALLOWED[part_of(path)] | EVERYWHERE
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


def graph() -> dict[str, set[str]]:
    """Which modules every module imports."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}

    def targets(path: Path) -> set[str]:
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tutelage."):
                base = node.module.removeprefix("tutelage.")
                names |= {f"{base}.{alias.name}" for alias in node.names} | {base}
        return names & modules.keys()

    return {name: targets(path) for name, path in modules.items() if name != "__init__"}


def floors(arrows: dict[str, set[str]]) -> int:
    """Count the floors of a graph without circles: the longest way down, in nodes."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(arrows).static_order():  # raises where there is a circle
        height[name] = 1 + max((height[below] for below in arrows.get(name, ())), default=0)
    return max(height.values())


def test_no_imports_go_in_a_circle():
    floors(graph())


def test_run_has_few_floors():
    """At most 6: of folders, the verbs at the root being the highest; of files in each folder."""

    def room_of(name: str) -> str:
        return name.split(".")[1] if name.count(".") > 1 else "verbs"

    arrows = {name: below for name, below in graph().items() if name.startswith("run.")}
    folders: dict[str, set[str]] = {}
    for name, below in arrows.items():
        rooms = {room_of(other) for other in below if other.startswith("run.")}
        folders.setdefault(room_of(name), set()).update(rooms - {room_of(name)})
    assert floors(folders) <= 6
    for room in ROOMS:
        inside = {n: b & arrows.keys() for n, b in arrows.items() if room_of(n) == room}
        assert floors({n: {o for o in b if o in inside} for n, b in inside.items()}) <= 6
