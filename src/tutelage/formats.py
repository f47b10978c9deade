"""Plain values from JSON and TOML: the only readers of both, with bounds.

A file that was damaged, or made by others, gives a sentence: no error of a library, no recursion
without end, no memory without bound. Which values there are is checked by `tutelage.records` and
`tutelage.parts`. Nothing here imports torch.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
import tomllib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")
DEEPEST: Final = 64
"""Levels of nested objects and lists; what a run writes has fewer than 10."""
DIGITS: Final = 18
"""Digits of a whole number, so that it can be converted to a float and an index."""
LARGEST: Final = 2**28
"""Bytes of a file."""
LARGEST_TOML: Final = 2**22
"""Bytes of TOML, which is settings: its reader is slow."""
PACKED: Final[Mapping[bytes, Callable[[Path], Any]]] = {
    b"\xfd7zXZ\0": lzma.open,
    b"\x1f\x8b": gzip.open,
}
"""Functions that open a compressed file, by its first bytes."""
DOTTED: Final = re.compile(
    rf"""(?<![\w"'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{DEEPEST}}}"""
)
"""A dotted key of so many parts, whose reading takes time that grows with its square."""


def from_json(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: It is not JSON, is nested too deeply, or has a whole number with too many digits
            or half of a surrogate pair, which no text can show.
    """
    try:
        found = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _refuse_deep(found)
    if b"\\u" in text if isinstance(text, bytes) else "\\u" in text:
        json.dumps(found, ensure_ascii=False).encode()
    return found


def from_toml(text: str) -> dict[str, Any]:
    """Read TOML.

    Raises:
        ValueError: It is not TOML, is nested too deeply, is too large, or has a whole number
            that is none of 64 bits.
    """
    if len(text) > LARGEST_TOML:
        raise ValueError(f"it has {len(text):,} characters: at most {LARGEST_TOML:,}")
    if DOTTED.search(text):
        raise ValueError(_TOO_DEEP)
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    for value in _refuse_deep(found, kept=int):
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"a whole number has {len(str(value))} digits")
    return found


def read_json(path: Path) -> Any:
    """Read a file of JSON.

    Raises:
        ValueError: It is damaged, as in `from_json`; the message names it.
        OSError: It cannot be opened.
    """
    return _read(path, from_json)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file of TOML.

    Raises:
        ValueError: It is damaged, as in `from_toml`; the message names it.
        OSError: It cannot be opened.
    """
    return _read(path, from_toml)


def read_text(path: Path) -> str:
    """Read a file of text.

    Raises:
        ValueError: It is no text in UTF-8, or too large.
        OSError: It cannot be opened.
    """
    return _read(path, str)


def _read(path: Path, form: Callable[[str], T]) -> T:
    content = read_bytes(path)
    try:
        return form(content.decode())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_bytes(path: Path) -> bytes:
    """Read a file, which must not be larger than `LARGEST`.

    Raises:
        ValueError: It is.
        OSError: It cannot be opened.
    """
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST:,} bytes")
    return content


def read_packed(path: Path) -> bytes:
    """Read a file, plain or compressed as .xz or .gz; neither may hold more than `LARGEST` bytes.

    Raises:
        ValueError: It is damaged, or holds more.
        OSError: It cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(max(map(len, PACKED)))
    opener = next((PACKED[each] for each in PACKED if start.startswith(each)), None)
    if opener is None and path.suffix in (".xz", ".gz"):
        raise ValueError(f"{path} is cut short or damaged: it is not compressed")
    if opener is None:
        return read_bytes(path)
    try:
        with opener(path) as stream:
            content: bytes = stream.read(LARGEST + 1)
    except (ValueError, EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error
    if len(content) > LARGEST:
        raise ValueError(f"{path} holds more than {LARGEST:,} bytes")
    return content


_TOO_DEEP: Final = f"it is nested more than {DEEPEST} levels deep"


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a whole number has {len(digits)} digits")
    return int(digits)


def _refuse_deep(found: Any, kept: type[int] | None = None) -> list[Any]:
    """Raise ValueError if a value is too deep; return the values in it that are of a type."""
    level, seen = [found], []
    for _ in range(DEEPEST):
        inside: list[Any] = []
        for value in level:
            if type(value) is dict:
                inside += value.values()
            elif type(value) is list:
                inside += value
            elif type(value) is kept:
                seen.append(value)
        if not inside:
            return seen
        level = inside
    raise ValueError(_TOO_DEEP)
