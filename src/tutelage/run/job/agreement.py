"""Ranks hold the same variables, to the bit, or the run stops."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from tutelage import ranks
from tutelage.virtual import leaves


def same_everywhere(variables: Mapping[str, Any], when: str) -> None:
    """Compare the variables of all ranks, to the bit.

    Args:
        variables: Trees of tensors by name.
        when: The place in the run, for the message.

    Raises:
        ValueError: A rank has others than rank 0; the message names the rank and the variable.
    """
    if ranks.count() == 1:
        return
    own = {name: _digest(tree) for name, tree in variables.items()}
    first, *others = ranks.everyones(own)
    for rank, each in enumerate(others, start=1):
        if other := [name for name in first if each[name] != first[name]]:
            raise ValueError(
                f"rank {rank} has another {', '.join(other)} than rank 0 {when}, and nothing is "
                "saved: all must compute with the same hardware and versions; --resume goes on "
                "from the last checkpoint"
            )


def _digest(tree: Any) -> bytes:
    found = blake2b(digest_size=16)
    for leaf in leaves(tree):
        found.update(leaf.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return found.digest()
