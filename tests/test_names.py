"""Who knows whom by name: no search a space, no space a search, no report a method or a search."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tutelage
from tutelage.parts import PARTS

ROOT = Path(tutelage.__file__).parent
WORDS = {"one", "random", "shuffle", "single"}
"""Names that are words of a sentence too: they count only where they are a whole string."""
KNOWN = {
    "searches": {"space"},
    "spaces": {"search"},
    "report": {"method", "search"},
}
"""Of which kinds of parts each folder must not know a name."""
FILES = [
    pytest.param(folder, path, id=str(path.relative_to(ROOT)))
    for folder in KNOWN
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != ROOT / folder / "__init__.py"  # that of searches, and of spaces, lists its own
]


def strings(source: str) -> Iterator[str]:
    """Yield the strings of Python code that are no docstrings; of an f-string its parts."""
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def names(text: str) -> set[str]:
    """Return what of a string may be the name of a part: its words, or all of it."""
    return {text} | (set(re.findall(r"[\w-]+", text)) - WORDS)


def foreign(folder: str) -> set[str]:
    """Return the names that a folder must not know.

    Spaces know their own, one of which is darts; a report says of architectures that they are
    random.
    """
    own = {"spaces": set(PARTS["space"]), "report": {"random"}}.get(folder, set())
    return {name for kind in KNOWN[folder] for name in PARTS[kind]} - own


@pytest.mark.parametrize(("folder", "path"), FILES)
def test_no_name_of_another_kind_of_part_stands_in_code(folder, path):
    found = {
        (name, text)
        for text in strings(path.read_text(encoding="utf-8"))
        for name in names(text) & foreign(folder)
    }
    assert not found


def test_a_name_is_seen_where_it_is_code_and_not_where_it_is_text():
    source = """
class Search:
    'Search as darts does.'
    kind: str = ""
    'Not as in nasbench201.'

    def needs(self, space):
        'Refuse nasbench201.'
        if space.name != "nasbench201" or space.name in ("s1", 's2'):
            raise ValueError(f"{space.name}: use the space darts")
        return "shuffle", "shuffle channels, one in four"
"""
    found = {name for text in strings(source) for name in names(text)} & foreign("searches")
    assert found == {"nasbench201", "s1", "s2", "darts", "shuffle"}
