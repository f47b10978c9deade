"""The notations in which other repositories print architectures.

They are DARTS' tuple, NAS-Bench-201's string and NAS-Bench-Macro's digits. Both directions work on
plain operation names, with the states that they read; `tutelage.spaces.genotype` checks them.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.checks import nearest

DARTS_GROUPS = ("normal", "reduce")

MACRO_OPERATIONS = ("identity", "mbconv3_3x3", "mbconv6_5x5")
"""The operations of NAS-Bench-Macro's layers, in the order of its digits 0, 1 and 2."""

MACRO_LAYERS = 8


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
