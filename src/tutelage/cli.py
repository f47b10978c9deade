"""The command line: every command, and the flags of a search.

Nothing here imports torch before a command needs it, so help and listings are fast.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from tutelage import __version__
from tutelage.commands.arguments import AsJson, Target
from tutelage.commands.completion import Shell, completion_script
from tutelage.commands.first import demo, doctor
from tutelage.commands.flags import (
    LATENCY_FLAGS,
    RETRAIN_FLAGS,
    RUN,
    SURVEY_FLAGS,
    every_flag,
    search_flags,
)
from tutelage.commands.genotypes import describe, draw, query
from tutelage.commands.offered import data_command, left_out_parts, list_names
from tutelage.commands.results import log, papers, report, study
from tutelage.commands.search import retrain_command, search_base, search_command
from tutelage.commands.tables import Asked, latency_command, table_build
from tutelage.commands.use import export, predict, test_command
from tutelage.cpus import wait_asleep
from tutelage.crash import crashed
from tutelage.flags import Flag, Trust, command, nested, sentence
from tutelage.parts import from_table
from tutelage.renamed import lifted_flags
from tutelage.run.job.signals import Ended, end_at_once, end_with_a_sentence, ignore
from tutelage.trusted import trust as trusting


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake gives one sentence and a non-zero exit code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    wait_asleep()
    if _several():
        end_with_a_sentence()
        if os.environ.get("RANK", "0") != "0":  # one of them prints
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # of Pillow; we name the file
    for note in left_out_parts():
        print(f"tutelage: {note}", file=sys.stderr)
    try:
        refuse_several(tokens)
        flags = flags_for(tokens)
        tokens = lifted_flags(tokens, {flag.name for flag in flags})
        application(flags)(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        sys.exit(_complain(sentence(error), 2))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", 130))
    except Ended as end:
        sys.exit(_complain(end, end.status))
    except BrokenPipeError:  # the reader of a pipe has ended, as with `| head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        named = error.filename and error.strerror
        sys.exit(_complain(f"{error.filename}: {error.strerror}" if named else error, 1))
    except ValueError as error:
        sys.exit(_complain(error, getattr(error, "status", 1)))  # of a signal that ended a run
    except ModuleNotFoundError as error:
        if (error.name or "tutelage").startswith("tutelage"):
            sys.exit(crashed(error, tokens))
        sys.exit(_complain(f"the package {error.name} is missing: pip install it", 1))
    except Exception as error:
        if full := _full(error):
            advice = "lower --batch-size or --channels, or give --recompute or --via first-order"
            sys.exit(_complain(f"{full} is full: {advice}", 1))
        sys.exit(crashed(error, tokens))
    finally:
        if arguments is None and not _several():  # the process ends with this command
            with suppress(OSError, ValueError):  # a reader that has ended, a closed stream
                sys.stdout.flush()
            end_at_once()


def _full(error: Exception) -> str:
    """Name the memory that an error says is full; empty: it says something else."""
    if type(error).__name__ == "OutOfMemoryError":
        return "the GPU's memory"
    of_torch = ("not enough memory", "can't allocate memory", "Storage size calculation overflowed")
    by_torch = isinstance(error, RuntimeError) and any(each in str(error) for each in of_torch)
    return "the machine's memory" if by_torch or isinstance(error, MemoryError) else ""


def _complain(error: object, code: int) -> int:
    """Print one sentence; of several processes, the first that has it to say does."""
    if _several():
        from tutelage.meeting import LostError, speaks

        ignore()
        if not speaks(str(error), isinstance(error, (LostError, Ended))):
            return code
    print("tutelage:", *str(error).split(), file=sys.stderr)
    return code


def _several() -> bool:
    """Tell whether this is one of several processes of torchrun."""
    return (os.environ.get("WORLD_SIZE") or "1") != "1"


def refuse_several(tokens: Sequence[str]) -> None:
    """Refuse what is done by one process, if torchrun has started several.

    Raises:
        ValueError: Neither a search nor a retraining is asked for.
    """
    if not _several() or not tokens or tokens[0] == "retrain":
        return
    asked = "search --dry-run" if "--dry-run" in tokens else tokens[0]
    if asked != "search":
        raise ValueError(
            f"tutelage {asked} is the work of one process, and torchrun has started "
            f"{os.environ['WORLD_SIZE']}: call it without torchrun; a search and a retraining "
            "use several"
        )


def flags_for(tokens: Sequence[str]) -> list[Flag]:
    """Make the flags of a search, which depend on its method, search, space and recipe.

    The command that measures latencies has those of the space.
    """
    verb = next((token for token in tokens if not token.startswith("-")), "")
    return search_flags(tokens if verb in ("search", "latency") else [])


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
        accept_changed_data: Accept = False,
        trust: TrustInRun = (),  # read before the flags of parts are made
        **given: Any,
    ) -> None:
        base = search_base(recipe, str(resume) if resume else None, row)
        changed = nested(flags, given)
        search_command(base, out, resume, quick, dry_run, changed, accept_changed_data)

    def retrain(
        run: Target,
        /,
        *,
        recipe: Recipe = None,
        out: Out = None,
        accept_changed_data: Accept = False,
        trust: TrustInRun = (),
        **given: Any,
    ) -> None:
        trusting(*trust)
        retrain_command(run, recipe, out, nested(RETRAIN_FLAGS, given), accept_changed_data)

    def data(what: DataSet, /, *, out: Sheet = None, as_json: AsJson = False, **given: Any) -> None:
        data_command(what, out, as_json, nested(SURVEY_FLAGS, given))

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
    of_space = [flag for flag in flags if flag.path[0] == "space"]

    def latency(*, out: Table, **given: Any) -> None:
        named = next(flag.default for flag in of_space if flag.path[-1] == "name")
        space = {"name": named, **nested(of_space, given).get("space", {})}
        asked = from_table(Asked, nested(LATENCY_FLAGS, given), "a table of latencies")
        latency_command(space, asked, out)

    app.command(
        command(
            latency,
            [*LATENCY_FLAGS, *of_space],
            "latency",
            "Measure the latency of a space's operations on this device, as a table.",
        ),
        help_epilogue="Call it again to measure what is missing after an interruption.",
    )
    app.command(
        command(data, SURVEY_FLAGS, "data", "Show what is understood of a data set or a folder."),
        help_epilogue="Every image is decoded once. The flags are those of a search.",
    )
    described = (predict, test_command, export, study, report, papers, describe, draw, query)
    for verb_function in (*described, log, list_names):
        app.command(verb_function, name=verb_function.__name__.partition("_")[0])
    app.command(demo)
    app.command(doctor)

    def completion(shell: Annotated[Shell, Parameter(help="The shell.")], /) -> None:
        """Print a script that completes commands, flags and names of parts in a shell."""
        print(completion_script(application(every_flag()), shell))

    app.command(completion)
    table = App(name="table", help="Make the table that `tutelage query` reads.")
    table.command(table_build, name="build")
    app.command(table)
    return app


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
Table = Annotated[Path, Parameter(help="File to write, or to complete.", group=RUN)]
DataSet = Annotated[
    str, Parameter(help="A folder of images, a CSV or Parquet file, or a data set's name.")
]
Sheet = Annotated[
    Path | None,
    Parameter(help="Picture of samples to write, as read and as fed; .png, .jpg or .webp."),
]
Accept = Annotated[
    bool,
    Parameter(
        negative=(),
        help="Go on with a run whose images have changed since it began, and record that.",
        group=RUN,
    ),
]

TrustInRun = Annotated[Trust, Parameter(group=RUN)]
