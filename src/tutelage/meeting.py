"""Processes of one run meet in the store of torchrun, which outlives them.

Torchrun keeps its store when it starts processes again, with the addresses of those that have
ended: a process that reads such an address waits for it in vain. So all notes of a start have a
name of their own, which rank 0 makes. Another rank leaves a number in the store, and takes the name
that it finds beside this number: a rank 0 that still lives has read it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist

BETWEEN = 0.05
"""Seconds between two looks into the store."""

_name = [f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"]
"""The name of this start, once the processes have met."""


class LostError(ValueError):
    """Another rank has ended: an exchange with it failed, or it has said why."""


def meet(rank: int, count: int, patience: timedelta) -> dist.Store | None:
    """Wait until all processes are there; return a store that no earlier ones have written to.

    Signals are heard meanwhile, as torchrun sends them if a process has failed before it came.

    Returns:
        None: Nobody keeps a store for the processes.

    Raises:
        LostError: Some do not come.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store, end = _store(), time.monotonic() + patience.total_seconds()

    def until(done: Callable[[], bool]) -> None:
        while not done():
            if time.monotonic() > end:
                raise LostError(f"the {count} processes of this run do not meet in {patience}")
            time.sleep(BETWEEN)

    def read(key: str) -> list[str]:
        return store.get(key).decode().split() if store.check([key]) else ["none"]

    mine = uuid4().hex
    if rank:
        store.set(f"tutelage/{rank}", mine)
        until(lambda: read("tutelage/0")[rank:][:1] == [mine])
    name = read("tutelage/0")[0] if rank else mine

    def all_here() -> bool:
        if rank == 0:
            numbers = [read(f"tutelage/{other}")[0] for other in range(1, count)]
            store.set("tutelage/0", " ".join([mine, *numbers]))
        return store.add(f"{name}/here", 0) == count

    store.add(f"{name}/here", 1)
    until(all_here)
    _name[0] = name
    store.set_timeout(patience)
    return dist.PrefixStore(name, store)


def speaks(sentence: str, after_others: bool = False) -> bool:
    """Tell whether this process is the first one of its run that is about to end with a sentence.

    Args:
        sentence: The sentence. A process with another one speaks too.
        after_others: Whether it is said only if no process has anything else to say.
    """
    try:
        store = _store()
        if after_others:
            time.sleep(1)
            if store.add(f"{_name[0]}/any", 0):
                return False
        store.add(f"{_name[0]}/any", 1)
        return store.add(f"{_name[0]}/{sentence}", 1) == 1
    except (KeyError, ValueError, RuntimeError):  # no store answers
        return True


def _store() -> dist.TCPStore:
    return dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=timedelta(seconds=5),
        wait_for_workers=False,
        use_libuv=os.environ.get("USE_LIBUV", "1") == "1",  # as torch's own stores read it
    )
