"""Steps as programs: each kind of step is watched, then recorded once and replayed.

Whether a step can be recorded is decided by what it does. Its first run is as always. The next ones
are watched (`watch`). If two runs in a row have the same operations with the same numbers, and none
of them needs the host, the next run records them, and from then on they are replayed. Otherwise
steps of this kind stay as they are, and the reason is said once.

A step's operations may depend on its kind, which its caller names, on the values of the clock that
it reads, and on the shapes of the batches that it reads. For every combination of these there is a
program of its own, and where another one of its kind exists, one watched run is enough. The program
of an earlier epoch is dropped where a step reads the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from tutelage.clock import Clock
from tutelage.run.step.held import Noted, copies, refill, shapes
from tutelage.run.step.recorders import Recorder, cause
from tutelage.run.step.watch import Operation, Watch, difference

RUNS = 3
"""Watched runs, of which two in a row must be the same: the first may fill caches."""

Result = tuple[Any, Tensor]
"""What a step returns: anything that does not change from step to step, and a vector."""


class Step(NamedTuple):
    """A step, which may run as a program."""

    kind: Hashable
    """All that its operations depend on, except the clock and the shapes of batches."""
    name: str
    """What it is called in sentences."""
    work: Callable[[Any, Mapping[str, Any]], Result]
    """Takes the step, given batches and numbers; changes the tensors that it keeps in place."""
    batches: Any
    """Its batches; each is made when it is first read."""
    numbers: Mapping[str, float]
    """Numbers that may change at every step, by name. `work` gets them as tensors () too."""
    held: Callable[[], Sequence[Tensor]]
    """Lists the tensors that it keeps."""


@dataclass(eq=False)
class Program:
    """A recorded step, and the tensors that it reads and writes."""

    batches: Any
    numbers: dict[str, Tensor]
    held: Sequence[Tensor]
    replay: Callable[[], None]
    result: list[Result]
    """The result of the last call of the step's function."""

    def fits(self, held: Sequence[Tensor]) -> bool:
        """Tell whether the step still keeps the tensors that the program writes."""
        return len(held) == len(self.held) and all(map(lambda a, b: a is b, held, self.held))

    def __call__(self, step: Step) -> Result:
        """Take the step; the result is a copy, which the next step does not change."""
        refill(self.batches, step.batches)
        for name, number in step.numbers.items():
            self.numbers[name].fill_(number)
        self.replay()
        same, vector = self.result[-1]
        return same, vector.clone()


@dataclass(eq=False)
class Case:
    """Steps of one kind, at one time and with batches of one shape."""

    runs: int = 0
    """Watched runs so far."""
    operations: list[Operation] | None = None
    """Those of the last one; None: it did what no program can repeat."""
    certain: bool = False
    """Whether a recording will repeat them."""
    refused: bool = False
    program: Program | None = None

    def judge(self, seen: Watch, like: Sequence[str] | None) -> str:
        """Compare a watched run with the one before; return why there is no program, or nothing.

        Args:
            seen: The run.
            like: Names of the operations of another case of the same kind that has a program. If
                this run has the same ones, a second run would show nothing new.
        """
        self.runs += 1
        if seen.obstacles:
            self.operations = None
            return next(iter(seen.obstacles)) if self.runs > 1 else ""
        before, self.operations = self.operations, seen.operations
        apart = difference(before, seen.operations) if before is not None else "unknown"
        self.certain = not apart or seen.names == like
        if self.certain:
            self.operations = None
        return "" if self.certain or self.runs < RUNS else apart


@dataclass(eq=False)
class Kind:
    """Steps of one kind: what they read, and their cases."""

    streams: set[str] = field(default_factory=set)
    times: set[str] = field(default_factory=set)
    """The fields of the clock that they read."""
    now: tuple[Any, ...] = ()
    """The values of those fields for which there are cases."""
    cases: dict[Hashable, Case] = field(default_factory=dict)
    known: bool = False
    """Whether a step of this kind has run, so that it is known what they read."""
    refused: bool = False
    names: list[str] | None = None
    """Names of the operations of a case that is certain."""

    def learn(self, streams: set[str], times: set[str]) -> bool:
        """Note what a run has read; tell whether that was known before."""
        fresh = not (streams <= self.streams and times <= self.times and self.known)
        self.streams, self.times, self.known = self.streams | streams, self.times | times, True
        return not fresh

    def case(self, clock: Clock, batches: Any) -> Case:
        """Return the case of the present time and of these batches."""
        now = tuple(getattr(clock, name) for name in sorted(self.times))
        if now != self.now:
            self.now, self.cases = now, {}
        return self.cases.setdefault(shapes(batches, sorted(self.streams)), Case())


