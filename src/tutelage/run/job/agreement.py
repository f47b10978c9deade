"""Ranks have the same settings, images and variables, or the run stops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tutelage import ranks
from tutelage.run.job.environment import PACKAGES
from tutelage.run.job.settings import ELSEWHERE, differing, plain_value
from tutelage.trees import leaves

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def same_start(settings: DataclassInstance, device: torch.device) -> None:
    """Compare what the ranks were started with: settings, kind of device, versions of packages.

    Raises:
        ValueError: As `same_settings`.
    """
    versions = {f"{name}'s version": version(name) for name in PACKAGES}
    same_settings({**asdict(settings), "kind of device": device.type, **versions})


def same_settings(settings: Mapping[str, Any]) -> None:
    """Compare settings; those that name places, or change no result, may differ.

    Raises:
        ValueError: A rank has others than rank 0; the message names the rank and the settings.
    """
    if ranks.count() == 1:
        return
    first, *others = ranks.everyones(plain_value(settings))
    for rank, each in enumerate(others, start=1):
        found = [
            f"{name} = {here} (rank 0: {there})"
            for name, there, here in differing(first, each)
            if name.rpartition(".")[2] not in ELSEWHERE
        ]
        if found:
            raise ValueError(
                f"rank {rank} was started with {', '.join(found)}: all processes of a run need "
                "the same"
            )


def same_images(every: Any, halves: Iterable[Tensor] = ()) -> None:
    """Compare the images of all ranks: their labels, the pixels of some, and their division.

    Args:
        every: The images, as `tutelage.data.images.Images`.
        halves: The indices of each half of them.

    Raises:
        ValueError: A rank has others than rank 0; the message names it.
    """
    if ranks.count() == 1:
        return
    some = torch.linspace(0, len(every) - 1, min(len(every), 8)).long()
    with ranks.apart():  # each from its own files
        pixels = every.take(some.to(every.device))
    own = {"labels": every.labels, "pixels": pixels, "halves": list(halves)}
    for rank, what in _others({name: _digest(tree) for name, tree in own.items()}):
        raise ValueError(
            f"rank {rank} has images with other {', '.join(what)} than rank 0: all processes of a "
            "run need the same files of the data set"
        )


def same_place(epoch: int, step: int) -> None:
    """Compare where the ranks go on.

    Raises:
        ValueError: A rank has read another checkpoint than rank 0; the message names it.
    """
    first, *others = ranks.everyones((epoch, step))
    for rank, each in enumerate(others, start=1):
        if each != first:
            raise ValueError(
                f"rank {rank} found a checkpoint of epoch {each[0]}, step {each[1]}, and rank 0 "
                f"one of epoch {first[0]}, step {first[1]}: all processes need the same directory "
                "on a file system that they share"
            )


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
    for rank, what in _others({name: _digest(tree) for name, tree in variables.items()}):
        raise ValueError(
            f"rank {rank} has another {', '.join(what)} than rank 0 {when}, and nothing is "
            "saved: all must compute with the same hardware and versions; --resume goes on "
            "from the last checkpoint"
        )


def _others(own: Mapping[str, bytes]) -> Iterable[tuple[int, list[str]]]:
    """Yield every rank that differs from rank 0, and the names in which it does."""
    first, *others = ranks.everyones(own)
    for rank, each in enumerate(others, start=1):
        if names := [name for name in first if each.get(name) != first[name]]:
            yield rank, names


def _digest(tree: Any) -> bytes:
    found = blake2b(digest_size=16)
    for leaf in leaves(tree):
        flat = leaf.detach().cpu().contiguous().flatten()
        found.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return found.digest()
