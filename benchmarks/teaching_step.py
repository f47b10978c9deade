"""What a step of PAMKD costs beside one of SGL with as many learners and images.

    python benchmarks/teaching_step.py [--learners 2] [--channels 8] [--cells 5] [--batch-size 64]

Both search side by side in this process, each with supernets of its own, on random images; in every
round each takes a first-order step, in turn. Times are the processor's, which other work on a
machine disturbs less, and on a GPU those of the clock.
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
from tutelage.methods.pamkd import PAMKD
from tutelage.methods.sgl import SGL
from tutelage.parts import make_part
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.relaxation import BoundAlphas
from tutelage.searches.darts import Darts
from tutelage.searches.needs import fit
from tutelage.spaces.base import Size


def main() -> None:
    """Measure by turns, and print every round's ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--learners", type=int, default=2)
    parser.add_argument("--space", default="darts")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    space = fit(Darts(), make_part("space", {"name": options.space}))
    size = Size(options.channels, options.cells)

    def part() -> Batch:
        images: Any = torch.randn(options.batch_size, 3, 32, 32).to(device)
        images = images.to(memory_format=torch.channels_last)
        y = torch.randint(10, (options.batch_size,)).to(device)
        return Batch(images, y, torch.arange(options.batch_size))

    def batch() -> SimpleNamespace:
        return SimpleNamespace(train=part(), valid=part(), unlabelled=part())

    steps = {}
    for method in (SGL(learners=options.learners), PAMKD(learners=options.learners)):
        maker = Maker(
            partial(BoundAlphas, Darts(), device=device), [space], size, Clock(), 50, device, None
        )
        steps[type(method).__name__.lower()] = stepper(method, maker, batch)[0]
    print(f"{platform.machine()}, torch {torch.__version__}; {options}")
    by_turns(steps, options.rounds)


if __name__ == "__main__":
    main()
