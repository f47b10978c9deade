"""The next batch, made on a GPU while the present step computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, final

import torch

from tutelage.batch import Batch


class Place(NamedTuple):
    """The place of a batch in its stream."""

    epoch: int
    step: int


class Lane(Protocol):
    """Where batches are made beside the present work."""

    def start(self, make: Callable[[], Batch]) -> Callable[[], Batch]:
        """Start to make a batch; return the function that hands it to the present work."""


@final
class SideStream:
    """A stream of a GPU, whose work runs beside that of the present stream."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def start(self, make: Callable[[], Batch]) -> Callable[[], Batch]:
        """Queue the work of a batch on the side stream; return the function that hands it over."""
        # the next batch may be for a backward pass even if the present work is inference
        with torch.inference_mode(False), torch.cuda.stream(self._stream):
            batch = make()
            made = self._stream.record_event()

        def handed() -> Batch:
            present = torch.cuda.current_stream(self._stream.device)
            present.wait_event(made)  # the GPU waits, not the processor
            for tensor in batch:
                # the memory is the side stream's, which must not reuse it before the present work
                tensor.record_stream(present)
            return batch

        return handed


@final
class Ahead:
    """Batches by their place, of which the following one is made before it is asked for."""

    def __init__(self, make: Callable[[Place], Batch], lane: Lane | None) -> None:
        """Make nothing yet; without a lane batches are made when they are asked for."""
        self._make, self._lane = make, lane
        self._started: dict[Place, Callable[[], Batch]] = {}

    def batch(self, place: Place, following: Place) -> Batch:
        """Return a place's batch, and start that of the place which is likely to follow."""
        handed = self._started.pop(place, None)
        batch = handed() if handed else self._make(place)
        if self._lane and following not in self._started:
            start = self._lane.start(lambda: self._make(following))
            self._started = {following: start}
        return batch
