"""Parts by name: from run.toml's tables to methods, searches and spaces, and back.

A name is one of the folder's literal dict or of an installed package, or `module:Class` for a
user's own part. Nothing here imports torch before a part is needed.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from typing_extensions import get_protocol_members

from tutelage.checks import LARGEST, nearest, sized
from tutelage.installed import added, load, origin
from tutelage.methods import METHODS
from tutelage.renamed import lifted_part
from tutelage.searches import SEARCHES
from tutelage.spaces import SPACES

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
    module, _, attribute = PARTS[kind].get(name, name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{kind} {name!r} cannot be imported: {error}") from error


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
    name = given.pop("name", "")
    found = part_named(kind, name)
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


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as TOML has them: lists for tuples, without None."""
    given = {name: x for name, x in values.items() if x is not None}
    return {name: list(x) if isinstance(x, tuple) else x for name, x in given.items()}


def init_fields(of: Any) -> list[Field[Any]]:
    """List a dataclass' settings: its constructor's arguments, or a ready part's declared ones."""
    if not is_dataclass(of):
        return []
    if isinstance(of, type):
        return [f for f in fields(of) if f.init]
    return [f for f in fields(of) if f.metadata.get("setting")]


def from_table(of: Any, table: Mapping[str, Any], what: str) -> Any:
    """Build a dataclass, and nested ones, from a table as TOML holds it.

    For a ready part, build a copy with the table's values.

    Raises:
        ValueError: A setting is unknown, of another type, or refused by the dataclass.
    """
    known = {f.name for f in init_fields(of)}
    kinds = hints(of) if known else {}
    values = {}
    for name, value in table.items():
        if name not in known:
            meant = nearest(name, known) if known else "it has no settings"
            raise ValueError(f"unknown setting {name!r} of {what}: {meant}")
        if is_dataclass(kinds[name]) and isinstance(value, Mapping):
            try:
                values[name] = from_table(typing.cast(type, kinds[name]), value, name)
            except ValueError as error:  # weights and alphas both have an lr
                raise ValueError(f"{name}: {error}") from error
        else:
            values[name] = _typed(kinds[name], value, name)
    return of(**values) if isinstance(of, type) else replace(of, **values)


def hints(of: Any) -> dict[str, Any]:
    """Return the types of the fields of a dataclass or a ready part."""
    return typing.get_type_hints(of if isinstance(of, type) else type(of))


def _typed(kind: Any, value: Any, name: str) -> Any:
    """Check one TOML value against a setting's type, and widen it if that is exact."""
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [choice for choice in choices if choice is not type(None)]
        return None if value is None else _typed(inner[0], value, name)
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if origin is tuple and isinstance(value, (list, tuple)):
        each = choices[:1] * len(value) if choices[-1] is ... else choices
        if len(each) == len(value):
            return tuple(_typed(kind, x, name) for kind, x in zip(each, value, strict=True))
    if type(value) is int and kind in (int, float):
        sized(name, value)
        return kind(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    fits = value in choices if origin is Literal else isinstance(value, origin or kind)
    if not fits or (type(value) is bool and kind is not bool):
        raise ValueError(f"{name} = {value!r}: {must_be(kind, value)}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} = {value}: must be a finite number")
    return value


def must_be(kind: Any, value: Any) -> str:
    """Describe the allowed values of a setting's type, or the choice that was probably meant."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        return nearest(str(value), map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        each = typing.get_args(kind)
        what = "texts" if each[0] is str else "numbers"
        return f"must be {what if each[-1] is ... else f'{len(each)} {what}'}"
    if kind is int and str(value).lstrip("-").isdecimal():
        return f"must be a whole number between -{LARGEST:,} and {LARGEST:,}"
    return f"must be {_TYPE_NAMES.get(kind, 'a table')}"


_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
}


def default(of: Field[Any], part: Any = None) -> Any:
    """Return a setting's default, which for a ready part is its value; None: there is none."""
    if part is not None and not isinstance(part, type):
        return getattr(part, of.name)
    if of.default is not MISSING:
        return of.default
    return of.default_factory() if of.default_factory is not MISSING else None


def field_help(of: Any) -> dict[str, str]:
    """Read the docstrings under the fields of a dataclass or a ready part."""
    try:
        source = inspect.getsource(of if isinstance(of, type) else type(of))
    except OSError:  # a package without its source
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
