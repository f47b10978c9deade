"""The notations in which other repositories print architectures.

They are DARTS' tuple, NAS-Bench-201's string, NAS-Bench-Macro's digits, the widths of NATS-Bench's
size space and the codes of TransNAS-Bench-101. Both directions work on plain operation names, with
the states that they read; `tutelage.spaces.genotype` checks them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tutelage.checks import nearest

DARTS_GROUPS = ("normal", "reduce")

MACRO_OPERATIONS = ("identity", "mbconv3_3x3", "mbconv6_5x5")
"""The operations of NAS-Bench-Macro's layers, in the order of its digits 0, 1 and 2."""

MACRO_LAYERS = 8

SIZE_LAYERS = 5
"""Layers of NATS-Bench's size space whose widths are chosen."""

SIZES = tuple(f"width_{width}" for width in range(8, 65, 8))
"""Their choices: 8 to 64 channels."""

MICRO_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
"""The operations of the cells of TransNAS-Bench-101, in the order of its digits."""

MODULES = ("module", "module_wider", "module_smaller", "module_wider_smaller")
"""The modules of the chains of TransNAS-Bench-101, in the order of its digits 1 to 4: two residual
blocks, which may double the channels and halve the resolution."""


def read_darts(text: str) -> dict[str, dict[str, Any]]:
    """Read DARTS' tuple text as nodes and concat of every group, without executing it.

    Raises:
        ValueError: the text has another notation, or an operation of a node is missing.
    """
    fields = _darts_fields(text)
    return {
        group: {
            "inputs": 2,
            "nodes": _paired(group, fields[group]),
            "concat": fields[f"{group}_concat"],
        }
        for group in DARTS_GROUPS
    }


