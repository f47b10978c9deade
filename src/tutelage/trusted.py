"""Which code may be imported because a file names it.

Files of settings that the user names (`--recipe`, `--space FILE.toml`, a study), import paths on
the command line and arguments in Python are the user's word. Runs, genotypes and trained networks
may come from others: what they name is imported only after `trust`, `--trust` or the variable
TUTELAGE_TRUST. Nothing here imports torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "TUTELAGE_TRUST"
"""The variable of the environment that names trusted modules, with commas between them."""

_trusted: set[str] = set()


class TrustError(ValueError):
    """A file names code that the user has not trusted."""


def trust(*names: str) -> None:
    """Allow that runs, genotypes and trained networks import these modules.

    Args:
        names: Modules (`my_ops`, which allows `my_ops.more` too) or single objects in them
            (`my_ops:ghost`).

    Raises:
        ValueError: A name is empty or no name of a module.
    """
    for name in names:
        if not all(part.isidentifier() for part in name.replace(":", ".", 1).split(".")):
            raise ValueError(f"trust {name!r}: must be a module, or an object as module:name")
    _trusted.update(names)


def is_trusted(target: str) -> bool:
    """Tell whether an object may be imported that a file names as `module:name`."""
    module = target.partition(":")[0]
    parents = module.split(".")
    names = {".".join(parents[: count + 1]) for count in range(len(parents))} | {target}
    listed = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    return not names.isdisjoint({*_trusted, *listed})


def require(target: str, where: str) -> None:
    """Refuse code that the user has not trusted.

    Args:
        target: The object, `module:name`, or a page of TOML.
        where: Which file or part names it.

    Raises:
        TrustError: It is not trusted; a page never is.
    """
    if target.endswith(".toml"):
        raise TrustError(
            f"{where} is a page that may name code, which runs when it is imported: if you know "
            "where it comes from, give --space with its path"
        )
    if not is_trusted(target):
        module = target.partition(":")[0]
        raise TrustError(
            f"{where} names code of the module {module}, which runs when it is imported: if you "
            f"know where it comes from, give --trust {module}, or in Python "
            f"tutelage.trust({module!r})"
        )


def modules_of(operations: Mapping[str, Mapping[str, str]], used: Container[str]) -> list[str]:
    """List the modules of those operations of one's own that are used.

    Args:
        operations: Their tables by name, as a genotype's layout has them.
        used: Names of operations.
    """
    tables = (table for name, table in operations.items() if name in used)
    targets = (table.get(key, "") for table in tables for key in ("module", "cost"))
    return sorted({target.partition(":")[0] for target in targets if target})


def imported(target: str, *folders: Path) -> Any:
    """Import `module:name`; modules are looked for in the working directory too, after all others.

    Args:
        target: The object.
        folders: Folders in which the module is looked for besides.

    Raises:
        ValueError: It cannot be imported; the message says why.
    """
    for folder in (*folders, Path()):
        if (path := str(folder.resolve())) not in sys.path:
            sys.path.append(path)  # last, so that it hides no installed module
    module, _, name = target.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # of the module, which runs
        raise ValueError(f"{target!r} cannot be imported: {_reason(error)}") from error
    return found


def _reason(error: Exception) -> str:
    known = isinstance(error, (ImportError, AttributeError, ValueError))
    return str(error) if known else f"{type(error).__name__}: {error}"
