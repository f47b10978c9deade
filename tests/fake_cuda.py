"""Steps of a search on a CUDA device whose tensors hold no data: what each does, as JSON.

    python tests/fake_cuda.py '[{"method": {"name": "sgl"}, ...}, ...]'

A value that is read back raises here, and so does a branch on one. A build of torch without CUDA
needs `preloaded` around this program: autograd asks the device for streams.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tutelage.batch import Batch
from tutelage.config import Run
from tutelage.data.images import InMemory
from tutelage.data.streams import halves_of
from tutelage.parts import from_table
from tutelage.run.networks.factory import Maker
from tutelage.run.step.programs import Step
from tutelage.run.step.recorders import Again
from tutelage.run.step.watch import Watch, difference
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.iteration import Iteration
from tutelage.run.supernet.state import Searching

DEVICE = torch.device("cuda")
STEPS = 4
"""The first has no momentum yet and fills caches; the last two must be the same."""


def preloaded(folder: Path) -> dict[str, str] | None:
    """Build the library for a torch without CUDA; return the variables that load it.

    Returns:
        None where there is no compiler, or torch has no headers.
    """
    if torch.version.cuda:
        return {}
    root, library = Path(torch.__file__).parent, folder / "fake_cuda.so"
    if not shutil.which("g++") or not (root / "include" / "ATen").is_dir():
        return None
    source = Path(__file__).with_suffix(".cpp")
    line = ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{root / 'include'}", str(source)]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    line += [abi, "-o", str(library), f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu"]
    subprocess.run(line, check=True)
    return {"LD_PRELOAD": str(library), "LD_LIBRARY_PATH": str(root / "lib")}


def steps_of(settings: list[dict], variables: dict[str, str]) -> list[dict]:
    """Run this program in a process of its own; return what it prints."""
    line = [sys.executable, __file__, json.dumps(settings)]
    done = subprocess.run(
        line, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def clear_caches() -> None:
    """Empty all caches of functions of the package: they hold tensors."""
    for name, module in list(sys.modules.items()):
        if name.startswith("tutelage"):
            for value in vars(module).values():
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()


def placed(maker: Maker, module: nn.Module) -> nn.Module:
    """Move a module to the device, as `Maker` does: torch cannot swap tensors without data."""
    for part in module.modules():
        for name, x in part._parameters.items():
            if x is not None:
                form = torch.channels_last if x.dim() == 4 else torch.preserve_format
                moved = x.detach().to(maker.device).contiguous(memory_format=form)
                part._parameters[name] = nn.Parameter(moved)
        for name, x in part._buffers.items():
            part._buffers[name] = x if x is None else x.to(maker.device)
    return module


def batches(side: int = 8, images: int = 4) -> SimpleNamespace:
    """Batches without data."""

    def one() -> Batch:
        x = torch.randn(images, 1, side, side, device=DEVICE)
        y = torch.zeros(images, dtype=torch.int64, device=DEVICE)
        return Batch(x.contiguous(memory_format=torch.channels_last), y, y.clone())

    return SimpleNamespace(train=one(), valid=one(), unlabelled=one())


def without_data() -> None:
    """Give the samplers of a Dirichlet distribution their shapes, which torch does not know."""
    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("_sample_dirichlet", lambda alphas, generator=None: torch.empty_like(alphas))
    library.impl("_dirichlet_grad", lambda x, alphas, total: torch.empty_like(x))
    without_data.library = library  # it forgets its entries where it is collected


def next_step(work: Searching) -> Step:
    """The step that a search takes next, on batches without data."""
    levels, rates = work.phase.levels(work.epoch), work.rates()
    now = Iteration(work.setup.settings, work.phase, work.via, levels, rates, work.done)
    work.set_clock()
    work.clock.reads.clear()
    return now.step(batches())


def watched(table: dict) -> dict:
    """Watch some steps of a search; say what no program could repeat."""
    settings = from_table(Run, {"device": "cpu", **table}, "a search")
    parts = joined(settings)._replace(device=DEVICE)
    InMemory.on = lambda images, device: images  # torch cannot copy them to a device it lacks
    Maker._placed = placed
    setup = parts.setup(halves_of(settings, parts.train))
    seen, read = [Watch(DEVICE)], []
    assert setup.phases  # computed from the space, with values
    clear_caches()
    try:
        with FakeTensorMode():
            with seen[0]:  # the penalties of a search are asked for once at the start
                work = Searching(setup, parts.strategy(setup), Again())
            seen.clear()
            for _ in range(STEPS):
                seen.append(Watch(DEVICE))
                step = next_step(work)
                with seen[-1]:
                    step.work(step.batches, work.programs._numbers(step))
                work.step += 1
            read = sorted(work.clock.reads)
    except DataDependentOutputException:
        pass  # the last watch says what it was
    clear_caches()
    return {
        "operations": len(seen[-1].operations),
        "obstacles": [list(each.obstacles) for each in seen],
        "difference": difference(seen[-2].operations, seen[-1].operations) if seen[1:] else "",
        "clock": read,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    without_data()
    for table in json.loads(sys.argv[1]):
        print(json.dumps(watched(table)), flush=True)
