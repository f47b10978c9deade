"""Whether what a checkpoint holds has the names, types and shapes of what it is restored into.

Checksums protect a checkpoint from damage, and nothing protects it from an editor. So values are
compared with those that a new run of the same settings has, before a step may meet them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

OWN: Final = "param_groups"
"""The entry of an optimiser's state with its settings, which it keeps of its own."""
LONGEST: Final = 60
"""Characters of a name or a value in a sentence."""


def refuse_unlike(found: Any, like: Any, name: str) -> None:
    """Raise ValueError, which names the entry, unless a value is like another one.

    Dicts have the same keys in any order, sequences the same length, tensors the same shape and
    type, wherever they are, and all else the same type.

    Args:
        found: The value of a checkpoint.
        like: The value with the right names, types and shapes.
        name: The name of the value.
    """
    match found, like:
        case Tensor(), Tensor():
            if _tensor(found) != _tensor(like) or not _plain(found, like):
                raise ValueError(f"{name} is {_tensor(found)}: must be {_tensor(like)}")
        case Mapping(), Mapping():
            refuse_others(found, like, name)
            for key, value in like.items():
                if key != OWN:
                    refuse_unlike(found[key], value, f"{name}.{_short(key)}")
        case ((list() | tuple()), (list() | tuple())):
            if len(found) != len(like):
                raise ValueError(f"{name} has {len(found)} entries: must be {len(like)}")
            for place, pair in enumerate(zip(found, like, strict=True)):
                refuse_unlike(*pair, f"{name}.{place}")
        case _ if type(found) is not type(like):
            there, here = type(found).__name__, type(like).__name__
            raise ValueError(f"{name} is {_short(found)}, of type {there}: must be of type {here}")


def refuse_others(found: Any, names: Iterable[Any], where: str) -> None:
    """Raise ValueError unless a value is a dict with these keys."""
    if not isinstance(found, Mapping):
        raise ValueError(f"{where} is of type {type(found).__name__}: must be of type dict")
    needed, present = set(names) - {OWN}, set(found) - {OWN}
    if missing := needed - present:
        raise ValueError(f"{where} lacks {_short(min(missing, key=str))}")
    if more := present - needed:
        raise ValueError(f"{where} has an unknown entry {_short(min(more, key=str))}")


def refuse_moments(
    found: Any, optimiser: torch.optim.Optimizer, kept: Iterable[str], *, least: int = 0
) -> None:
    """Raise ValueError unless an optimiser's stored state fits its weights.

    Args:
        found: The entry `state` of what its `state_dict` has given.
        optimiser: It holds the weights.
        kept: Names of the tensors that it keeps for each weight, with its shape; `step` has none.
        least: How many weights must have a state, since they were trained.
    """
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    if len(dict(found)) < least:
        raise ValueError(
            f"the optimiser's state is of {len(found)} weights: must be of at least {least}, which "
            "were trained before"
        )
    for place, tensors in dict(found).items():
        name = f"the optimiser's state of weight {_short(place)}"
        if type(place) is not int or not 0 <= place < len(weights):
            raise ValueError(f"{name}: there are {len(weights)} weights")
        step, like = torch.zeros((), dtype=torch.float32), weights[place].detach()
        refuse_unlike(tensors, {each: step if each == "step" else like for each in kept}, name)


def _tensor(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"


def _plain(found: Tensor, like: Tensor) -> bool:
    """Tell whether a tensor has memory for all of its numbers, and no gradient of its own."""
    stored = found.layout == torch.strided and found.device.type != "meta"
    whole = stored and found.untyped_storage().nbytes() >= found.numel() * found.element_size()
    return whole and (like.requires_grad or not found.requires_grad)


def _short(value: Any) -> str:
    text = value if type(value) is str else repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
