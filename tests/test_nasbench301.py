"""The surrogate of NAS-Bench-301: what it is given, what is refused, and what is said of it."""

import json
import os
import random
import sys
from importlib.machinery import ModuleSpec
from itertools import combinations
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from refusals import fails
from test_report_diagnostics import report
from tutelage.benchmark.absent import AbsentError
from tutelage.benchmark.nasbench301 import CAVEAT, COLUMNS, PREFIX, Table, categories
from tutelage.benchmark.table import looked_up, open_table, placed, why_absent
from tutelage.config import Run
from tutelage.report.runs.read import read_run
from tutelage.report.runs.tables import as_text, comparison
from tutelage.report.sections.monitor import table_header, table_plots, table_rows
from tutelage.report.sections.status import caveats
from tutelage.report.sections.tiles import tiles
from tutelage.run.monitor.relaxed import Diagnostics
from tutelage.spaces.cells import DARTS, S1, S3, S4
from tutelage.spaces.genotype import Cell, Genotype
from tutelage.spaces.published import PUBLISHED, resolve
from written_runs import read_rows, write_rows, write_search

FOLDER = Path(os.environ.get("TUTELAGE_TEST_TABLES", ""), "nb301_yahpo")
real_data = pytest.mark.skipif(
    not (FOLDER / "model_v2.onnx").is_file(),
    reason="TUTELAGE_TEST_TABLES names no folder with NAS-Bench-301's surrogate",
)
OPERATIONS = (
    *("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5"),
    *("dil_conv_3x3", "dil_conv_5x5"),
)
SAID = "its rank correlation with the official surrogate of NAS-Bench-301 is only 0.51"


def pairs_of(node):
    return ["_".join(map(str, pair)) for pair in combinations(range(node), 2)]


def encoding():
    """The numbers of all categories, as the published file has them: absent is 0."""
    found = {}
    for group in ("normal", "reduce"):
        for edge in range(14):
            values = ("#na#", *sorted(OPERATIONS))
            found[f"{PREFIX}edge_{group}_{edge}"] = {x: k for k, x in enumerate(values)}
        for node in (3, 4, 5):
            values = ("#na#", *pairs_of(node))
            found[f"{PREFIX}inputs_node_{group}_{node}"] = {x: k for k, x in enumerate(values)}
    return found


class Session:
    """Stands for a session of ONNX Runtime: the accuracy counts 5x5 convolutions."""

    inputs = (("x_cat", ["batch_size", 34]), ("x_cont", ["batch_size", 1]))

    def __init__(self, content, options, providers):
        if content == b"no model":
            raise RuntimeError("ModelProto does not have a graph\nat line 1")
        self.threads = options.intra_op_num_threads

    def get_inputs(self):
        return [SimpleNamespace(name=name, shape=shape) for name, shape in self.inputs]

    def run(self, names, inputs):
        (edges,), ((epoch,),) = inputs["x_cat"], inputs["x_cont"]
        assert inputs["x_cat"].dtype == np.int32 and len(edges) == 34
        share = sum(value in (3, 6) for value in edges[:28]) / 16
        return [np.array([[0.9 + share / 20, 0.25, 40.0 * epoch, 7.0]], np.float32)]


@pytest.fixture
def surrogate(tmp_path, monkeypatch):
    """A folder as YAHPO Gym has it, run by a stand-in of ONNX Runtime."""
    runtime = ModuleType("onnxruntime")
    runtime.__spec__ = ModuleSpec("onnxruntime", None)  # torch looks for it
    runtime.SessionOptions, runtime.InferenceSession = SimpleNamespace, Session
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    folder = tmp_path / "tables" / "nb301"
    folder.mkdir(parents=True)
    (folder / "model_v2.onnx").write_bytes(b"a model")
    (folder / "encoding_v2.json").write_text(json.dumps(encoding()))
    return folder


