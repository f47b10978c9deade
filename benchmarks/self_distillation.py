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
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from turns import by_turns, stepper
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.methods.sd_darts import SDDarts
from tutelage.methods.single import Single
from tutelage.parts import make_part
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.relaxation import BoundAlphas
from tutelage.searches.darts import Darts
from tutelage.spaces.base import Size


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

    def part() -> Batch:
        x = torch.randn(options.batch_size, 3, 32, 32)
        y = torch.randint(options.classes, (options.batch_size,))
        position = torch.randperm(options.images)[: options.batch_size]
        images: Any = x.to(device)  # Tensor.to is not typed for memory formats
        images = images.to(memory_format=torch.channels_last)
        return Batch(images, y.to(device), position.to(device))

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
        maker = Maker(
            partial(BoundAlphas, Darts(), device=device),
            [space],
            size,
            Clock(epoch=40),
            50,
            device,
            None,
            images,
        )
        steps[name], kept[name] = stepper(method, maker, batch)
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}; {options}")
    print(f"remembered: {kept['sd-darts'] / 1e6:,.1f} MB")
    by_turns(steps, options.rounds)


if __name__ == "__main__":
    main()
