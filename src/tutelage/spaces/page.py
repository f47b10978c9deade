"""A space in a page of TOML: candidates on a skeleton, with operations of one's own.

    skeleton = "darts"
    candidates = ["skip_connect", "sep_conv_3x3", "ghost"]

    [operations.ghost]
    module = "my_operations:ghost"
    cost = "my_operations:ghost_flops"

The page's settings become the layout of its genotypes and the table `space` of its runs, so both
hold all that is needed to build networks but the code of one's own operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tutelage import trusted
from tutelage.checks import at_least, nearest, within
from tutelage.formats import from_toml, read_text
from tutelage.installed import NAME
from tutelage.spaces import SPACES
from tutelage.spaces.base import Edges, Sizes
from tutelage.spaces.blocks import is_own
from tutelage.spaces.cells import CellSpace, everywhere
from tutelage.spaces.chain import Chain
from tutelage.spaces.mixed import SUPERNET
from tutelage.spaces.nb201 import EDGES, GROUP, PLAIN_201, NasBench201
from tutelage.spaces.ops import OPERATIONS, check_operations
from tutelage.spaces.own import Operation, Page
from tutelage.spaces.plan import AUXILIARY
from tutelage.spaces.style import Style
from tutelage.tables import from_table, plain

Described = CellSpace | NasBench201 | Chain
"""A space that a page can describe."""
MOST: dict[str, int] = {"nodes": 8, "channels": 2**17, "cells": 1000}
"""Most nodes of a cell, and what a page may ask for."""


@dataclass(frozen=True)
class Functions:
    """The two functions of an operation of one's own."""

    module: str = ""
    """Import path of the function that builds its module, `module:function`."""
    cost: str = ""
    """Import path of the function that gives its FLOPs; not set: they are counted."""

    def __post_init__(self) -> None:
        if not self.module:
            raise ValueError("module is missing: it is the import path of a function, as my:ghost")
        for key in ("module", "cost"):
            path = getattr(self, key)
            module, _, name = path.partition(":")
            if path and not all(x.isidentifier() for x in [*module.split("."), *name.split(".")]):
                raise ValueError(f"{key} = {path!r}: must be an import path, as module:function")


@dataclass(frozen=True)
class Cells:
    """Normal and reduction cells, as in DARTS."""

    candidates: tuple[str, ...] = ()
    """Operations of every edge."""
    normal: tuple[str, ...] = ()
    """Operations of a normal cell's edges; not set: the candidates."""
    reduce: tuple[str, ...] = ()
    """Operations of a reduction cell's edges; not set: the candidates."""
    nodes: int = 4
    """Nodes of a cell."""
    channels: int = 16
    """Channels of the supernet's first cell."""
    cells: int = 8
    """Cells of the supernet."""
    final_channels: int = 36
    """Channels of the final network's first cell."""
    final_cells: int = 20
    """Cells of the final network."""
    auxiliary: float = 0.4
    """Weight of the loss of the final network's auxiliary head; 0: it has none."""

    def __post_init__(self) -> None:
        within(1, MOST["nodes"], nodes=self.nodes)
        _check_sizes(self, fewest=3)
        at_least(0, auxiliary=self.auxiliary)

    def space(self, name: str, page: Page) -> Described:
        """Make the space."""
        operations: dict[str, Edges] = {}
        for group in ("normal", "reduce"):
            names = getattr(self, group) or self.candidates
            _check_names(names, group if getattr(self, group) else "candidates", page)
            operations |= {group: everywhere(*names, nodes=self.nodes)[group]}
        sizes = (self.channels, self.cells, self.final_channels, self.final_cells)
        return CellSpace(name, operations, sizes=Sizes(*sizes, self.auxiliary, 3), page=page)


@dataclass(frozen=True)
class OneCell:
    """One cell of six edges at three resolutions, as in NAS-Bench-201."""

    candidates: tuple[str, ...] = ()
    """Operations of every edge."""
    channels: int = 16
    """Channels of the supernet's first stage."""
    cells: int = 5
    """Cells of each of the supernet's three stages."""
    final_channels: int = 16
    """Channels of the final network's first stage."""
    final_cells: int = 5
    """Cells of each stage of the final network."""

    def __post_init__(self) -> None:
        _check_sizes(self, fewest=1)

    def space(self, name: str, page: Page) -> Described:
        """Make the space."""
        _check_names(self.candidates, "candidates", page)
        sizes = (self.channels, self.cells, self.final_channels, self.final_cells)
        edges = {GROUP: (self.candidates,) * EDGES}
        return NasBench201(edges, name, PLAIN_201, Sizes(*sizes, 0.0, 1), page)


def _check_sizes(of: Cells | OneCell, fewest: int) -> None:
    within(1, MOST["channels"], channels=of.channels, final_channels=of.final_channels)
    within(fewest, MOST["cells"], cells=of.cells, final_cells=of.final_cells)


def _check_names(names: Sequence[str], key: str, page: Page) -> None:
    """Refuse operations that a cell cannot have, or that are given twice."""
    if len(set(names) - {"none"}) < 1 or len(set(names)) < len(names):
        listed = ", ".join(names) or "nothing"
        raise ValueError(f"{key} = {listed}: give one operation or more, each of them once")
    try:
        check_operations(names, page.operations)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