def random_cells(seed):
    """Cells of the space, with the pairs of a node in any order."""
    draw = random.Random(seed)
    cells = {}
    for group in ("normal", "reduce"):
        nodes = [
            tuple((draw.choice(OPERATIONS), state) for state in draw.sample(range(node + 2), 2))
            for node in range(4)
        ]
        cells[group] = Cell(tuple(nodes), concat=(2, 3, 4, 5))
    return Genotype("darts", cells)


def changed(node, pairs, concat=(2, 3, 4, 5), space="darts"):
    """DARTS_V2 with another node of the normal cell."""
    own = PUBLISHED["DARTS_V2"].cells
    nodes = list(own["normal"].nodes)
    nodes[node] = pairs
    return Genotype(space, {"normal": Cell(tuple(nodes), concat), "reduce": own["reduce"]})


# The columns ------------------------------------------------------------------------------------


def test_columns_are_those_that_the_surrogate_was_fitted_to():
    edges = [f"edge_{group}_{edge}" for group in ("normal", "reduce") for edge in range(14)]
    inputs = [f"inputs_node_{group}_{n}" for group in ("normal", "reduce") for n in (3, 4, 5)]
    assert list(COLUMNS) == edges + inputs
    assert set(encoding()) == {PREFIX + name for name in COLUMNS}


def test_cells_come_back_from_their_columns():
    for seed in range(50):
        cells = random_cells(seed)
        values = categories(cells)
        assert list(values) == list(COLUMNS)
        for group in ("normal", "reduce"):
            edge = 0
            for node in range(4):
                kept = set()
                for state in range(node + 2):
                    operation = values[f"edge_{group}_{edge}"]
                    kept |= {(operation, state)} - {("#na#", state)}
                    edge += 1
                assert kept == set(cells.cells[group].nodes[node])
                if node:
                    read = "_".join(str(state) for _, state in sorted(kept, key=lambda x: x[1]))
                    assert values[f"inputs_node_{group}_{node + 2}"] == read


