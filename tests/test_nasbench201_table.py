"""The table of NAS-Bench-201: what is built is what is answered, and every bad file is refused."""

import csv
import gzip
import json
import lzma
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from refusals import fails
from tutelage.benchmark.build import CORE, build, write_table
from tutelage.benchmark.nasbench201 import ACCURACIES, COUNT, MAGIC, Table, position
from tutelage.config import Run
from tutelage.run.search import search_run
from tutelage.spaces.genotype import NASBENCH201_OPERATIONS, Genotype
from tutelage.spaces.published import PUBLISHED
from written_runs import read_rows

TABLES = os.environ.get("TUTELAGE_TEST_TABLES", "")
real_data = pytest.mark.skipif(
    not TABLES, reason="TUTELAGE_TEST_TABLES names no folder with NAS-Bench-201's CSV files"
)
EDGES = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
STRINGS = [EDGES.format(*operations) for operations in product(NASBENCH201_OPERATIONS, repeat=6)]
SKIPS = EDGES.format(*["skip_connect"] * 6)
COLUMNS = {  # the CSV's columns by the names of the answers, written out
    "cifar10_valid_12": "c10_valid_12",
    "cifar10_valid_200": "c10_valid_200",
    "cifar10_test_12": "c10_test_12",
    "cifar10_test_200": "c10_test_200",
    "cifar100_valid_12": "c100_valid_12",
    "cifar100_valid_200": "c100_valid_200",
    "cifar100_test_12": "c100_test_12",
    "cifar100_test_200": "c100_test_200",
    "imagenet16_valid_12": "in16_valid_12",
    "imagenet16_valid_200": "in16_valid_200",
    "imagenet16_test_12": "in16_test_12",
    "imagenet16_test_200": "in16_test_200",
}


def synthetic():
    """Rows for every architecture in a shuffled order of indices, with ties."""
    draw = random.Random(201)
    order = STRINGS[:]
    draw.shuffle(order)
    rows = []
    for index, text in enumerate(order):
        row = dict.fromkeys(CORE, 0) | {"index": index, "arch": text, "n_seeds": 2 + index % 2}
        row |= {column: round(draw.uniform(10, 95), 1) for column in COLUMNS.values()}
        row |= {"params_M": 0.129306, "flops_M": 15.64737, "flops_M_in16": 3.91948}
        row |= {"params_M_arch": 0.157306, "flops_M_arch": 19.57953}
        row |= {f"train_s_{name}_200": draw.random() for name in ("c10valid", "c100", "in16")}
        rows.append(row)
    return rows


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path):
    with lzma.open(path, "rt") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rows():
    return synthetic()


@pytest.fixture(scope="module")
def latencies():
    return [{"index": i, "phone": i / 8, "gpu_32": 1.5} for i in reversed(range(COUNT))]


