"""Files that are written whole or not at all: a kill or a full disk leaves the old one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where no room is left."""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by `content`, whole or not at all.

    Raises:
        ValueError: The disk is full; the old file, if there was one, is as it was.
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
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, so that a rename outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
