"""The work of every command, after its flags are read.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from tutelage.checks import at_least, listed
from tutelage.config import Data, Retrain, Run
from tutelage.flags import Trust, Whole
from tutelage.installed import left_out
from tutelage.papers import row_named
from tutelage.parts import FOLDERS, OWN, PARTS, described, from_table, summaries
from tutelage.recipes import layered, read_recipe, recipe_names
from tutelage.renamed import Told, say
from tutelage.trackers import TRACKERS, available
from tutelage.trusted import modules_of
from tutelage.trusted import trust as trusting

Target = Annotated[str, Parameter(help="A run directory, or a genotype: name, text or file.")]
Where = Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="Device; auto: CUDA if any.")]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON instead.")]
Listing = Literal["methods", "searches", "spaces", "data", "genotypes", "recipes"]


def search_base(
    recipe: str | None, resume: str | None, row: str | None = None, told: Told | None = say
) -> dict[str, Any]:
    """Read the settings that flags override: those of a run to resume, a recipe, a paper's row.

    Args:
        recipe: A recipe's name or file.
        resume: A run directory.
        row: A row of a paper, PAPER/TABLE/ROW.
        told: Called with the old and the new name of each setting of the recipe that has changed.
    """
    tables = [{kind: getattr(Run(), kind) for kind in PARTS} | {"data": {}}]
    tables += [{"weights": {}, "alphas": {}, "evolution": {}, "retrain": {}}]
    if resume:
        from tutelage.run.job.directory import RunDirectory

        tables += [RunDirectory.open(Path(resume)).settings()]
    if recipe and row:
        raise ValueError(f"--recipe {recipe} with --row {row}: give one of them")
    own = read_recipe(recipe, told)[0] if recipe else row_named(row).search() if row else {}
    own.pop("quick", None)  # the changes of an earlier quick look
    return layered(*tables, own)


def _listed(changed: dict[str, str]) -> str:
    """Write the changes of a quick look."""
    return ", ".join(f"{name} {change}" for name, change in changed.items())


def search_command(
    base: dict[str, Any],
    out: Path | None,
    resume: Path | None,
    quick: bool,
    dry_run: bool,
    given: dict[str, Any],
    accept_changed_data: bool = False,
) -> None:
    """Search, resume a search, or only measure a dry run; flags override the base."""
    if resume and out and out.resolve() != resume.resolve():
        raise ValueError(f"--out {out} with --resume {resume}: a run resumes in its directory")
    if resume and quick:
        raise ValueError(f"--quick with --resume {resume}: a run resumes with its own settings")
    table = layered(base, given)
    if quick:
        from tutelage.quick import quick_look

        table = quick_look(table, given)
        print("quick:", _listed(table["quick"]) or "nothing is left to make small")
    settings = from_table(Run, table, "a search")
    if dry_run:
        from tutelage.run.dry_run import dry_run as measured

        print(measured(settings).as_text())
        return
    target = resume or out
    if target is None:
        raise ValueError("a search needs --out DIR for its run directory, or --resume DIR")

    from tutelage.run.search import search_run

    try:
        found = search_run(settings, target, resume is not None, accept_changed_data)
    except ValueError as error:
        if quick and table["quick"]:
            raise ValueError(f"{error} (--quick has set {_listed(table['quick'])})") from error
        raise
    print(found.genotype.as_text())
    for k, scores in enumerate(found.scores):
        if scores:
            kept = " (kept)" if k == found.learner and len(found.scores) > 1 else ""
            print(
                f"learner {k}{kept}: validation loss {scores['valid_loss']:.4f}, "
                f"accuracy {100 * scores['valid_accuracy']:.2f} %"
                f"{', on average over sampled paths' if found.evolved else ''}"
            )
    if found.evolved:
        print(f"evolution: {found.evolved}")
    file, whom = ("ensemble.json", "its members") if found.ensemble else ("genotype.json", "it")
    modules = modules_of(found.genotype.layout.get("operations", {}), found.genotype.names)
    own = "".join(f" --trust {module}" for module in modules)
    print(f"Found: {target / file}; train {whom} with: tutelage retrain {target}{own}")


def retrain_command(
    run: str,
    recipe: str | None,
    out: Path | None,
    given: dict[str, Any],
    accept_changed_data: bool = False,
) -> None:
    """Train the network of a run or a genotype, or an ensemble's; test it once."""
    from tutelage.spaces.published import resolve

    genotype, folder = resolve(run), Path(run)
    base: dict[str, Any] = read_recipe(recipe)[0] if recipe else {}
    if (folder / "run.toml").is_file():
        from tutelage.run.job.directory import RunDirectory

        own = RunDirectory.open(folder).settings()
        if "row" in own:
            own = layered(own, row_named(own["row"]).retraining())
        base = layered(own, base)
        if given.get("retrain", {}).get("start"):
            out = out or folder / "transfer"
        out = out or (folder if "genotype" in base else folder / "retrain")
    if out is None:
        raise ValueError("a genotype without a run needs --out DIR, and --data for its images")
    table = layered(base, given)
    settings = from_table(Retrain, table.get("retrain", {}), "a retraining")
    data = from_table(Data, table.get("data", {}), "the data")

    from tutelage.run.networks import ensemble
    from tutelage.run.retrain import retrain, retrain_ensemble

    resume = (out / "run.toml").exists()
    if (folder / ensemble.FILE).is_file():
        together = ensemble.Ensemble.read(folder / ensemble.FILE)
        retrain_ensemble(together, data, settings, out, resume, accept_changed_data)
    else:
        retrain(genotype, data, settings, out, resume, accept_changed_data)


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


