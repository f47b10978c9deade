"""A study's tables as files: CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.study.results.compare import Line, Table
from tutelage.study.results.measures import Measured

SPECIAL = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$", "–": "--", "’": "'"},
}
"""Characters that LaTeX reads otherwise, and how it prints them."""

FORMULA = ("=", "+", "-", "@", "\t")
"""Characters that begin a formula in a spreadsheet."""


def markdown(tables: Sequence[Table]) -> str:
    """Write tables as Markdown."""
    lines = []
    for table in tables:
        lines += [f"## {table.title}", ""]
        rows = [table.header, ["---"] * len(table.header), *table.rows]
        lines += ["| " + " | ".join(x.replace("|", "\\|") for x in row) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def latex(tables: Sequence[Table]) -> str:
    """Write tables as LaTeX, for the package booktabs."""
    lines = ["% \\usepackage{booktabs}"]
    for table in tables:
        header, *rows = (
            " & ".join(map(escaped, row)) + r" \\" for row in (table.header, *table.rows)
        )
        columns = "l" + "r" * (len(table.header) - 1)
        lines += [f"% {table.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header]
        lines += [r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def escaped(text: str) -> str:
    r"""Write text for LaTeX.

    >>> escaped("lr=0.1, 5 % ± 1")
    'lr=0.1, 5 \\% $\\pm$ 1'
    """
    return "".join(SPECIAL.get(each, each) for each in text)


def statistics_csv(found: Sequence[tuple[Measured, Sequence[Line]]]) -> str:
    """Write all statistics in full precision, a line for each measure and configuration."""
    return _csv(
        {"measure": each.measure.name, **_figures(line)} for each, lines in found for line in lines
    )


def runs_csv(found: Sequence[Measured]) -> str:
    """Write every value, a line for each measure, configuration and seed."""
    return _csv(
        {"measure": each.measure.name, "configuration": name, "seed": seed, "value": value}
        for each in found
        for name, values in each.values.items()
        for seed, value in values.items()
    )


def _figures(line: Line) -> Mapping[str, Any]:
    sample, pair = line.sample, line.paired
    low, high = line.interval or (None, None)
    difference = pair.differences if pair and pair.n else None
    below, above = line.difference or (None, None)
    return {
        "configuration": line.name,
        "n": sample.n,
        "mean": sample.mean if sample.n else None,
        "sd": sample.deviation,
        "interval": line.kind,
        "low": low,
        "high": high,
        "pairs": pair.n if pair else None,
        "difference": difference.mean if difference else None,
        "difference_low": below,
        "difference_high": above,
        "p": pair.p if pair else None,
        "p_holm": line.corrected,
        "effect": pair.effect if pair else None,
        "power": pair.power if pair else None,
        "seeds_needed": pair.needed if pair else None,
    }


def _csv(rows: Iterator[Mapping[str, Any]]) -> str:
    listed = list(rows)
    file = io.StringIO()
    writer = csv.DictWriter(file, listed[0] if listed else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _no_formula(x) for name, x in row.items()} for row in listed)
    return file.getvalue()


def _no_formula(value: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would take for a formula.

    >>> _no_formula("=1+1"), _no_formula("lr=0.1"), _no_formula(-1.5)
    ("'=1+1", 'lr=0.1', -1.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
