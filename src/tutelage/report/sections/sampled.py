"""What a page says of a search that samples paths, from its students to what evolution found."""

from __future__ import annotations

from typing import Any

from tutelage.report.figures.layout import cell_name
from tutelage.report.figures.theme import drawn
from tutelage.report.runs.read import Stage
from tutelage.report.sections.evolution import FRONT, evolved, front_rows, said
from tutelage.report.sections.marginals import drawn_map, marginals
from tutelage.report.sections.ranking import HEADER as RANKED
from tutelage.report.sections.ranking import baseline, figures, ranked
from tutelage.report.sections.students import HEADER as TAUGHT
from tutelage.report.sections.students import at_the_end, students, teacher


def sampled(stage: Stage) -> dict[str, Any]:
    """Make the sections of a search that samples paths; each is empty before its time."""
    drawn_often = list(marginals(stage))
    return {
        "students": list(students(stage)),
        "teacher": teacher(stage),
        "taught_header": TAUGHT,
        "taught": at_the_end(stage),
        "drawn": [
            drawn(
                f"Share of the draws (%), {cell_name(each.group)}",
                drawn_map(each),
                f"how often every operation of the {cell_name(each.group)} was drawn",
            )
            for each in drawn_often
        ],
        "marginals": [each.said() for each in drawn_often],
        "ranking": list(ranked(stage)),
        "ranking_header": RANKED,
        "ranking_figures": figures(stage),
        "baseline": baseline(stage.benchmark),
        "evolution": list(evolved(stage.evolution)) if stage.evolution else [],
        "found": said(stage.evolution) if stage.evolution else "",
        "front_header": FRONT,
        "front": front_rows(stage.evolution) if stage.evolution else [],
    }
