"""Sentences about the images of a set: each once in a process."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from threading import Lock
from typing import Any

from tutelage.data.pictures import ALPHA, DEEP, FRAMES, KINDS, LARGE, SUFFIXES

SAID = (ALPHA, DEEP, FRAMES, LARGE)
"""The kinds of images that are said: what a user may not expect."""

_known: set[tuple[str, ...]] = set()


def say(sentence: str, *key: str) -> None:
    """Print a sentence, unless one with this key, or with none the same, was printed before."""
    key = key or (sentence,)
    if key not in _known:
        _known.add(key)
        print(sentence, flush=True)


class Noticed:
    """Counts the kinds of images in a set while threads decode them."""

    def __init__(self, root: str) -> None:
        """Count for the set in a folder, for which each kind is said once."""
        self.root = root
        self.counts: Counter[str] = Counter()
        self._first: dict[str, tuple[int, Any]] = {}
        self._lock = Lock()

    def add(self, kinds: list[str], place: int, path: Any) -> None:
        """Count an image, by its kinds, its place in the set and its path."""
        with self._lock:
            for kind in kinds:
                self.counts[kind] += 1
                first = self._first.setdefault(kind, (place, path))
                if place < first[0]:
                    self._first[kind] = (place, path)

    def say(self, of: int | None = None) -> None:
        """Say what was noticed; `of` so many images, if all have been seen."""
        for kind in SAID:
            if kind in self.counts:
                path = self._first[kind][1]
                many = "" if of is None else f" ({self.counts[kind]:,} of {of:,})"
                say(f"images such as {path} have {KINDS[kind]}{many}", self.root, kind)


def left_out(files: list[str]) -> str:
    """Describe files that are not read: how many of each suffix, and one of them."""
    counts = Counter(PurePath(file).suffix.lower() or "no suffix" for file in files)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:5]
    listed = ", ".join(f"{count:,} {suffix}" for suffix, count in ranked)
    more = f" and {len(counts) - 5} kinds more" if len(counts) > 5 else ""
    return f"{listed}{more}, such as {min(files)}; {', '.join(SUFFIXES)} in class folders are read"
