"""A surrogate of NAS-Bench-301: predicted accuracies of DARTS' cells on CIFAR-10.

Zela, Siems, Zimmer, Lukasik, Keuper, Hutter: Surrogate NAS benchmarks: going beyond the limited
search spaces of tabular NAS benchmarks. ICLR 2022, arXiv:2008.09777. Pfisterer, Schneider,
Moosbauer, Binder, Bischl: YAHPO Gym. AutoML 2022, arXiv:2109.03670.

The space has 10^18 cells, so no table holds them. YAHPO Gym fitted a network to the benchmark's
trained cells, with the epoch as one of its inputs, and publishes it as ONNX. Its figures are
predictions, and every answer says how far they agree with the benchmark's own surrogates.
Nothing in this file imports torch.

Deviations: the official surrogates, ensembles of boosted trees and graph networks, are not read:
they are pickles, and unpickling runs any code in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np

from tutelage.benchmark.absent import AbsentError
from tutelage.formats import read_bytes, read_json
from tutelage.spaces.genotype import DARTS_OPERATIONS, Cell, Genotype

CAVEAT: Final = (
    "predicted by YAHPO Gym's surrogate, a rough guide: on 725 cells its rank correlation with the "
    "official surrogate of NAS-Bench-301 is only 0.51"
)
"""How far a prediction can be trusted; said wherever a figure of this table is shown."""
PREDICTED: Final = "cifar10_valid_predicted"
"""The name of the predicted accuracy on CIFAR-10's validation images."""
EPOCHS: Final = 98
"""Epochs of training that are predicted: the most that the surrogate was fitted to."""
FILES: Final = (("model_v2.onnx", "encoding_v2.json"), ("model.onnx", "encoding.json"))
"""Names of the surrogate and of the numbers of its categories, as YAHPO Gym has published them."""
OPERATIONS: Final = tuple(name for name in DARTS_OPERATIONS if name != "none")
FIRST: Final = (0, 2, 5, 9)
"""The number of every node's first edge, from state 0."""
PREFIX: Final = "NetworkSelectorDatasetInfo_COLON_darts_COLON_"
ABSENT: Final = "#na#"
"""The value of an edge that a cell does not have."""
GROUPS: Final = ("normal", "reduce")
COLUMNS: Final = (
    *(f"edge_{group}_{edge}" for group in GROUPS for edge in range(14)),
    *(f"inputs_node_{group}_{node}" for group in GROUPS for node in (3, 4, 5)),
)
"""The categories of a pair of cells, in the order of the surrogate's input."""


@dataclass(frozen=True)
class Answer:
    """What the surrogate predicts for a pair of cells."""

    architecture: str
    """DARTS' tuple text."""
    accuracy: Mapping[str, float]
    """Percent by name; the only name is cifar10_valid_predicted."""
    cross_entropy: float
    """Predicted loss on the validation images."""
    seconds: float
    """Predicted time of the training."""
    epochs: int = EPOCHS
    """Epochs of the training that is predicted."""
    caveat: str = CAVEAT
    """How far the prediction can be trusted."""
    rank: Mapping[str, int] = field(default_factory=dict)
    """Empty: no list of all cells exists."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `query --json` prints."""
        return asdict(self)

    def as_text(self) -> str:
        """Return what `query` prints."""
        return "\n".join(
            [
                self.architecture,
                "",
                f"CIFAR-10 valid  {self.accuracy[PREDICTED]:.2f} % after {self.epochs} epochs",
                f"cross-entropy   {self.cross_entropy:.4f}",
                f"training        {self.seconds:,.0f} s",
                "",
                f"All {self.caveat}.",
            ]
        )


class Table:
    """The surrogate.

    Attributes:
        spaces: Names of the spaces whose cells it knows: DARTS', and those with some of its
            operations. S4 is not among them, because of its noise.
        ranked_by: Name of its only accuracy.
        caveat: How far its figures can be trusted.
        path: The folder.
    """

    spaces = ("darts", "s1", "s2", "s3")
    ranked_by = PREDICTED
    caveat = CAVEAT

    def __init__(self, path: Path | str) -> None:
        """Open the folder.

        Raises:
            ValueError: A file is missing, damaged or another one, or the extra is not installed.
        """
        self.path = Path(path)
        found = surrogate_in(self.path)
        if not found:
            raise ValueError(f"{path} has no {' or '.join(model for model, _ in FILES)}")
        model, encoding = found
        self._codes = _codes(encoding)
        self._session = _session(model)

    def query(self, genotype: Genotype) -> Answer:
        """Predict for a pair of cells.

        Raises:
            ValueError: They are of another space.
            AbsentError: They are no cells that NAS-Bench-301 has.
        """
        values = categories(genotype)
        numbers = [self._codes[name][value] for name, value in values.items()]
        accuracy, cross_entropy, seconds = self._predicted(numbers)
        return Answer(
            architecture=genotype.to_darts(),
            accuracy={PREDICTED: round(100 * accuracy, 4)},
            cross_entropy=round(cross_entropy, 6),
            seconds=round(seconds, 1),
        )

    def _predicted(self, numbers: Sequence[int]) -> tuple[float, float, float]:
        inputs = {
            "x_cat": np.array([numbers], np.int32),
            "x_cont": np.array([[EPOCHS]], np.float32),
        }
        (rows,) = self._session.run(None, inputs)
        values = np.asarray(rows, np.float64).reshape(-1)
        if len(values) < 3 or not np.isfinite(values).all():
            raise ValueError(f"{self.path} does not predict accuracy, loss and time: {values}")
        return float(values[0]), float(values[1]), float(values[2])


