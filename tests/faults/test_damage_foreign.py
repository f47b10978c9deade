"""Files that others may have made: none runs code, writes elsewhere, or fills the memory."""

from __future__ import annotations

import csv
import gzip
import io
import pickle
import re
import shutil
import tarfile
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from damage import Runs

from test_data_readers import make_cifar10
from test_data_shards import jpeg, write
from tutelage.benchmark.table import open_table
from tutelage.config import Data
from tutelage.data import DataError, cifar, shards
from tutelage.data.cifar import unpickle
from tutelage.data.read import read
from tutelage.data.splits import load_split
from tutelage.report.page import write_report
from tutelage.run.job import checkpoint
from tutelage.run.networks.files import load
from tutelage.study.results.files import runs_csv
from tutelage.study.results.measures import Measure, Measured
from written_runs import read_rows, write_retraining, write_rows, write_search


def short(text):
    """Push a text, as protocol 4 does."""
    return b"\x8c" + bytes([len(text)]) + str(text).encode()


def found(module, name):
    """Push what a module calls by a name, as protocol 4 does."""
    return short(module) + short(name) + b"\x93"


def opcodes(path):
    """Pickles that make a folder where an ordinary unpickler reads them, by how they ask for it."""
    command, code = f"mkdir {path}", f"__import__('os').mkdir('{path}')"
    text = f"X{chr(len(command))}\0\0\0{command}".encode()
    system, call = b"cos\nsystem\n", text + b"\x85R."
    array = np.empty(1, dtype=object)
    array[0] = Runs(path)
    member = found("builtins", "getattr") + found("os", "system") + short("__call__") + b"\x86R"
    return {
        "reduce": pickle.dumps({b"data": Runs(path)}, protocol=2),
        "protocol 0": pickle.dumps(Runs(path), protocol=0),
        "protocol 5": pickle.dumps(Runs(path), protocol=5),
        "global": b"\x80\x02" + system + call,
        "python 2": b'c__builtin__\neval\n(S"' + code.encode() + b'"\ntR.',
        "inst": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "obj": b"\x80\x02(" + system + text + b"o.",
        "newobj": b"\x80\x02csubprocess\nPopen\n" + text + b"\x85\x81.",
        "stack global": b"\x80\x04" + found("os", "system") + call,
        "getattr": b"\x80\x04" + member + call,
        "a dotted name": b"\x80\x04" + found("numpy", "os.system") + call,
        "of an allowed module": b"\x80\x04" + found("numpy", "load") + call,
        "objects in an array": pickle.dumps({b"data": array}, protocol=2),
        "state of a function": b"\x80\x02c_codecs\nencode\n}X\x08\0\0\0__code__K\x01sb.",
        "states of a function": b"\x80\x02c_codecs\nencode\nN}X\x08\0\0\0__code__K\x01s\x86b.",
        "state of a class": b"\x80\x02cnumpy\ndtype\n}X\x08\0\0\0__init__K\x01sb.",
        "extension": b"\x80\x02\x82\x01" + call,
        "persistent": b"\x80\x02" + text + b"Q.",
    }


KINDS = list(opcodes("x"))


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_batches_run_nothing(tmp_path, kind):
    attack = opcodes(tmp_path / "made")[kind]
    with pytest.raises(DataError, match="batch 1"):
        unpickle(attack, "batch 1")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("kind", ["reduce", "global", "python 2", "stack global", "getattr"])
def test_these_attacks_work_on_who_unpickles(tmp_path, kind):
    """Otherwise the tests above show nothing."""
    pickle.loads(opcodes(tmp_path / "made")[kind])
    assert (tmp_path / "made").is_dir()


def hostile(kind):
    """A pickled array of this type, over eight bytes that would be a pointer."""
    array = np.arange(1, dtype=np.int64)
    made = pickle.dumps({b"data": array}, protocol=2)
    return made.replace(b"X\x02\x00\x00\x00i8", b"X" + bytes([len(kind), 0, 0, 0]) + kind)


@pytest.mark.parametrize("kind", [b"O8", b"O", b"V8", b"f8", b"i8,O", b"M8[s]", b"S8", b"?"])
def test_arrays_of_other_types_are_never_made(kind):
    with pytest.raises(DataError, match=r"other|not a pickled batch"):
        unpickle(hostile(kind), "batch")


