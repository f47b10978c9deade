"""Several runs side by side: two seeds of two methods, a table for the terminal and a page."""

from pathlib import Path

import tutelage
from tutelage.report.page import write_report
from tutelage.report.runs.read import read_run
from tutelage.report.runs.tables import as_text, comparison

TOY = {"channels": 2, "cells": 3, "epochs": 1, "limit_batches": 1, "batch_size": 4}


def main() -> None:
    runs = []
    for method, settings in (("single", {}), (tutelage.SGL(learners=2), {"via": "first-order"})):
        for seed in (0, 1):
            out = Path(f"run-{len(runs)}")
            tutelage.search(method, out=out, seed=seed, **TOY, **settings)
            runs.append(out)
    print(as_text(comparison([read_run(run) for run in runs])))
    print("page:", write_report(runs, Path("comparison.html")))


if __name__ == "__main__":
    main()
