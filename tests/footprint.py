"""The memory of a search, predicted in one process and measured in another one.

    python tests/footprint.py CASE

Both processes are forked from this one, which has imported everything and computed nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch

from tutelage.config import Run
from tutelage.data.streams import halves_of
from tutelage.parts import from_table
from tutelage.run.dry_run import batches
from tutelage.run.measure.forecast import Forecast
from tutelage.run.measure.memory import peak
from tutelage.run.measure.steps import trace
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.state import Searching

STEPS = 4
CASES: dict[str, dict[str, Any]] = {
    "nasbench201-exact": {
        "space": {"name": "nasbench201"},
        "channels": 16,
        "cells": 1,
        "batch_size": 64,
        "via": "exact",
    },
    "darts-first-order": {"channels": 16, "cells": 8, "batch_size": 256, "via": "first-order"},
    "darts-exact": {"channels": 16, "cells": 5, "batch_size": 128, "via": "exact"},
    "darts-small": {"channels": 16, "cells": 5, "batch_size": 128, "via": "first-order"},
}
"""Settings that differ from the default ones; the images are the digits."""


def searching(settings: Run, batch: int) -> Searching:
    torch.manual_seed(0)
    parts = joined(settings)
    setup = parts.setup(halves_of(settings, parts.train))
    setup = replace(setup, streams=setup.streams.of(batch))
    return Searching(setup, parts.strategy(setup))


def predicted(settings: Run) -> int:
    low, high, asked = batches(settings.batch_size)
    both = (trace(searching(settings, batch), asked) for batch in (low, high))
    return Forecast(*both).on_cpu(asked).at(asked)


def taken(settings: Run) -> int:
    work = searching(settings, settings.batch_size)
    for _ in range(STEPS):
        work.advance()
    return peak(torch.device("cpu"))


def apart(call: Callable[[Run], int], settings: Run) -> int:
    with get_context("fork").Pool(1) as pool:
        return pool.apply(call, (settings,))


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = from_table(Run, CASES[sys.argv[1]], "a search")
    print(json.dumps([apart(predicted, given), apart(taken, given)]))
