"""How a step becomes one program: a CUDA graph; the only calls of CUDA's graphs are here."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Protocol, TypeVar, final

import torch

from tutelage import ranks
from tutelage.spaces import parallel

T = TypeVar("T")


class Recorder(Protocol):
    """Makes programs of functions whose operations are always the same."""

    def warm(self, call: Callable[[], T]) -> T:
        """Run a function one operation at a time, as preparation for its recording."""

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return a function that repeats the operations of another one, on the same tensors.

        The recording itself computes nothing.

        Raises:
            RuntimeError: The operations cannot be recorded.
        """

    def clear(self) -> None:
        """Free the memory that a failed recording has taken, once nothing refers to it."""


@final
class Again:
    """The recorder without a recording: a program calls its function again. For tests on a CPU."""

    def warm(self, call: Callable[[], T]) -> T:
        """Run the function."""
        return call()

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return the function itself."""
        return call

    def clear(self) -> None:
        """Do nothing: there is no memory of recordings."""


@final
class Graphs:
    """Records CUDA graphs, on one side stream and with one pool of memory for all of them.

    A graph's intermediate values lie in the pool, where the next graph may overwrite them. So
    everything that outlives a replay is outside: variables, batches and optimisers' states are
    made before a recording, and measurements are copied after every replay.

    Random numbers are those of an ordinary step: a replay reads seed and offset of the default
    generator, which `torch.manual_seed` sets before every step.

    Where a recording fails, CUDA may leave the process in a state in which the next one fails too,
    or uses memory that is not its own. So no graph is recorded in this process after that.
    """

    failure: ClassVar[str] = ""
    """Why a recording of this process has failed; empty: none has."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self.anchor: torch.cuda.CUDAGraph | None = None
        """An almost empty graph. A pool without graphs that still holds memory takes no new one."""

    def warm(self, call: Callable[[], T]) -> T:
        """Run the function on the side stream, between earlier and later work of this stream."""
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        with torch.cuda.stream(self.stream):
            result = call()
        present.wait_stream(self.stream)
        return result

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Record the function's kernels, and return the graph's replay.

        Other threads may use CUDA in the meantime, so errors are those of this thread alone.

        Raises:
            RuntimeError: The operations cannot be recorded, or an earlier recording has failed.
        """
        if Graphs.failure:
            raise RuntimeError(f"an earlier one in this process failed: {Graphs.failure}")
        present, state = torch.cuda.current_stream(self.device), torch.cuda.get_rng_state()
        try:
            if self.anchor is None:
                self.anchor = self._graph(lambda: torch.zeros((), device=self.device))
            return self._graph(call).replay
        except RuntimeError as error:  # pool and generator may still be part of the recording
            Graphs.failure = cause(error)
            torch.cuda.set_stream(present)
            _free_pool(self.device, self.pool)
            self.pool, self.anchor = torch.cuda.graph_pool_handle(), None
            _free_generator(state)
            raise

    def clear(self) -> None:
        """Return the memory of freed tensors to CUDA."""
        gc.collect()
        torch.cuda.empty_cache()

    def _graph(self, call: Callable[[], Any]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        kind: Any = {"capture_error_mode": "thread_local"}
        with _uncollected(), torch.cuda.graph(graph, self.pool, self.stream, **kind):
            call()
            parallel.join()
        return graph


def cause(error: BaseException) -> str:
    """Return the first line of the error that others followed: the end of a recording fails too."""
    while before := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = before
    return (str(error) or type(error).__name__).splitlines()[0]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage: freeing a graph or an event during a recording would end it."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _free_pool(device: torch.device, pool: Any) -> None:
    """End the allocations of a failed recording, which may have ended before the allocator's part.

    Only where that was so does the recording still count among the users of the pool: an error of
    the first call therefore leaves out the second one.
    """
    of_torch: Any = torch._C
    index = torch.cuda.current_device() if device.index is None else device.index
    end = getattr(of_torch, "_cuda_endAllocateToPool", None)  # its name from torch 2.8 on
    try:
        (end or of_torch._cuda_endAllocateCurrentStreamToPool)(index, pool)
        of_torch._cuda_releasePool(index, pool)
    except RuntimeError:  # the recording has ended regularly
        pass


def _free_generator(state: torch.Tensor) -> None:
    """Give the default generator a new state: a recording that failed may still hold the old one.

    Args:
        state: The state before the recording.
    """
    generator: Any = torch.cuda.default_generators[torch.cuda.current_device()]
    fresh: Any = torch.Generator(generator.device)
    fresh.set_state(state)
    generator.graphsafe_set_state(fresh.graphsafe_get_state())


def chosen(choice: Literal["auto", "on", "off"], device: torch.device) -> str:
    """Say whether steps may run as CUDA graphs, and why not, for environment.json."""
    if choice == "off":
        return "off: as the settings say"
    if ranks.started() > 1:
        return "off: several processes exchange values within a step"
    return "on" if device.type == "cuda" else f"off: only CUDA has them, not {device.type}"


def recorder_of(choice: Literal["auto", "on", "off"], device: torch.device) -> Recorder | None:
    """Return the recorder of a device; None: steps run one operation at a time.

    Raises:
        ValueError: Programs are required, and the device has none.
    """
    if choice == "on" and device.type != "cuda":
        raise ValueError(
            f"graph = 'on' with device = {device.type!r}: only CUDA records steps as graphs; use "
            "--graph auto, or --device cuda"
        )
    if choice == "on" and ranks.started() > 1:
        raise ValueError(
            f"graph = 'on' with {ranks.started()} processes, which exchange values within a step: "
            "use --graph auto"
        )
    wanted = device.type == "cuda" and choice != "off" and ranks.started() == 1
    return Graphs(device) if wanted else None
