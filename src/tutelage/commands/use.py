"""The work of the commands that use a trained network, after their flags are read.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tutelage.commands.arguments import AsJson, Where
from tutelage.flags import Trust, Whole
from tutelage.trusted import trust as trusting

if TYPE_CHECKING:
    from tutelage.run.trained.predict import Prediction

Network = Annotated[
    str,
    Parameter(
        help="A retrained run, an exported folder, a network.safetensors, or hf-hub:OWNER/NAME."
    ),
]


def predict(
    run: Network,
    paths: Annotated[list[Path], Parameter(help="Images, and folders of images.")],
    /,
    *,
    top: Annotated[Whole, Parameter(help="How many classes of each image.")] = 1,
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, Parameter(name="--csv", negative=(), help="Print CSV instead.")
    ] = False,
    device: Where = "auto",
    batch_size: Annotated[Whole, Parameter(help="Images that run together.")] = 64,
    trust: Trust = (),
) -> None:
    """Print the class of every image and its probability."""
    trusting(*trust)
    if as_json and as_csv:
        raise ValueError("--json with --csv: give one of them")
    from tutelage.run.trained.predict import Predictor

    predictor = Predictor(run, device)
    top = min(top, len(predictor.trained.details.classes))
    bad, read = 0, []
    form = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        form.writerow(("path", *_columns(top)))
    results = sys.stdout
    with redirect_stdout(sys.stderr):  # what is said of images is no result
        for found in predictor(paths, top, batch_size):
            if found.error:
                bad += 1
                print("tutelage:", *found.error.split(), file=sys.stderr)
            elif as_csv:
                form.writerow((found.path, *(x for pair in _pairs(found) for x in pair)))
            elif as_json:
                read.append(found)
            else:
                said = ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in _pairs(found))
                print(f"{found.path}: {said}", file=results)
    if as_json:
        print(json.dumps([_entry(each) for each in read], indent=2))
    if bad:
        raise ValueError(f"{bad} of the given paths could not be read; the others are predicted")


def _columns(top: int) -> list[str]:
    """Name the columns of a CSV: class, probability, class_2, probability_2, ..."""
    ends = ["", *(f"_{place}" for place in range(2, top + 1))]
    return [f"{name}{end}" for end in ends for name in ("class", "probability")]


def _pairs(found: Prediction) -> Sequence[tuple[str, float]]:
    return list(zip(found.classes, found.probabilities, strict=True))


def _entry(found: Prediction) -> dict[str, object]:
    """Return an image's entry of the JSON."""
    top = [{"class": name, "probability": chance} for name, chance in _pairs(found)]
    return {"path": found.path, **top[0], "top": top}


def test_command(
    run: Network,
    /,
    *,
    data: Annotated[
        str | None,
        Parameter(help="Labelled images: a data set, or a folder; not set: the run's test images."),
    ] = None,
    data_root: Annotated[Path | None, Parameter(help="Folder of the data set's files.")] = None,
    as_json: AsJson = False,
    device: Where = "auto",
    batch_size: Annotated[Whole, Parameter(help="Images that run together.")] = 64,
    trust: Trust = (),
) -> None:
    """Test a trained network on labelled images: accuracy, loss, classes, confusions."""
    from tutelage.checks import at_least
    from tutelage.run.trained.opened import open_trained
    from tutelage.run.trained.testing import asked, measured_on

    at_least(1, batch_size=batch_size)
    trusting(*trust)
    trained = open_trained(run, device)
    with redirect_stdout(sys.stderr):  # what is said of images is no result
        asked_for = asked(trained, data, data_root)
        tested = measured_on(trained, asked_for, batch_size, data_root)
    print(json.dumps(tested.as_dict(), indent=2) if as_json else tested.as_text())


def export(
    run: Network,
    /,
    *,
    out: Annotated[
        Path,
        Parameter(
            help="File or folder to write: .onnx; .pt2, torch.export's; no ending, a folder of "
            "weights and model card."
        ),
    ],
    trust: Trust = (),
) -> None:
    """Write a trained network in another format, read it again, and compare the outputs."""
    trusting(*trust)
    from tutelage.run.trained.export import export as write

    print(write(run, out))