def test_an_array_is_what_numpy_would_make():
    assert unpickle(hostile(b"i8"), "batch")["data"].tolist() == [0]
    for array in (
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    ):
        for protocol in (2, 3, 4):
            content = pickle.dumps({"data": array}, protocol=protocol)
            got = unpickle(content, "batch")["data"]
            assert got.dtype == array.dtype and np.array_equal(got, array)
    with pytest.raises(DataError):  # more values than there are bytes
        unpickle(
            pickle.dumps({"data": np.arange(2)}, protocol=2).replace(b"K\x02\x85", b"K\x09\x85"),
            "b",
        )


@pytest.mark.parametrize("kind", ["reduce", "protocol 5", "global", "stack global"])
def test_torch_files_run_nothing(tmp_path, kind):
    content = opcodes(tmp_path / "made")[kind]
    (tmp_path / checkpoint.NEWEST).write_bytes(content)  # a legacy file is a bare pickle
    with pytest.raises(ValueError, match="checkpoint"):
        checkpoint.load(tmp_path)
    torch.save({"format": checkpoint.FORMAT, "version": 2, "state": Runs(tmp_path / "made")},
               tmp_path / checkpoint.NEWEST)  # fmt: skip
    with pytest.raises(ValueError, match="truncated or no checkpoint"):
        checkpoint.load(tmp_path)
    (tmp_path / "network.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="no safetensors file"):
        load(tmp_path / "network.safetensors")
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_that_is_packed_is_refused(tmp_path):
    """What torch writes is stored as it is; a packed one may grow a thousandfold."""
    import zipfile

    torch.save({"format": checkpoint.FORMAT, "version": 2, "state": {}}, tmp_path / "plain")
    with (
        zipfile.ZipFile(tmp_path / "plain") as plain,
        zipfile.ZipFile(tmp_path / checkpoint.NEWEST, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry))
    with pytest.raises(ValueError, match="is not a checkpoint of this package"):
        checkpoint.load(tmp_path)


def test_a_split_runs_nothing(tmp_path):
    array = np.empty(1, dtype=object)
    array[0] = Runs(tmp_path / "made")
    for content in ({"train": array, "valid": array}, {"train": np.arange(2), "valid": array}):
        np.savez(tmp_path / "split.npz", **content)
        with pytest.raises(DataError, match="Object arrays cannot be loaded"):
            load_split(tmp_path / "split.npz", 2)
    (tmp_path / "split.npz").write_bytes(pickle.dumps(Runs(tmp_path / "made")))
    with pytest.raises(DataError, match="not a stored split"):
        load_split(tmp_path / "split.npz", 2)
    assert not (tmp_path / "made").exists()


def test_a_table_runs_nothing(tmp_path):
    path = tmp_path / "table"
    for content in (pickle.dumps(Runs(tmp_path / "made")), gzip.compress(b"[" * 10**6)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no table"):
            open_table(path)
    assert not (tmp_path / "made").exists()


# Archives ---------------------------------------------------------------------------------------


def archive(root, entries):
    """Write CIFAR-10's packed file with these entries: (name, content or (kind, target))."""
    root.mkdir(exist_ok=True)
    path = root / cifar.CIFAR10.file
    with tarfile.open(path, "w:gz") as packed:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                entry.type, entry.linkname = content
                packed.addfile(entry)
            else:
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
    return path


def official(root):
    """The entries of a small CIFAR-10."""
    make_cifar10(root)
    folder = root / cifar.CIFAR10.folder
    found = [(f"{folder.name}/{x.name}", x.read_bytes()) for x in sorted(folder.iterdir())]
    shutil.rmtree(folder)
    return found


def test_what_climbs_out_of_an_archive_is_not_written(tmp_path):
    root = tmp_path / "inside" / "root"
    root.mkdir(parents=True)
    outside = [("../../climbed", b"x"), (str(tmp_path / "absolute"), b"x"), ("../root/near", b"x")]
    archive(root, [*outside, *official(root)])
    assert len(read(Data("cifar10", root=root), "train").images) == 20
    names = {x.relative_to(tmp_path).as_posix() for x in tmp_path.rglob("*") if x.is_file()}
    assert names == {f"inside/root/{cifar.CIFAR10.file}"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_in_an_archive_are_not_followed(tmp_path, kind):
    (tmp_path / "secret").write_bytes(pickle.dumps({b"label_names": [b"a"] * 10}))
    entries = [(name, x) for name, x in official(tmp_path) if not name.endswith("batches.meta")]
    meta = f"{cifar.CIFAR10.folder}/batches.meta"
    archive(tmp_path, [(meta, (kind, str(tmp_path / "secret"))), *entries])
    with pytest.raises(DataError, match=r"lacks batches\.meta"):
        read(Data("cifar10", root=tmp_path), "train")


def test_archives_that_grow_without_end_are_refused(tmp_path, monkeypatch):
    entries = official(tmp_path)
    monkeypatch.setattr(cifar, "LARGEST_FILE", 2**20)
    archive(tmp_path, [("bomb", bytes(2**21)), *entries])
    with pytest.raises(DataError, match="bomb is too large for a set of images"):
        read(Data("cifar10", root=tmp_path), "train")
    monkeypatch.setattr(cifar, "LARGEST_ARCHIVE", 2**22)
    archive(tmp_path, [*((f"bomb-{k}", bytes(2**20)) for k in range(8)), *entries])
    with pytest.raises(DataError, match="is too large for a set of images"):
        read(Data("cifar10", root=tmp_path), "train")


@pytest.mark.parametrize("label", [b"1" + b"0" * 15, b"9" * 10_000, b"", b"1e3"])
def test_labels_of_shards_are_numbers_of_classes(tmp_path, label):
    write(tmp_path / "train-0.tar", {"a.jpg": jpeg(), "a.cls": label})
    with pytest.raises(DataError, match="damaged or no tar file of samples"):
        shards.index(tmp_path / "train-0.tar")


def test_links_in_shards_are_not_followed(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    with tarfile.open(tmp_path / "train-0.tar", "w") as shard:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            entry = tarfile.TarInfo(f"{kind.decode()}.jpg")
            entry.type, entry.linkname = kind, str(tmp_path / "secret.jpg")
            shard.addfile(entry)
    with pytest.raises(DataError, match="holds no images"):
        shards.index(tmp_path / "train-0.tar")


# Names in pages and tables ----------------------------------------------------------------------

NAME = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
LOADED = ("src", "href", "srcset", "action", "poster", "data", "background", "xlink:href")


class Page(HTMLParser):
    """What a page asks for, and the elements that it has."""

    def __init__(self):
        super().__init__()
        self.asked, self.elements, self.attributes = [], set(), set()

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.asked += [x for name, x in attrs if name in LOADED and x]


def checked(text):
    """Check that a page runs no script of a name's, and asks the network for nothing."""
    page = Page()
    page.feed(text)
    assert not page.elements & {"script", "img", "iframe", "object", "embed", "base"}
    assert not {name for name in page.attributes if name.startswith("on")}
    assert all(x.startswith(("#", "data:")) or "/" not in x for x in page.asked), page.asked
    assert not re.search(r"@import|url\((?!['\"]?(#|data:))", text)
    return text


def test_names_in_a_page_are_text_and_it_asks_for_nothing(tmp_path):
    run = write_search(tmp_path / NAME.replace("/", "_"), method=NAME, data={"name": NAME})
    write_retraining(run / "retrain")
    rows = read_rows(run)
    for row in rows:
        if "warnings" in row:
            row["warnings"] = [NAME]
        row["loss"] = {NAME: 1.0}
    write_rows(run, rows)
    (run / "environment.json").write_text(f'{{"sessions": [{{"system": {NAME!r}}}')
    text = checked(write_report([run], tmp_path / "page.html").read_text())
    assert "&lt;script&gt;alert(" in text
    checked(write_report([run, run], tmp_path / "both.html").read_text())


@pytest.mark.parametrize("name", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1"])
def test_names_in_a_table_are_no_formulas(name):
    measured = Measured(Measure("test error (%)", lambda _: None), {name: {1: -1.5}})
    (row,) = csv.DictReader(io.StringIO(runs_csv([measured]), newline=""))
    assert row["configuration"] == f"'{name}" and row["value"] == "-1.5"
