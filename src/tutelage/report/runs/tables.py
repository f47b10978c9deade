"""Tables of a report: runs grouped by settings, with means and deviations over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.report.runs.benchmarks import BENCHMARKS
from tutelage.report.runs.found import flops, gap, params, supernet_accuracy, tau
from tutelage.report.runs.record import Record, number

IMMATERIAL = (
    *("seed", "row", "table", "data.root", "data.download", "data.memory"),
    *("device", "kernels", "graph", "deterministic", "threads", "log_every", "save_every", "log"),
)
"""Settings that may differ between repetitions of one experiment, of a retraining too."""


NOTHING = "–"
"""The cell's text if no run has the figure."""


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation of the runs' values."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean; NaN without values."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float | None:
        """The standard deviation with n - 1 in the denominator; None for fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def text(self, digits: int = 2, scale: float = 1.0, unit: str = "") -> str:
        """Write mean, deviation and n.

        >>> Statistic((0.025, 0.027)).text(scale=100)
        '2.60 ± 0.14 (n = 2)'
        """
        if not self.values:
            return NOTHING
        text = f"{scale * self.mean:.{digits}f}"
        if self.deviation is not None:
            text += f" ± {scale * self.deviation:.{digits}f}"
        return f"{text}{unit} (n = {len(self.values)})"


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed."""

    label: str
    """Method x search x space x data; if that is not unique, also the settings that differ."""
    records: tuple[Record, ...]

    @property
    def members(self) -> int:
        """Number of learners in the kept ensembles; 0: no ensembles are kept."""
        return max(len(record.members) for record in self.records)

    @property
    def test_error(self) -> Statistic:
        """Test errors after retraining, fractions."""
        return _statistic(record.test_error for record in self.records)

    @property
    def valid_accuracy(self) -> Statistic:
        """Validation accuracies of the kept learners or ensembles at the end of the searches."""
        return _statistic(record.valid_accuracy for record in self.records)

    @property
    def search_seconds(self) -> Statistic:
        """Times of the searches that have ended."""
        searches = (record.search for record in self.records)
        return _statistic(files.seconds for files in searches if files and files.ended)

    def benchmark(self) -> dict[str, str]:
        """Write the benchmark's figures of the kept architectures, column by column."""
        columns = {
            f"{data} {each.part}{each.how} %": NOTHING
            for each in BENCHMARKS
            for data in each.tests.values()
        }
        columns |= {f"rank of {each.count:,}": NOTHING for each in BENCHMARKS if each.count}
        searches = (record.search for record in self.records if record.search and record.answer)
        if asked := next(searches, None):
            for key, data in asked.benchmark.tests.items():
                columns[f"{data} {asked.benchmark.part}{asked.benchmark.how} %"] = self._answered(
                    key
                ).text()
            if count := asked.benchmark.count:
                columns[f"rank of {count:,}"] = self._answered("rank").text(digits=0)
        return columns

    def cells(self) -> dict[str, str]:
        """Write the row, column by column; figures that no run has are dashes."""
        unit, seconds = time_unit(self.search_seconds.mean)
        seeds = (str(record.seed) for record in self.records if record.seed is not None)
        return {
            "runs": self.label + (f", ensemble of {self.members}" if self.members else ""),
            "seeds": ", ".join(seeds),
            "test error %": self.test_error.text(scale=100),
            **self.benchmark(),
            "supernet accuracy %": self._mean(supernet_accuracy).text(scale=100),
            "Kendall’s tau": self._mean(tau).text(),
            "teacher’s gap (points)": self._mean(gap).text(scale=100),
            "valid accuracy %": self.valid_accuracy.text(scale=100),
            "parameters (M)": _millions(self._mean(params)),
            "FLOPs (M)": _millions(self._mean(flops)),
            "search time": self.search_seconds.text(scale=1 / seconds, unit=f" {unit}"),
        }

    def _mean(self, figure: Callable[[Record], float | None]) -> Statistic:
        return _statistic(map(figure, self.records))

    def _answered(self, key: str) -> Statistic:
        return _statistic(number(record.answer.get(key)) for record in self.records)


