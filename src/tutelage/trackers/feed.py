"""Feed a tracker with what a run's directory holds, row by row, and each row once.

The rows of a run follow from its settings: a resumed run, whose rows after the checkpoint are
removed, writes the same rows at the same places again. So a row is known by its place in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

from tutelage.files import write_bytes
from tutelage.formats import from_json, read_toml
from tutelage.records import metrics
from tutelage.records.results import Origin, Result
from tutelage.records.rows import CANDIDATES, SEARCH, TRAINING, Row
from tutelage.records.typed import typed
from tutelage.renamed import lifted_settings
from tutelage.report.figures.draw import cell_figure
from tutelage.report.figures.theme import to_png
from tutelage.spaces.genotype import Genotype
from tutelage.trackers import Outcome, Place, Subject, available, open_tracker
from tutelage.trackers.figures import figures, flat

PLACES: Final = "trackers.json"
"""The file of a run's directory with the `Place` of every tracker that needs one."""
LONG: Final = ("genotype", "quick")
"""Settings that are no hyper-parameters."""
ALONE: Final = Lock()
"""Held where several trackers share something: matplotlib's styles, and the file of places."""


class Source:
    """The metrics.jsonl of a folder, of which every row is read once."""

    def __init__(self, path: Path, types: Mapping[str, type[Row]]) -> None:
        self.path, self._types = path / "metrics.jsonl", types
        self._read = self._size = 0
        self._from_the_start()

    def _from_the_start(self) -> None:
        """Count the rows from the first one."""
        self._end, self._rows, self._head, self._last = 0, 0, b"", b""

    def rows(self) -> list[Row]:
        """Return the rows after those of the last call; none while they are written again."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size == self._size:
            return []
        self._size = size
        fresh = list(self._fresh())
        return metrics.read(b"".join(fresh), self._types).rows if fresh else []

    def _fresh(self) -> Iterator[bytes]:
        """Yield the lines of the rows that were not read, after the beginning that they follow."""
        shown = b""
        with self.path.open("rb") as file:
            file.seek(self._end - len(self._last))
            if file.read(len(self._last)) != self._last:  # a resumed run has removed rows
                self._from_the_start()
                file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._end, self._last = self._end + len(line), line
                if line.startswith(metrics.BEGINNING):
                    self._head = line
                    continue
                self._rows += 1
                if self._rows > self._read:
                    self._read = self._rows
                    if shown != self._head:
                        yield (shown := self._head)
                    yield line


def sources(path: Path, own: Mapping[str, type[Row]]) -> dict[str, Source]:
    """Open the files of a run's rows by their folder; `own` are the types of the run's own rows."""
    inner = {folder: Source(path / folder, CANDIDATES) for folder in ("ranking", "evolution")}
    return {"": Source(path, own), **inner}


def by_folder(rows: int, found: Mapping[str, Source]) -> dict[str, int]:
    """Divide rows that were sent while a run worked: its last row is after those of the folders.

    What the files no longer hold counts as the run's own, which a resumed run writes again.
    """
    sent = {}
    for folder, source in found.items():
        there = sum(row.event != "end" for row in source.rows())
        sent[folder] = min(rows, there)
        rows -= sent[folder]
    return {**sent, "": sent[""] + rows}


class Feed:
    """A run's directory on its way to a tracker.

    Attributes:
        subject: The run.
        place: Where the tracker has it.
        last: The file that the run writes at its end.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Open the tracker.

        Raises:
            ValueError: It is no run, or its settings are damaged.
        """
        self.subject = subject(path)
        self._name, self.place = name, read_place(path, name)
        self._tracker = open_tracker(name, self.subject, self.place)
        searches = "method.name" in self.subject.settings
        own = SEARCH if searches else TRAINING
        self.last = path / ("genotype.json" if searches else "result.json")
        if self.place.rows and not self.place.sent:
            self.place.sent = by_folder(self.place.rows, sources(path, own))
        self._sources = sources(path, own)
        self._done = self._step = 0
        self._rows = dict.fromkeys(self._sources, 0)
        self._drawn: dict[str, str] = {}
        self._keep()

    def catch_up(self) -> None:
        """Send what the run has written since the last call."""
        before = dict(self._rows)
        for folder, source in self._sources.items():
            for row in source.rows():
                self._send(folder, row)
        if self._rows != before:
            sent = self.place.sent
            self.place.sent = {key: max(n, sent.get(key, 0)) for key, n in self._rows.items()}
            self.place.rows = sum(self.place.sent.values())
            self._keep()

    def end(self, outcome: Outcome) -> None:
        """Send the rest and, of a finished run, its final figures and cells."""
        self.catch_up()
        final: dict[str, float] = {}
        if outcome == "finished" and not self.place.finished:
            final = final_figures(self.subject.path)
            with suppress(OSError, ValueError):
                text = (self.subject.path / "genotype.json").read_text(encoding="utf-8")
                self._draw("cells/found", from_json(text))
        self._tracker.end(self._step, final, outcome)
        self.place.finished = self.place.finished or outcome == "finished"
        self._keep()

    def _send(self, folder: str, row: Row) -> None:
        """Send a row; steps count on over epochs, and over the folders."""
        event = row.event or ""
        self._step = self._done + (getattr(row, "step", 0) or 0)  # the last row has no step
        if event == "epoch":
            self._done = self._step
        self._rows[folder] += 1
        if self._rows[folder] <= self.place.sent.get(folder, 0):  # by an earlier session
            return
        found = figures(row, f"{folder}/{event}".strip("/"))
        if not folder and event != "end":
            found["epoch"] = float(getattr(row, "epoch", 0))
        self._tracker.row(self._step, found)
        for learner, genotype in enumerate(getattr(row, "genotype", ())):
            self._draw(f"cells/learner-{learner}", genotype)

    def _draw(self, name: str, genotype: Mapping[str, Any]) -> None:
        """Send a picture of an architecture that differs from the last one of this name."""
        plain = {key: x for key, x in genotype.items() if key != "about"}
        text = json.dumps(plain, sort_keys=True)
        if self._drawn.get(name) != text:
            self._drawn[name] = text
            self._tracker.picture(self._step, name, picture(text))

    def _keep(self) -> None:
        """Write the tracker's place, if it has one."""
        if self.place.id:
            write_place(self.subject.path, self._name, self.place)


