"""Cost of each rule for the hypergradient: time and peak memory of one search step.

    python benchmarks/rules.py [--methods single sgl lbt] [--rounds 5] [--channels 8 --cells 5]

Every rule runs in a process of its own, so that its peak memory is its own; the rules take turns
in every round, so that a busy machine slows them alike. Times are of the step; memory is the peak
above what the process held before it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from functools import partial

RULES = ("first-order", "finite-difference", "one-sided", "exact-recompute", "exact")


def measure(method: str, rule: str, channels: int, cells: int, batch_size: int) -> dict[str, float]:
    """Run two steps of a method in this process; time the second, take the peak of both."""
    import torch

    from tutelage.batch import Batch
    from tutelage.clock import Clock
    from tutelage.multilevel import search_step
    from tutelage.parts import make_part
    from tutelage.run.networks.factory import Maker
    from tutelage.run.networks.relaxation import BoundAlphas
    from tutelage.searches.darts import Darts
    from tutelage.spaces.base import Size
    from tutelage.spaces.cells import DARTS
    from tutelage.virtual import Exact, FiniteDifference, FirstOrder, Rate

    vias = {
        "first-order": FirstOrder(),
        "finite-difference": FiniteDifference(),
        "one-sided": FiniteDifference(sides=1),
        "exact-recompute": Exact(recompute=True),
        "exact": Exact(),
    }
    torch.manual_seed(0)
    size = Size(channels, cells, 10, 3)
    cpu = torch.device("cpu")
    bind = partial(BoundAlphas, Darts(), device=cpu)
    maker = Maker(bind, [DARTS], size, Clock(), 10, cpu, None)
    problem = make_part("method", {"name": method})(maker)

    class Batches:
        def __getattr__(self, name: str) -> Batch:
            x = torch.randn(batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
            return Batch(x, torch.randint(10, (batch_size,)), torch.arange(batch_size))

    rates = {
        x.variable: Rate(0.025, 0.9, 3e-4, 5.0) for x in problem.levels if x.optimiser == "weights"
    }
    variables, velocities = dict(problem.variables), {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        search_step(
            problem.levels,
            variables,
            velocities,
            Batches(),
            rates=rates,
            virtual=rates,
            via=vias[rule],
            order=problem.order,
            move=lambda name, gradient: None,
        )
        seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "megabytes": (after - before) / 1024}


def main() -> None:
    """Measure every rule in turn, round by round, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=["single", "sgl", "lbt"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = (options.channels, options.cells, options.batch_size)
    if options.one:
        print(json.dumps(measure(*options.one, *sizes)))
        return
    print(
        f"{options.channels} channels, {options.cells} cells, batch {options.batch_size}, ", end=""
    )
    print(f"{options.rounds} rounds; median (least to most)")
    for method in options.methods:
        found: dict[str, list[dict[str, float]]] = {rule: [] for rule in RULES}
        for _ in range(options.rounds):
            for rule in RULES:
                command = [sys.executable, __file__, "--one", method, rule]
                for flag, value in zip(
                    ("--channels", "--cells", "--batch-size"), sizes, strict=True
                ):
                    command += [flag, str(value)]
                text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found[rule].append(json.loads(text))
        base = statistics.median(x["seconds"] for x in found["first-order"])
        for rule, runs in found.items():
            times = [x["seconds"] for x in runs]
            memory = statistics.median(x["megabytes"] for x in runs)
            middle = statistics.median(times)
            print(
                f"{method:8} {rule:18} {middle:7.2f} s ({min(times):.2f} to {max(times):.2f})"
                f"  {middle / base:5.2f}x first order  {memory:7.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
