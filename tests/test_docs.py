"""Every block of code in the README and the docs runs, every command in them parses."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from tutelage.cli import application, flags_for
from tutelage.parts import PARTS
from tutelage.recipes import recipe_names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)(?:#[^)]*)?\)")


def blocks(language: str) -> list:
    """Blocks that stand alone; the code of a tutorial runs as a whole, in test_tutorials.py."""
    return [
        pytest.param(page, code, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (kind, code) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if kind == language and (kind != "python" or page.parent.name != "tutorials")
    ]


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_blocks_run(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "docs"})


@pytest.mark.parametrize(("page", "code"), blocks("bash"))
def test_commands_parse(page, code):
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["tutelage"] and len(words) > 1 and not words[1].startswith("-"):
            application(flags_for(words[1:])).parse_args(
                words[1:], exit_on_error=False, print_error=False
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_hold(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
def test_the_table_of_searches_and_spaces_is_what_the_code_does():
    pairs = runpy.run_path(str(ROOT / "docs" / "pairs.py"))
    page = (ROOT / "docs" / "searches.md").read_text(encoding="utf-8")
    written = page.partition(pairs["BEGIN"])[2].partition(pairs["END"])[0]
    assert written == pairs["text"](), "write it again with: python docs/pairs.py"


def test_every_part_has_its_place_in_the_docs():
    """A section or a page, and a row in the README and in the list."""
    readme, index = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md")
    )
    for kind, page in (("search", "searches.md"), ("space", "spaces.md")):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for name in PARTS[kind]:
            assert f"`{name}`" in text, f"docs/{page} has no row with `{name}`"
            assert f"`{name}`" in readme, f"the README has no row with `{name}`"
    for name in PARTS["search"]:
        text = (ROOT / "docs" / "searches.md").read_text(encoding="utf-8")
        assert f"\n## {name}\n" in text, f"docs/searches.md has no section {name}"
    methods = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for name in PARTS["method"]:
        assert (ROOT / "docs" / "methods" / f"{name}.md").exists(), f"no docs/methods/{name}.md"
        assert f"| `{name}` |" in methods, f"docs/methods.md has no row with `{name}`"
        assert f"`{name}`" in readme, f"the README has no row with `{name}`"
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page


def test_every_recipe_is_told_of():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    written = set(re.findall(r"`([\w-]+)`", text))
    told = written | {
        name.replace("DATA", data) for name in written for data in ("cifar10", "cifar100")
    }
    assert set(recipe_names()) <= told, "docs/recipes.md has no row with these"