def comparison(records: Sequence[Record]) -> list[Row]:
    """Group runs by all settings except the seed, in the given order.

    A search that is not retrained yet joins the group of retrained runs with the same search.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault(_settings_key(record), []).append(record)
    for search, retraining in [key for key in groups if not key[1]]:
        fellows = [key for key in groups if key[0] == search and key[1]]
        if len(fellows) == 1:
            groups[fellows[0]] += groups.pop((search, retraining))
    order = {record.path: place for place, record in enumerate(records)}
    found = [sorted(group, key=lambda record: order[record.path]) for group in groups.values()]
    found.sort(key=lambda group: order[group[0].path])
    labels = _labels([group[0] for group in found])
    return [Row(label, tuple(group)) for label, group in zip(labels, found, strict=True)]


def as_table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return a comparison as a header and rows of cells, without empty columns."""
    written = [row.cells() for row in rows]
    shown = [name for name in written[0] if any(cells[name] != NOTHING for cells in written)]
    return [tuple(shown), *(tuple(cells[name] for name in shown) for cells in written)]


def as_text(rows: Sequence[Row]) -> str:
    """Write a comparison as aligned columns for a terminal, and what must be said of figures."""
    table = as_table(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *caveats_of(rows)])


def caveats_of(rows: Sequence[Row]) -> list[str]:
    """Return the sentences that must stand beside figures of benchmarks."""
    searches = (record.search for row in rows for record in row.records if record.search)
    return list(dict.fromkeys(search.caveat for search in searches if search.caveat))


def time_unit(seconds: float) -> tuple[str, float]:
    """Choose a unit for a duration, and return it with its seconds.

    >>> time_unit(30), time_unit(600), time_unit(9000)
    (('s', 1.0), ('min', 60.0), ('h', 3600.0))
    """
    return ("h", 3600.0) if seconds >= 3600 else ("min", 60.0) if seconds >= 60 else ("s", 1.0)


def duration(seconds: float | None) -> str:
    """Write a duration.

    >>> duration(42.4), duration(600), duration(5000)
    ('42 s', '10 min 0 s', '1 h 23 min')
    """
    if seconds is None:
        return NOTHING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List settings by dotted name, scalars before tables.

    >>> dict(dotted({"data": {"name": "digits"}, "seed": 1}))
    {'seed': 1, 'data.name': 'digits'}
    """
    for name, value in settings.items():
        if not isinstance(value, Mapping):
            yield prefix + name, value
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")


def material(name: str) -> bool:
    """Tell whether a setting distinguishes experiments, by its dotted name.

    >>> material("method.memory"), material("data.memory"), material("retrain.seed")
    (True, False, False)
    """
    name = name.removeprefix("retrain.")
    return name not in IMMATERIAL and not name.startswith("quick.")


def _millions(counts: Statistic) -> str:
    """Write numbers in millions, with more digits if they are small."""
    return counts.text(digits=2 if counts.mean >= 1e6 else 4, scale=1e-6)


def _statistic(values: Iterable[float | None]) -> Statistic:
    return Statistic(tuple(value for value in values if value is not None))


def _material(record: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of search and retraining that distinguish experiments."""
    found = []
    for files in (record.search, record.retraining):
        settings = dict(dotted(files.settings)) if files else {}
        if record.search:
            settings.pop("genotype", None)  # of a retraining: its search's result
        found.append({name: x for name, x in settings.items() if material(name)})
    return found[0], found[1]


def _settings_key(record: Record) -> tuple[str, str]:
    search, retraining = (sorted(settings.items()) for settings in _material(record))
    return repr(search), repr(retraining) if record.retraining else ""


def _labels(records: Sequence[Record]) -> list[str]:
    """Name every experiment by its title; equal titles are followed by differing settings."""
    found = [(record, record.title, _material(record)) for record in records]
    alike: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for _, title, material in found:
        alike.setdefault(title, []).append(material)
    names = {
        title: [_differing([each[part] for each in group if each[part]]) for part in (0, 1)]
        for title, group in alike.items()
    }
    labels = []
    for record, title, material in found:
        shown = {
            name: record.path.name if name == "genotype" else mine.get(name, "not set")
            for mine, part in zip(material, names[title], strict=True)
            if mine
            for name in part
        }
        written = ", ".join(f"{name} = {value}" for name, value in shown.items())
        labels.append(f"{title} ({written})" if written else title)
    return labels


def _differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Name the settings that some experiments have otherwise than the first one, or not at all."""
    return [
        name
        for name in dict.fromkeys(name for each in settings for name in each)
        if any(each.get(name) != settings[0].get(name) for each in settings)
    ]
