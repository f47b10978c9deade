"""Watches a step: which operations it runs, and what a recorded program could not repeat."""

from __future__ import annotations

from typing import Any, Final, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.virtual import repeats

INDEXED: Final = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
"""Operations whose work depends on values if an index is a mask."""
SIZED: Final = ("index", "_unsafe_index")
"""Those of them that torch tags as of unknown size, although indices that are numbers have one."""
WAITS: Final = ("multinomial", "linalg_lstsq", "linalg_eigh", "_linalg_eigh", "_linalg_svd")
"""Operations whose CUDA form waits for the device or works on the host, which no tag says."""
MASKS: Final = (torch.bool, torch.uint8)

Operation = tuple[Any, ...]
"""An operation's name, and of its arguments the numbers and the shapes and types of tensors."""


@final
class Watch(TorchDispatchMode):
    """Lists a step's operations in order, as torch dispatches them below autograd.

    Attributes:
        operations: The list.
        obstacles: Why no program can repeat the step, one entry for each reason.
    """

    def __init__(self, device: torch.device) -> None:
        """Watch a step that computes on a device."""
        super().__init__()
        self.device = device
        self.operations: list[Operation] = []
        self.obstacles: dict[str, None] = {}

    @property
    def names(self) -> list[str]:
        """The operations without their arguments."""
        return [operation[0] for operation in self.operations]

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name, given = function.overloadpacket.__name__, [*args, *kwargs.values()]
        if reason := self._before(function, name, given):
            self.obstacles[f"{reason}: {name}"] = None
        result = function(*args, **kwargs)
        if reason := self._across(function, name, given, result):
            self.obstacles[f"{reason}: {name}"] = None
        self.operations.append((str(function), *(_described(each) for each in given)))
        return result

    def _before(self, function: Any, name: str, given: list[Any]) -> str:
        """Tell why an operation cannot be repeated, from what torch says of it."""
        if torch.Tag.data_dependent_output in function.tags:
            return "it reads a value back"
        dynamic = torch.Tag.dynamic_output_shape in function.tags and name not in SIZED
        if dynamic or (name in INDEXED and any(x.dtype in MASKS for x in _tensors(given[1]))):
            return "the size of a result depends on values"
        if torch.Tag.nondeterministic_seeded in function.tags and repeats():
            return "a rule repeats random numbers"
        if name == "lift_fresh":
            return "it makes a tensor of Python's values"
        if name in WAITS and self.device.type != "cpu":
            return "the device waits for the host"
        return ""

    def _across(self, function: Any, name: str, given: list[Any], result: Any) -> str:
        """Tell why an operation cannot be repeated, from where its tensors are."""
        if self.device.type == "cpu":
            return ""
        inputs, outputs = _tensors(given), _tensors(result)
        here = any(_on_host(x) for x in outputs)
        if here and any(not _on_host(x) for x in inputs):
            return "it reads a value back"
        written = [x for x in outputs if not _on_host(x)]
        if name in ("copy_", "_to_copy") and written and any(_on_host(x) for x in inputs):
            return "it copies values from the host"
        if here and torch.Tag.nondeterministic_seeded in function.tags:
            return "it draws random numbers on the host"
        if here and any(x.dim() or not function.is_view for x in inputs):
            return "it computes on the host"
        return ""


def difference(before: list[Operation], now: list[Operation]) -> str:
    """Describe the first difference between two lists of operations; empty: there is none."""
    if len(before) != len(now):
        return f"it ran {len(before):,} operations, then {len(now):,}"
    for one, other in zip(before, now, strict=True):
        if one[0] != other[0]:
            return f"it ran {one[0]}, then {other[0]} in its place"
        if one != other:
            return f"the numbers or shapes of {one[0]} changed"
    return ""


def _on_host(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _tensors(value: Any) -> list[Tensor]:
    """List the tensors of an operation's arguments or results."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [x for each in value for x in _tensors(each)]
    return []


def _described(value: Any) -> Any:
    """Describe an argument: a tensor by its shape and type, a number by itself."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype, value.device.type)
    if isinstance(value, (list, tuple)):
        return tuple(_described(each) for each in value)
    return value if isinstance(value, (bool, int, float, str)) else str(value)
