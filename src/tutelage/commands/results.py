"""The commands about runs that are there: reports, studies, papers, trackers.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tutelage.checks import at_least
from tutelage.flags import Whole
from tutelage.trackers import TRACKERS, available


def report(
    runs: Annotated[
        list[Path],
        Parameter(help="Run directories, of which several are compared, or a study's folder."),
    ],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The page to write.")] = None,
    baseline: Annotated[
        str | None,
        Parameter(help="Of a study: the configuration that all others are compared with."),
    ] = None,
    interval: Annotated[
        Literal["t", "bootstrap"],
        Parameter(help="Of a study: how the 95 % intervals of means are computed."),
    ] = "t",
) -> None:
    """Write one self-contained page about a run, a comparison of several, or a study."""
    from tutelage.study.results.page import as_text as tables_text
    from tutelage.study.results.page import is_study, write_study_report

    if len(runs) == 1 and is_study(runs[0]):
        page = out or runs[0] / "report.html"
        written = write_study_report(runs[0], page, baseline, interval)
        print("\n".join([tables_text(written.tables), *written.warnings]))
        print(f"Report: {page}")
        return
    if baseline:
        raise ValueError(f"--baseline {baseline}: only the report of one study has a baseline")
    if interval != "t":
        raise ValueError(f"--interval {interval}: only the report of one study has intervals")
    from tutelage.report.page import write_report
    from tutelage.report.runs.read import read_run
    from tutelage.report.runs.tables import as_text, comparison

    target = out or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    page = write_report(runs, target)
    if len(runs) > 1:
        print(as_text(comparison([read_run(run) for run in runs])))
    print(f"Report: {page}")


def study(
    file: Annotated[Path | None, Parameter(help="The study's file, TOML.")] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Folder of the study's runs.")] = None,
    jobs: Annotated[Whole, Parameter(help="Runs at the same time on this machine.")] = 1,
    slurm: Annotated[
        tuple[str, ...],
        Parameter(
            help="Submit the runs to SLURM, with these options as KEY=VALUE.",
            consume_multiple=True,
            negative=(),
            show_default=False,
        ),
    ] = (),
    status: Annotated[
        Path | None, Parameter(help="Print how far the study in this folder is, and end.")
    ] = None,
    data_root: Annotated[
        Path | None, Parameter(help="Folder that holds the data sets' files.")
    ] = None,
    table: Annotated[Path | None, Parameter(help="Table of a benchmark to query.")] = None,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Print the configurations, and write nothing.")
    ] = False,
) -> None:
    """Run what is missing of a study: configurations of settings, each with several seeds."""
    if status:
        from tutelage.study.status import status as how_far

        print(how_far(status))
        return
    if file is None:
        raise ValueError("a study needs its file: tutelage study FILE.toml --out DIR")
    from tutelage.study.plan import listed, placed
    from tutelage.study.reading import read_study

    read = read_study(file)
    if dry_run:
        print(listed(read))
        return
    if out is None:
        raise ValueError("a study needs --out DIR for the folder of its runs")
    at_least(1, jobs=jobs)
    from tutelage.study.jobs import prepare

    missing = prepare(placed(read, data_root, table), out)
    if slurm:
        from tutelage.study.cluster import submit

        submit(missing, out, slurm)
        return
    from tutelage.study.local import run_here

    run_here(missing, jobs)
    print(f"Study: {out}; a page about it with: tutelage report {out}")


def papers(
    name: Annotated[
        str | None,
        Parameter(help="PAPER, PAPER TABLE or PAPER/TABLE/ROW; all papers, if not given."),
    ] = None,
    table: Annotated[str | None, Parameter(help="A table or figure of the paper.")] = None,
    /,
    *,
    runs: Annotated[
        tuple[Path, ...],
        Parameter(
            help="Folders of runs, whose figures are shown beside the printed ones.",
            consume_multiple=True,
            negative=(),
            show_default=False,
        ),
    ] = (),
    cost: Annotated[
        bool, Parameter(negative=(), help="Measure a few steps of the rows, and predict hours.")
    ] = False,
    data_root: Annotated[
        Path | None, Parameter(help="Folder that holds the data sets' files, for --cost.")
    ] = None,
    ledger: Annotated[
        Path | None, Parameter(help="Write the ledger of all rows, Markdown.")
    ] = None,
) -> None:
    """List the papers' tables, print one beside what is known of it, or say how a row runs."""
    from tutelage.report.papers.show import rows_of, show, write_ledger

    if ledger:
        write_ledger(ledger, runs)
    elif cost:
        from tutelage.run.row_costs import print_costs

        print_costs(rows_of(name, table), data_root)
    else:
        show(name, table, runs)


def log(
    run: Annotated[Path, Parameter(help="The directory of a search or a retraining.")],
    /,
    *,
    to: Annotated[
        tuple[str, ...],
        Parameter(help=f"Trackers: {', '.join(TRACKERS)}.", consume_multiple=True, negative=()),
    ],
) -> None:
    """Feed trackers with what a run has written, without what they have already."""
    from tutelage.trackers.feed import feed

    available(to)
    for name in to:
        print(feed(run, name))