def write_darts(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Write nodes and concat of every group as DARTS' tuple text."""
    fields = []
    for group in DARTS_GROUPS:
        concat = cells[group]["concat"]
        span = range(concat[0], concat[-1] + 1)
        pairs = [tuple(pair) for node in cells[group]["nodes"] for pair in node]
        fields += [f"{group}={pairs}"]
        fields += [f"{group}_concat={span if list(span) == concat else concat}"]
    return f"Genotype({', '.join(fields)})"


def read_nasbench201(text: str) -> list[list[tuple[str, int]]]:
    """Read NAS-Bench-201's string as the (operation, state) pairs of every node.

    Raises:
        ValueError: the text has another notation.

    >>> read_nasbench201("|none~0|+|skip_connect~0|nor_conv_3x3~1|")
    [[('none', 0)], [('skip_connect', 0), ('nor_conv_3x3', 1)]]
    """
    nodes = []
    for node in text.strip().split("+"):
        pairs = [term.partition("~") for term in node[1:-1].split("|")]
        framed = len(node) > 1 and node[0] == node[-1] == "|"
        if not framed or not all(state.isdecimal() and len(state) < 4 for _, _, state in pairs):
            raise ValueError(
                "not NAS-Bench-201's string, |nor_conv_3x3~0|+|none~0|skip_connect~1|+"
                "|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
            )
        nodes.append([(operation, int(state)) for operation, _, state in pairs])
    return nodes


def write_nasbench201(nodes: Sequence[Sequence[tuple[str, int]]]) -> str:
    """Write the (operation, state) pairs of every node as NAS-Bench-201's string.

    >>> write_nasbench201([[("none", 0)], [("skip_connect", 0), ("nor_conv_3x3", 1)]])
    '|none~0|+|skip_connect~0|nor_conv_3x3~1|'
    """
    texts = ([f"{operation}~{state}" for operation, state in node] for node in nodes)
    return "+".join(f"|{'|'.join(terms)}|" for terms in texts)


def read_macro(text: str) -> list[str]:
    """Read NAS-Bench-Macro's digits as the operation of every layer.

    Raises:
        ValueError: the text has another notation.

    >>> read_macro("02012100")[:3]
    ['identity', 'mbconv6_5x5', 'identity']
    """
    digits = text.strip()
    if len(digits) != MACRO_LAYERS or not set(digits) <= {"0", "1", "2"}:
        raise ValueError(
            f"{text!r} is not NAS-Bench-Macro's notation: a digit for each of {MACRO_LAYERS} "
            "layers, 0 identity, 1 mbconv3_3x3 or 2 mbconv6_5x5, as 02012100"
        )
    return [MACRO_OPERATIONS[int(digit)] for digit in digits]


def write_macro(names: Sequence[str]) -> str:
    """Write the operation of every layer as NAS-Bench-Macro's digits.

    Raises:
        ValueError: there are not eight, or one is not of the space.

    >>> write_macro(["mbconv6_5x5", "identity", *["mbconv3_3x3"] * 6])
    '20111111'
    """
    if len(names) != MACRO_LAYERS:
        raise ValueError(f"a chain of {len(names)} layers: NAS-Bench-Macro's has {MACRO_LAYERS}")
    for name in names:
        if name not in MACRO_OPERATIONS:
            raise ValueError(
                f"unknown operation {name!r} for NAS-Bench-Macro: {nearest(name, MACRO_OPERATIONS)}"
            )
    return "".join(str(MACRO_OPERATIONS.index(name)) for name in names)


def read_size(text: str) -> list[str]:
    """Read an architecture of NATS-Bench's size space as the choice of every layer.

    Raises:
        ValueError: the text has another notation.

    >>> read_size("64:32:16:8:40")[:2]
    ['width_64', 'width_32']
    """
    names = [f"width_{width}" for width in text.strip().split(":")]
    if len(names) != SIZE_LAYERS or not set(names) <= set(SIZES):
        raise ValueError(
            f"{text!r} is not of NATS-Bench's size space: channels of {SIZE_LAYERS} layers, each "
            "a multiple of 8 from 8 to 64, as 64:32:16:8:40"
        )
    return names


def write_size(names: Sequence[str]) -> str:
    """Write the choice of every layer as NATS-Bench's size space does.

    Raises:
        ValueError: they are not of that space.
    """
    return _again(":".join(name.removeprefix("width_") for name in names), read_size, names)


def read_micro(text: str) -> list[str]:
    """Read a cell of TransNAS-Bench-101 as the operations of its six edges, by node.

    Raises:
        ValueError: the text has another notation.

    >>> read_micro("64-41414-1_02_333")[:3]
    ['skip_connect', 'none', 'nor_conv_1x1']
    """
    found = re.fullmatch(r"64-41414-([0-3])_([0-3]{2})_([0-3]{3})", text.strip())
    if not found:
        raise ValueError(
            f"{text!r} is no cell of TransNAS-Bench-101: the digits 0 to 3 of its operations by "
            "node, as 64-41414-1_02_333"
        )
    return [MICRO_OPERATIONS[int(digit)] for digit in "".join(found.groups())]


def write_micro(names: Sequence[str]) -> str:
    """Write the operations of six edges as TransNAS-Bench-101 does.

    Raises:
        ValueError: they are not of that space.
    """
    digits = [_digit(name, MICRO_OPERATIONS) for name in names]
    nodes = "_".join("".join(digits[i:j]) for i, j in ((0, 1), (1, 3), (3, None)))
    return _again(f"64-41414-{nodes}", read_micro, names)


def read_modules(text: str) -> list[str]:
    """Read a chain of TransNAS-Bench-101 as its modules.

    Raises:
        ValueError: the text has another notation.

    >>> read_modules("64-1243-basic")
    ['module', 'module_wider', 'module_wider_smaller', 'module_smaller']
    """
    found = re.fullmatch(r"64-([1-4]{4,6})-basic", text.strip())
    if not found:
        raise ValueError(
            f"{text!r} is no chain of TransNAS-Bench-101: a digit from 1 to 4 for each of 4 to 6 "
            "modules, as 64-1234-basic"
        )
    return [MODULES[int(digit) - 1] for digit in found[1]]


def write_modules(names: Sequence[str]) -> str:
    """Write modules as TransNAS-Bench-101 does.

    Raises:
        ValueError: they are not of that space.
    """
    digits = "".join(str(int(_digit(name, MODULES)) + 1) for name in names)
    return _again(f"64-{digits}-basic", read_modules, names)


WRITTEN_NAMES: Mapping[str, Callable[[Sequence[str]], str]] = {
    "nats-size": write_size,
    "transnas-micro": write_micro,
    "transnas-macro": write_modules,
}
"""Functions that write all operations of an architecture as its benchmark does, by its space."""


def _digit(name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise ValueError(f"unknown operation {name!r}: {nearest(name, names)}")
    return str(names.index(name))


def _again(text: str, read: Callable[[str], list[str]], names: Sequence[str]) -> str:
    """Return a text that reads as these names; raise ValueError otherwise."""
    if read(text) != list(names):
        raise ValueError(f"{text!r} does not stand for {', '.join(names)}")
    return text


def _paired(group: str, pairs: Sequence[Any]) -> list[Sequence[Any]]:
    if len(pairs) % 2:
        raise ValueError(
            f"cell {group!r} holds {len(pairs)} pairs: every node needs two, so one is missing"
        )
    return [pairs[i : i + 2] for i in range(0, len(pairs), 2)]


def _darts_fields(text: str) -> dict[str, list[Any]]:
    names = [name for group in DARTS_GROUPS for name in (group, f"{group}_concat")]
    start, end = text.find("Genotype("), text.rfind(")")
    try:
        call = ast.parse(text[start : end + 1], mode="eval").body
        if not isinstance(call, ast.Call):
            raise TypeError("not a call")
        values = [*zip(names, call.args, strict=False)]
        values += [(each.arg or "", each.value) for each in call.keywords]
        fields = {name: _literal(value) for name, value in values}
    except (SyntaxError, ValueError, TypeError, RecursionError):
        raise ValueError(
            "not DARTS' tuple text, Genotype(normal=[('sep_conv_3x3', 1), ...], "
            "normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))"
        ) from None
    missing = [name for name in names if name not in fields]
    if missing:
        raise ValueError(f"DARTS' tuple text lacks {' and '.join(missing)}")
    return fields


def _literal(value: ast.expr) -> list[Any]:
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "range":
        return list(range(*(ast.literal_eval(each) for each in value.args))[:1000])
    return list(ast.literal_eval(value))
