"""The table of NAS-Bench-Macro: what its JSON says is what is answered; bad files are refused."""

import gzip
import json
import lzma
import os
import re
import statistics
import struct
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from refusals import fails
from tutelage.benchmark import nasbench201, nasbench_macro
from tutelage.benchmark.nasbench_macro import COUNT, Table, architecture
from tutelage.benchmark.table import looked_up, open_table, true_accuracy
from tutelage.config import Run
from tutelage.run.monitor.relaxed import Diagnostics
from tutelage.spaces.chain import NASBENCH_MACRO
from tutelage.spaces.genotype import Cell, Genotype
from tutelage.spaces.notation import read_macro, write_macro
from tutelage.spaces.published import PUBLISHED, resolve

FILE = Path(os.environ.get("TUTELAGE_TEST_TABLES", ""), "nas-bench-macro_cifar10.json.xz")
real_data = pytest.mark.skipif(
    not FILE.is_file(), reason="TUTELAGE_TEST_TABLES names no folder with NAS-Bench-Macro's JSON"
)
NAMES = ["".join(digits) for digits in product("012", repeat=8)]
OPERATIONS = {"0": "identity", "1": "mbconv3_3x3", "2": "mbconv6_5x5"}
STAGES = ((32, 64, 2), (64, 128, 3), (128, 256, 3))
"""Channels before and in a stage, and its layers, of which the first halves the side."""


def chain(digits, space="nasbench-macro"):
    nodes = tuple(((OPERATIONS[digit], layer),) for layer, digit in enumerate(digits))
    return Genotype(space, {"chain": Cell(nodes, concat=(len(digits),), inputs=1)})


def hundredths(place, run):
    """Invent an accuracy, in hundredths of percent, with ties among means."""
    return 4500 + (place * 7919) % 4801 // 3 + (0, 4, 11)[(run + place) % 3]


def as_float32(value):
    """Pass a number through float32, as the benchmark's were."""
    return struct.unpack("f", struct.pack("f", value))[0]


@pytest.fixture(scope="module")
def content():
    entries = {}
    for place, name in sorted(enumerate(NAMES), key=lambda each: each[0] * 31 % COUNT):
        runs = [as_float32(hundredths(place, run) / 100) for run in range(3)]
        mean, std = statistics.fmean(runs), statistics.pstdev(runs)
        costs = {"params": 10_000 + place, "flops": 7_000_000 + place}
        entries[name] = {"test_acc": runs, "mean_acc": mean, "std": std, **costs}
    return entries


@pytest.fixture(scope="module")
def made(content, tmp_path_factory):
    """A file of invented figures; not to be written to."""
    path = tmp_path_factory.mktemp("made") / "macro.json"
    path.write_text(json.dumps(content))
    return path


# The digits -------------------------------------------------------------------------------------


def test_digits_are_operations_in_both_directions():
    for name in NAMES[::37]:
        names = read_macro(name)
        assert names == [OPERATIONS[digit] for digit in name]
        assert write_macro(names) == name
        assert architecture(chain(name)) == name
        assert resolve(name) == chain(name)


@pytest.mark.parametrize("text", ["", "0201210", "020121000", "02012103", "0201210a", "٠٢٠١٢١٠٠"])
def test_other_texts_are_refused(text):
    fails(lambda: read_macro(text), repr(text), "a digit for each of 8 layers")


def test_other_chains_are_refused():
    fails(lambda: write_macro(["identity"] * 7), "a chain of 7 layers: NAS-Bench-Macro's has 8")
    names = ["identity"] * 7 + ["mbconv6_3x3"]
    fails(lambda: write_macro(names), "unknown operation 'mbconv6_3x3'", "mbconv")
    fails(lambda: architecture(chain("0120")), "a chain of 4 layers")
    fails(lambda: architecture(chain("01201201", space="ennas-s1")), "'ennas-s1'")


# What a table answers ---------------------------------------------------------------------------