def test_what_is_no_cell_of_the_benchmark_is_refused():
    twice = (("skip_connect", 0), ("sep_conv_3x3", 0))
    fails(lambda: categories(changed(1, twice)), "node 3 reads state 0 twice", error=AbsentError)
    none = (("none", 0), ("sep_conv_3x3", 1))
    fails(lambda: categories(changed(2, none)), "node 4 has none", error=AbsentError)
    plain = PUBLISHED["DARTS_V2"].cells["normal"].nodes[0]
    fails(lambda: categories(changed(0, plain, (2, 4, 5))), "outputs 2, 4, 5", error=AbsentError)
    noise = (("noise", 0), ("sep_conv_3x3", 1))
    cells = {
        group: Cell((noise,) * 4, concat=(2, 3, 4, 5)) for group in PUBLISHED["DARTS_V2"].cells
    }
    fails(lambda: categories(Genotype("s4", cells)), "the space 's4'", "darts, s1, s2, s3")
    cell = resolve("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    fails(lambda: categories(cell), "the space 'nasbench201'")


# What it answers --------------------------------------------------------------------------------


def test_a_query_says_how_far_it_can_be_trusted(surrogate, tutelage):
    answer = Table(surrogate).query(PUBLISHED["PDARTS"])
    share = sum("5x5" in name for name in PUBLISHED["PDARTS"].names) / 16
    assert answer.accuracy == {"cifar10_valid_predicted": pytest.approx(90 + 5 * share, abs=1e-4)}
    assert (answer.seconds, answer.rank, answer.caveat) == (98 * 40.0, {}, CAVEAT)
    _, text, _ = tutelage(f"query PDARTS --table {surrogate}")
    assert SAID in text and f"{answer.accuracy['cifar10_valid_predicted']:.2f} %" in text
    _, text, _ = tutelage(f"query PDARTS --table {surrogate} --json")
    assert json.loads(text) == answer.as_dict()
    assert SAID in json.loads(text)["caveat"]


def test_a_table_is_found_by_its_name_in_the_folder_of_tables(surrogate, here, monkeypatch):
    assert placed(Path("nb301")) == Path("nb301")
    monkeypatch.setenv("TUTELAGE_TABLES", str(surrogate.parent))
    assert open_table("nb301").path == surrogate
    surrogate.rename(surrogate.parent / "nb301_yahpo")
    assert open_table("nb301").path.name == "nb301_yahpo"
    assert placed(Path("other")) == Path("other")
    (here / "nb301").mkdir()
    assert placed(Path("nb301")) == Path("nb301")


def test_names_without_the_version_are_read_too(surrogate):
    for name in ("model_v2.onnx", "encoding_v2.json"):
        (surrogate / name).rename(surrogate / name.replace("_v2", ""))
    assert Table(surrogate).query(PUBLISHED["DARTS_V1"]).accuracy


# In a search ------------------------------------------------------------------------------------


def test_spaces_with_some_of_the_operations_are_looked_up_and_others_refused(surrogate):
    for space in (DARTS, S1, S3):
        Diagnostics(Run(table=surrogate), space)
    call = lambda: Diagnostics(Run(table=surrogate), S4)  # noqa: E731
    fails(call, "--table with --space s4", "is of darts, s1, s2, s3")
    call = lambda: Diagnostics(Run(table=surrogate, ranked=9), DARTS)  # noqa: E731
    fails(call, "ranked = 9", "needs a table of measured accuracies")


def test_cells_that_it_does_not_have_get_no_figure_and_a_reason(surrogate):
    table = open_table(surrogate)
    twice = changed(1, (("skip_connect", 0), ("sep_conv_3x3", 0)))
    assert looked_up(table, twice) == {} and "twice" in why_absent(table, twice)
    known = looked_up(table, PUBLISHED["DARTS_V2"])
    assert set(known) == {"cifar10_valid_predicted"}
    assert why_absent(table, PUBLISHED["DARTS_V2"]) == ""
    assert Diagnostics(Run(table=surrogate), DARTS).looked_up([twice]) == [{}]


@pytest.mark.slow
def test_a_search_says_it_before_it_begins_and_in_every_epoch(surrogate, tutelage, here):
    line = "search --quick --search prdarts --space darts --data digits --out run --table"
    code, text, error = tutelage(line, str(surrogate))
    assert not code, error
    assert SAID in text
    rows = [row for row in read_rows(here / "run") if row.get("event") == "epoch"]
    assert rows and all(SAID in row["table_caveat"] for row in rows)
    for row in rows:
        read = [Genotype.from_dict(each) for each in row["genotype"]]
        assert row["table"] == [looked_up(open_table(surrogate), each) for each in read]
        assert bool(row["table"][0]) == (not any("twice" in each for each in row["warnings"]))


# In a report ------------------------------------------------------------------------------------


def predicted(run):
    """Give a run the figures of the surrogate."""
    rows = read_rows(run)
    for row in rows:
        if row.get("event") == "epoch":
            row["table"] = [{}, {"cifar10_valid_predicted": 91 + row["epoch"] / 10}]
            row["table_caveat"] = CAVEAT
    write_rows(run, rows)
    return run


def test_figures_have_no_ranks_and_say_what_they_are(tmp_path):
    runs = [predicted(write_search(tmp_path / str(s), epochs=3, seed=s)) for s in (0, 1)]
    record = read_run(runs[0])
    assert SAID in record.search.caveat and list(caveats(record)) == [record.search.caveat]
    assert table_header(record.search) == ("architecture", "CIFAR-10")
    assert table_rows(record.search, 1) == [("learner 0", "–"), ("learner 1, kept", "91.20 %")]
    assert [each.caption for each in table_plots(record.search)] == [
        "CIFAR-10: validation accuracy (%), by a rough surrogate"
    ]
    tile = next(tiles(record))
    assert (tile.name, tile.value) == ("CIFAR-10 valid, by a rough surrogate", "91.20 %")
    assert (tile.note, tile.result) == ("of NAS-Bench-301", False)
    text = as_text(comparison([read_run(run) for run in runs]))
    assert SAID in text and "rank" not in text.splitlines()[0]
    assert "CIFAR-10 valid, by a rough surrogate %" in text.splitlines()[0]


@pytest.mark.slow
def test_pages_say_it_beside_the_figures(tmp_path):
    text = report(tmp_path, predicted(write_search(tmp_path / "run", epochs=2))).text
    assert text.count(SAID) == 2  # above the figures, and in the section
    assert "over the benchmark’s seeds" not in text


# Bad files --------------------------------------------------------------------------------------


def test_bad_folders_are_refused_in_one_sentence(surrogate, tmp_path, refused, monkeypatch):
    ask = f"query DARTS_V2 --table {surrogate}"
    refused("query DARTS_V2 --table nb301", "nb301 is no file: .*folder nb301 of YAHPO Gym's data")
    refused(f"query DARTS_V2 --table {tmp_path}", "no folder with a surrogate of NAS-Bench-301")
    (surrogate / "model_v2.onnx").write_bytes(b"no model")
    refused(ask, r"model_v2.onnx is no ONNX file, or damaged: ModelProto does not have a graph")
    (surrogate / "model_v2.onnx").write_bytes(b"a model")
    monkeypatch.setattr(Session, "inputs", (("images", ["batch", 3, 32, 32]),))
    refused(ask, "has the inputs .*NAS-Bench-301's surrogate has x_cat of 34")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is not the encoding of NAS-Bench-301: it lacks edge_normal_0"),
        (json.dumps(encoding() | {f"{PREFIX}edge_reduce_7": {"#na#": 0}}), "lacks edge_reduce_7"),
        (
            json.dumps(encoding() | {f"{PREFIX}inputs_node_normal_4": dict.fromkeys("ab", 0)}),
            "lacks inputs_node_normal_4",
        ),
        (json.dumps(encoding()).replace("1", "1.5"), "lacks edge_normal_0"),
        (json.dumps(encoding()).replace(": 1,", ": -1,"), "lacks edge_normal_0"),
    ],
)
def test_bad_encodings_are_refused_in_one_sentence(surrogate, content, message):
    path = surrogate / "encoding_v2.json"
    path.write_text(content)
    fails(lambda: open_table(surrogate), str(path), message)


