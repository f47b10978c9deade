"""Two methods' search steps by turns in one process: what one costs beside the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from tutelage.multilevel import search_step
from tutelage.problem import Method
from tutelage.run.networks.factory import Maker
from tutelage.trees import leaves
from tutelage.virtual import FirstOrder, Rate


def stepper(
    method: Method, maker: Maker, batch: Callable[[], Any]
) -> tuple[Callable[[], float], int]:
    """Return what takes a step and says its seconds; and the bytes that no level owns."""
    problem = method(maker)
    variables, velocities = dict(problem.variables), {}
    rates = {
        x.variable: Rate(0.025, 0.9, 3e-4, 5.0) for x in problem.levels if x.optimiser == "weights"
    }
    adam = torch.optim.Adam(leaves(variables["A"]), 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    kept = [x for name in variables.keys() - {"w", "W", "A"} for x in leaves(variables[name])]
    for x in kept:
        if not x.is_floating_point():  # how often an image was answered
            x.fill_(2)

    def move(name: str, gradient: Any) -> None:
        for x, g in zip(leaves(variables[name]), leaves(gradient), strict=True):
            x.grad = g
        adam.step()

    def step() -> float:
        images = batch()
        began = now(maker.device)
        report = search_step(
            problem.levels,
            variables,
            velocities,
            images,
            rates=rates,
            virtual=rates,
            via=FirstOrder(),
            order=problem.order,
            move=move,
        )
        if problem.after_step:
            problem.after_step(variables, images, report.notes)
        return now(maker.device) - began

    return step, sum(x.numel() * x.element_size() for x in kept)


def now(device: torch.device) -> float:
    """Return seconds, once the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def by_turns(steps: dict[str, Callable[[], float]], rounds: int) -> None:
    """Take both steps in every round; print the second one's seconds over the first one's."""
    for step in steps.values():
        step()  # the first one allocates and chooses kernels
    ratios = []
    for _ in range(rounds):
        seconds = {name: step() for name, step in steps.items()}
        first, second = seconds.values()
        ratios.append(second / first)
        text = "  ".join(f"{name} {each:.3f} s" for name, each in seconds.items())
        print(f"{text}  ratio {ratios[-1]:.3f}", flush=True)
    print(
        f"median ratio of {len(ratios)} alternating rounds: {median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )
