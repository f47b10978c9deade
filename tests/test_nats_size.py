"""NATS-Bench's size space: queries of its archive and of a table, in its own texts."""

import bz2
import json
import os
import pickle
from collections import OrderedDict
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from refusals import fails
from tutelage.benchmark import nats_size, stored
from tutelage.benchmark.absent import AbsentError
from tutelage.benchmark.nats_size import ACCURACIES, SETS, is_size
from tutelage.benchmark.table import looked_up, open_table
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.notation import SIZES, read_size, write_size
from tutelage.spaces.published import PUBLISHED, resolve

FOLDER = Path(os.environ.get("TUTELAGE_TEST_TABLES", ""), "NATS-sss-v1_0-50262-simple")
real_data = pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason="TUTELAGE_TEST_TABLES names no folder with NATS-Bench's size archive",
)
WIDTHS = [str(width) for width in range(8, 65, 8)]
NAMES = [":".join(each) for each in product(WIDTHS, repeat=5)]
RUNS = {"01": (777,), "12": (777, 888), "90": (777,)}
EPOCHS = {"01": 1, "12": 12, "90": 90}


def accuracy(index, training, images, key, seed):
    """Invent an accuracy; higher indices have higher ones, but for two equal ones."""
    place = list(SETS.values()).index((training, images))
    return (5 if index == 6 else index) + place + EPOCHS[key] / 100 + (seed - 777) / 1000


def results(index):
    """Write what the archive holds of a network, with invented figures."""
    content = OrderedDict()
    for key, epochs in EPOCHS.items():
        runs = {}
        for training in ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120"):
            tested = [images for each, images in SETS.values() if each == training]
            for seed in RUNS[key]:
                last = {
                    f"{images}@{epochs - 1}": accuracy(index, training, images, key, seed)
                    for images in tested
                }
                runs[training, seed] = {
                    "params": np.float64(0.011 + index / 1e6),
                    "flop": 4.5 if training != "ImageNet16-120" else 1.25,
                    "epochs": epochs,
                    "train_times": OrderedDict((epoch, 2.5) for epoch in range(epochs)),
                    "eval_acc1es": {f"{images}@0": 1.0 for images in tested} | last,
                }
        seeds = {training: list(RUNS[key]) for training, _ in runs}
        content[key] = {"arch_str": NAMES[index], "all_results": runs, "dataset_seed": seeds}
    return content


def write(path, content):
    path.write_bytes(bz2.compress(pickle.dumps(content, 4)))


@pytest.fixture(scope="module")
def meta():
    return bz2.compress(pickle.dumps({"meta_archs": NAMES, "evaluated_indexes": set()}, 4))


@pytest.fixture
def archive(tmp_path, meta):
    """An archive that has the first eight networks."""
    folder = tmp_path / "NATS-sss-v1_0-50262-simple"
    folder.mkdir()
    (folder / "meta.pickle.pbz2").write_bytes(meta)
    for index in range(8):
        write(folder / f"{index:06d}.pickle.pbz2", results(index))
    return folder


@pytest.fixture
def small(archive, monkeypatch):
    """The archive of a space of eight networks, and the table that is made of it."""
    write(archive / "meta.pickle.pbz2", {"meta_archs": NAMES[:8]})
    monkeypatch.setattr(nats_size, "COUNT", 8)
    out = archive.parent / "size.table"
    nats_size.build(archive, out)
    return archive, out


# Texts ------------------------------------------------------------------------------------------


def test_texts_are_widths_in_both_directions():
    assert list(SIZES) == [f"width_{width}" for width in WIDTHS]
    for text in NAMES[::997]:
        assert write_size(read_size(text)) == text
        assert resolve(text) == Genotype.of_chain("nats-size", read_size(text), {})
    assert Genotype.from_json(resolve(NAMES[5]).to_json()) == resolve(NAMES[5])


@pytest.mark.parametrize("text", ["8:8:8:8", "8:8:8:8:8:8", "8:8:8:8:7", "0:8:8:8:8", "72:8:8:8:8"])
def test_other_texts_are_refused(text):
    fails(lambda: resolve(text), repr(text), "a multiple of 8 from 8 to 64")
    fails(lambda: write_size(read_size("8:8:8:8:8")[:4]), "channels of 5 layers")
    fails(lambda: write_size(["mbconv3_3x3"] * 5), "channels of 5 layers")


# The archive ------------------------------------------------------------------------------------


def test_the_archive_answers_with_means_over_runs_at_the_last_epoch(archive):
    table = open_table(archive)
    for index in range(8):
        answer = table.query(resolve(NAMES[index]))
        for name, (training, images) in SETS.items():
            for key, epochs in EPOCHS.items():
                runs = [accuracy(index, training, images, key, seed) for seed in RUNS[key]]
                mean = sum(runs) / len(runs)
                assert answer.accuracy[f"{name}_{epochs}"] == pytest.approx(mean, abs=1e-9)
        assert answer.costs["parameters"] == 11_000 + index
        assert (answer.costs["flops"], answer.costs["flops_imagenet16"]) == (4.5e6, 1.25e6)
        assert (answer.costs["seconds_cifar10"], answer.costs["seeds"]) == (225, 1)
        assert (answer.rank, answer.architecture) == ({}, NAMES[index])
    assert set(looked_up(table, resolve(NAMES[3]))) == set(ACCURACIES)


