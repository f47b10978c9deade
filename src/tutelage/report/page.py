"""The report's page: one self-contained HTML file for one run, or for the comparison of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from tutelage.files import write_bytes
from tutelage.report.figures.theme import variables
from tutelage.report.runs.read import read_run
from tutelage.report.runs.tables import as_table, caveats_of, comparison
from tutelage.report.sections.compared import compared
from tutelage.report.sections.contents import details, summary


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write the page of one run, or a comparison of several.

    Args:
        runs: directories of searches, or of retrainings.
        out: the HTML file to write.

    Returns:
        The file written.

    Raises:
        ValueError: there is no run, or a directory is not a run.
    """
    if not runs:
        raise ValueError("no run to report: give at least one run's directory")
    records = [read_run(Path(run)) for run in runs]
    rows = comparison(records) if len(records) > 1 else []
    header, *table = as_table(rows) if rows else [()]
    environment = Environment(
        loader=PackageLoader("tutelage.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.jinja").render(
        light=variables(dark=False),
        dark=variables(dark=True),
        header=header,
        rows=table,
        compared=compared(rows),
        caveats=caveats_of(rows),
        runs=[summary(record) for record in records],
        details=details(records[0]) if len(records) == 1 else {},
    )
    write_bytes(out, html.encode())
    return out
