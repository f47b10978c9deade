"""Scripts that complete a command line in a shell, with paths where nothing else fits."""

from __future__ import annotations

import re
from typing import Literal

from cyclopts import App

Shell = Literal["bash", "zsh", "fish"]
COLON = re.compile(r"(?<!\\):")
"""Separates the parts of zsh's specifications; those of a text have a backslash."""


def completion_script(app: App, shell: Shell) -> str:
    """Return the script for bash, zsh or fish; fish offers paths by itself."""
    script = app.generate_completion(shell=shell)
    if shell == "bash":
        return script.replace("complete -F", "complete -o bashdefault -o default -F")
    if shell == "zsh":
        # zsh calls the function that is named as the file
        script = script.replace("_cyclopts_tutelage", "_tutelage")
        return "".join(map(_with_paths, script.splitlines(keepends=True)))
    return script


def _with_paths(line: str) -> str:
    """Add paths to a specification of zsh, such as '1:What it is' or '*--out[Where]:out'."""
    return re.sub(
        r"""^( +(['"])(?:\d+:|\*?--).*)(\2 \\)$""",
        lambda found: found[1] + ":_files" * _is_open(found[1]) + found[3],
        line,
    )


def _is_open(specification: str) -> bool:
    """Tell whether a specification takes a value and says nothing about it."""
    own = specification.rpartition("]")[2]
    return len(COLON.findall(own)) == 1
