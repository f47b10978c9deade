"""The commands that train: a search, and the retraining of what it found.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tutelage.config import Data, Retrain, Run
from tutelage.data import ADDED, DATA
from tutelage.papers import Row, row_named
from tutelage.parts import PARTS, from_table
from tutelage.quick import tables
from tutelage.recipes import layered, read_recipe
from tutelage.renamed import Told, say
from tutelage.trusted import modules_of

OF_LISTED: Final = (
    *("resolution", "colour", "white", "label_column", "validation", "centre", "memory"),
)
"""Settings that only images of a folder or a file may have."""


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

    from tutelage.data import DataError
    from tutelage.run.search import search_run

    try:
        found = search_run(settings, target, resume is not None, accept_changed_data)
    except ValueError as error:
        named = any(name.rpartition(".")[2] in str(error) for name in table.get("quick", ()))
        if quick and named and not isinstance(error, DataError):  # no size mends images
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


def _evaluation(row: Row, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row's settings of a retraining, but for those that the search was given itself."""
    asked, was, now = (each.get("retrain", {}) for each in (row.retraining(), row.search(), own))
    usual = tables(from_table(Retrain, was, "a retraining"))
    kept = {name: x for name, x in asked.items() if name not in now or now[name] == usual.get(name)}
    epochs = kept.get("epochs", now.get("epochs", usual["epochs"]))
    for name in ("warm_up", "linear_tail"):
        if kept.get(name, 0) >= epochs:  # a quick look has fewer
            del kept[name]
    return {**row.retraining(), "retrain": kept}


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
            own = layered(own, _evaluation(row_named(own["row"]), own))
        base = layered(own, base)
        if given.get("retrain", {}).get("start"):
            out = out or folder / "transfer"
            stored = base.get("retrain", {})  # what the weights have may have been given to retrain
            base["retrain"] = {k: x for k, x in stored.items() if k not in ("channels", "cells")}
        out = out or (folder if "genotype" in base else folder / "retrain")
    if out is None:
        raise ValueError("a genotype without a run needs --out DIR, and --data for its images")
    named, stored = given.get("data", {}).get("name"), base.get("data", {})
    if named in {*DATA, *ADDED} - {"folder"}:  # read as they are
        base["data"] = {k: x for k, x in stored.items() if k not in OF_LISTED}
    elif named not in (None, "folder", stored.get("name")):  # a path, not below the run's root
        base["data"] = {k: x for k, x in stored.items() if k != "root"}
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
