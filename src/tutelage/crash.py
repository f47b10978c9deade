"""What is said of an error that is no mistake of the user: where to report it, with which file.

Nothing here imports torch.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from tempfile import gettempdir
from typing import Final

PACKAGES: Final = ("tutelage", "torch", "numpy", "cyclopts")
TRACKER: Final = "the project's issue tracker"
"""Where to report, if the package's metadata have no address."""


def address() -> str:
    """Return the address of the issue tracker, as the package's metadata have it."""
    for entry in metadata("tutelage").get_all("Project-URL") or ():
        label, _, url = entry.partition(", ")
        if label.lower() in ("issues", "issue tracker", "bug tracker", "tracker"):
            return url
    return TRACKER


def report(error: BaseException, tokens: Sequence[str], folder: Path | None = None) -> str:
    """Write an error with its traceback, versions and command line to a file.

    Args:
        error: The error.
        tokens: The command line.
        folder: Where the file goes; None: the system's folder for temporary files.

    Returns:
        A sentence for the user.
    """
    kind = type(error).__name__
    path = (folder or Path(gettempdir())) / f"tutelage-error-{os.getpid()}.txt"
    trace = "".join(traceback.format_exception(error))
    lines = [
        f"command   {shlex.join(['tutelage', *tokens])}",
        f"python    {platform.python_version()}, {platform.platform()}",
        *(f"{name:9} {_version(name)}" for name in PACKAGES),
        "",
        trace,
    ]
    where = f"report it at {address()}" if "://" in address() else f"report it in {address()}"
    try:
        path.write_text("\n".join(lines), encoding="utf-8")
    except OSError:
        return f"this {kind} is an error of tutelage: please {where}, with the lines above"
    return (
        f"this {kind} is an error of tutelage: please {where}, with the file {path} (read it "
        "first, it has the command line and paths)"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def crashed(error: BaseException, tokens: Sequence[str]) -> int:
    """Print an error's traceback and what to do with it; return the exit status."""
    sys.stderr.write("".join(traceback.format_exception(error)))
    print(f"tutelage: {report(error, tokens)}", file=sys.stderr)
    return 70  # EX_SOFTWARE