@lru_cache(maxsize=32)
def picture(text: str) -> bytes:
    """Draw a genotype, given as JSON, as PNG."""
    genotype = Genotype.from_dict(from_json(text))
    with ALONE:
        return to_png(cell_figure(genotype, list(genotype.cells)))


def subject(path: Path) -> Subject:
    """Read the settings of a run, and name it by its folder and those of the runs around it.

    Raises:
        ValueError: It is no run, or its settings are damaged.
    """
    file = path / "run.toml"
    if not file.is_file():
        raise ValueError(f"{path} is no run: it has no run.toml; give the --out of a run")
    settings = lifted_settings(read_toml(file))
    kept = {key: value for key, value in settings.items() if key not in LONG}
    return Subject(path, "/".join(reversed([*_names(path.resolve())])), flat(kept))


def _names(path: Path) -> Iterator[str]:
    while (path / "run.toml").is_file():
        yield path.name
        path = path.parent


def final_figures(path: Path) -> dict[str, float]:
    """Return the figures of result.json, or of the found genotype; those that can be read."""
    found: dict[str, float] = {}
    with suppress(OSError, ValueError, RecursionError, AttributeError):
        about = from_json((path / "genotype.json").read_bytes()).get("about") or {}
        found |= figures(typed(about, Origin), "final")
    with suppress(OSError, ValueError, RecursionError):
        result = Result.read(from_json((path / "result.json").read_bytes()))
        found |= figures(result.as_dict(), "final")
    return found


def read_place(path: Path, name: str) -> Place:
    """Read where a tracker has the run; a damaged file counts as none."""
    with suppress(OSError, ValueError, RecursionError):
        return typed(from_json((path / PLACES).read_bytes()), dict[str, Place]).get(name) or Place()
    return Place()


def write_place(path: Path, name: str, place: Place) -> None:
    """Write where a tracker has the run, beside the other trackers' places."""
    with ALONE:
        places: dict[str, Any] = {}
        with suppress(OSError, ValueError, RecursionError):
            places = dict(from_json((path / PLACES).read_bytes()))
        places[name] = asdict(place)
        write_bytes(path / PLACES, (json.dumps(places, indent=2) + "\n").encode())


def feed(path: Path, name: str) -> str:
    """Feed a tracker with a run that has ended, and say what it has now.

    Raises:
        ValueError: The tracker is unknown or missing, or the folder is no run.
    """
    available([name])
    fed = Feed(path, name)
    before = fed.place.rows
    fed.end("finished" if fed.last.is_file() else "stopped")
    rows = fed.place.rows - before
    return f"{name}: {rows} row{'s' * (rows != 1)} of {path}, in {fed.place.where}"
