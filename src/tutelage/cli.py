"""The command line: every command, and the flags of a search.

Nothing here imports torch before a command needs it, so help and listings are fast.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from tutelage import __version__
from tutelage.config import Alphas, Data, Retrain, Run, Weights
from tutelage.cpus import wait_asleep
from tutelage.flags import (
    Flag,
    command,
    distinct,
    flags_of,
    heading,
    nested,
    sentence,
)
from tutelage.parts import PARTS, part_named
from tutelage.renamed import lifted_flags
from tutelage.searches.evolution import Evolution
from tutelage.verbs import (
    Target,
    describe,
    draw,
    export,
    list_names,
    papers,
    query,
    report,
    retrain_command,
    search_base,
    search_command,
    study,
    table_build,
)

DATA_FLAGS = {
    "name": "data",
    "root": "data-root",
    "download": "download",
    "unlabelled": "unlabelled",
}
"""Settings of the data that have a short flag; the others are --data.NAME."""
ROLES = {
    "method": "Who teaches whom",
    "search": "How choices are relaxed",
    "space": "What can be built",
}
SECTIONS = {
    "weights": (Weights, "Weights, by SGD"),
    "alphas": (Alphas, "Alphas, by Adam"),
    "evolution": (Evolution, "Evolution, for searches that sample paths"),
    "retrain": (Retrain, "Retraining, for `tutelage retrain`"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake gives one sentence and a non-zero exit code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    wait_asleep()
    try:
        flags = flags_for(tokens)
        tokens = lifted_flags(tokens, {flag.name for flag in flags})
        application(flags)(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        sys.exit(_complain(sentence(error), 2))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", 130))
    except BrokenPipeError:  # the reader of a pipe has ended, as with `| head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        named = error.filename and error.strerror
        sys.exit(_complain(f"{error.filename}: {error.strerror}" if named else error, 1))
    except (RuntimeError, MemoryError) as error:
        if not (whose := _full_memory(error)):
            raise
        advice = "lower --batch-size or --channels, or give --recompute or --via first-order"
        sys.exit(_complain(f"{whose} memory is full: {advice}", 1))
    except ValueError as error:
        sys.exit(_complain(error, getattr(error, "status", 1)))  # of a signal that ended a run


def _full_memory(error: Exception) -> str:
    """Tell whose memory an error found full; empty: it is another error."""
    if type(error).__name__ == "OutOfMemoryError":
        return "the GPU's"
    full = ("can't allocate memory", "Storage size calculation overflowed")
    if isinstance(error, MemoryError) or any(each in str(error) for each in full):
        return "the machine's"
    return ""


def _complain(error: object, code: int) -> int:
    print("tutelage:", *str(error).split(), file=sys.stderr)
    return code


def flags_for(tokens: Sequence[str]) -> list[Flag]:
    """Make the flags of a search, which depend on its method, search, space and recipe."""
    verb = next((token for token in tokens if not token.startswith("-")), "")
    return search_flags(tokens if verb == "search" else [])


def application(flags: list[Flag]) -> App:
    """Make the application, with these flags of a search."""
    app = App(
        name="tutelage",
        help="Neural architecture search in which models teach one another.",
        version=__version__,
        help_format="plaintext",
        default_parameter=Parameter(json_list=False, json_dict=False),
        suppress_keyboard_interrupt=False,
    )

    def search(
        *,
        recipe: Recipe = None,
        row: PaperRow = None,
        out: Out = None,
        resume: Resume = None,
        quick: Quick = False,
        dry_run: DryRun = False,
        **given: Any,
    ) -> None:
        base = search_base(recipe, str(resume) if resume else None, row)
        search_command(base, out, resume, quick, dry_run, nested(flags, given))

    def retrain(run: Target, /, *, recipe: Recipe = None, out: Out = None, **given: Any) -> None:
        retrain_command(run, recipe, out, nested(RETRAIN_FLAGS, given))

    app.command(
        command(search, flags, "search", "Search an architecture; writes a run directory."),
        help_epilogue=(
            "Each method, search and space has its own flags: `tutelage search --method sgl "
            "--help` shows SGL's. With --recipe or --resume the defaults shown are theirs."
        ),
    )
    app.command(
        command(retrain, RETRAIN_FLAGS, "retrain", "Train a run's result, and test it once."),
        help_epilogue="A run has its own settings and data; these flags override them.",
    )
    for verb_function in (study, report, papers, describe, draw, query, export, list_names):
        app.command(verb_function, name=verb_function.__name__.partition("_")[0])
    table = App(name="table", help="Make the table that `tutelage query` reads.")
    table.command(table_build, name="build")
    app.command(table)
    return app


RUN = heading("Run", 0)
Recipe = Annotated[
    str | None,
    Parameter(help="Settings to start from: a name of `list recipes`, or a TOML file.", group=RUN),
]
PaperRow = Annotated[
    str | None,
    Parameter(
        name="--row", help="A paper's row to run, as `tutelage papers` lists them.", group=RUN
    ),
]
Out = Annotated[Path | None, Parameter(help="Directory to write.", group=RUN)]
Resume = Annotated[Path | None, Parameter(help="Resume the search in this directory.", group=RUN)]
Quick = Annotated[
    bool,
    Parameter(
        negative=(),
        help="Make all settings that are not given small, so that the search ends in a minute.",
        group=RUN,
    ),
]
DryRun = Annotated[
    bool,
    Parameter(
        negative=(),
        help="Measure a few steps, print parameters, time and memory, and write nothing.",
        group=RUN,
    ),
]


# Flags ------------------------------------------------------------------------------------------


def data_flags(table: Mapping[str, Any], leave_out: Sequence[str] = ()) -> list[Flag]:
    """Make the flags of the data: common ones are short, others begin with `data.`."""
    return [
        replace(flag, name=DATA_FLAGS.get(flag.path[-1], f"data.{flag.name}"))
        for flag in flags_of(
            Data, path=("data",), group=heading("Data", 3), table=table, leave_out=leave_out
        )
    ]


def search_flags(tokens: Sequence[str]) -> list[Flag]:
    """Make the flags of a search: those of the run, and of the parts that the tokens name."""
    recipe, resume, row = (_value(tokens, each) for each in ("recipe", "resume", "row"))
    base = search_base(recipe, resume, row, told=None)
    flags = flags_of(Run, group=RUN, table=base, leave_out=("row",))
    for kind, names in PARTS.items():
        name = _value(tokens, kind) or base[kind]["name"]
        table = base[kind] if name == base[kind]["name"] else {}
        text = f"{ROLES[kind]}: {', '.join(names)}, or module:Class."
        flags.append(Flag(kind, (kind, "name"), str, name, text, heading("Parts", 1)))
        if tokens:
            own, group = part_named(kind, name), heading(f"Of --{kind} {name}", 2)
            flags += flags_of(own, path=(kind,), group=group, table=table)
    flags += data_flags(base["data"])
    for place, (name, (of, title)) in enumerate(SECTIONS.items(), start=4):
        group = heading(title, place)
        flags += flags_of(of, path=(name,), prefix=f"{name}.", group=group, table=base[name])
    distinct(flags, taken=("recipe", "row", "out", "resume", "quick", "dry-run", "help", "version"))
    return flags


RETRAIN_FLAGS = [
    *flags_of(Retrain, path=("retrain",), group=RUN),
    *data_flags(
        {}, leave_out=("unlabelled", "train_fraction", "sample", "unlabelled_sample", "cutout")
    ),  # a retraining reads none of them
]


def _value(tokens: Sequence[str], flag: str) -> str | None:
    """Find a flag's value among unparsed tokens."""
    for token, following in pairwise((*tokens, "--")):
        if token == f"--{flag}":
            return None if following.startswith("--") else following
        if token.startswith(f"--{flag}="):
            return token.partition("=")[2]
    return None
