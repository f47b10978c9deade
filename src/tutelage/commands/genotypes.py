"""The commands about one genotype: its costs, its picture, what a benchmark knows of it.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tutelage.checks import at_least, listed
from tutelage.commands.arguments import AsJson, Clock, Target, Where
from tutelage.config import Stem
from tutelage.flags import Trust, Whole
from tutelage.trusted import trust as trusting


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
    stem: Annotated[Stem, Parameter(help="Stem and head, as for `tutelage retrain`.")] = "cifar",
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
        Clock,
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
