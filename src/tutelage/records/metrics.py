"""metrics.jsonl: one JSON object per line; head lines have the version of the rows after them.

A head is the first line of a file. Release 0.1 wrote none; a run of 0.1 that resumes keeps its
rows, and has a head before the new rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tutelage.formats import from_json
from tutelage.records import lift
from tutelage.records.rows import Row
from tutelage.records.typed import NewerError, finite, known_version, typed

VERSION: Final = 2
HEAD: Final = {"event": "format", "format": "tutelage metrics", "version": VERSION}
"""The head: a line with the version of the rows after it."""
BEGINNING: Final = b'{"event": "format",'
"""The beginning of a head of any version."""


class Damage(NamedTuple):
    """A line that cannot be read."""

    line: int
    """Counted from 1."""
    reason: str


class Metrics(NamedTuple):
    """The content of metrics.jsonl."""

    rows: list[Row]
    damage: list[Damage]


def line_of(row: Row | Mapping[str, Any]) -> bytes:
    """Write a row, or the head, as a line."""
    return (json.dumps(finite(row), allow_nan=False) + "\n").encode()


def version_of(content: bytes) -> int:
    """Return the version of the rows at the end of a file; 1 if it has no head.

    A damaged head counts as none.

    Raises:
        ValueError: A newer release wrote it.
    """
    heads = [line for line in content.splitlines() if line.startswith(BEGINNING)]
    try:
        return known_version(from_json(heads[-1]), VERSION) if heads else 1
    except NewerError:
        raise
    except ValueError:
        return 1


def read(content: bytes, types: Mapping[str, type[Row]]) -> Metrics:
    """Read the rows of a file, as far as possible.

    A last line without a line end is still being written; it is left out if it is incomplete.

    Args:
        content: The file's content.
        types: The types of its rows, by their event.

    Returns:
        The rows, and the damage. Rows of a newer version and all later rows are not read.
    """
    rows: list[Row] = []
    damage: list[Damage] = []
    version = 1
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            if line.startswith(BEGINNING):
                version = known_version(from_json(line), VERSION)
            else:
                rows.append(_row(from_json(line), version, types))
        except NewerError as error:
            damage.append(Damage(number, str(error)))
            break
        except ValueError as error:
            if line.endswith(b"\n"):
                damage.append(Damage(number, str(error)))
    return Metrics(rows, damage)


def _row(found: Any, version: int, types: Mapping[str, type[Row]]) -> Row:
    """Read a row; raise ValueError if it is not a row."""
    if not isinstance(found, Mapping):
        raise ValueError(f"it holds {str(found)[:20]}: must be an object")
    event = str(found.get("event"))
    if event not in types:
        raise ValueError(f"its event is {event[:20]}: must be {', '.join(types)}")
    lifted = lift.row(found, version)
    return typed({key: x for key, x in lifted.items() if x is not None}, types[event])