def surrogate_in(folder: Path) -> tuple[Path, Path] | None:
    """Return the surrogate and its encoding in a folder; None: it has none."""
    for names in FILES:
        model, encoding = (folder / name for name in names)
        if model.is_file() and encoding.is_file():
            return model, encoding
    return None


def categories(genotype: Genotype) -> dict[str, str]:
    """Return the value of every column of the surrogate's input.

    Raises:
        ValueError: The genotype is of another space.
        AbsentError: It is no pair of cells that NAS-Bench-301 has.

    >>> from tutelage.spaces.published import PUBLISHED
    >>> values = categories(PUBLISHED["DARTS_V2"])
    >>> values["edge_normal_4"], values["edge_normal_5"], values["inputs_node_normal_5"]
    ('#na#', 'skip_connect', '0_2')
    """
    if genotype.space not in Table.spaces:
        raise ValueError(
            f"the genotype is of the space {genotype.space!r}: NAS-Bench-301 knows DARTS' cells, "
            f"those of {', '.join(Table.spaces)}"
        )
    values = dict.fromkeys(COLUMNS, ABSENT)
    for group, cell in genotype.cells.items():
        _check(group, cell)
        for place, node in enumerate(cell.nodes):
            for operation, state in node:
                values[f"edge_{group}_{FIRST[place] + state}"] = operation
            if place:  # the first node has no choice of inputs
                states = sorted(state for _, state in node)
                values[f"inputs_node_{group}_{place + 2}"] = "_".join(map(str, states))
    return values


def _check(group: str, cell: Cell) -> None:
    """Refuse a cell of DARTS' shape that NAS-Bench-301 does not have."""
    if sorted(cell.concat) != [2, 3, 4, 5]:
        raise AbsentError(
            f"cell {group!r} outputs {', '.join(map(str, cell.concat))}: NAS-Bench-301's cells "
            "output all of 2, 3, 4 and 5"
        )
    for state, node in enumerate(cell.nodes, start=2):
        for operation, _ in node:
            if operation not in OPERATIONS:
                raise AbsentError(
                    f"cell {group!r}: node {state} has {operation}, which NAS-Bench-301's cells "
                    f"never keep: they have {', '.join(OPERATIONS)}"
                )
        if len({read for _, read in node}) < 2:
            raise AbsentError(
                f"cell {group!r}: node {state} reads state {node[0][1]} twice, as PR-DARTS' nodes "
                "may: those of NAS-Bench-301 read two states"
            )


def _codes(path: Path) -> dict[str, dict[str, int]]:
    """Read the numbers of all categories, by column and value."""
    content = read_json(path)
    nodes = {
        node: ["_".join(map(str, x)) for x in combinations(range(node), 2)] for node in (3, 4, 5)
    }
    found = {}
    for column in COLUMNS:
        values = nodes.get(int(column[-1]), []) if column.startswith("inputs") else OPERATIONS
        codes = content.get(PREFIX + column) if isinstance(content, dict) else None
        if not isinstance(codes, dict) or not all(
            type(codes.get(value)) is int and 0 <= codes[value] < 2**31
            for value in (ABSENT, *values)
        ):
            raise ValueError(f"{path} is not the encoding of NAS-Bench-301: it lacks {column}")
        found[column] = codes
    return found


def _session(path: Path) -> Any:
    """Load the surrogate, for one thread: one prediction takes less than a millisecond."""
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(
            "the surrogate of NAS-Bench-301 needs an extra: pip install 'tutelage[nb301]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = read_bytes(path)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class but this
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no ONNX file, or damaged: {reason}") from None
    shapes = {each.name: each.shape[1:] for each in session.get_inputs()}
    if shapes != {"x_cat": [len(COLUMNS)], "x_cont": [1]}:
        raise ValueError(
            f"{path} has the inputs {shapes}: NAS-Bench-301's surrogate has x_cat of "
            f"{len(COLUMNS)} and x_cont of 1"
        )
    return session
