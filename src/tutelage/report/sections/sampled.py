"""The sections of a search that samples paths, from its students to the evolution."""

from __future__ import annotations

from typing import Any

from tutelage.report.figures.layout import cell_name
from tutelage.report.figures.theme import drawn
from tutelage.report.runs.record import RunFiles
from tutelage.report.sections.evolution import FRONT, described, evolved, front_rows
from tutelage.report.sections.marginals import drawn_map, marginals
from tutelage.report.sections.ranking import HEADER as RANKED
from tutelage.report.sections.ranking import baseline, figures, ranked
from tutelage.report.sections.students import HEADER as TAUGHT
from tutelage.report.sections.students import at_the_end, students, teacher


def sampled(files: RunFiles) -> dict[str, Any]:
    """Make the sections of a search that samples paths; each is empty before it has data."""
    drawn_often = list(marginals(files))
    return {
        "students": list(students(files)),
        "teacher": teacher(files),
        "taught_header": TAUGHT,
        "taught": at_the_end(files),
        "drawn": [
            drawn(
                f"Share of the samples (%), {cell_name(each.group)}",
                drawn_map(each),
                f"how often every operation of the {cell_name(each.group)} was sampled",
            )
            for each in drawn_often
        ],
        "marginals": [each.described() for each in drawn_often],
        "ranking": list(ranked(files)),
        "ranking_header": RANKED,
        "ranking_figures": figures(files),
        "baseline": baseline(files.benchmark),
        "evolution": list(evolved(files.evolution)) if files.evolution else [],
        "found": described(files.evolution) if files.evolution else "",
        "front_header": FRONT,
        "front": front_rows(files.evolution) if files.evolution else [],
    }
