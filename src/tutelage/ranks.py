"""Several processes of one run, as `torchrun` starts them: its ranks, and what they agree on.

Nothing here starts or watches a process: torchrun does, and it ends all when one has died. In one
process nothing here does anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from tutelage.meeting import LostError, meet

PATIENCE: Final = timedelta(minutes=10)
"""How long a rank waits for another one; torchrun sees within a second that a process has died."""

SETTLING: Final = 0.2
"""Seconds in which a thread that has done an exchange gets a CPU and Python's lock."""

T = TypeVar("T")


_alone = [False]
"""Whether this rank computes on its own at present."""


def count() -> int:
    """Count the ranks that compute together."""
    return dist.get_world_size() if _joined() and not _alone[0] else 1


def rank() -> int:
    """Return this process's number among the ranks, from 0."""
    return dist.get_rank() if _joined() else 0


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun has started, for the time of the context.

    Without torchrun, and where they are joined already, nothing is done. Ranks other than 0 print
    nothing to standard output.

    Raises:
        LostError: Another rank has ended.
    """
    if started() == 1 or _joined():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with exchanging():
        place, number = int(os.environ.get("RANK", "0")), started()
        if store := meet(place, number, PATIENCE):
            dist.init_process_group(
                backend, timeout=PATIENCE, store=store, rank=place, world_size=number
            )
        else:
            dist.init_process_group(backend, timeout=PATIENCE)
    try:
        with (
            Path(os.devnull).open("w") as nothing,
            redirect_stdout(nothing) if rank() else nullcontext(),
        ):
            yield
        with exchanging():
            dist.barrier()  # no rank ends while another one still needs it
    finally:
        leave()


def leave() -> None:
    """Leave the processes, once the threads of the exchange have released all tensors.

    Torch's gloo waits for its threads to end while it holds Python's lock, and a thread that drops
    the last reference to a tensor needs that lock: on a busy machine both waited for ever.
    """
    time.sleep(SETTLING)
    dist.destroy_process_group()


def started() -> int:
    """Count the processes that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE") or "1")


def in_words() -> str:
    """Say how many processes compute together, and what exchanges for them."""
    backend = dist.get_backend().rpartition(":")[2] if _joined() else "none"
    return f"{count()} processes, {backend}"


def again() -> bool:
    """Tell whether torchrun has started these processes again after one had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def apart() -> Iterator[None]:
    """Let this rank compute on its own: networks see whole batches, and nothing is exchanged."""
    before, _alone[0] = _alone[0], True
    try:
        yield
    finally:
        _alone[0] = before


# Agreements --------------------------------------------------------------------------------------


def first(work: Callable[[], T]) -> T:
    """Let rank 0 do something before the others go on; all return what it returned.

    Raises:
        ValueError: The work raised it, on rank 0; LostError with the same sentence on the others.
    """
    if count() == 1:
        return work()
    found: list[Any] = [None, None]
    failure: ValueError | OSError | None = None
    if rank() == 0:
        try:
            found[0] = work()
        except (ValueError, OSError) as error:
            failure, found[1] = error, str(error)
    with exchanging():
        dist.broadcast_object_list(found)
    if failure:
        raise failure
    if found[1] is not None:
        raise LostError(found[1])
    return cast(T, found[0])


def highest(numbers: Sequence[int]) -> list[int]:
    """Return the highest of the ranks' numbers, place by place."""
    if count() == 1:
        return list(numbers)
    every = torch.tensor(list(numbers))
    with exchanging():
        dist.all_reduce(every, dist.ReduceOp.MAX)
    return [int(each) for each in every]


def everyones(mine: T) -> list[T]:
    """Return what every rank has, by rank."""
    if count() == 1:
        return [mine]
    found: list[Any] = [None] * count()
    with exchanging():
        dist.all_gather_object(found, mine)
    return found


@contextmanager
def exchanging() -> Iterator[None]:
    """Say in a sentence that an exchange failed.

    Raises:
        LostError: A RuntimeError came from the context, and not for want of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise LostError(
            "another process of this run has ended or does not answer, so all of them end: what "
            "the last checkpoint holds is safe; --resume goes on from there, with any number of "
            "processes"
        ) from error


def add(x: Tensor) -> Tensor:
    """Add x over the ranks, in place; all get the same bits."""
    with exchanging():
        dist.all_reduce(x)
    return x