def report(
    runs: Annotated[
        list[Path],
        Parameter(help="Run directories, of which several are compared, or a study's folder."),
    ],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The page to write.")] = None,
    baseline: Annotated[
        str | None,
        Parameter(help="Of a study: the configuration that all others are compared with."),
    ] = None,
    interval: Annotated[
        Literal["t", "bootstrap"],
        Parameter(help="Of a study: how the 95 % intervals of means are computed."),
    ] = "t",
) -> None:
    """Write one self-contained page about a run, a comparison of several, or a study."""
    from tutelage.study.results.page import as_text as tables_text
    from tutelage.study.results.page import is_study, write_study_report

    if len(runs) == 1 and is_study(runs[0]):
        page = out or runs[0] / "report.html"
        written = write_study_report(runs[0], page, baseline, interval)
        print("\n".join([tables_text(written.tables), *written.warnings]))
        print(f"Report: {page}")
        return
    if baseline:
        raise ValueError(f"--baseline {baseline}: only the report of one study has a baseline")
    if interval != "t":
        raise ValueError(f"--interval {interval}: only the report of one study has intervals")
    from tutelage.report.page import write_report
    from tutelage.report.runs.read import read_run
    from tutelage.report.runs.tables import as_text, comparison

    target = out or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    page = write_report(runs, target)
    if len(runs) > 1:
        print(as_text(comparison([read_run(run) for run in runs])))
    print(f"Report: {page}")


def study(
    file: Annotated[Path | None, Parameter(help="The study's file, TOML.")] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Folder of the study's runs.")] = None,
    jobs: Annotated[Whole, Parameter(help="Runs at the same time on this machine.")] = 1,
    slurm: Annotated[
        tuple[str, ...],
        Parameter(
            help="Submit the runs to SLURM, with these options as KEY=VALUE.",
            consume_multiple=True,
            negative=(),
            show_default=False,
        ),
    ] = (),
    status: Annotated[
        Path | None, Parameter(help="Print how far the study in this folder is, and end.")
    ] = None,
    data_root: Annotated[
        Path | None, Parameter(help="Folder that holds the data sets' files.")
    ] = None,
    table: Annotated[Path | None, Parameter(help="Table of a benchmark to query.")] = None,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Print the configurations, and write nothing.")
    ] = False,
) -> None:
    """Run what is missing of a study: configurations of settings, each with several seeds."""
    if status:
        from tutelage.study.status import status as how_far

        print(how_far(status))
        return
    if file is None:
        raise ValueError("a study needs its file: tutelage study FILE.toml --out DIR")
    from tutelage.study.plan import listed, placed
    from tutelage.study.reading import read_study

    read = read_study(file)
    if dry_run:
        print(listed(read))
        return
    if out is None:
        raise ValueError("a study needs --out DIR for the folder of its runs")
    at_least(1, jobs=jobs)
    from tutelage.study.jobs import prepare

    missing = prepare(placed(read, data_root, table), out)
    if slurm:
        from tutelage.study.cluster import submit

        submit(missing, out, slurm)
        return
    from tutelage.study.local import run_here

    run_here(missing, jobs)
    print(f"Study: {out}; a page about it with: tutelage report {out}")