def test_networks_without_a_file_and_other_spaces(archive):
    table = open_table(archive)
    fails(
        lambda: table.query(resolve(NAMES[8])), "000008.pickle.pbz2 is missing", error=AbsentError
    )
    fails(lambda: table.query(PUBLISHED["DARTS_V2"]), "the space 'darts'", "nats-size")
    assert looked_up(table, resolve("64:64:64:64:64")) == {}


def test_damaged_archives_are_refused_in_one_sentence(archive):
    def ask():
        return open_table(archive).query(resolve(NAMES[1]))

    path = archive / "000001.pickle.pbz2"
    whole = path.read_bytes()
    for content, message in (
        (whole[:-20], "cannot be read"),
        (b"no pickle", "cannot be read"),
        (bz2.compress(b"\0" * (1 << 24), 1), "more than 8,388,608 bytes"),
        (bz2.compress(pickle.dumps(print)), "builtins.print, which is not allowed"),
        (bz2.compress(pickle.dumps([1, 2])), "not a file of NATS-Bench's size space"),
        (bz2.compress(pickle.dumps(results(2))), f"is of {NAMES[2]}, and not of {NAMES[1]}"),
    ):
        path.write_bytes(content)
        fails(ask, "000001.pickle.pbz2", message)
    changed = results(1)
    changed["90"]["all_results"]["cifar10", 777]["eval_acc1es"]["ori-test@89"] = float("nan")
    write(path, changed)
    fails(ask, "must be numbers from 0 up")
    write(archive / "meta.pickle.pbz2", {"meta_archs": ["|none~0|"] * 15_625})
    fails(ask, "names 15,625 networks", "for its topology space use `tutelage table build --nats`")
    write(archive / "meta.pickle.pbz2", {"archs": 1})
    fails(ask, "does not name the networks")


# The table --------------------------------------------------------------------------------------


def test_a_table_has_the_archives_figures_and_ranks(small, tutelage):
    archive, out = small
    table, direct = open_table(out), open_table(archive)
    assert isinstance(table, stored.Table) and table.spaces == ("nats-size",)
    for index in range(8):
        answer = table.query(resolve(NAMES[index]))
        plain = direct.query(resolve(NAMES[index]))
        assert (answer.accuracy, answer.costs) == (plain.accuracy, plain.costs)
        rank = {5: 2, 6: 2, 7: 1}.get(index, 8 - index)  # 5 and 6 are equal
        assert answer.rank == dict.fromkeys(ACCURACIES, rank)
    found = looked_up(table, resolve(NAMES[7]))
    assert found["rank"] == 1 and found["cifar10_test_90"] == pytest.approx(8.9)
    _, text, _ = tutelage(f"query {NAMES[7]} --table {out}")
    assert "NATS-Bench size, one of 8" in text and "cifar10_test_90" in text
    _, text, _ = tutelage(f"query {NAMES[7]} --table {out} --json")
    assert json.loads(text) == table.query(resolve(NAMES[7])).as_dict()
    fails(lambda: table.query(resolve(NAMES[9])), "did not train it", error=AbsentError)
    fails(lambda: table.query(PUBLISHED["DARTS_V2"]), "the space 'darts'")


def test_the_command_makes_it_without_trust_and_replaces_no_other_file(small, tutelage, refused):
    archive, out = small
    before = out.read_bytes()
    code, text, _ = tutelage(f"table build --nats {archive} --out {out}")
    assert code == 0 and str(out) in text and out.read_bytes() == before
    other = out.parent / "notes.txt"
    other.write_text("mine")
    refused(f"table build --nats {archive} --out {other}", "exists and is no table")
    (archive / "000003.pickle.pbz2").unlink()
    refused(f"table build --nats {archive} --out {out.parent}/new", "000003.pickle.pbz2 is missing")
    assert other.read_text() == "mine" and not (out.parent / "new").exists()
    whole = out.parent / "NATS-sss-v1_0-50262.pickle.pbz2"
    whole.write_bytes(b"x")
    refused(f"table build --nats {whole} --out {out}", "give the archive in which each has its own")
    assert not is_size(out.parent)


def test_damaged_tables_are_refused_in_one_sentence(small):
    _, out = small
    whole = out.read_bytes()
    line, _, values = whole.partition(b"\n")
    head = json.loads(line)

    def changed(**more):
        return json.dumps(head | more).encode() + b"\n" + values

    for content, message in (
        (whole[:-8], "cut short or damaged"),
        (line[:200], "is no table, or damaged"),
        (changed(version=2), "version 2: this Tutelage reads 1"),
        (changed(spaces={"nats-size": 9}), "counts that do not fit"),
        (changed(spaces={"nats-size": True}), "other values than it must have"),
        (changed(spaces=[1]), "is no table, or damaged"),
        (changed(architectures=[1] * 8), "other values than it must have"),
        (changed(ranked_by="seeds"), "no score to rank by"),
        (changed(better={"cifar10_test_90": 2}), "no score to rank by"),
        (changed(columns=head["columns"][1:]), "counts that do not fit"),
        (changed(columns=[*head["columns"], "more"]), "cut short or damaged"),
    ):
        out.write_bytes(content)
        fails(lambda: open_table(out), str(out), message)


# The real benchmark -----------------------------------------------------------------------------


@real_data
def test_the_benchmark_answers_its_published_figures():
    answer = open_table(FOLDER).query(resolve("8:8:8:16:32"))  # as its own package answers
    assert answer.accuracy["cifar10_test_90"] == pytest.approx(85.77)
    assert answer.accuracy["cifar10_test_12"] == pytest.approx((80.11 + 79.23 + 80.10) / 3)
    assert (answer.costs["parameters"], answer.costs["flops"]) == (49_202, 6_840_650)
