"""Signals that end a run: stored, and read between steps. Nothing here imports torch."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals after which a run is saved and ends."""


class StoppedError(ValueError):
    """A signal ended a run after it was saved; the message says how to resume."""

    def __init__(self, name: str, message: str) -> None:
        """Hold the signal's name and what the message says after it."""
        super().__init__(f"{name} came: {message}")
        self.status = 128 + signal.Signals[name]
        """The exit status of a process that such a signal ended, as supervisors expect it."""


class Ended(BaseException):  # as KeyboardInterrupt, it is no error
    """A signal ended one of several processes where it has no step to save.

    It is no ValueError: what reports a wrong setting by catching one would report this as such.
    """

    def __init__(self, number: int) -> None:
        """Hold the signal's number and the exit status of a process that it ended."""
        super().__init__(
            f"{signal.Signals(number).name} came: what the last checkpoint holds is safe, and "
            "--resume goes on from there"
        )
        self.status = 128 + number


def end_with_a_sentence() -> None:
    """Let an ending signal raise Ended from now on, wherever no `Interrupts` stores it.

    An error that is already on its way is told instead. For a process of torchrun, which sends
    SIGTERM to all others when one has failed.
    """
    for each in ENDING:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, _end)


def _end(number: int, frame: FrameType | None) -> None:
    if sys.exc_info()[0] is None:
        raise Ended(number)


def ignore() -> None:
    """Ignore ending signals from now on: this process is about to end."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)


def end_at_once() -> None:
    """Let a further SIGINT end this process without a word: nothing is left to save.

    Python's own handler would raise in the interpreter's last steps, which print a traceback.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class Interrupts:
    """Stores the name of an ending signal in `received`; a second SIGINT raises.

    A signal that the caller ignores stays ignored, as SIGHUP under nohup.

    Attributes:
        received: Name of the signal; None: there was none so far.
    """

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        """Call `then`, if given, at every signal; a second SIGINT does not raise then."""
        self.received: str | None = None
        self._then = then

    @property
    def number(self) -> int:
        """The number of the signal; 0: there was none so far."""
        return signal.Signals[self.received] if self.received else 0

    def __enter__(self) -> Interrupts:
        heeded = [each for each in ENDING if signal.getsignal(each) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in heeded}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._then is None and self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        if self._then is not None:
            self._then()