def papers(
    name: Annotated[
        str | None,
        Parameter(help="PAPER, PAPER TABLE or PAPER/TABLE/ROW; all papers, if not given."),
    ] = None,
    table: Annotated[str | None, Parameter(help="A table or figure of the paper.")] = None,
    /,
    *,
    runs: Annotated[
        tuple[Path, ...],
        Parameter(
            help="Folders of runs, whose figures are shown beside the printed ones.",
            consume_multiple=True,
            negative=(),
            show_default=False,
        ),
    ] = (),
    cost: Annotated[
        bool, Parameter(negative=(), help="Measure a few steps of the rows, and predict hours.")
    ] = False,
    data_root: Annotated[
        Path | None, Parameter(help="Folder that holds the data sets' files, for --cost.")
    ] = None,
    ledger: Annotated[
        Path | None, Parameter(help="Write the ledger of all rows, Markdown.")
    ] = None,
) -> None:
    """List the papers' tables, print one beside what is known of it, or say how a row runs."""
    from tutelage.report.papers.show import rows_of, show, write_ledger

    if ledger:
        write_ledger(ledger, runs)
    elif cost:
        from tutelage.run.row_costs import print_costs

        print_costs(rows_of(name, table), data_root)
    else:
        show(name, table, runs)


def describe(
    genotype: Annotated[str, Parameter(help="A genotype: JSON file, DARTS' text, name, or a run.")],
    /,
    *,
    channels: Annotated[
        Whole | None,
        Parameter(
            help="Channels of the first cell or a chain's stem; not set: the space's default."
        ),
    ] = None,
    cells: Annotated[
        Whole | None,
        Parameter(help="Cells; not set: 20, in nasbench201 5 a stage; of a chain its layers."),
    ] = None,
    classes: Annotated[Whole, Parameter(help="Classes of the images.")] = 10,
    image_channels: Annotated[Whole, Parameter(help="1 for grey images, 3 for colour.")] = 3,
    stem: Annotated[
        Literal["cifar", "imagenet"], Parameter(help="Stem and head, as for `tutelage retrain`.")
    ] = "cifar",
    side: Annotated[
        Whole | None, Parameter(help="Side of the images in pixels; not set: 32, or 224.")
    ] = None,
    latency: Annotated[
        bool, Parameter(negative=(), help="Measure its forward pass on this device too.")
    ] = False,
    batch_size: Annotated[
        tuple[Whole, ...],
        Parameter(
            help="Images of a measured pass, or several numbers.",
            consume_multiple=True,
            negative=(),
            show_default=listed,
        ),
    ] = (1, 32),
    threads: Annotated[
        Whole | None, Parameter(help="Threads that compute; not set: as many as torch takes.")
    ] = None,
    device: Where = "auto",
    clock: Annotated[
        Literal["wall", "cpu"],
        Parameter(help="Clock: wall, or cpu for one thread beside busy processes."),
    ] = "wall",
    as_json: AsJson = False,
    trust: Trust = (),
) -> None:
    """Print a network's parameters, FLOPs and cells, and its latency where that is asked for."""
    trusting(*trust)
    at_least(1, batch_size=min(batch_size), threads=1 if threads is None else threads)
    from tutelage.run.cost.count import describe as count
    from tutelage.run.networks.files import space_of
    from tutelage.spaces.base import Size
    from tutelage.spaces.published import resolve

    found = resolve(genotype)
    sizes = space_of(found).sizes
    channels = sizes.final_channels if channels is None else channels
    cells = sizes.final_cells if cells is None else cells
    description = count(found, Size(channels, cells, classes, image_channels, stem), side)
    times = []
    if latency:
        from tutelage.run.measure.latency import measured

        asked = (description.size, description.side, batch_size, device, threads, clock)
        times = list(measured(found, *asked))
    if as_json:
        measurements = {"latency": [each.as_dict() for each in times]} if latency else {}
        print(json.dumps(description.as_dict() | measurements))
    else:
        lines = [each.as_text() for each in times]
        where = [f"measured on {times[0].place.as_text()}"] if times else []
        print("\n".join([description.as_text(), *lines, *where]))