NEEDED = ("candidates", "widths", "depths", "strides")
"""What a page of a chain cannot leave out."""


def _chain(name: str, settings: Mapping[str, Any], page: Page) -> Described:
    if missing := [key for key in NEEDED if key not in settings]:
        raise ValueError(f"{', '.join(missing)} missing: a chain needs {', '.join(NEEDED)}")
    empty = Chain(name, ("identity",), (2,), (1,), (1,), page=page)
    found: Chain = from_table(empty, settings, "a chain")
    return found


def _cells(name: str, settings: Mapping[str, Any], page: Page) -> Described:
    cells: Cells = from_table(Cells, settings, "a space of normal and reduction cells")
    return cells.space(name, _whole(page, cells))


def _one_cell(name: str, settings: Mapping[str, Any], page: Page) -> Described:
    cell: OneCell = from_table(OneCell, settings, "a space of one cell")
    return cell.space(name, _whole(page, cell))


def _whole(page: Page, settings: Cells | OneCell) -> Page:
    """Add all settings to a page, so that later defaults change nothing."""
    return page._replace(table={**page.table, **plain(asdict(settings))})


SKELETONS = {"darts": _cells, "nasbench201": _one_cell, "chain": _chain}
"""What surrounds the choices: functions that make a space of a page's settings."""


def space_of(table: Mapping[str, Any], where: str) -> Described:
    """Make a space of a page's settings; nothing is imported.

    Args:
        table: The settings, with `name` and `skeleton`.
        where: What they are of, for the errors of operations.

    Raises:
        ValueError: A setting is unknown or cannot be.
    """
    settings = dict(table)
    name, skeleton = settings.pop("name", ""), settings.pop("skeleton", None)
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in SPACES:
        raise ValueError(
            f"name = {name!r}: must be of letters, digits, dots, - and _, and no space of Tutelage"
        )
    if not isinstance(skeleton, str) or skeleton not in SKELETONS:
        told = "missing" if skeleton is None else f"{skeleton!r}"
        raise ValueError(f"skeleton = {told}: {nearest(str(skeleton), SKELETONS)}")
    given = settings.pop("operations", {})
    own = _operations(given, where, chain=skeleton == "chain")
    page = Page({"skeleton": skeleton, **({"operations": given} if given else {})}, own)
    return SKELETONS[skeleton](name, settings, page)


def _operations(given: Any, where: str, *, chain: bool) -> tuple[Operation, ...]:
    """Read the operations of one's own."""
    if not isinstance(given, Mapping):
        raise ValueError("operations: must be a table for each, [operations.NAME]")
    found = []
    for name, table in given.items():
        what = f"operations.{name}"
        if not isinstance(table, Mapping):
            raise ValueError(f"{what} = {table!r}: must be a table, [{what}]")
        if not name.isidentifier():
            raise ValueError(f"{what}: a name has letters, digits and _")
        if (is_own(name) if chain else name in (*OPERATIONS, AUXILIARY)) or name in dir(
            nn.ModuleDict()
        ):
            raise ValueError(f"{what}: Tutelage or torch has that name itself, so choose another")
        try:
            functions: Functions = from_table(Functions, table, "an operation")
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
        found.append(Operation(name, functions.module, functions.cost, f"{where}: {what}"))
    return tuple(found)


def definition(space: Any) -> dict[str, Any] | None:
    """Return the settings from which `space_of` makes a space; None: it is not of a page."""
    page = getattr(space, "page", None)
    return {"name": space.name, **space.layout} if isinstance(page, Page) else None


# Files ------------------------------------------------------------------------------------------


def read_page(path: Path) -> Described:
    """Read a page that the user names, import its functions, and try them.

    Functions are looked for beside the page too.

    Raises:
        ValueError: The page is no TOML, a setting is wrong, or a function cannot be imported or
            gives something else than it must; the message names the page and the key.
    """
    if not path.is_file():
        raise ValueError(f"space {path}: there is no such file")
    try:
        table = {"name": path.stem, **from_toml(read_text(path))}
    except ValueError as error:
        raise ValueError(f"space {path} is not TOML: {error}") from error
    about = table.pop("about", "")
    try:
        if not isinstance(about, str):
            raise ValueError(f"about = {about!r}: must be a text")
        space = space_of(table, str(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    candidates = {name for edges in space.operations.values() for edge in edges for name in edge}
    for operation in space.own:
        if operation.name not in candidates:
            raise ValueError(f"{operation.where} is no candidate: name it there, or leave it out")
        _import(operation, path)
        _try(operation, table["skeleton"])
    return space


def _import(operation: Operation, path: Path) -> None:
    """Trust the functions of an operation, since the user names the page, and import them."""
    for key in ("module", "cost"):
        if target := getattr(operation, key):
            trusted.trust(target)
            try:
                trusted.imported(target, path.parent)
            except ValueError as error:
                raise ValueError(f"{operation.where}.{key} = {error}") from error


def _try(operation: Operation, skeleton: str) -> None:
    """Build an operation once for every stride and style, and ask for its cost."""
    for stride in (1,) if skeleton == "nasbench201" else (1, 2):
        outputs = 16 if skeleton == "chain" and stride == 2 else 8
        for style in (SUPERNET, Style()):
            operation.build(8, outputs, stride, style)
        if operation.cost:
            operation.flops(8, outputs, stride, 16, 16)
