"""Damage of files: every way in which a file of a run breaks, and what a command makes of it.

A damage is a name and the content that replaces the file's. All are deterministic. A command is
called in this process, by `tutelage.cli.main`; its end is one of `Outcome.kind`.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import random
import re
import signal
import tomllib
import traceback
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import edited
import numpy as np
import tomli_w
import torch

from tutelage import cli

DEEP = 20_000
"""Nested brackets that no reader may follow."""
TIMERS = (
    (signal.SIGPROF, signal.ITIMER_PROF, 60),
    (signal.SIGALRM, signal.ITIMER_REAL, 600),
)
"""Seconds of computing, and of a clock, after which a command hangs; others may use the machine."""
MARKS = {"?infinite": ("1e999", "inf"), "?deep": ("[" * 300 + "]" * 300,) * 2}
"""Texts that stand for values that no writer writes, and those in JSON and in TOML."""


class Damage(NamedTuple):
    """One way to break a file."""

    name: str
    make: Callable[[], bytes]
    """Returns the content that replaces the file's."""


VALUES: dict[str, Any] = {
    "null": None,
    "list": [],
    "object": {},
    "numbers": [1, 2],
    "texts": {"x": "y"},
    "text": "x",
    "no text": "",
    "number": 3,
    "negative": -1,
    "fraction": 0.5,
    "infinity": "?infinite",
    "a number's text": "7",
    "huge": 10**30,
    "true": True,
    "deep": "?deep",
    "not a number": float("nan"),
    "half a pair": "\ud800",
}
"""What replaces a value, by what it is."""

TEXTS: dict[str, bytes] = {
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "list of it": b"[1, 2]",
    "number": b"3",
    "infinity": b"1e999",
    "text": b'"x"',
    "brackets": b"[" * DEEP,
    "closed brackets": b"[" * DEEP + b"]" * DEEP,
    "braces": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "digits": b"9" * 10_000,
    "no UTF-8": b'{"\xff": 1}',
}
"""What replaces a file of JSON."""


def plain(name: str, content: bytes) -> Damage:
    """Replace a file by this content."""
    return Damage(name, lambda: content)