def test_every_entry_comes_back(made):
    table = Table(made)
    for place, name in enumerate(NAMES):
        answer = table.query(chain(name))
        runs = [hundredths(place, run) / 100 for run in range(3)]
        assert answer.architecture == name
        assert answer.runs == tuple(runs)
        assert answer.accuracy == {"cifar10_test": round(statistics.fmean(runs), 4)}
        assert answer.deviation == pytest.approx(statistics.pstdev(runs), abs=1e-9)
        assert (answer.parameters, answer.flops) == (10_000 + place, 7_000_000 + place)


def test_ranks_are_places_in_a_sorted_list_and_equal_ones_share_them(made):
    sums = [sum(hundredths(place, run) for run in range(3)) for place in range(COUNT)]
    falling = sorted(sums, reverse=True)
    assert len(set(sums)) < COUNT / 2
    table = Table(made)
    for place, name in enumerate(NAMES):
        answer = table.query(chain(name))
        assert answer.rank == {"cifar10_test": falling.index(sums[place]) + 1}
    last_best = max(place for place in range(COUNT) if sums[place] == falling[0])
    assert answer.best == NAMES[last_best]
    assert answer.best_accuracy == round(falling[0] / 300, 4)


def test_the_file_is_taken_as_downloaded_compressed_or_not(made, tmp_path):
    text = made.read_bytes()
    for name, content in {
        "macro.json.xz": lzma.compress(text, preset=0),
        "macro.json.gz": gzip.compress(text, 1),
        "renamed": text,
    }.items():
        (tmp_path / name).write_bytes(content)
        answer = open_table(tmp_path / name).query(chain("02012100"))
        assert answer == Table(made).query(chain("02012100"))


def test_the_text_shows_runs_rank_and_costs(made):
    answer = Table(made).query(chain("02012100"))
    text = answer.as_text()
    assert text.splitlines()[0] == "02012100"
    accuracy, rank = answer.accuracy["cifar10_test"], answer.rank["cifar10_test"]
    assert f"{accuracy:.2f} %, rank {rank:,} of 6,561" in text
    assert ", ".join(f"{each:.2f}" for each in answer.runs) in text
    assert f"best           {answer.best_accuracy:.2f} %, {answer.best}" in text
    assert re.findall(r"(?:parameters|FLOPs) +([\d,]+)", text) == ["11,602", "7,001,602"]
    assert json.loads(json.dumps(answer.as_dict()))["runs"] == list(answer.runs)


