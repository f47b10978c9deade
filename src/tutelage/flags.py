"""Flags from dataclasses: every setting is a flag, its docstring the help, its default shown.

A flag's value goes to its place in the nested settings. So flags override a recipe, and a recipe
overrides the defaults.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any

from cyclopts import (
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    RepeatArgumentError,
    Token,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from tutelage.checks import listed, nearest, sized
from tutelage.parts import (
    PARTS,
    default,
    field_help,
    hints,
    importable,
    init_fields,
    must_be,
    part_named,
)

Table = dict[str, Any]


def whole(kind: Any, tokens: Sequence[Token]) -> int | tuple[int, ...]:
    """Read a whole number or several; cyclopts itself would round 1.5 to 2."""
    try:
        numbers = tuple(int(token.value) for token in tokens)
    except ValueError:
        given = " ".join(token.value for token in tokens)
        raise ValueError(f"{tokens[0].keyword} {given}: must be whole numbers") from None
    for number in numbers:
        sized(tokens[0].keyword or "", number)
    return numbers if typing.get_origin(kind) is tuple else numbers[0]


Whole = Annotated[int, Parameter(converter=whole)]
Trust = Annotated[
    tuple[str, ...],
    Parameter(
        help="Module that may be imported because a run, genotype or network names code of it.",
        negative=(),
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Flag:
    """One flag, and the place of its value."""

    name: str
    """As typed, without the dashes."""
    path: tuple[str, ...]
    """Keys of the nested settings."""
    kind: Any
    """Type of the value."""
    default: Any
    """Shown in the help."""
    help: str
    """One sentence or two."""
    group: Group
    """Heading in the help."""

    @property
    def parameter(self) -> inspect.Parameter:
        """The function parameter that cyclopts makes the flag of."""
        several = typing.get_origin(self.kind) is tuple
        return inspect.Parameter(
            "__".join(self.path),
            inspect.Parameter.KEYWORD_ONLY,
            default=self.default,
            annotation=Annotated[
                self.kind,
                Parameter(
                    name=f"--{self.name}",
                    help=self.help,
                    group=self.group,
                    negative=() if several else None,
                    show_default=bool(self.default) and listed if several else None,
                    consume_multiple=... in typing.get_args(self.kind),
                    converter=whole if int in (self.kind, *typing.get_args(self.kind)) else None,
                ),
            ],
        )


def flags_of(
    of: Any,
    *,
    path: tuple[str, ...] = (),
    prefix: str = "",
    group: Group,
    table: Mapping[str, Any] | None = None,
    leave_out: Iterable[str] = (),
) -> list[Flag]:
    """Make the flags of a dataclass' plain settings.

    Args:
        of: The dataclass.
        path: Place of its table in the nested settings.
        prefix: Prefix of every flag's name, such as `weights.`.
        group: Heading in the help.
        table: Values of a recipe that replace the defaults.
        leave_out: Settings without a flag here.
    """
    if not init_fields(of):  # a ready part
        return []
    kinds, texts = hints(of), field_help(of)
    return [
        Flag(
            name=prefix + field.name.replace("_", "-"),
            path=(*path, field.name),
            kind=kinds[field.name],
            default=(table or {}).get(field.name, default(field, of)),
            help=texts.get(field.name, ""),
            group=group,
        )
        for field in init_fields(of)
        if field.name not in leave_out
        and not is_dataclass(kinds[field.name])
        and typing.get_origin(kinds[field.name]) is not dict
    ]


def distinct(flags: Sequence[Flag], taken: Iterable[str] = ()) -> Sequence[Flag]:
    """Check that flags have different names, and return them.

    Raises:
        ValueError: A part's setting has the name of another flag.
    """
    owners = dict.fromkeys(taken, "the command")
    for flag in sorted(flags, key=lambda flag: flag.path[0] in PARTS):
        owner = flag.path[0] if len(flag.path) > 1 else "the run"
        if flag.name in owners:
            raise ValueError(
                f"--{flag.name} would be a flag of {owners[flag.name]} and of {owner}: rename the "
                f"setting {flag.path[-1]!r}"
            )
        owners[flag.name] = owner
    return flags


def heading(name: str, place: int) -> Group:
    """Make a heading of the help; `place` is its order."""
    return Group(name, sort_key=place)


def nested(flags: Iterable[Flag], arguments: Mapping[str, Any]) -> Table:
    """Put the given values at their places in nested settings."""
    table: Table = {}
    for flag in flags:
        if flag.parameter.name in arguments:
            inner = table
            for key in flag.path[:-1]:
                inner = inner.setdefault(key, {})
            inner[flag.path[-1]] = arguments[flag.parameter.name]
    return table


def command(function: Any, flags: Iterable[Flag], name: str, help_text: str) -> Any:
    """Give a function with **arguments the signature of its own parameters and the flags."""
    own = [
        parameter
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]

    def call(*args: Any, **arguments: Any) -> Any:
        return function(*args, **arguments)

    parameters = [*own, *(flag.parameter for flag in flags)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    call.__name__, call.__doc__ = name, help_text
    return call


# Mistakes ---------------------------------------------------------------------------------------


def sentence(error: CycloptsError) -> str:
    """Describe in one sentence the mistake of a command line."""
    command = " ".join(error.command_chain or ("tutelage",))
    see = f"see tutelage {command} --help"
    match error:
        case UnknownOptionError():
            typed = (error.token.keyword or error.token.value).partition("=")[0]
            known = [name for each in error.argument_collection for name in each.names]
            return f"unknown flag {typed}: {_meant(typed, known, command) or see}"
        case UnknownCommandError() if error.app and error.unused_tokens:
            commands = [name for name in error.app if not name.startswith("-")]
            typed = error.unused_tokens[0]
            return f"unknown command {typed}: {nearest(typed, commands)}"
        case UnusedCliTokensError() if error.unused_tokens:
            return f"{command} does not take {error.unused_tokens[0]!r}: {see}"
        case RepeatArgumentError():
            return f"{error.token.keyword} is given more than once"
        case MissingArgumentError() if error.argument:
            if error.keyword or error.argument.tokens:
                count = _values_of(error.argument.hint)
                values = "a value" if count == 1 else f"{count} values"
                return f"{error.keyword or error.argument.name} needs {values}"
            return f"{command} needs {error.argument.name}: {see}"
        case CoercionError() if error.token:
            value, name = error.token.value, error.token.keyword or command
            return f"{name} {value}: {must_be(error.target_type, value)}"
    return str(error)


def _values_of(hint: Any) -> int:
    """Count the values that a flag takes.

    >>> _values_of(int | None), _values_of(tuple[int, int] | None)
    (1, 2)
    """
    if typing.get_origin(hint) is tuple:
        return len([each for each in typing.get_args(hint) if each is not Ellipsis])
    return max((_values_of(each) for each in typing.get_args(hint)), default=1)


def _meant(typed: str, known: Sequence[str], command: str) -> str:
    """Suggest the flag that was meant, if any: of another part, with a prefix, or the nearest."""
    if command == "search":
        for kind in PARTS:
            for name in importable(kind):
                fields = [field.name for field in init_fields(part_named(kind, name))]
                if typed.lstrip("-").replace("-", "_") in fields:
                    return f"it belongs to --{kind} {name}"
    longer = [name for name in known if name.rpartition(".")[2] == typed.lstrip("-")]
    if longer:
        return f"did you mean {' or '.join(longer)}?"
    meant = nearest(typed, known)
    return meant if meant.startswith("did you mean") else ""
