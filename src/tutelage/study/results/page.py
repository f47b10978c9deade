"""The report of a study: one self-contained page, and its tables as files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from tutelage.files import write_bytes
from tutelage.report.figures.theme import Drawn, variables
from tutelage.study.jobs import jobs_of
from tutelage.study.plan import Study, listed, with_baseline
from tutelage.study.reading import read_study
from tutelage.study.results.compare import Line, Table, compared, costs_of, quality, warnings
from tutelage.study.results.dots import dots
from tutelage.study.results.files import latex, markdown, runs_csv, statistics_csv
from tutelage.study.results.intervals import Kind
from tutelage.study.results.measures import Measured, measured
from tutelage.study.status import Standing, standing


@dataclass(frozen=True)
class Section:
    """A measure on the page."""

    table: Table
    plot: Drawn


@dataclass(frozen=True)
class Report:
    """A study's results."""

    study: Study
    standings: Sequence[Standing]
    measures: Sequence[tuple[Measured, Sequence[Line]]]
    """Those that configurations are compared by, the main one first."""
    costs: Sequence[Measured]
    kind: Kind = "t"
    """How the intervals are computed."""

    @property
    def sections(self) -> list[Section]:
        """The measures as tables and plots; time and memory beside the main one."""
        baseline, made = self.study.head.baseline, []
        for place, (found, lines) in enumerate(self.measures):
            costs = [x for x in self.costs if x.measure.beside and place == 0]
            table = quality(found, lines, baseline, costs)
            made.append(Section(table, dots(found.measure.name, lines, baseline)))
        return made

    @property
    def tables(self) -> list[Table]:
        """All tables; the last one has the costs that do not stand beside the main measure."""
        others = [x for x in self.costs if not (self.measures and x.measure.beside)]
        costs = [costs_of(others, list(self.study.configurations))] if others else []
        return [*(section.table for section in self.sections), *costs]

    @property
    def warnings(self) -> list[str]:
        """Sentences about what the main measure cannot tell, and about predicted figures."""
        lines = self.measures[0][1] if self.measures else []
        predicted = (found.caveat for found, _ in self.measures if found.caveat)
        return [*warnings(lines, self.study.head.baseline), *dict.fromkeys(predicted)]


def is_study(path: Path) -> bool:
    """Tell whether a folder is a study's."""
    return (path / "study.toml").is_file()


def report_of(out: Path, baseline: str | None = None, kind: Kind = "t") -> Report:
    """Read all runs of a study.

    Args:
        out: The study's folder.
        baseline: The configuration to compare with, instead of the study's own.
        kind: How the intervals are computed.

    Raises:
        ValueError: The folder is no study's, or no configuration has the baseline's name.
    """
    study = with_baseline(read_study(out), baseline)
    found = measured(study, out)
    return Report(
        study,
        [standing(job) for job in jobs_of(study, out)],
        [(x, compared(x, study.head.baseline, kind)) for x in found if x.measure.quality],
        [x for x in found if not x.measure.quality],
        kind,
    )


def write_study_report(
    out: Path, page: Path, baseline: str | None = None, kind: Kind = "t"
) -> Report:
    """Write the page of a study, and its tables beside it as CSV, Markdown and LaTeX.

    The files have the page's name; NAME.runs.csv has every value.

    Raises:
        ValueError: As `report_of`.
    """
    report = report_of(out, baseline, kind)
    everything = [*(x for x, _ in report.measures), *report.costs]
    lines = [*report.measures, *((x, compared(x, None, kind)) for x in report.costs)]
    files = {
        ".csv": statistics_csv(lines),
        ".runs.csv": runs_csv(everything),
        ".md": markdown(report.tables),
        ".tex": latex(report.tables),
    }
    for suffix, text in files.items():
        write_bytes(page.with_suffix(suffix), text.encode())
    names = [page.with_suffix(suffix).name for suffix in files]
    write_bytes(page, _html(report, out, names).encode())
    return report


def _html(report: Report, out: Path, files: Sequence[str]) -> str:
    loaders = [PackageLoader(f"tutelage.{name}", ".") for name in ("study.results", "report")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("study.html.jinja").render(
        light=variables(dark=False),
        dark=variables(dark=True),
        title=report.study.head.about or out.resolve().name,
        study=report.study,
        sections=report.sections,
        costs=report.tables[len(report.measures) :],
        warnings=report.warnings,
        kind=report.kind,
        done=sum(each.state == "done" for each in report.standings),
        runs=len(report.standings),
        unfinished=[each for each in report.standings if each.state != "done"],
        files=files,
        listed=listed(report.study),
    )


def as_text(tables: Sequence[Table]) -> str:
    """Write tables as aligned columns for a terminal."""
    lines: list[str] = []
    for table in tables:
        rows = [table.header, *table.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += [table.title]
        lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)
