"""metrics.jsonl: one JSON object per line; head lines have the version of the rows after them.

A head is the first line of a file. Release 0.1 wrote none; a run of 0.1 that resumes keeps its
rows, and has a head before the new rows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
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
    at = content.rfind(b"\n" + BEGINNING) + 1
    if not at and not content.startswith(BEGINNING):
        return 1
    try:
        return known_version(from_json(content[at:].partition(b"\n")[0]), VERSION)
    except NewerError:
        raise
    except ValueError:
        return 1


def read(content: bytes, types: Mapping[str, type[Row]]) -> Metrics:
    """Read the rows of a file's content, as far as possible, with the damage; see `scan`."""
    rows: list[Row] = []
    damage: list[Damage] = []
    for found in scan(io.BytesIO(content), types):
        match found:
            case Damage():
                damage.append(found)
            case row:
                rows.append(row)
    return Metrics(rows, damage)


def scan(lines: Iterable[bytes], types: Mapping[str, type[Row]]) -> Iterator[Row | Damage]:
    """Yield the rows of a file one by one, as far as possible.

    A last line without a line end is still being written; it is left out if it is incomplete. Rows
    of a newer version and all later rows are not read.

    Args:
        lines: The file's lines.
        types: The types of its rows, by their event.
    """
    version = 1
    for number, line in enumerate(lines, start=1):
        try:
            if line.startswith(BEGINNING):
                version = known_version(from_json(line), VERSION)
            else:
                yield _row(from_json(line), version, types)
        except NewerError as error:
            yield Damage(number, str(error))
            return
        except ValueError as error:
            if line.endswith(b"\n"):
                yield Damage(number, str(error))


def _row(found: Any, version: int, types: Mapping[str, type[Row]]) -> Row:
    """Read a row; raise ValueError if it is not a row."""
    if not isinstance(found, Mapping):
        raise ValueError(f"it holds {str(found)[:20]}: must be an object")
    event = str(found.get("event"))
    if event not in types:
        raise ValueError(f"its event is {event[:20]}: must be {', '.join(types)}")
    lifted = lift.row(found, version)
    return typed({key: x for key, x in lifted.items() if x is not None}, types[event])
