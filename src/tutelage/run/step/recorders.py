"""How a step becomes one program: a CUDA graph; the only calls of CUDA's graphs are here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, final

import torch

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


@final
class Again:
    """The recorder without a recording: a program calls its function again. For tests on a CPU."""

    def warm(self, call: Callable[[], T]) -> T:
        """Run the function."""
        return call()

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return the function itself."""
        return call


@final
class Graphs:
    """Records CUDA graphs, on one side stream and with one pool of memory for all of them.

    A graph's intermediate values lie in the pool, where the next graph may overwrite them. So
    everything that outlives a replay is outside: variables, batches and optimisers' states are
    made before a recording, and measurements are copied after every replay.

    Random numbers are those of an ordinary step: a replay reads seed and offset of the default
    generator, which `torch.manual_seed` sets before every step.
    """

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
        """
        present, state = torch.cuda.current_stream(self.device), torch.cuda.get_rng_state()
        try:
            if self.anchor is None:
                self.anchor = self._graph(lambda: torch.zeros((), device=self.device))
            return self._graph(call).replay
        except RuntimeError:  # the pool and the generator may still be part of the recording
            torch.cuda.set_stream(present)
            self.pool, self.anchor = torch.cuda.graph_pool_handle(), None
            _free_generator(state)
            raise

    def _graph(self, call: Callable[[], Any]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
            call()
            parallel.join()
        return graph


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
    return Graphs(device) if device.type == "cuda" and choice != "off" else None
