"""Parts by name: from run.toml's tables to methods, searches and spaces, and back.

A name is one of the folder's literal dict or of an installed package, or `module:Class` for a
user's own part. A space may also be a page of TOML. Nothing here imports torch before a part is
needed.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import get_protocol_members

from tutelage.checks import nearest
from tutelage.installed import added, load, origin
from tutelage.methods import METHODS
from tutelage.renamed import lifted_part
from tutelage.searches import SEARCHES
from tutelage.spaces import SPACES
from tutelage.tables import default as default
from tutelage.tables import from_table as from_table
from tutelage.tables import hints as hints
from tutelage.tables import init_fields as init_fields
from tutelage.tables import must_be as must_be
from tutelage.tables import plain as plain
from tutelage.trusted import imported

FOLDERS: Mapping[str, str] = {"method": "methods", "search": "searches", "space": "spaces"}
"""The folder of the package's parts of a kind, and the kind of entry point of others."""
OWN: Mapping[str, Mapping[str, str]] = {"method": METHODS, "search": SEARCHES, "space": SPACES}
"""The package's parts by name, as `module:attribute`."""
PARTS: Mapping[str, Mapping[str, str]] = {
    kind: {**names, **added(FOLDERS[kind], names)} for kind, names in OWN.items()
}
"""Those, and the parts of installed packages."""


def part_named(kind: str, name: str) -> Any:
    """Import a method, search or space: the dataclass of its settings, or a ready part.

    Raises:
        ValueError: The name is unknown (the nearest is given), or it is not such a part.
    """
    names, name = PARTS[kind], str(name)  # a file of settings may hold any value
    if kind == "space" and name.endswith(".toml"):
        return _page().read_page(Path(name))
    if name not in names and ":" not in name:
        raise ValueError(f"unknown {kind} {name!r}: {nearest(name, names)}")
    found = _imported(kind, name)
    if not is_dataclass(found):
        raise ValueError(f"{kind} {name!r} is no dataclass: a part is a dataclass of its settings")
    found = lifted_part(kind, found)
    able = set(dir(found)) | {field.name for field in fields(found)}
    if missing := sorted(get_protocol_members(protocol(kind, found)) - able):
        raise ValueError(
            f"{name} is no {kind}, since it lacks {', '.join(missing)}: must be one of "
            f"{', '.join(PARTS[kind])}, or a dataclass with the same members"
        )
    return found