def draw(
    genotype: Annotated[str, Parameter(help="A genotype: JSON file, DARTS' text, name, or a run.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="File to write, .svg or .png.")],
) -> None:
    """Draw a genotype's cells as SVG or PNG."""
    from tutelage.report.figures.draw import save_drawing
    from tutelage.spaces.published import resolve

    save_drawing(resolve(genotype), out)
    print(f"Drawing: {out}")


def query(
    genotype: Target,
    /,
    *,
    table: Annotated[
        Path,
        Parameter(
            help="A table of `tutelage table build`, NAS-Bench-Macro's JSON, or the folder of "
            "NAS-Bench-301's surrogate or of NATS-Bench's size space."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Print what a benchmark knows of a genotype: accuracy, rank, costs."""
    from tutelage.benchmark.table import open_table
    from tutelage.spaces.published import resolve

    answer = open_table(table).query(resolve(genotype))
    print(json.dumps(answer.as_dict()) if as_json else answer.as_text())


def table_build(
    *,
    csv: Annotated[
        tuple[Path, ...],
        Parameter(
            help="CSV files of the benchmark and of latencies, plain or as .xz or .gz.",
            consume_multiple=True,
            negative=(),
            show_default=False,
        ),
    ] = (),
    nats: Annotated[
        Path | None,
        Parameter(help="NATS-Bench's files of the topology or the size space, instead of CSV."),
    ] = None,
    transnas: Annotated[
        Path | None, Parameter(help="The file of TransNAS-Bench-101, .pth, instead of CSV.")
    ] = None,
    trust_pickle: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Unpickle the topology files of --nats, which runs any code that is in them.",
        ),
    ] = False,
    out: Annotated[Path, Parameter(help="File to write.")],
) -> None:
    """Make the table of a benchmark from CSV files or the files of its authors."""
    if transnas and (csv or nats or trust_pickle):
        raise ValueError("a table of --transnas FILE is made from that file alone")
    if not transnas and nats is None and (trust_pickle or not csv):
        raise ValueError(
            "a table is made from --csv FILE, from --nats PATH, where the topology space needs "
            "--trust-pickle, or from --transnas FILE"
        )
    from tutelage.benchmark import nats_size
    from tutelage.benchmark.build import build, check_out

    if transnas:
        from tutelage.benchmark import transnas as by_authors

        check_out(out)
        by_authors.build(transnas, out)
    elif nats and nats_size.is_size(nats):
        check_out(out)
        nats_size.build(nats, out)
    elif nats:
        from tutelage.benchmark.nats import build_from_api

        build_from_api(nats, out, trust_pickle=trust_pickle, latency_files=csv)
    else:
        build(csv, out)
    print(f"Table: {out}; read it with: tutelage query GENOTYPE --table {out}")


def log(
    run: Annotated[Path, Parameter(help="The directory of a search or a retraining.")],
    /,
    *,
    to: Annotated[
        tuple[str, ...],
        Parameter(help=f"Trackers: {', '.join(TRACKERS)}.", consume_multiple=True, negative=()),
    ],
) -> None:
    """Feed trackers with what a run has written, without what they have already."""
    from tutelage.trackers.feed import feed

    available(to)
    for name in to:
        print(feed(run, name))


def left_out_parts() -> list[str]:
    """Return a sentence for every part of an installed package that cannot have its name."""
    from tutelage.data import DATA
    from tutelage.spaces.published import PUBLISHED

    own = {FOLDERS[kind]: names for kind, names in OWN.items()}
    return [x for kind, names in own.items() for x in left_out(kind, names)] + [
        *left_out("data", DATA),
        *left_out("genotypes", PUBLISHED),
    ]


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
