"""Architectures as encodings, which are sampled, crossed and mutated.

An encoding is a tuple of whole numbers, one for each choice. Choices are independent of one
another: every tuple within the bounds is an architecture, and uniform encodings are uniform
architectures. If a node keeps all edges that enter it, there is one number for each edge, its
operation. If it keeps some edges (two in cells of DARTS' shape), the node's first number is the set
of kept edges, and one number for each kept edge is its operation. Cells with such nodes never keep
`none`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage.renamed import old_name
from tutelage.spaces.base import ArchWeights, Space, keeps_none, nodes, one_hot
from tutelage.spaces.genotype import Genotype

Encoding = tuple[int, ...]


class Node(NamedTuple):
    """The choices at a node."""

    group: str
    edges: range
    """The edges that enter it."""
    subsets: tuple[tuple[int, ...], ...]
    """Sets of edges that it may keep."""
    operations: tuple[tuple[str, ...], ...]
    """For every entering edge, the operations that it may keep."""

    @property
    def bounds(self) -> Encoding:
        """The number of values of each of the node's numbers."""
        fewest = min(len(names) for names in self.operations)
        operations = (fewest,) * len(self.subsets[0])
        return operations if len(self.subsets) == 1 else (len(self.subsets), *operations)


_KNOWN: dict[Hashable, list[Node]] = {}


def __getattr__(name: str) -> Any:
    """Return an object by its name of 0.1."""
    return old_name(__name__, name, {"Genes": "Encoding", "genes": "encode", "drawn": "sample"})


def choices(space: Space) -> list[Node]:
    """List the nodes of a space with their choices."""
    key = (space.name, space.nodes, *space.operations.items())
    if key not in _KNOWN:
        _KNOWN[key] = _choices(space)
    return _KNOWN[key]


def _choices(space: Space) -> list[Node]:
    zeros = ArchWeights({group: torch.zeros(shape) for group, shape in space.choices.items()})
    keeps = keeps_none(space)

    def able(group: str, edge: int) -> tuple[str, ...]:
        return tuple(n for n in space.operations[group][edge] if n != "none" or keeps)

    return [
        Node(
            group,
            edges,
            subsets=tuple(combinations(edges, len(kept))),
            operations=tuple(able(group, edge) for edge in edges),
        )
        for group, edges, kept in nodes(space.genotype(zeros))
    ]


def bounds(space: Space) -> Encoding:
    """Return the number of values of each number of an encoding.

    >>> from tutelage.spaces.nb201 import NASBENCH201
    >>> bounds(NASBENCH201)
    (5, 5, 5, 5, 5, 5)
    """
    return tuple(bound for node in choices(space) for bound in node.bounds)


def sample(space: Space) -> Encoding:
    """Sample an architecture, uniformly, from torch's generator."""
    return tuple(int(torch.randint(bound, ())) for bound in bounds(space))


def kept(space: Space, encoding: Sequence[int]) -> Iterator[tuple[str, int, str]]:
    """Yield group, edge and operation of all kept operations of an architecture."""
    rest = iter(encoding)
    for node in choices(space):
        subset = node.subsets[next(rest) if len(node.subsets) > 1 else 0]
        for edge in subset:
            yield node.group, edge, node.operations[edge - node.edges.start][next(rest)]


def genotype(space: Space, encoding: Sequence[int]) -> Genotype:
    """Return the architecture of an encoding."""
    weights = {group: torch.zeros(shape) for group, shape in space.choices.items()}
    for group, edge, name in kept(space, encoding):
        weights[group][edge, space.operations[group][edge].index(name)] = 1
    return space.genotype(ArchWeights(weights))


def architecture(space: Space, path: ArchWeights) -> Genotype:
    """Return the architecture of a path: the inverse of `path`, without the encoding."""
    # on the CPU, where reading values does not wait for a device
    return space.genotype(ArchWeights({group: x.cpu() for group, x in path.operations.items()}))


def encode(space: Space, genotype: Genotype) -> Encoding:
    """Return the encoding of an architecture.

    >>> from tutelage.spaces.nb201 import NASBENCH201
    >>> encode(NASBENCH201, genotype(NASBENCH201, (4, 3, 2, 1, 0, 4)))
    (4, 3, 2, 1, 0, 4)
    """
    found: list[int] = []
    for node, (_, _, kept) in zip(choices(space), nodes(genotype), strict=True):
        if len(node.subsets) > 1:
            found.append(node.subsets.index(tuple(edge for edge, _ in sorted(kept))))
        found += [node.operations[e - node.edges.start].index(name) for e, name in sorted(kept)]
    return tuple(found)


def path(
    space: Space, encoding: Sequence[int], device: torch.device, dtype: torch.dtype
) -> ArchWeights:
    """Return the architecture weights that run exactly an architecture's operations."""
    # made on the CPU: its values select what runs, and reading them would wait for a device
    arch = one_hot(space, genotype(space, encoding), torch.zeros((), dtype=dtype))

    def placed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {group: x.to(device, non_blocking=True) for group, x in tensors.items()}

    return replace(arch, operations=placed(arch.operations), edges=placed(arch.edges or {}))