def _imported(kind: str, name: str) -> Any:
    """Import what a known name or `module:Class` names."""
    if name in PARTS[kind] and name not in OWN[kind]:
        return load(FOLDERS[kind], name, PARTS[kind][name])
    if name not in PARTS[kind]:
        try:
            return imported(name)
        except ValueError as error:
            raise ValueError(f"{kind} {error}") from error
    module, _, attribute = PARTS[kind][name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _page() -> Any:
    """Import the reader of pages, which needs torch."""
    return importlib.import_module("tutelage.spaces.page")


def names_code(name: str) -> bool:
    """Tell whether a part's name leads to code of no offered part: a path, or a page that may."""
    return ":" in name or name.endswith(".toml")


def part_of(kind: str, settings: Mapping[str, Any]) -> Any:
    """Return what `part_named` does for the name in a part's table; a page's space is there whole.

    Raises:
        ValueError: as `part_named`, or a setting of the space cannot be.
    """
    name = settings.get("name", "")
    if kind == "space" and "skeleton" in settings:
        return _page().space_of(settings, f"space {name!r}")
    return part_named(kind, name)


def importable(kind: str, names: Iterable[str] | None = None) -> Iterator[str]:
    """Yield those names of a kind, or all, without parts of packages that cannot be imported."""
    for name in PARTS[kind] if names is None else names:
        try:
            part_named(kind, name)
        except ValueError:
            if name in OWN[kind]:
                raise
            continue
        yield name


def make_part(kind: str, settings: Mapping[str, Any]) -> Any:
    """Build a method, search or space from its table: a name and settings.

    Raises:
        ValueError: A setting is unknown or refused, or a member of the part has other arguments.
    """
    given = dict(settings)
    found, name = part_of(kind, given), given.pop("name", "")
    if "skeleton" in given:  # the space has its settings already
        given = {}
    part = from_table(found, given, f"{kind} {name}")
    check_calls(protocol(kind, part), part, f"{kind} {name}")
    return part


def check_calls(able: type, part: Any, what: str) -> None:
    """Refuse a part with a member that does not take the arguments of its protocol.

    Args:
        able: The protocol of such parts.
        part: The part.
        what: Name of the part in errors.

    Raises:
        ValueError: A member takes other arguments; the message names the right ones.
    """
    members = {name: getattr(able, name, None) for name in sorted(get_protocol_members(able))}
    for name, member in members.items():
        if inspect.isfunction(member):
            given = list(inspect.signature(member).parameters.values())[1:]  # the first is self
            named = {each.name: each for each in given if each.kind is each.KEYWORD_ONLY}
            placed = [each for each in given if each.kind is each.POSITIONAL_OR_KEYWORD]
            try:
                inspect.signature(getattr(part, name)).bind(*placed, **named)
            except TypeError:
                must = ", ".join(each.name for each in given)
                raise ValueError(f"{what}: its member {name} must take {must}") from None


def protocol(kind: str, part: Any) -> type:
    """Import the protocol of a method, a search (by its kind) or a space.

    Raises:
        ValueError: A search has an unknown kind.
    """
    if kind == "search":
        kinds: dict[str, type] = importlib.import_module("tutelage.searches.base").KINDS
        own = getattr(part, "kind", next(iter(kinds)))
        if own not in kinds:
            raise ValueError(f"a search of kind {own!r}: {nearest(str(own), kinds)}")
        return kinds[own]
    module, name = {
        "method": ("tutelage.problem", "Method"),
        "space": ("tutelage.spaces.base", "Space"),
    }[kind]
    return typing.cast(type, getattr(importlib.import_module(module), name))


def part_settings(kind: str, part: Any) -> dict[str, Any]:
    """Return the table from which `make_part` builds this part: as in TOML, without None."""
    if kind == "space" and (table := _page().definition(part)):
        return dict(table)
    values = {f.name: getattr(part, f.name) for f in init_fields(part)}
    near = [
        name
        for name, target in PARTS[kind].items()
        if target.startswith(f"{type(part).__module__}:") or name not in OWN[kind]
    ]
    for name in importable(kind, near):
        ready = part_named(kind, name)
        if type(ready) is type(part) and from_table(ready, values, name) == part:
            return {"name": name} | plain(values)
    path = f"{type(part).__module__}:{type(part).__qualname__}"
    name = next((name for name, target in PARTS[kind].items() if target == path), path)
    values = {f.name: getattr(part, f.name) for f in init_fields(type(part))}
    return {"name": name} | plain(values)


def field_help(of: Any) -> dict[str, str]:
    """Read the docstrings under the fields of a dataclass or a ready part, and inherited ones."""
    classes = (of if isinstance(of, type) else type(of)).__mro__
    return {name: text for each in reversed(classes) for name, text in _field_help(each).items()}


@cache
def _field_help(of: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(of))
    except (OSError, TypeError):  # a package without its source, a class of C
        return {}
    body = typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
    return {name: " ".join(text.split()) for name, text in texts_under(body)}


def summaries(kind: str) -> dict[str, str]:
    """Return a line about every part of a kind; of those of packages with the package's name."""
    found = {}
    for name, target in PARTS[kind].items():
        if name in OWN[kind]:
            found[name] = summary(target)
        else:
            found[name] = described(FOLDERS[kind], name, target)
    return found


def described(kind: str, name: str, target: str) -> str:
    """Return a line about a part of an installed package."""
    try:
        text = summary(target) or "no description"
    except Exception as error:  # of the package, which runs to find the module
        text = f"cannot be imported: {type(error).__name__}: {error}"
    return f"{' '.join(text.split())} (package {origin(kind, name)})"


def summary(target: str) -> str:
    """Read the first line of a part's docstring, without importing it.

    It is the docstring under a ready part, and the module's docstring for any other part.
    """
    module, _, attribute = target.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    text = dict(texts_under(tree.body)).get(attribute) or ast.get_docstring(tree) or ""
    return text.partition("\n")[0]


def texts_under(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield the names that a class or a module sets, and the docstrings under them."""
    for named, text in itertools.pairwise(body):
        match named, text:
            case (
                ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)),
                ast.Expr(value=ast.Constant(value=str(under))),
            ):
                yield name, under