def test_without_the_extra_a_sentence_names_it(surrogate, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(f"query DARTS_V2 --table {surrogate}", r"pip install 'tutelage\[nb301\]'")


def test_predictions_that_are_no_numbers_are_refused(surrogate, monkeypatch, refused):
    monkeypatch.setattr(Session, "run", lambda *_: [np.array([[np.nan, 1, 2]])])
    refused(f"query DARTS_V2 --table {surrogate}", "does not predict accuracy, loss and time")


# The real surrogate -----------------------------------------------------------------------------


@real_data
def test_the_surrogate_predicts_its_published_figures():
    pytest.importorskip("onnxruntime")
    table = open_table(FOLDER)
    found = {
        name: round(table.query(PUBLISHED[name]).accuracy["cifar10_valid_predicted"], 2)
        for name in ("DARTS_V1", "DARTS_V2", "PDARTS", "PC_DARTS_cifar")
    }
    assert found == {"DARTS_V1": 92.55, "DARTS_V2": 92.91, "PDARTS": 92.96, "PC_DARTS_cifar": 92.65}
    values = [
        table.query(random_cells(seed)).accuracy["cifar10_valid_predicted"] for seed in range(200)
    ]
    assert 85 < min(values) < max(values) < 95


@real_data
def test_real_and_damaged_files_of_another_kind(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "encoding.json").write_bytes((FOLDER / "encoding_v2.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes((FOLDER / "model_v2.onnx").read_bytes()[:9999])
    fails(lambda: open_table(tmp_path), "model.onnx is no ONNX file, or damaged")
