"""The command line: search, retrain, report, describe, export, list.

Nothing here imports torch before a command needs it, so help and listings answer at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from tutelage import __version__
from tutelage.config import Alphas, Data, Retrain, Run, Weights
from tutelage.flags import Flag, command, flags_of, layered, nested
from tutelage.parts import PARTS, from_table, init_fields, part_class, summary
from tutelage.recipes import read_recipe, recipe_names

DATA_FLAGS = {
    "name": "data",
    "root": "data-root",
    "download": "download",
    "unlabelled": "unlabelled",
}
"""Settings of the data that have a short flag; the others are --data.NAME."""
Listing = Literal["methods", "searches", "spaces", "data", "recipes"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake ends in one sentence and a non-zero exit."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        application(tokens)(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        sys.exit(_complain(error, 2))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", 130))
    except BrokenPipeError:  # the reader of a pipe left, as `| head` does
        sys.stderr.close()
        sys.exit(1)
    except (ValueError, OSError) as error:
        sys.exit(_complain(error, 130 if type(error).__name__ == "StoppedError" else 1))


def _complain(error: object, code: int) -> int:
    sentence = " ".join(str(error).split())
    print(f"tutelage: {sentence}", file=sys.stderr)
    return code


def application(tokens: Sequence[str]) -> App:
    """Make the application; a search's flags depend on its method, search, space and recipe."""
    app = App(
        name="tutelage",
        help="Neural architecture search in which models teach one another.",
        version=__version__,
        help_format="plaintext",
    )
    verb = next((token for token in tokens if not token.startswith("-")), "")
    flags = search_flags(tokens if verb == "search" else [])

    def search(
        *, recipe: Recipe = None, out: Out = None, resume: Resume = None, **given: Any
    ) -> None:
        search_command(recipe, out, resume, nested(flags, given))

    def retrain(run: Target, /, *, recipe: Recipe = None, out: Out = None, **given: Any) -> None:
        retrain_command(run, recipe, out, nested(RETRAIN_FLAGS, given))

    app.command(
        command(search, flags, "search", "Search an architecture; writes a run directory."),
        help_epilogue="--method, --search and --space add flags of their own: name them to see.",
    )
    app.command(
        command(retrain, RETRAIN_FLAGS, "retrain", "Train what a run found, and test it once."),
    )
    for verb_function in (report, describe, draw, export, list_names):
        app.command(verb_function, name=verb_function.__name__.partition("_")[0])
    return app


Recipe = Annotated[
    str | None,
    Parameter(
        help="Settings to start from: a name of `list recipes`, or a TOML file.", group="Run"
    ),
]
Out = Annotated[Path | None, Parameter(help="Directory to write.", group="Run")]
Resume = Annotated[
    Path | None, Parameter(help="Go on with the search in this directory.", group="Run")
]
Target = Annotated[str, Parameter(help="A run directory, or a genotype: name, text or file.")]


# Flags ------------------------------------------------------------------------------------------


def data_flags(table: dict[str, Any] | None = None) -> list[Flag]:
    """Make the flags of the data: the common ones short, the others with `data.` before them."""
    return [
        replace(flag, name=DATA_FLAGS.get(flag.path[-1], f"data.{flag.name}"))
        for flag in flags_of(Data, path=("data",), group="Data", table=table)
    ]


def search_flags(tokens: Sequence[str]) -> list[Flag]:
    """Make the flags of a search: the run's own, and those of the parts that the tokens name."""
    base = read_recipe(named)[0] if (named := _value(tokens, "recipe")) else {}
    resumed = _value(tokens, "resume")
    if resumed:
        from tutelage.run.directory import RunDirectory

        base = layered(base, RunDirectory.open(Path(resumed)).settings())
    flags = []
    for kind, names in PARTS.items():
        chosen = _value(tokens, kind)
        name = chosen or base.get(kind, {}).get("name") or getattr(Run(), kind)["name"]
        table = base.get(kind, {}) if name == base.get(kind, {}).get("name") else {}
        text = f"One of {', '.join(names)}, or module:Class."
        flags.append(Flag(kind, (kind, "name"), str, name, text, "Parts"))
        if tokens:
            own = part_class(kind, name)
            if init_fields(own):
                flags += flags_of(own, path=(kind,), group=f"{kind} {name}", table=table)
    flags += flags_of(Run, group="Run", table=base)
    flags += data_flags(base.get("data"))
    for name, of in (("weights", Weights), ("alphas", Alphas), ("retrain", Retrain)):
        group = {"retrain": "Retraining, for `tutelage retrain`"}.get(name, name.capitalize())
        flags += flags_of(of, path=(name,), prefix=f"{name}.", group=group, table=base.get(name))
    return flags


RETRAIN_FLAGS = [*flags_of(Retrain, path=("retrain",), group="Retraining"), *data_flags()]


def _value(tokens: Sequence[str], flag: str) -> str | None:
    """Find a flag's value among tokens that are not parsed yet."""
    for position, token in enumerate(tokens):
        if token == f"--{flag}":
            return tokens[position + 1] if position + 1 < len(tokens) else None
        if token.startswith(f"--{flag}="):
            return token.partition("=")[2]
    return None