def test_opening_takes_a_moment_and_no_torch(made, tmp_path):
    packed = tmp_path / "macro.json.xz"
    packed.write_bytes(lzma.compress(made.read_bytes(), preset=0))
    code = f"""
import sys, time
from tutelage.benchmark.table import open_table
from tutelage.spaces.published import resolve
times = []
for _ in range(5):
    start = time.perf_counter()
    open_table({str(packed)!r}).query(resolve("02012100"))
    times.append(time.perf_counter() - start)
print(sorted(times)[2], "torch" in sys.modules)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds, torch = output.stdout.split()
    assert float(seconds) < 0.3
    assert torch == "False"


# Either table -----------------------------------------------------------------------------------


def test_a_search_in_the_tables_own_space_is_told_what_it_says(made):
    diagnostics = Diagnostics(Run(table=made), NASBENCH_MACRO)
    answer = Table(made).query(chain("21012100"))
    (message,) = diagnostics.looked_up([chain("21012100")])
    assert message == {**answer.accuracy, "rank": answer.rank["cifar10_test"]}
    assert message == looked_up(open_table(made), chain("21012100"))
    assert true_accuracy(open_table(made), chain("21012100")) == message["cifar10_test"]


def test_a_table_of_another_space_is_refused(made):
    for name in ("nasbench201", "darts"):
        space = SimpleNamespace(name=name)
        call = lambda space=space: Diagnostics(Run(table=made), space)  # noqa: E731
        fails(call, f"--table with --space {name}", str(made), "is of nasbench-macro")
    fails(lambda: Table(made).query(PUBLISHED["DARTS_V2"]), "'darts'", "nasbench-macro's chains")


def test_a_space_with_blocks_that_the_table_lacks_is_refused_before_it_is_searched(made):
    space = replace(NASBENCH_MACRO, candidates=(*NASBENCH_MACRO.candidates, "mbconv6_3x3"))
    fails(lambda: Diagnostics(Run(table=made), space), "unknown operation 'mbconv6_3x3'")


def test_each_table_ranks_by_an_accuracy_that_it_has(made):
    assert (nasbench_macro.Table.spaces, nasbench201.Table.spaces) == (
        ("nasbench-macro",),
        ("nasbench201",),
    )
    assert nasbench201.Table.ranked_by in nasbench201.ACCURACIES
    assert Table.ranked_by in Table(made).query(chain("00000000")).accuracy


# Bad files --------------------------------------------------------------------------------------


def changed(content, **values):
    return {**content, "00000001": content["00000001"] | values}


BAD_CONTENT = {
    "missing": (
        lambda c: {name: each for name, each in c.items() if name != "01201201"},
        "it has 6,560 entries and none for 01201201",
    ),
    "foreign": (lambda c: {"a": 1}, "it has 1 entries and none for 00000000"),
    "more": (lambda c: c | {"0": {}}, "it has 6,562 entries where 6,561 architectures are"),
    "lost runs": (lambda c: changed(c, test_acc=[90.0]), "test_acc must be as many numbers"),
    "one accuracy": (lambda c: changed(c, test_acc=90.0), "test_acc must be as many numbers"),
    "in words": (lambda c: changed(c, params="many"), "params must be a number from 0 up"),
    "not finite": (lambda c: changed(c, flops=float("inf")), "flops must be a number from 0 up"),
    "no accuracy": (lambda c: changed(c, test_acc=[90, float("nan"), 1]), "test_acc must be"),
    "below zero": (lambda c: changed(c, flops=-1), "flops must be a number from 0 up"),
    "no entry": (lambda c: c | {"00000001": 90.0}, "test_acc must be as many numbers"),
    "no field": (
        lambda c: {name: {"test_acc": each["test_acc"]} for name, each in c.items()},
        "params must be a number from 0 up",
    ),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_bad_entries_are_refused_in_one_sentence(content, tmp_path, case):
    change, message = BAD_CONTENT[case]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(change(content)))
    fails(lambda: open_table(path), str(path), "NAS-Bench-Macro", message)


def test_bad_files_are_refused_in_one_sentence(made, tmp_path):
    whole = made.read_bytes()
    packed = lzma.compress(whole, preset=0)
    for name, content in {
        "cut.json": whole[: len(whole) // 2],
        "cut.json.xz": packed[:-999],
        "damaged.json.xz": packed[:999] + b"x" * 99 + packed[1098:],
        "cut.json.gz": gzip.compress(whole, 1)[:-999],
        "damaged.json.gz": gzip.compress(whole, 1)[:500] + b"x" * 500,
        "list.json": b"[1, 2]",
        "deep.json": b'{"a":' * 100_000,
        "bytes.json": b"{\xff\xfe\x00",
        "core.csv": b"index,arch\n0,x\n",
        "core.csv.xz": lzma.compress(b"index,arch\n0,x\n"),
        "empty.json": b"",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        fails(lambda path=path: open_table(path), str(path), "is no table, or cut short")
    fails(lambda: open_table(tmp_path / "none"), "is no file", "`tutelage table build`", "JSON")
    fails(lambda: open_table(tmp_path), "is no file")


# The command line -------------------------------------------------------------------------------


def test_the_command_asks_the_table(tutelage, here, made):
    answer = Table(made).query(chain("02012100"))
    (here / "run").mkdir()
    (here / "run" / "genotype.json").write_text(chain("02012100").to_json())
    for given in ("02012100", "run"):
        assert tutelage(f"query {given} --table {made}") == (0, answer.as_text() + "\n", "")
        _, output, _ = tutelage(f"query {given} --table {made} --json")
        assert json.loads(output) == {**answer.as_dict(), "runs": list(answer.runs)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("query DARTS_V2 --table {made}", "the genotype is of the space 'darts'"),
        ("query 0201210 --table {made}", "a digit for each of 8 layers"),
        ("query 02012100 --table none", "none is no file"),
    ],
)
def test_mistakes_are_one_sentence(refused, made, line, message):
    refused(line.format(made=made), re.escape(message))


# The real benchmark -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    return Table(FILE)


def normal(digits):
    """Move the identities of each stage behind its other layers, its first layer excepted."""
    written, place = "", 0
    for _, _, layers in STAGES:
        first, rest = digits[place], digits[place + 1 : place + layers]
        written += first + rest.replace("0", "").ljust(layers - 1, "0")
        place += layers
    return written


def costs(digits):
    """Count parameters and FLOPs of an architecture, layer by layer."""
    side, place = 32, 0
    weights, flops = 27 * 32 + 64, 27 * 32 * side**2
    for before, after, layers in STAGES:
        for layer in range(layers):
            inside, stride = (before, 2) if layer == 0 else (after, 1)
            digit, large = digits[place], side
            side, place = side // stride, place + 1
            if digit == "0":
                weights += (before * after + 2 * after) if layer == 0 else 0
                flops += before * after * side**2 if layer == 0 else 0
                continue
            expansion, kernel = {"1": (3, 3), "2": (6, 5)}[digit]
            hidden = expansion * inside
            weights += hidden * (inside + 2 + kernel**2 + 2 + after) + 2 * after
            flops += hidden * (inside * large**2 + (kernel**2 + after) * side**2)
    weights += 256 * 1280 + 2 * 1280 + 1280 * 10 + 10
    return weights, flops + 256 * 1280 * side**2 + 1280 * 10


@real_data
def test_the_benchmark_answers_its_published_figures(real):
    answer = real.query(chain("02012100"))
    assert answer.runs == (89.47, 88.95, 89.17)
    assert f"{answer.accuracy['cifar10_test']:.4f} {answer.deviation:.4f}" == "89.1967 0.2131"
    assert (answer.parameters, answer.flops) == (890_666, 47_327_744)
    assert (answer.best, answer.best_accuracy) == ("22212220", 93.1267)
    worst, all_large = real.query(chain("00000000")), real.query(chain("22222222"))
    assert worst.rank["cifar10_test"] == COUNT
    assert f"{worst.accuracy['cifar10_test']:.2f}" == "45.36"
    assert f"{all_large.accuracy['cifar10_test']:.2f}" == "92.95"


@real_data
def test_the_benchmark_is_all_of_its_file(real):
    content = json.loads(lzma.decompress(FILE.read_bytes()))
    assert len(content) == COUNT
    images = {name: sum(round(100 * x) for x in each["test_acc"]) for name, each in content.items()}
    falling = sorted(images.values(), reverse=True)
    for name, each in content.items():
        answer = real.query(chain(name))
        assert answer.accuracy["cifar10_test"] == pytest.approx(each["mean_acc"], abs=1e-4)
        assert answer.deviation == pytest.approx(each["std"], abs=1e-4)
        assert answer.runs == tuple(round(x, 2) for x in each["test_acc"])
        assert (answer.parameters, answer.flops) == (each["params"], each["flops"]) == costs(name)
        assert answer.rank["cifar10_test"] == falling.index(images[name]) + 1


@real_data
def test_a_stages_identities_may_stand_anywhere_in_it(real):
    assert len({normal(name) for name in NAMES}) == 3_969
    for name in NAMES:
        answer, same = real.query(chain(name)), real.query(chain(normal(name)))
        assert (answer.runs, answer.rank, answer.flops) == (same.runs, same.rank, same.flops)
    best = [name for name in NAMES if real.query(chain(name)).rank["cifar10_test"] == 1]
    assert best == ["22212202", "22212220"]
