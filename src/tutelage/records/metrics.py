"""metrics.jsonl: one JSON object a line; some say of what version the rows after them are.

Such a line is the first one of a file. Release 0.1 wrote none; a run of 0.1 that continues keeps
its rows, and has such a line before those that are new.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tutelage.records import lift
from tutelage.records.rows import Row
from tutelage.records.typed import NewerError, finite, known_version, parse, typed

VERSION: Final = 2
HEAD: Final = {"event": "format", "format": "tutelage metrics", "version": VERSION}
"""A line that says of what version the rows after it are."""
BEGINNING: Final = b'{"event": "format",'
"""How such a line begins, of any version."""


class Damage(NamedTuple):
    """A line that cannot be read."""

    line: int
    """Counted from 1."""
    reason: str


class Metrics(NamedTuple):
    """What metrics.jsonl holds."""

    rows: list[Row]
    damage: list[Damage]


def line_of(row: Row | Mapping[str, Any]) -> bytes:
    """Write a row, or the head, as a line."""
    return (json.dumps(finite(row), allow_nan=False) + "\n").encode()


def version_of(content: bytes) -> int:
    """Return of what version rows at the end of a file are; 1 where no line says so.

    A line that should say so and is damaged says nothing.

    Raises:
        ValueError: A newer release wrote it.
    """
    described = [line for line in content.splitlines() if line.startswith(BEGINNING)]
    try:
        return known_version(parse(described[-1]), VERSION) if described else 1
    except NewerError:
        raise
    except (ValueError, RecursionError):
        return 1


def read(content: bytes, types: Mapping[str, type[Row]]) -> Metrics:
    """Read the rows of a file, whatever is there.

    A last line without an end is being written; it is left out where it is not whole.

    Args:
        content: The file's.
        types: The types of its rows, by their event.

    Returns:
        The rows, and the damage. Rows of a newer version are not read, nor what follows them.
    """
    rows: list[Row] = []
    damage: list[Damage] = []
    version = 1
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            if line.startswith(BEGINNING):
                version = known_version(parse(line), VERSION)
            else:
                rows.append(_row(parse(line), version, types))
        except NewerError as error:
            damage.append(Damage(number, str(error)))
            break
        except (ValueError, RecursionError) as error:
            if line.endswith(b"\n"):
                damage.append(Damage(number, str(error)))
    return Metrics(rows, damage)


def _row(found: Any, version: int, types: Mapping[str, type[Row]]) -> Row:
    """Read a row; raise ValueError where it is none."""
    if not isinstance(found, Mapping):
        raise ValueError(f"it holds no object but {str(found)[:20]}")
    event = str(found.get("event"))
    if event not in types:
        raise ValueError(f"its event is {event[:20]}: must be {', '.join(types)}")
    lifted = lift.row(found, version)
    return typed({key: x for key, x in lifted.items() if x is not None}, types[event])
