"""Files that are written completely or not at all, so that a kill leaves the old file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the system for a full disk."""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by `content`, completely or not at all.

    Raises:
        ValueError: The disk is full; an old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in FULL:
            raise ValueError(
                f"no room for {path} ({len(content):,} bytes, {error.strerror}): everything "
                "written before is safe, free some space and try again"
            ) from error
        if error.filename == str(temporary):  # the user knows the file by its own name
            error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