@final
class Programs:
    """The programs of a search; without a recorder, every step runs as it is.

    Attributes:
        settled: Whether steps like the last one run as they will from now on.
    """

    def __init__(self, recorder: Recorder | None, device: torch.device, clock: Clock) -> None:
        self.recorder, self.device, self.clock = recorder, device, clock
        self._kinds: dict[Hashable, Kind] = {}
        self.settled = True
        self._said: dict[str, bool] = {}

    def run(self, step: Step) -> Result:
        """Take a step: as a program if there is one, watched if there may be one."""
        if self.recorder is None:
            return step.work(step.batches, step.numbers)
        kind = self._kinds.setdefault(step.kind, Kind())
        self.settled = kind.refused
        if kind.refused or not kind.known:
            return self._eager(step, kind)
        case = kind.case(self.clock, step.batches)
        self.settled = case.certain or case.refused
        if case.certain:
            return self._program(step, case)
        return self._eager(step, kind) if case.refused else self._watched(step, kind, case)

    @property
    def recorded(self) -> bool:
        """Tell whether any step runs as a program at present."""
        return any(case.program for kind in self._kinds.values() for case in kind.cases.values())

    def drop(self) -> None:
        """Forget all programs: a new phase has other tensors."""
        self._kinds.clear()

    def notices(self) -> list[str]:
        """Return the sentences on what runs as a program that were not returned before."""
        new = [sentence for sentence, said in self._said.items() if not said]
        self._said.update(dict.fromkeys(new, True))
        return new

    def _eager(self, step: Step, kind: Kind) -> Result:
        """Run as always, and note what is read."""
        batches = Noted(step.batches)
        self.clock.reads.clear()
        result = step.work(batches, step.numbers)
        self._learn(step, kind, batches)
        return result

    def _watched(self, step: Step, kind: Kind, case: Case) -> Result:
        """Run one operation at a time, and judge whether a program can repeat them."""
        assert self.recorder
        batches, numbers = Noted(step.batches), self._numbers(step)
        self.clock.reads.clear()
        with Watch(self.device) as seen:
            result = self.recorder.warm(lambda: step.work(batches, numbers))
        if self._learn(step, kind, batches):
            if reason := case.judge(seen, kind.names):
                case.refused = True
                self._refuse(step, reason)
            elif case.certain:
                kind.names = seen.names
        return result

    def _learn(self, step: Step, kind: Kind, batches: Noted) -> bool:
        """Note what a run has read; tell whether that was known before."""
        known = kind.learn(batches.names, set(self.clock.reads))
        if "progress" in kind.times and not kind.refused:
            kind.refused = True
            self._refuse(step, "it reads the progress of the search, which every step changes")
        return known

    def _program(self, step: Step, case: Case) -> Result:
        """Replay the program; record it if there is none, or if the tensors are others."""
        if case.program is None or not case.program.fits(step.held()):
            case.program = None  # frees its memory before the next one takes its own
            case.program, reason = self._tried(step)
            if case.program is None:
                self._fall_back(step, case, reason)
                return step.work(step.batches, step.numbers)
            self._said.setdefault(f"steps of {step.name} run as one program", False)
        return case.program(step)

    def _tried(self, step: Step) -> tuple[Program | None, str]:
        """Record a step; return the program, or why there is none.

        Nothing refers to the tensors of a failed recording once this returns.
        """
        try:
            return self._recorded(step), ""
        except RuntimeError as error:
            return None, cause(error)

    def _fall_back(self, step: Step, case: Case, reason: str) -> None:
        """Run steps of a case one operation at a time, after their recording has failed."""
        assert self.recorder
        for kind in self._kinds.values():  # what they replay may have been disturbed
            for each in kind.cases.values():
                each.program = None
        self.recorder.clear()
        case.certain, case.refused = False, True
        self._refuse(step, f"the recording failed: {reason}")

    def _recorded(self, step: Step) -> Program:
        assert self.recorder
        kind = self._kinds[step.kind]
        batches, numbers = copies(step.batches, sorted(kind.streams)), self._numbers(step)
        result: list[Result] = []

        def call() -> None:
            result[:] = [step.work(batches, numbers)]

        held = list(step.held())
        return Program(batches, numbers, held, self.recorder.record(call), result)

    def _numbers(self, step: Step) -> dict[str, Tensor]:
        """Return a step's numbers as tensors () on the device."""
        kind: Any = {"dtype": torch.float64, "device": self.device}
        return {name: torch.full((), number, **kind) for name, number in step.numbers.items()}

    def _refuse(self, step: Step, reason: str) -> None:
        self._said.setdefault(f"steps of {step.name} run one operation at a time: {reason}", False)
