"""What a step of SD-DARTS costs beside one of DARTS: time, and what is remembered.

    python benchmarks/self_distillation.py [--space darts] [--device cuda] [--images 1281167 ...]

Both search side by side in this process, each with a supernet of its own, on random images; in
every round each takes a first-order step, in turn. SD-DARTS is past its warm-up, with answers to
all images of both halves: it looks the teacher up, adds the divergence to both losses and records
its answers. Times are the processor's, which other work on a machine disturbs less, and on a GPU
those of the clock.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch

from tutelage.clock import Clock
from tutelage.methods.sd_darts import SDDarts
from tutelage.methods.single import Single
from tutelage.multilevel import search_step
from tutelage.parts import make_part
from tutelage.problem import Method, Part
from tutelage.run.maker import Maker
from tutelage.searches.darts import Darts
from tutelage.spaces.base import Size
from tutelage.virtual import FirstOrder, Rate, leaves


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


def main() -> None:
    """Measure by turns, and print every round's ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="darts")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, help="in nasbench201: of each stage")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=25_000, help="of each half")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--memory-device", default="device")
    parser.add_argument("--memory-dtype", default="fp32")
    parser.add_argument("--memory-top", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    device, space = torch.device(options.device), make_part("space", {"name": options.space})
    size = Size(options.channels, options.cells or space.sizes.cells, options.classes)

    def part() -> Part:
        x = torch.randn(options.batch_size, 3, 32, 32)
        y = torch.randint(options.classes, (options.batch_size,))
        position = torch.randperm(options.images)[: options.batch_size]
        images: Any = x.to(device)  # Tensor.to is not typed for memory formats
        images = images.to(memory_format=torch.channels_last)
        return Part(images, y.to(device), position.to(device))

    def batch() -> SimpleNamespace:
        return SimpleNamespace(train=part(), valid=part())

    past = SDDarts(
        memory_device=options.memory_device,
        memory_dtype=options.memory_dtype,
        memory_top=options.memory_top,
    )
    steps, kept = {}, {}
    for name, method in (("single", Single()), ("sd-darts", past)):
        images = {"train": options.images, "valid": options.images}
        maker = Maker(Darts(), [space], size, Clock(epoch=40), 50, device, None, images)
        steps[name], kept[name] = stepper(method, maker, batch)
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}; {options}")
    print(f"remembered: {kept['sd-darts'] / 1e6:,.1f} MB")
    for step in steps.values():
        step()  # the first one allocates and chooses kernels
    ratios = []
    for _ in range(options.rounds):
        seconds = {name: step() for name, step in steps.items()}
        ratios.append(seconds["sd-darts"] / seconds["single"])
        text = "  ".join(f"{name} {time:.3f} s" for name, time in seconds.items())
        print(f"{text}  ratio {ratios[-1]:.3f}", flush=True)
    print(
        f"median ratio of {len(ratios)} alternating rounds: {median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