# Commands ---------------------------------------------------------------------------------------


def search_command(
    recipe: str | None, out: Path | None, resume: Path | None, given: dict[str, Any]
) -> None:
    """Search, or go on with a search."""
    base = read_recipe(recipe)[0] if recipe else {}
    if resume is not None:
        if out is not None and out != resume:
            raise ValueError(f"--out {out} with --resume {resume}: a run goes on where it is")
        from tutelage.run.directory import RunDirectory

        base = layered(RunDirectory.open(resume).settings(), base)
    parts = {kind: getattr(Run(), kind) for kind in PARTS}
    settings = from_table(Run, layered(parts, base, given), "a search")
    target = resume or out
    if target is None:
        raise ValueError("a search needs --out DIR for its run directory, or --resume DIR")

    from tutelage.run.search import search_run

    found = search_run(settings, target, resume=resume is not None)
    print(found.genotype.as_text())
    for k, marks in enumerate(found.marks):
        if marks:
            kept = " (kept)" if k == found.learner and len(found.marks) > 1 else ""
            print(
                f"learner {k}{kept}: validation loss {marks['valid_loss']:.4f}, "
                f"accuracy {100 * marks['valid_accuracy']:.2f} %"
            )
    print(f"Found: {target / 'genotype.json'}; train it with: tutelage retrain {target}")


def retrain_command(run: str, recipe: str | None, out: Path | None, given: dict[str, Any]) -> None:
    """Train the network of a run or a genotype from scratch, and test it once."""
    base: dict[str, Any] = read_recipe(recipe)[0] if recipe else {}
    folder = Path(run)
    if (folder / "run.toml").is_file():
        from tutelage.run.directory import RunDirectory

        base = layered(RunDirectory.open(folder).settings(), base)
        out = out or folder / "retrain"
    if out is None:
        raise ValueError("a genotype that no run found needs --out DIR, and --data for its images")
    table = layered(base, given)
    settings = from_table(Retrain, table.get("retrain", {}), "a retraining")
    data = from_table(Data, table.get("data", {}), "the data")

    from tutelage.run.retrain import retrain
    from tutelage.spaces.published import resolve

    retrain(resolve(run), data, settings, out, resume=(out / "run.toml").exists())


def report(
    runs: Annotated[list[Path], Parameter(help="Run directories; several are compared.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The page to write.")] = None,
) -> None:
    """Write one self-contained page about a run, or a comparison of several."""
    from tutelage.report.page import write_report
    from tutelage.report.read import read_run
    from tutelage.report.tables import as_text, comparison

    target = out or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    page = write_report(runs, target)
    if len(runs) > 1:
        print(as_text(comparison([read_run(run) for run in runs])))
    print(f"Report: {page}")


def describe(
    genotype: Annotated[str, Parameter(help="A genotype: JSON file, DARTS' text, name, or a run.")],
    /,
    *,
    channels: int = 36,
    cells: int = 20,
    classes: int = 10,
    image_channels: int = 3,
    form: Literal["cifar", "imagenet"] = "cifar",
    side: Annotated[int | None, Parameter(help="Side of the images, in pixels.")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Print a network's weights, multiply-adds and cells."""
    from tutelage.run.describe import describe as count
    from tutelage.spaces.base import Size
    from tutelage.spaces.published import resolve

    size = Size(channels, cells, classes, image_channels, form)
    description = count(resolve(genotype), size, side)
    print(json.dumps(description.as_dict()) if as_json else description.as_text())


def draw(
    genotype: Annotated[str, Parameter(help="A genotype: JSON file, DARTS' text, name, or a run.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="File to write, .svg or .png.")],
) -> None:
    """Draw a genotype's cells as SVG or PNG."""
    from tutelage.report.draw import save_drawing
    from tutelage.spaces.published import resolve

    save_drawing(resolve(genotype), out)
    print(f"Drawing: {out}")


def export(
    run: Annotated[Path, Parameter(help="A retrained run, or its network.safetensors.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="The .onnx file to write.")],
) -> None:
    """Write a trained network as ONNX and compare its outputs with the module's."""
    from tutelage.run.network import export_onnx

    export_onnx(run, out)


def list_names(what: Annotated[Listing | None, Parameter(show=True)] = None, /) -> None:
    """List methods, searches, spaces, data and recipes by name."""
    from tutelage.data import DATA

    tables: dict[str, dict[str, str]] = {
        "methods": {name: summary(target) for name, target in PARTS["method"].items()},
        "searches": {name: summary(target) for name, target in PARTS["search"].items()},
        "spaces": {name: summary(target) for name, target in PARTS["space"].items()},
        "data": DATA,
        "recipes": {name: read_recipe(name)[1] for name in recipe_names()},
    }
    for heading, table in tables.items():
        if what in (None, heading):
            width = max(map(len, table))
            print(heading)
            for name, text in table.items():
                print(f"  {name:{width}}  {text}")
