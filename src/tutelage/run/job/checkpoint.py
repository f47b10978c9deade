"""Checkpoints that survive kills and full disks, and signals that take effect between steps."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from tutelage.files import sync_folder, write_bytes
from tutelage.records import lift

NEWEST, PREVIOUS, COMING = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.coming.pt"
FORMAT, VERSION = "tutelage checkpoint", 2


def save(directory: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values, and keep the previous one.

    Raises:
        ValueError: The disk is full; earlier checkpoints are safe.
    """
    content = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, "state": state}, content)
    newest, coming = directory / NEWEST, directory / COMING
    write_bytes(coming, content.getvalue())
    if newest.exists():
        newest.replace(directory / PREVIOUS)
    coming.replace(newest)
    sync_folder(directory)


def exists(directory: Path) -> bool:
    """Tell whether there is a checkpoint: a run killed before its first one starts again."""
    return (directory / NEWEST).exists() or (directory / PREVIOUS).exists()


def load(directory: Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Read the newest checkpoint, or the previous one if the newest is damaged.

    Raises:
        ValueError: There is none, none can be read, or a newer release wrote it.
    """
    newest, previous = directory / NEWEST, directory / PREVIOUS
    if not exists(directory):
        raise ValueError(f"{directory} has no {NEWEST}: start it again with another --out")
    try:
        return _read(newest, map_location)
    except _DamagedError as error:
        try:
            state = _read(previous, map_location)
        except _DamagedError:
            raise ValueError(f"{error}, and there is no earlier one to resume from") from None
        print(f"{error}: resuming from {PREVIOUS}, which is one checkpoint older.", flush=True)
        return state


def before(directory: Path) -> str:
    """Say how to resume from the previous checkpoint, if there is one."""
    there = (directory / NEWEST).exists() and (directory / PREVIOUS).exists()
    return f"; to resume from {PREVIOUS}, one checkpoint older, remove {NEWEST}" if there else ""


class _DamagedError(ValueError):
    """A file that is missing, truncated or not a checkpoint of this package."""


def _read(path: Path, map_location: torch.device | str) -> dict[str, Any]:
    if not path.exists():
        raise _DamagedError(f"{path} is missing")
    try:
        with zipfile.ZipFile(path) as archive:  # the format of torch.save, with checksums
            entries = archive.infolist()
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            intact = stored and archive.testzip() is None
        content = torch.load(path, map_location, weights_only=True) if intact else None
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # for broken bytes zipfile and pickle raise almost any error
        raise _DamagedError(f"{path} is truncated or no checkpoint") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _DamagedError(f"{path} is not a checkpoint of this package")
    version, state = content.get("version"), content.get("state")
    if type(version) is not int or not isinstance(state, dict):
        raise _DamagedError(f"{path} is damaged: it has no version or no state")
    if version > VERSION:
        raise ValueError(
            f"{path} has version {version} and this release reads up to {VERSION}: "
            "resume with the release that wrote it"
        )
    try:
        return lift.checkpoint(state, version)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _DamagedError(f"{path} is damaged: it is no version {version}") from error