def of_bytes(content: bytes) -> Iterator[Damage]:
    """Truncate, flip, zero, empty and replace a file, whatever it holds."""
    size = len(content)
    for share in (0, 1, 4, 8, 12, 15):
        yield Damage(f"cut to {share}/16", lambda n=size * share // 16: content[:n])
    yield Damage("cut by a byte", lambda: content[:-1])
    for share in range(16):
        place, bit = min(size - 1, size * share // 15), 1 << share % 8
        yield Damage(
            f"bit {share % 8} of byte {place} flipped",
            lambda n=place, b=bit: content[:n] + bytes([content[n] ^ b]) + content[n + 1 :],
        )
    yield Damage("zeroed", lambda: bytes(size))
    yield Damage("half zeroed", lambda: content[: size // 2] + bytes(size - size // 2))
    yield Damage("of random bytes", lambda: random.Random(size).randbytes(size))
    yield Damage("twice", lambda: content + content)


def places(value: Any, most: int = 40) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of values inside a value: of a list the first and the last."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)[:most]
    else:
        keys = sorted({0, len(value) - 1}) if isinstance(value, list) and value else []
    for key in keys:
        yield (key,)
        for rest in places(value[key], most):
            yield key, *rest


Variant = tuple[str, Callable[[], Any]]


def replaced(value: Any, path: tuple[Any, ...], by: Callable[[Any, Any], None]) -> Any:
    """Copy plain values and change the copy where a path ends."""
    copy = json.loads(json.dumps(value))
    owner = copy
    for key in path[:-1]:
        owner = owner[key]
    by(owner, path[-1])
    return copy


def variants(value: Any) -> Iterator[Variant]:
    """Yield plain values of another shape: every value replaced, removed, beside another."""

    def changed(path: tuple[Any, ...], by: Callable[[Any, Any], None]) -> Callable[[], Any]:
        return lambda: replaced(value, path, by)

    for path in places(value):
        where = ".".join(map(str, path))
        for name, other in VALUES.items():
            yield f"{where} = {name}", changed(path, lambda o, k, v=other: _set(o, k, v))
        yield f"{where} removed", changed(path, lambda o, k: o.pop(k))
        if isinstance(path[-1], str):
            yield f"{where} renamed", changed(path, lambda o, k: _set(o, "x", o.pop(k)))
    if isinstance(value, dict):
        yield "one key more", lambda: {**value, "unknown": [1]}
        yield "a later version", lambda: {**value, "version": 99}


def _set(owner: Any, key: Any, value: Any) -> None:
    owner[key] = value


def as_json(value: Any) -> bytes:
    """Write JSON, with the values that no writer writes."""
    text = json.dumps(value)
    for mark, (written, _) in MARKS.items():
        text = text.replace(json.dumps(mark), written)
    return text.encode()


def of_json(content: bytes) -> Iterator[Damage]:
    """Replace JSON by JSON of another shape."""
    yield from (plain(name, text) for name, text in TEXTS.items())
    for name, other in variants(json.loads(content)):
        yield Damage(name, lambda other=other: as_json(other()))


def of_lines(content: bytes) -> Iterator[Damage]:
    """Replace, remove, repeat and exchange lines of JSON, of each event the first and the last."""
    lines = content.splitlines(keepends=True)
    events = [json.loads(line).get("event") for line in lines]
    chosen = {events.index(each) for each in events}
    chosen |= {len(events) - 1 - events[::-1].index(each) for each in events}
    for place in sorted(chosen):

        def beside(line: bytes, place: int = place) -> bytes:
            return b"".join([*lines[:place], line, *lines[place + 1 :]])

        name = f"line {place} ({events[place]})"
        for kind, text in TEXTS.items():
            yield plain(f"{name}: {kind}", beside(text + b"\n"))
        for kind, other in variants(json.loads(lines[place])):
            yield Damage(
                f"{name}: {kind}",
                lambda other=other, beside=beside: beside(as_json(other()) + b"\n"),
            )
        yield plain(f"{name} removed", beside(b""))
        yield plain(f"{name} twice", beside(lines[place] * 2))
    yield plain("lines in the opposite order", b"".join(reversed(lines)))


def of_toml(content: bytes) -> Iterator[Damage]:
    """Replace TOML by TOML of another shape."""
    for name, text in {
        "brackets": b"a = " + b"[" * DEEP,
        "closed brackets": b"a = " + b"[" * DEEP + b"]" * DEEP,
        "braces": b"a = " + b"{b = " * DEEP + b"1" + b"}" * DEEP,
        "dots": b".".join([b"a"] * DEEP) + b" = 1",
        "dots of a table": b"[" + b".".join([b"a"] * DEEP) + b"]",
        "digits": b"seed = " + b"9" * 10_000,
        "an array": b"[[method]]\nname = 'sgl'",
        "a date": b"epochs = 1979-05-27",
        "no UTF-8": b'a = "\xff"',
        "JSON": b'{"epochs": 3}',
    }.items():
        yield plain(name, text)
        yield plain(f"{name} before it", text + b"\n" + content)
    for name, other in variants(tomllib.loads(content.decode())):
        if not name.endswith(("= null", "= half a pair")):  # which TOML lacks
            yield Damage(name, lambda other=other: as_toml(other()))


def as_toml(value: Any) -> bytes:
    """Write TOML, with the values that no writer writes."""
    text = tomli_w.dumps(value)
    for mark, (_, written) in MARKS.items():
        text = text.replace(json.dumps(mark), written)
    return text.encode()


def packed(arrays: dict[str, Any]) -> bytes:
    """Write arrays, and objects by pickle, as .npz."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


class Runs:
    """Code that runs where it is unpickled: it makes a folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('os').mkdir({self.path!r})",)


def of_arrays(content: bytes) -> Iterator[Damage]:
    """Replace a split by arrays of other shapes and types, or other packed files."""
    with np.load(io.BytesIO(content)) as stored:
        if "train" not in stored:
            return  # predictions, which are damaged as bytes
        train, valid = stored["train"], stored["valid"]
    others = {
        "floats": train.astype(float),
        "texts": train.astype(str),
        "a column": train[:, None],
        "one number": np.array(3),
        "empty": train[:0],
        "no images": np.array([]),
        "negative": train - 1,
        "dates": train.astype("datetime64[s]"),
        "records": train.astype([("a", "i8")]),
        "objects": np.array([{}, [1]], dtype=object),
        "complex": train.astype(complex),
        "small": train.astype(np.int32),
        "unsigned": train.astype(np.uint64),
        "not numbers": np.full(len(train), np.nan),
        "valid": valid,
    }
    for name, other in others.items():
        yield plain(f"train: {name}", packed({"train": other, "valid": valid}))
        yield plain(f"valid: {name}", packed({"train": train, "valid": other}))
    yield plain("only train", packed({"train": train}))
    yield plain("another name", packed({"train": train, "other": valid}))
    alone = io.BytesIO()
    np.save(alone, train)
    yield plain("one array", alone.getvalue())
    yield plain("a pickle", pickle.dumps({"train": train}))
    for name, text in {"text": b"train", "a large header": b"\x93NUMPY\x01\x00\xff\xff{"}.items():
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("train.npy", text)
            file.writestr("valid.npy", text)
        yield plain(f"a zip of {name}", archive.getvalue())


def of_checkpoint(content: bytes) -> Iterator[Damage]:
    """Replace a checkpoint's entries by values of other types, and remove them.

    What lies deeper is edited by `edited`, whose commands may end otherwise: nobody can tell a
    number from the right one.
    """
    for name, other in {"list": [], "tensor": torch.zeros(2), "number": 3, "none": None}.items():
        yield plain(f"a {name}", edited.written(other))
    others = {"none": None, "list": [], "object": {}, "text": "x", "tensor": torch.zeros(3, 5)}
    others |= {"fraction": 3.5, "negative": -1}
    whole = edited.read(content)
    for path in edited.paths(whole, depth=3):
        present = type(edited.at(whole, path))
        names = [x for x, other in others.items() if type(other) is not present or x == "negative"]
        for name in [*(f"= {each}" for each in names), "removed"]:
            where = ".".join(map(str, path))
            yield Damage(f"{where} {name}", partial(edited.edited, content, (path, name)))


def of_network(content: bytes) -> Iterator[Damage]:
    """Replace the description of a network in its file, and what the file says of its tensors."""
    size = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]

    def written(value: Any) -> bytes:
        text = as_json(value)
        return len(text).to_bytes(8, "little") + text + body

    def described(text: bytes) -> bytes:
        return written({**header, "__metadata__": {"tutelage": text.decode("latin1")}})

    for name, text in TEXTS.items():
        yield Damage(f"description: {name}", lambda text=text: described(text))
    for name, other in variants(json.loads(header["__metadata__"]["tutelage"])):
        yield Damage(f"description: {name}", lambda other=other: described(as_json(other())))
    first = next(key for key in header if key != "__metadata__")
    for name, other in variants({"__metadata__": header["__metadata__"], first: header[first]}):
        yield Damage(f"header: {name}", lambda other=other: written({**header, **other()}))
    for length in (0, 2**63, 2**64 - 1, len(content)):
        yield plain(f"a header of {length} bytes", length.to_bytes(8, "little") + content[8:])


FORMATS: dict[str, Callable[[bytes], Iterator[Damage]]] = {
    ".json": of_json,
    ".jsonl": of_lines,
    ".toml": of_toml,
    ".npz": of_arrays,
    ".pt": of_checkpoint,
    ".safetensors": of_network,
}
"""Damages of a format, by the end of the file's name."""


def damages(path: Path) -> list[Damage]:
    """List all damages of a file."""
    content = path.read_bytes()
    own = FORMATS.get(path.suffix)
    return [*of_bytes(content), *(own(content) if own else ())]


CRASHED = 70
"""The exit status after an error that is no mistake of the user."""


class Outcome(NamedTuple):
    """How a command ended."""

    kind: str
    """done; refused: by one sentence; traceback; hung; wordless: a failure without a sentence."""
    text: str
    """What it wrote, or the traceback."""


class HungError(BaseException):
    """A command that took too long; nothing in a command catches it."""


def call(*words: Any) -> Outcome:
    """Call the command line in this process."""
    out, error = io.StringIO(), io.StringIO()

    def ring(*_: Any) -> None:
        raise HungError

    before = [signal.signal(number, ring) for number, *_ in TIMERS]
    for _, timer, seconds in TIMERS:
        signal.setitimer(timer, seconds)
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            cli.main([*map(str, words)])
    except SystemExit as end:
        code = end.code
    except HungError:
        return Outcome("hung", traceback.format_exc())
    except BaseException:
        return Outcome("traceback", traceback.format_exc())
    finally:
        for (number, timer, _), handler in zip(TIMERS, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
    written = out.getvalue() + error.getvalue()
    if code == CRASHED:
        return Outcome("traceback", written)
    if not code:
        return Outcome("done", written)
    sentence = re.search(r"^tutelage: (?=.*\w)[^\n]{1,2000}\n\Z", error.getvalue(), re.MULTILINE)
    return Outcome("refused" if sentence else "wordless", written)
