"""Small disks: a tmpfs of so many bytes or inodes, or the same by a writer that counts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOM = "size=64m,nr_inodes=10000"
PAGE = 4096
SIZES = [PAGE * pages for pages in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 70, 75, 90, 110)]
SIZES += [PAGE * pages for pages in (137, 140, 150, 160, 180, 200, 210, 215, 230, 300, 400, 625)]
"""From 4 KiB to 2.5 MiB."""
INODES = range(2, 13)


class Disk(NamedTuple):
    """A place with too little room."""

    folder: Path
    faults: dict[str, object]
    """What makes it small where it is not a disk of its own."""
    true: bool
    """Whether it is a disk of its own."""

    def grow(self) -> None:
        """Make room for everything."""
        self.faults.clear()
        if self.true:
            mount("-o", f"remount,{ROOM}", str(self.folder))


def mount(*words: str) -> bool:
    """Mount, or return False where this process may not."""
    try:
        return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@contextmanager
def disk(folder: Path, *, size: int = 0, inodes: int = 0, faked: bool = False) -> Iterator[Disk]:
    """Make a folder with room for so many bytes or so many files."""
    folder.mkdir()
    option = f"size={size}" if size else f"{ROOM.partition(',')[0]},nr_inodes={inodes}"
    if not faked and mount("-t", "tmpfs", "-o", option, "tutelage-faults", str(folder)):
        try:
            yield Disk(folder, {}, true=True)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    limit = {"FAULT_BYTES": size} if size else {"FAULT_FILES": inodes}
    yield Disk(folder, {"FAULT_UNDER": folder, **limit}, true=False)