@pytest.fixture(scope="module")
def files(rows, latencies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("csv")
    return [
        write_csv(folder / "core.csv", rows),
        write_csv(folder / "latency.csv", latencies),
    ]


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    """A table of synthetic figures; not to be written to."""
    path = tmp_path_factory.mktemp("made") / "made.table"
    build(files, path)
    return path


# What a table answers ---------------------------------------------------------------------------


def test_every_row_of_the_files_comes_back(made, rows, latencies):
    table, milliseconds = Table(made), {row["index"]: row["phone"] for row in latencies}
    assert table.devices == ("phone", "gpu_32")
    assert table.sources == ("core.csv", "latency.csv")
    for row in rows:
        answer = table.query(Genotype.from_nasbench201(row["arch"]))
        assert answer.architecture == row["arch"]
        assert (answer.index, answer.seeds) == (row["index"], row["n_seeds"])
        assert answer.accuracy == {name: row[column] for name, column in COLUMNS.items()}
        assert answer.latency == {"phone": milliseconds[row["index"]], "gpu_32": 1.5}
        assert answer.seconds == {
            "cifar10": row["train_s_c10valid_200"],
            "cifar100": row["train_s_c100_200"],
            "imagenet16": row["train_s_in16_200"],
        }
        assert (answer.parameters, answer.parameters_reported) == (157_306, 129_306)
        assert (answer.flops, answer.flops_reported) == (19_579_530, 15_647_370)
        assert answer.flops_imagenet16_reported == 3_919_480


@pytest.mark.parametrize("name", ACCURACIES)
def test_ranks_are_places_in_a_sorted_list(made, rows, name):
    table = Table(made)
    falling = sorted((row[COLUMNS[name]] for row in rows), reverse=True)
    assert len(set(falling)) < COUNT / 10
    for row in rows[::97]:
        answer = table.query(Genotype.from_nasbench201(row["arch"]))
        assert answer.rank[name] == falling.index(row[COLUMNS[name]]) + 1


def test_positions_count_all_architectures_in_order():
    assert [position(Genotype.from_nasbench201(text)) for text in STRINGS] == [*range(COUNT)]


def test_a_table_needs_no_latencies_and_takes_compressed_files(files, made, tmp_path):
    content = files[0].read_bytes()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content, 1))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(content, preset=0))
    build([tmp_path / "a.csv.gz"], tmp_path / "new" / "gz.table")
    build([tmp_path / "a.csv.xz"], tmp_path / "xz.table")
    skips = Genotype.from_nasbench201(SKIPS)
    answers = [Table(tmp_path / each).query(skips) for each in ("new/gz.table", "xz.table")]
    assert answers[0] == answers[1]
    assert answers[0].latency == {}
    assert answers[0].accuracy == Table(made).query(skips).accuracy
    assert "latency" not in answers[0].as_text()


def test_the_text_shows_percent_ranks_and_both_costs(made, rows):
    answer = Table(made).query(Genotype.from_nasbench201(SKIPS))
    text = answer.as_text()
    row = next(row for row in rows if row["arch"] == SKIPS)
    line = next(line for line in text.splitlines() if line.startswith("CIFAR-100"))
    wanted = [f"{row[column]:.2f}" for column in ("c100_valid_12", "c100_valid_200")]
    assert re.findall(r"(\d+\.\d+) %", line) == wanted
    assert line.split()[-1] == f"{answer.rank['cifar100_valid_200']:,}"
    assert "parameters  157,306 (the benchmark reports 129,306)" in text
    assert max(map(len, text.splitlines())) < 100
    assert json.loads(json.dumps(answer.as_dict()))["rank"] == answer.rank


