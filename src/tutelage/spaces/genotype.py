"""Genotypes: the architectures that a search finds, as checked values to store, read and print.

A genotype is written as versioned JSON, as the tuple text of DARTS' repositories or as the string
of NAS-Bench-201. Nothing in this file imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.checks import nearest
from tutelage.formats import from_json, read_text
from tutelage.renamed import SETTINGS, lifted
from tutelage.spaces.notation import (
    read_darts,
    read_nasbench201,
    write_darts,
    write_macro,
    write_nasbench201,
)
from tutelage.spaces.stages import Stage, as_text, stages_of

Node = tuple[tuple[str, int], ...]

FORMAT = "tutelage genotype"
VERSION = 1

DARTS_OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The operations of DARTS' cells, in the order of the alphas' columns."""

NASBENCH201_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The operations of NAS-Bench-201's cell, in the order of the alphas' columns."""

DARTS_SHAPED: Mapping[str, tuple[str, ...]] = {
    "darts": DARTS_OPERATIONS,
    "s1": DARTS_OPERATIONS,
    "s2": ("skip_connect", "sep_conv_3x3"),
    "s3": ("none", "skip_connect", "sep_conv_3x3"),
    "s4": ("noise", "sep_conv_3x3"),
}
"""Spaces whose cells have the shape of DARTS' cells, and their operations."""

OPERATIONS: Mapping[str, tuple[str, ...]] = {
    **DARTS_SHAPED,
    "nasbench201": NASBENCH201_OPERATIONS,
}
"""Operation names of every space whose genotypes are checked by them."""


@dataclass(frozen=True)
class Cell:
    """One cell: it has `inputs` input states, and every node sums operations on earlier states."""

    nodes: tuple[Node, ...]
    """For every node, its (operation name, state it reads) pairs; states count inputs first."""
    concat: tuple[int, ...]
    """States whose channels are concatenated to the cell's output."""
    inputs: int = 2
    """Number of input states."""

    def __post_init__(self) -> None:
        if type(self.inputs) is not int or self.inputs < 1:
            raise ValueError(f"inputs = {self.inputs!r}: must be a whole number of at least 1")
        if not self.nodes:
            raise ValueError("the cell is empty: it needs at least one node")
        for state, node in enumerate(self.nodes, start=self.inputs):
            _check_node(state, node)
        for state in self.concat:
            if type(state) is not int or not self.inputs <= state < self.states:
                raise ValueError(
                    f"concat names state {state!r}, but the cell's nodes are states {self.inputs} "
                    f"to {self.states - 1}: a node is missing"
                )
        if not self.concat or len(set(self.concat)) != len(self.concat):
            raise ValueError(f"concat = {list(self.concat)}: must name nodes, each of them once")

    @property
    def chained(self) -> bool:
        """Whether every node has one operation, on the state before it."""
        return self.inputs == 1 and all(
            [read for _, read in node] == [state] for state, node in enumerate(self.nodes)
        )

    @property
    def states(self) -> int:
        """The number of states: inputs and nodes."""
        return self.inputs + len(self.nodes)

    def state_name(self, state: int) -> str:
        """Name a state as the papers do: inputs are c_{k-2} and c_{k-1}, nodes are numbers."""
        return f"c_{{k-{self.inputs - state}}}" if state < self.inputs else str(state)


