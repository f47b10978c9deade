"""Programs: which steps are recorded, which stay eager and why, and what is kept in place."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import pytest
import torch

from test_static_step import CPU, Counted
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.run.step.held import settle
from tutelage.run.step.programs import Programs, Step
from tutelage.trees import leaves
from tutelage.virtual import FiniteDifference, virtual_step


def toy(work, **more):
    """A step of a kind, with batches whose values change and a tensor that it keeps."""
    kept = torch.zeros(3)
    x = torch.rand(4, 1)
    batch = SimpleNamespace(train=Batch(x, torch.zeros(4, dtype=torch.int64), torch.arange(4)))
    step = Step("kind", "a toy", lambda b, n: work(kept, b, n), batch, {"w": 0.5}, lambda: [kept])
    return step._replace(**more)


def said_of(work, steps=6, clock=None, **more):
    clock = clock or Clock()
    programs = Programs(Counted(), CPU, clock)
    for number in range(steps):
        clock.progress = number / steps
        torch.manual_seed(number)
        programs.run(toy(work, **more))
    return " ".join(programs.notices()), programs


def test_a_plain_step_is_recorded_and_its_result_is_a_copy():
    def work(kept, batch, numbers):
        kept.add_(batch.train.x.sum() * numbers["w"])
        return "place", batch.train.x.flatten() * 2

    said, programs = said_of(work)
    assert said == "steps of a toy run as one program" and programs.settled
    step = toy(work)
    first, again = programs.run(step), programs.run(toy(work))
    assert first[0] == "place" and torch.equal(first[1], step.batches.train.x.flatten() * 2)
    assert not torch.equal(first[1], again[1])


LAST = [0]


def another_number(kept, batch, numbers):
    LAST[0] += 1
    return None, batch.train.x * LAST[0]


def another_operation(kept, batch, numbers):
    LAST[0] += 1
    return None, batch.train.x.sin() if LAST[0] % 2 else batch.train.x.cos()


def more_operations(kept, batch, numbers):
    LAST[0] += 1
    x = batch.train.x
    for _ in range(LAST[0]):
        x = x.sin()
    return None, x


def repeated_draws(kept, batch, numbers):
    def loss(w, u):
        return (w["w"] * torch.rand(3) * u["u"]).sum() + w["w"].square().sum()

    w, u = ({name: torch.ones(3, requires_grad=True)} for name in "wu")
    new = virtual_step(loss, w, u, lr=0.1, via=FiniteDifference())
    return None, torch.autograd.grad(new["w"].square().sum(), u["u"])[0]


REFUSED = {
    "a value that is read": (
        lambda kept, batch, numbers: (None, batch.train.x * float(batch.train.x.sum())),
        "it reads a value back: _local_scalar_dense",
    ),
    "a branch on a value": (
        lambda kept, batch, numbers: (None, batch.train.x if batch.train.x.sum() > 0 else kept),
        "it reads a value back: _local_scalar_dense",
    ),
    "a mask": (
        lambda kept, batch, numbers: (None, batch.train.x[batch.train.x > 0.5]),
        "the size of a result depends on values: index",
    ),
    "nonzero": (
        lambda kept, batch, numbers: (None, batch.train.x.nonzero().double()),
        "the size of a result depends on values: nonzero",
    ),
    "Python's values": (
        lambda kept, batch, numbers: (None, torch.tensor([1.0, 2.0])),
        "it makes a tensor of Python's values: lift_fresh",
    ),
    "random numbers of a repeated loss": (
        repeated_draws,
        "a rule repeats random numbers: rand",
    ),
    "another number": (another_number, "the numbers or shapes of aten.mul.Tensor changed"),
    "another operation": (
        another_operation,
        "it ran aten.sin.default, then aten.cos.default in its place",
    ),
    "more operations": (more_operations, "operations, then"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_program_can_repeat_stays_eager_with_its_reason(what):
    LAST[0] = 0
    work, reason = REFUSED[what]
    said, programs = said_of(work)
    assert reason in said and said.startswith("steps of a toy run one operation at a time: ")
    assert not programs.recorder.recorded and programs.settled


def test_a_step_that_reads_the_progress_stays_eager():
    clock = Clock()
    said, programs = said_of(
        lambda kept, batch, numbers: (None, batch.train.x * clock.progress), clock=clock
    )
    assert said.endswith("it reads the progress of the search, which every step changes")
    assert not programs.recorder.recorded


def test_integer_indices_and_random_numbers_are_no_obstacle():
    def work(kept, batch, numbers):
        chosen = batch.train.x[batch.train.position.flip(0)]
        return None, chosen * torch.rand_like(chosen)

    assert said_of(work)[0] == "steps of a toy run as one program"


def test_a_first_run_may_fill_caches():
    made = []

    def work(kept, batch, numbers):
        if len(made) < 2:
            made.append(torch.tensor([0, 1]))
        return None, batch.train.x[made[-1]]

    said, programs = said_of(work, steps=8)
    assert said == "steps of a toy run as one program"
    assert programs.recorder.replayed == 4  # one run, three watched


def test_a_recording_that_fails_is_told_once():
    class Failing(Counted):
        def record(self, call):
            raise RuntimeError("CUDA error: operation not permitted\nmore lines")

    programs, results = Programs(Failing(), CPU, Clock()), []
    for _ in range(6):
        results.append(programs.run(toy(lambda kept, batch, numbers: (None, batch.train.x))))
    assert programs.notices() == [
        "steps of a toy run one operation at a time: the recording failed: CUDA error: operation "
        "not permitted"
    ]
    assert len(results) == 6 and all(x.shape == (4, 1) for _, x in results)


def test_what_a_failed_recording_has_taken_is_freed_before_the_step_runs():
    """And the reason is the first error: the end of a recording fails too."""

    class Failing(Counted):
        def record(self, call):
            taken = torch.ones(3)
            self.taken = weakref.ref(taken)
            try:
                raise RuntimeError("out of memory\nmore lines")
            except RuntimeError:
                raise RuntimeError("the recording was invalidated")  # noqa: B904

        def clear(self):
            order.append(f"cleared, held: {self.taken() is not None}")

    def work(kept, batch, numbers):
        order.append("a step")
        return None, batch.train.x

    order = []
    programs = Programs(Failing(), CPU, Clock())
    for _ in range(5):
        programs.run(toy(work))
    assert order == ["a step"] * 3 + ["cleared, held: False"] + ["a step"] * 2
    (said,) = programs.notices()
    assert said.endswith("one operation at a time: the recording failed: out of memory")


def test_a_program_is_freed_before_the_next_one_is_recorded():
    class Alone(Counted):
        last = staticmethod(lambda: None)

        def record(self, call):
            assert self.last() is None
            replay = super().record(call)
            self.last = weakref.ref(replay)
            return replay

    programs, kept = Programs(Alone(), CPU, Clock()), [torch.zeros(3)]
    for count in range(8):
        if count > 4:
            kept[0] = torch.zeros(3)
        programs.run(toy(lambda _, batch, numbers: (None, kept[0] * 1), held=lambda: kept))
    assert programs.recorder.recorded == 4
    assert programs.notices() == ["steps of a toy run as one program"]


def test_other_tensors_are_recorded_anew():
    programs = Programs(Counted(), CPU, Clock())
    kept = [torch.zeros(3)]

    def work(_, batch, numbers):
        kept[0].add_(1)
        return None, kept[0] * 1

    for _ in range(5):
        programs.run(toy(work, held=lambda: kept))
    kept[0] = torch.zeros(3)
    assert torch.equal(programs.run(toy(work, held=lambda: kept))[1], torch.ones(3))
    assert programs.recorder.recorded == 2


# What is kept in place --------------------------------------------------------------------------


def test_settling_copies_into_the_same_tensors():
    held = {"w": {"a": torch.zeros(2), "b": torch.ones(2)}, "c": torch.zeros(())}
    before = leaves(held)
    settle(held, {"w": {"a": torch.full((2,), 3.0), "b": held["w"]["b"]}, "c": torch.ones(())})
    assert all(x is y for x, y in zip(leaves(held), before, strict=True))
    assert [x.tolist() for x in before] == [[3.0, 3.0], [1.0, 1.0], 1.0]


def test_settling_values_that_lie_in_one_another():
    held = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
    settle(held, {"a": held["b"].flip(0), "b": held["a"]})
    assert held["a"].tolist() == [4.0, 3.0] and held["b"].tolist() == [1.0, 2.0]


def test_settling_another_layout_replaces():
    held = {"a": torch.zeros(2, 3), "b": torch.zeros(2)}
    new = {"a": torch.ones(3, 2).T, "b": torch.ones(3), "c": torch.ones(1)}
    settle(held, new)
    assert all(held[name] is x for name, x in new.items())
