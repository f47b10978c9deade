"""The commands about what is offered: the names of parts, and a data set.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from tutelage.config import Data
from tutelage.installed import left_out
from tutelage.parts import (
    FOLDERS,
    OWN,
    described,
    from_table,
    summaries,
)
from tutelage.recipes import layered, read_recipe, recipe_names

Listing = Literal["methods", "searches", "spaces", "data", "genotypes", "recipes"]


def list_names(
    what: Annotated[Listing | None, Parameter(help="All, if not given.")] = None, /
) -> None:
    """List methods, searches, spaces, data, genotypes and recipes by name."""
    from tutelage.data import ADDED, DATA
    from tutelage.spaces.published import about as about_published

    tables: dict[str, dict[str, str]] = {
        **{folder: summaries(kind) for kind, folder in FOLDERS.items()},
        "data": DATA | {name: described("data", name, x) for name, x in ADDED.items()},
        "genotypes": about_published(),
        "recipes": {name: read_recipe(name)[1] for name in recipe_names()},
    }
    for kind, table in tables.items():
        if what in (None, kind):
            width = max(map(len, table))
            print(kind)
            for name, text in table.items():
                print(f"  {name:{width}}  {text}")


def left_out_parts() -> list[str]:
    """Return a sentence for every part of an installed package that cannot have its name."""
    from tutelage.data import DATA
    from tutelage.spaces.published import PUBLISHED

    own = {FOLDERS[kind]: names for kind, names in OWN.items()}
    return [x for kind, names in own.items() for x in left_out(kind, names)] + [
        *left_out("data", DATA),
        *left_out("genotypes", PUBLISHED),
    ]


def data_command(what: str, out: Path | None, as_json: bool, given: dict[str, Any]) -> None:
    """Print what is understood of a data set, and draw samples of it.

    Raises:
        ValueError: A search or a retraining would refuse the set; the survey is printed before.
    """
    from tutelage.data import DataError
    from tutelage.data.sheet import save_sheet
    from tutelage.data.survey import survey

    table = layered(given, {"data": {"name": what}})
    settings = from_table(Data, table["data"], "the data")
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        found = survey(settings)
    print(json.dumps(found.as_dict()) if as_json else found.as_text())
    if found.problems:
        raise DataError(f"{what} cannot be used as it is: {found.problems[0]}")
    if out:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            save_sheet(settings, out)
        print(f"Samples: {out}", file=sys.stderr if as_json else sys.stdout)