def test_a_query_takes_milliseconds_and_megabytes_and_no_torch(made):
    code = f"""
import resource, sys, time
from tutelage.benchmark.nasbench201 import Table
from tutelage.spaces.genotype import Genotype
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = used()
genotype = Genotype.from_nasbench201({SKIPS!r})
times = []
for _ in range(20):
    start = time.perf_counter()
    Table({str(made)!r}).query(genotype)
    times.append(time.perf_counter() - start)
print(sorted(times)[10], used() - before, "torch" in sys.modules)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds, megabytes, torch = output.stdout.split()
    assert float(seconds) < 0.02
    assert float(megabytes) < 10
    assert torch == "False"
    assert made.stat().st_size < 4e6


# Bad tables -------------------------------------------------------------------------------------


def header_changed(made, **values):
    line, _, records = made.read_bytes().partition(b"\n")
    changed = json.dumps(json.loads(line) | values).encode()
    return changed.ljust(len(line)) + b"\n" + records


TABLE_CASES = {
    "cut short": (lambda made: made.read_bytes()[:-1000], "cut short"),
    "cut in its header": (lambda made: made.read_bytes()[:50], "cut short"),
    "too long": (lambda made: made.read_bytes() + b"\0", "asks for"),
    "empty": (lambda made: b"", "is no table of NAS-Bench-201"),
    "foreign": (lambda made: b"index,arch\n0,x\n", "is no table of NAS-Bench-201"),
    "without devices": (lambda made: MAGIC + b', "version": 1}\n', "cut short or damaged"),
    "newer": (lambda made: header_changed(made, version=2), "read it with the newer one"),
    "older": (lambda made: header_changed(made, version=0), "make it again with `tutelage table"),
    "version in words": (lambda made: header_changed(made, version="1"), "version '1'"),
}


@pytest.mark.parametrize("case", TABLE_CASES)
def test_bad_tables_are_refused_in_one_sentence(made, tmp_path, case):
    content, message = TABLE_CASES[case]
    path = tmp_path / "bad.table"
    path.write_bytes(content(made))
    fails(lambda: Table(path), str(path), message)


def test_a_search_logs_what_the_table_says_and_is_not_moved_by_it(made, tmp_path):
    toy = {"channels": 2, "cells": 1, "epochs": 2, "limit_batches": 2, "batch_size": 4}
    settings = Run(space={"name": "nasbench201"}, via="first-order", **toy)
    search_run(replace(settings, table=made), tmp_path / "told")
    search_run(settings, tmp_path / "untold")
    told, untold = (read_rows(tmp_path / name) for name in ("told", "untold"))
    for row, plain in zip(told[:-1], untold[:-1], strict=True):
        (message,) = row.pop("table")
        answer = Table(made).query(Genotype.from_dict(row["genotype"][0]))
        assert message == {**answer.accuracy, "rank": answer.rank["cifar10_test_200"]}
        assert row == plain
    with pytest.raises(ValueError, match=r"--table with --space darts: .* is of nasbench201"):
        search_run(Run(table=made, **toy), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_missing_table_and_another_space_are_refused(made, tmp_path):
    fails(lambda: Table(tmp_path / "none"), "is no file: make it with `tutelage table build`")
    fails(lambda: Table(tmp_path), "is no file")
    fails(lambda: Table(made).query(PUBLISHED["DARTS_V2"]), "'darts'", "nasbench201's cells")


# Bad CSV files ----------------------------------------------------------------------------------


def without(rows, column):
    return [{key: value for key, value in row.items() if key != column} for row in rows]


def with_first(rows, **values):
    return [rows[0] | values, *rows[1:]]


CSV_CASES = {
    "missing column": (lambda r: without(r, "c10_test_12"), "lacks the columns c10_test_12"),
    "missing architectures": (lambda r: without(r, "arch"), "lacks the columns arch"),
    "missing index": (lambda r: without(r, "index"), "lacks the columns index"),
    "missing row": (lambda r: r[:-1], "15,624 of 15,625 architectures: index 15624 is missing"),
    "doubled row": (lambda r: [*r, r[5]], "has the index 5 twice"),
    "doubled architecture": (lambda r: with_first(r, arch=r[1]["arch"]), "twice"),
    "index too high": (lambda r: with_first(r, index=COUNT), "index 15625: must be 0 to 15,624"),
    "index between": (lambda r: with_first(r, index=0.5), "index 0.5: must be 0 to 15,624"),
    "index in words": (lambda r: with_first(r, index="a"), "index = 'a' must be a number"),
    "no number": (lambda r: with_first(r, c10_test_12="-"), "index 0: c10_test_12 = '-'"),
    "not finite": (lambda r: with_first(r, c10_test_12="nan"), "c10_test_12 = 'nan' must be"),
    "foreign operation": (
        lambda r: with_first(r, arch=SKIPS.replace("skip_connect~2", "skip_conect~2")),
        "index 0: cell 'cell': unknown operation 'skip_conect'",
    ),
    "foreign string": (lambda r: with_first(r, arch="resnet"), "not NAS-Bench-201's string"),
}


@pytest.mark.parametrize("case", CSV_CASES)
def test_bad_rows_are_refused_in_one_sentence(rows, tmp_path, case):
    change, message = CSV_CASES[case]
    core, out = Path("core.csv"), tmp_path / "out.table"
    fails(lambda: write_table(out, core, change(rows), {}), "core.csv", message)
    assert not any(tmp_path.iterdir())


def test_bad_files_are_refused_in_one_sentence(files, tmp_path):
    core, latency = files
    out, path = tmp_path / "out.table", tmp_path / "bad.csv"
    whole = core.read_bytes()
    for name, content in {
        "cut.csv": whole[: len(whole) // 2 - 9],
        "cut.csv.xz": lzma.compress(whole, preset=0)[:-999],
        "cut.csv.gz": gzip.compress(whole, 1)[:-999],
        "damaged.csv.gz": gzip.compress(whole, 1)[:500] + b"x" * 500,
        "plain.csv.xz": whole,
        "plain.csv.gz": whole,
        "bytes.csv": b"\xff\xfe\x00",
        "quote.csv": b'index,arch\n0,"',
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        fails(lambda path=path: build([path], out), str(path), "cut short")
    for content in (b"", b"index,arch\n", b"arch,c10_test_12\nx,1\n", b"index\n1\n"):
        path.write_bytes(content)
        fails(lambda: build([path], out), "no rows of architectures with the official `index`")
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        build([tmp_path / "none.csv"], out)
    fails(lambda: build([latency], out), "none of the CSV files have")
    again = tmp_path / "again.csv"
    again.write_bytes(whole)
    fails(lambda: build([core, again], out), "2 of the CSV files have")
    again.write_bytes(latency.read_bytes())
    fails(lambda: build([core, latency, again], out), str(again), "both give gpu_32")
    assert not out.exists()


def test_only_a_table_is_replaced_and_only_whole(made, files, tmp_path, monkeypatch):
    foreign = tmp_path / "results.csv"
    foreign.write_text("mine")
    fails(lambda: build(files, foreign), "exists and is no table: give another --out")
    assert foreign.read_text() == "mine"
    old = tmp_path / "old.table"
    old.write_bytes(made.read_bytes()[:-1])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        fails(lambda: build(files, old), "no room for")
    assert old.read_bytes() == made.read_bytes()[:-1]
    build(files, old)
    assert old.read_bytes() == made.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["old.table", "results.csv"]


# The command line -------------------------------------------------------------------------------


def test_the_commands_make_and_ask_a_table(tutelage, here, files, made):
    core, latency = files
    for given in (f"--csv {core} --csv {latency}", f"--csv {latency} {core}"):
        code, output, _ = tutelage(f"table build {given} --out nb.table")
        assert (code, output.split()[:2]) == (0, ["Table:", "nb.table;"])
        assert (here / "nb.table").read_bytes() == made.read_bytes()
    genotype = Genotype.from_nasbench201(SKIPS)
    (here / "run").mkdir()
    (here / "run" / "genotype.json").write_text(genotype.to_json())
    answer = Table(made).query(genotype)
    for given in (SKIPS, "run"):
        assert tutelage(f"query {given} --table nb.table") == (0, answer.as_text() + "\n", "")
        _, output, _ = tutelage(f"query {given} --table nb.table --json")
        assert json.loads(output) == answer.as_dict()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("query DARTS_V2 --table {made}", "the genotype is of the space 'darts'"),
        ("query |a~0| --table {made}", "unknown operation 'a'"),
        ("query DARTS_V2 --table none", "none is no file: make it with"),
        ("query DARTS_V2", "--table"),
        ("table build --out t", "from --csv FILE, from --nats PATH"),
        ("table build --csv x.csv --trust-pickle --out t", "from --nats PATH, where the topology"),
        ("table build --csv x.csv --out t", "x.csv: No such file"),
        ("table build --nats x --out t", "give --trust-pickle if you trust"),
        ("table bild", "did you mean build"),
    ],
)
def test_mistakes_are_one_sentence(refused, made, line, message):
    refused(line.format(made=made), re.escape(message))


def test_a_query_on_the_command_line_needs_no_torch(made):
    code = (
        "import sys; from tutelage.cli import main; "
        f"sys.exit = lambda code: None; main(['query', {SKIPS!r}, '--table', {str(made)!r}]); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.endswith("\nFalse\n")
