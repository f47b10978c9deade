"""Download a file, resuming an interrupted transfer, and check its digest."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tutelage.data import DataError

CHUNK = 2**16
ATTEMPTS = 3


def fetch(url: str, md5: str, path: Path) -> None:
    """Download a file of a known digest to a path; a .part file beside it holds partial content.

    Raises:
        DataError: the file cannot be downloaded, or its digest differs.
    """
    part = path.with_name(f"{path.name}.part")
    for _ in range(ATTEMPTS):
        arrived = size(part)
        failure = transfer(url, part)
        if failure is None or size(part) <= arrived:
            break
    if failure is not None:
        raise DataError(
            f"fetching {url} broke off after {size(part):,} bytes ({failure}): "
            "run the same command again to resume from there"
        )
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        part.unlink()
        raise DataError(
            f"{url} gave a file of digest {found} instead of {md5}: it was removed, fetch it again"
        )
    part.replace(path)


def transfer(url: str, part: Path) -> str | None:
    """Append the missing part of a file; return why the transfer ended too early, or None."""
    have = size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            have = have if resumed else 0  # a server without ranges sends everything again
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            with part.open("ab" if resumed else "wb") as file:
                have += copy(response, file, have, total)
    except urllib.error.HTTPError as error:
        error.close()  # it is also the response: Python 3.14 warns of an open one
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None  # the file was complete before
        return str(error)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return None if total in (None, have) else f"{total:,} were announced"


def copy(response: http.client.HTTPResponse, file: BinaryIO, have: int, total: int | None) -> int:
    """Copy a response to a file, with a progress bar on a terminal; return the bytes copied."""
    copied = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(Path(file.name).stem, completed=have, total=total)
        for chunk in chunks(response):
            file.write(chunk)
            copied += len(chunk)
            progress.advance(task, len(chunk))
    return copied


def chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield a response piece by piece."""
    while chunk := response.read(CHUNK):
        yield chunk


def size(path: Path) -> int:
    """Return the size of a file in bytes, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0
