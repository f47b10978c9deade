"""The commands of the first minutes: a demonstration, and an examination of the installation.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from tutelage.commands.results import report
from tutelage.commands.search import retrain_command, search_base, search_command
from tutelage.parts import make_part

RECIPE: Final = "digits-demo"


def demo(
    *, out: Annotated[Path, Parameter(help="Directory to write.")] = Path("runs/demo")
) -> None:
    """Search, retrain and report on digits that come with the package; minutes on a CPU.

    If it was stopped, it resumes.
    """
    resume = out if (out / "run.toml").is_file() else None
    if not (out / "genotype.json").is_file():
        search_command(search_base(RECIPE, None), out, resume, False, False, {})
    retrain_command(str(out), None, None, {})
    report([out])
    print("Next: your own images, with tutelage search --data FOLDER; all flags with --help")


def doctor(
    *,
    folder: Annotated[Path, Parameter(help="Where runs would be written.")] = Path(),
) -> None:
    """Print versions, device, threads, memory and disk, and compare a step with a known result.

    Raises:
        ValueError: Something is wrong.
    """
    from tutelage.run.doctor import Stepped, examine

    parts = {"method": "sgl", "search": "darts", "space": "nasbench201"}
    made = Stepped(**{kind: make_part(kind, {"name": name}) for kind, name in parts.items()})
    wrong = []
    for finding in examine(made, folder):
        print(f"{finding.what:20}{'' if finding.right else 'WRONG: '}{finding.text}", flush=True)
        wrong += [] if finding.right else [finding.what]
    if wrong:
        raise ValueError(f"something is wrong: {', '.join(wrong)}")