@dataclass(frozen=True)
class Genotype:
    """An architecture: a cell for every group of choices of a space."""

    space: str
    """Name of the space whose operations the cells use."""
    cells: Mapping[str, Cell]
    """Group name (normal and reduce, cell, or chain) to cell."""
    layout: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the space: of a chain, or of a page of TOML; other spaces have none."""

    def __post_init__(self) -> None:
        if not self.cells:
            raise ValueError("the genotype is empty: it needs at least one cell")
        allowed = OPERATIONS.get(self.space)
        for group, cell in self.cells.items():
            for operation in (pair[0] for node in cell.nodes for pair in node):
                if allowed and operation not in allowed:
                    raise ValueError(
                        f"cell {group!r}: unknown operation {operation!r} for the space "
                        f"{self.space!r}: {nearest(operation, allowed)}"
                    )
        skeleton = self.layout.get("skeleton")
        if self.space in DARTS_SHAPED:
            _check_darts(self.cells)
        elif skeleton == "darts":
            _check_darts(self.cells, self.layout.get("nodes", 4))
        elif "nasbench201" in (self.space, skeleton):
            _check_nasbench201(self.cells)
        elif "chain" in self.cells:
            _check_chain(self.cells)
            stages_of(self.names, self.layout)

    @classmethod
    def from_dict(cls, data: Any) -> Genotype:
        """Read a genotype from decoded JSON; raise ValueError if it is anything else."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f'not a genotype: the JSON\'s "format" must be "{FORMAT}"')
        version = data.get("version")
        if type(version) is int and version > VERSION:
            raise ValueError(
                f"made by a newer Tutelage: version {version}; this one reads {VERSION}"
            )
        if version != VERSION:
            raise ValueError(f"version {version!r} of a genotype: must be {VERSION}")
        space, cells, layout = data.get("space"), data.get("cells"), data.get("layout", {})
        if not (isinstance(space, str) and isinstance(cells, dict) and isinstance(layout, dict)):
            raise ValueError('a genotype needs "space", a name, and "cells", an object')
        made = {group: _read_cell(group, cell) for group, cell in cells.items()}
        return cls(space, made, lifted(layout, SETTINGS["space",]))

    @classmethod
    def of_chain(cls, space: str, names: Sequence[str], layout: Mapping[str, Any]) -> Genotype:
        """Make the genotype of a chain from its blocks' names, one for each layer."""
        nodes = tuple(((name, layer),) for layer, name in enumerate(names))
        return cls(space, {"chain": Cell(nodes, concat=(len(nodes),), inputs=1)}, layout)

    @property
    def names(self) -> list[str]:
        """The operations of all nodes, in order; for a chain, one block for each layer."""
        nodes = (node for cell in self.cells.values() for node in cell.nodes)
        return [name for node in nodes for name, _ in node]

    @property
    def stages(self) -> list[Stage]:
        """The stages of a chain; empty for cells."""
        return stages_of(self.names, self.layout) if "chain" in self.cells else []

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read a genotype's JSON text; raise ValueError if it is damaged or not a genotype."""
        try:
            data = from_json(text)
        except ValueError as error:
            raise ValueError(
                f"not a genotype: the JSON is damaged or cut short ({error})"
            ) from None
        return cls.from_dict(data)

    @classmethod
    def from_darts(cls, text: str, space: str = "darts") -> Genotype:
        """Read DARTS' tuple text, `Genotype(normal=[...], normal_concat=range(2, 6), ...)`.

        Text before it, such as a name or the beginning of a log line, is skipped.
        """
        cells = read_darts(text)
        return cls(space, {group: _read_cell(group, cell) for group, cell in cells.items()})

    @classmethod
    def from_nasbench201(cls, text: str) -> Genotype:
        """Read NAS-Bench-201's string, `|none~0|+|none~0|none~1|+|none~0|none~1|none~2|`."""
        nodes = read_nasbench201(text)
        cell = {"inputs": 1, "nodes": nodes, "concat": [len(nodes)]}
        return cls("nasbench201", {"cell": _read_cell("cell", cell)})

    @classmethod
    def from_text(cls, text: str) -> Genotype:
        """Read a genotype's JSON, DARTS' tuple text or NAS-Bench-201's string."""
        if "Genotype(" in text:
            return cls.from_darts(text)
        return cls.from_nasbench201(text) if text.lstrip()[:1] == "|" else cls.from_json(text)

    @classmethod
    def read(cls, path: Path | str) -> Genotype:
        """Read a file that holds a genotype in any of the forms of `from_text`."""
        try:
            return cls.from_text(read_text(Path(path)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def to_dict(self, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the object that `to_json` writes."""
        cells = {
            group: {
                "inputs": cell.inputs,
                "nodes": [[list(pair) for pair in node] for node in cell.nodes],
                "concat": list(cell.concat),
            }
            for group, cell in self.cells.items()
        }
        data = {"format": FORMAT, "version": VERSION, "space": self.space, "cells": cells}
        if self.layout:
            data["layout"] = dict(self.layout)
        return data if about is None else {**data, "about": dict(about)}

    def to_json(self, about: Mapping[str, Any] | None = None) -> str:
        """Write versioned JSON, one line for each node; `about` is the genotype's origin."""
        return _lines(self.to_dict(about)) + "\n"

    def to_darts(self) -> str:
        """Write DARTS' tuple text; raise ValueError unless every node has two operations."""
        _check_darts(self.cells)
        return write_darts(self.to_dict()["cells"])

    def to_nasbench201(self) -> str:
        """Write NAS-Bench-201's string; raise ValueError unless the cell has its shape."""
        _check_nasbench201(self.cells)
        return write_nasbench201(self.cells["cell"].nodes)

    def to_macro(self) -> str:
        """Write NAS-Bench-Macro's digits; raise ValueError unless it is of that space."""
        if self.space != "nasbench-macro":
            raise ValueError(
                f"the genotype is of the space {self.space!r}: NAS-Bench-Macro's digits are of "
                "nasbench-macro's chains"
            )
        return write_macro(self.names)

    def as_text(self) -> str:
        """Write the cells for a terminal, one line for each node; for a chain, for each stage.

        >>> from tutelage.spaces.published import PUBLISHED
        >>> print(PUBLISHED["DARTS_V2"].as_text().split("reduce")[0].rstrip())
        normal
          2 = sep_conv_3x3(c_{k-2}) + sep_conv_3x3(c_{k-1})
          3 = sep_conv_3x3(c_{k-2}) + sep_conv_3x3(c_{k-1})
          4 = sep_conv_3x3(c_{k-1}) + skip_connect(c_{k-2})
          5 = skip_connect(c_{k-2}) + dil_conv_3x3(2)
          output = concat(2, 3, 4, 5)
        """
        if "chain" in self.cells:
            return as_text(self.stages)
        lines = []
        for group, cell in self.cells.items():
            lines.append(group)
            for state, node in enumerate(cell.nodes, start=cell.inputs):
                terms = (f"{operation}({cell.state_name(read)})" for operation, read in node)
                lines.append(f"  {state} = {' + '.join(terms)}")
            lines.append(f"  output = concat({', '.join(map(str, cell.concat))})")
        return "\n".join(lines)


def _check_node(state: int, node: Node) -> None:
    if not node:
        raise ValueError(f"node {state} is missing: it has no (operation, state) pair")
    for operation, read in node:
        if not isinstance(operation, str) or type(read) is not int:
            raise ValueError(
                f"node {state} holds ({operation!r}, {read!r}): must be (operation, state)"
            )
        if not 0 <= read < state:
            raise ValueError(
                f"node {state} reads state {read}: must be an earlier state, 0 to {state - 1}"
            )


def _check_darts(cells: Mapping[str, Cell], nodes: Any = 4) -> None:
    if set(cells) != {"normal", "reduce"}:
        raise ValueError(f"cells = {', '.join(cells)}: DARTS' are exactly normal and reduce")
    for group, cell in cells.items():
        if cell.inputs != 2:
            raise ValueError(f"cell {group!r}: inputs = {cell.inputs}: DARTS' cells have 2")
        if len(cell.nodes) != nodes:
            whose = "DARTS' cells" if nodes == 4 else "cells of this layout"
            raise ValueError(f"cell {group!r} has {len(cell.nodes)} nodes: {whose} have {nodes}")
        for state, node in enumerate(cell.nodes, start=2):
            if len(node) != 2:
                raise ValueError(
                    f"cell {group!r}: node {state} sums {len(node)} operations: DARTS' sum 2"
                )


def _check_nasbench201(cells: Mapping[str, Cell]) -> None:
    if set(cells) != {"cell"}:
        raise ValueError(f"cells = {', '.join(cells)}: NAS-Bench-201 has exactly one, cell")
    cell = cells["cell"]
    if cell.inputs != 1 or len(cell.nodes) != 3 or cell.concat != (3,):
        raise ValueError(
            f"cell 'cell' has {cell.inputs} inputs, {len(cell.nodes)} nodes and the output "
            f"{', '.join(map(str, cell.concat))}: NAS-Bench-201's has 1, 3 and the output 3"
        )
    for state, node in enumerate(cell.nodes, start=1):
        reads = [read for _, read in node]
        if reads != list(range(state)):
            raise ValueError(
                f"cell 'cell': node {state} reads {', '.join(map(str, reads))}: NAS-Bench-201's "
                f"reads every earlier state once, in the order {', '.join(map(str, range(state)))}"
            )


def _check_chain(cells: Mapping[str, Cell]) -> None:
    if set(cells) != {"chain"}:
        raise ValueError(f"cells = {', '.join(cells)}: a chain is exactly one, chain")
    if not cells["chain"].chained or cells["chain"].concat != (len(cells["chain"].nodes),):
        raise ValueError(
            "cell 'chain': every node must have one operation on the state before it, and the "
            "output must be the last node"
        )


def _read_cell(group: str, data: Any) -> Cell:
    try:
        nodes = tuple(tuple((name, state) for name, state in node) for node in data["nodes"])
        concat, inputs = tuple(data["concat"]), data["inputs"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"cell {group!r} must hold inputs, nodes as lists of (operation, state), and concat"
        ) from None
    try:
        return Cell(nodes, concat, inputs)
    except ValueError as error:
        raise ValueError(f"cell {group!r}: {error}") from None


def _lines(value: Any, indent: str = "") -> str:
    """Write JSON, each value on one line if it fits, otherwise one line for each item."""
    line = json.dumps(value)
    if len(indent + line) <= 90 or not isinstance(value, (dict, list)):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(key)}: {_lines(each, inner)}" for key, each in value.items()]
    else:
        items = [inner + _lines(each, inner) for each in value]
    return line[0] + "\n" + ",\n".join(items) + "\n" + indent + line[-1]
