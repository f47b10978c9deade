"""Parquet files of images, as Hugging Face's datasets writes them."""

from __future__ import annotations

import errno
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from commands import SMALL
from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data import groups as groups_file
from tutelage.data.groups import Cache, Row
from tutelage.data.read import check_test_part, read, read_unlabelled
from tutelage.data.survey import survey

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
NAMES = ("cat", "dog")


def png(value, size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, "PNG")
    return file.getvalue()


def write(path, values, labels, *, names=NAMES, image="image", label="label", group=3, **extra):
    """Write images of one value each as `datasets` does: a structure, and names in the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": x if isinstance(x, bytes) else png(x), "path": None} for x in values]
    columns = {image: pa.array(cells, kind), label: pa.array(labels), **extra}
    features = {image: {"_type": "Image"}}
    if names:
        features[label] = {"names": list(names), "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=group)


@pytest.fixture
def stored(here):
    """Two files to train and one to test, as a repository on the hub has them."""
    data = here / "hub" / "data"
    write(data / "train-00000-of-00002.parquet", range(7), [k % 2 for k in range(7)])
    write(data / "train-00001-of-00002.parquet", range(7, 12), [k % 2 for k in range(7, 12)])
    write(data / "test-00000-of-00001.parquet", range(20, 24), [1, 0, 1, 0])
    return here / "hub"


def values(part):
    return part.images.take(torch.arange(len(part.images)))[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_all_files_of_a_part_are_read_with_the_names_of_the_classes(stored, memory):
    settings = Data(str(stored), memory=memory)
    train, test = read(settings, "train"), read(settings, "test")
    assert (train.classes, train.images.shape) == (NAMES, (3, 8, 8))
    assert (values(train), values(test)) == (list(range(12)), [20, 21, 22, 23])
    assert train.images.labels.tolist() == [k % 2 for k in range(12)]
    assert test.images.labels.tolist() == [1, 0, 1, 0]
    order = torch.tensor([11, 0, 6, 3, 6])
    assert train.images.take(order)[:, 0, 0, 0].tolist() == order.tolist()
    names = train.images.identity().names
    assert names[8] == "data/train-00001-of-00002.parquet:1"


def test_files_of_other_parts_stay_closed(stored):
    (stored / "data" / "test-00000-of-00001.parquet").write_bytes(b"no file")
    assert len(read(Data(str(stored)), "search").images) == 12
    with pytest.raises(DataError, match=r"test-0.*parquet is damaged or no Parquet file"):
        check_test_part(Data(str(stored)))


def test_texts_are_labels_too_and_a_single_file_is_divided_by_class(here):
    labels = ["owl", "ant"] * 5
    write(here / "train.parquet", range(10), labels, names=())
    train, test = read(Data("train.parquet"), "train"), read(Data("train.parquet"), "test")
    assert (train.name, train.classes) == ("train", ("ant", "owl"))
    assert sorted(values(train) + values(test)) == list(range(10))
    assert np.bincount(test.images.labels).tolist() == [1, 1]
    for value, label in zip(values(train), train.images.labels.tolist(), strict=True):
        assert train.classes[label] == labels[value]


def test_other_columns_and_plain_bytes(here):
    coarse = pa.array([0, 0, 1, 1])
    write(
        here / "two" / "train.parquet",
        range(4),
        [0, 1, 2, 3],
        names="abcd",
        image="img",
        label="fine_label",
        coarse_label=coarse,
    )
    assert read(Data("two", held_out=1), "train").classes == tuple("abcd")
    found = read(Data("two", held_out=1, label_column="coarse_label"), "train")
    assert found.classes == ("0", "1")
    kind = pa.dictionary(pa.int32(), pa.string())
    plain = {"jpg": [png(k) for k in range(4)], "class": pa.array(list("abab")).cast(kind)}
    (here / "plain").mkdir()
    pq.write_table(pa.table(plain), here / "plain" / "0.parquet")
    assert read(Data("plain"), "train").classes == ("a", "b")


def test_unlabelled_files_need_no_labels(stored, here):
    write(here / "u" / "x.parquet", range(3), [-1, -1, -1])
    settings = Data(str(stored), unlabelled="u")
    found, index = read_unlabelled(settings, read(settings, "search"), torch.arange(4))
    assert values(found) == [0, 1, 2]
    assert index.tolist() == [0, 1, 2]


def test_mistakes_are_sentences(stored, here, refused, monkeypatch):
    first = stored / "data" / "train-00000-of-00002.parquet"
    write(first, [1, b"no image", 3], [0, 1, 0])
    refused("data hub", r"row 1 of .*train-00000-of-00002\.parquet is not a readable image")
    write(first, [1, b"", 3], [0, 1, 0])
    refused("data hub", r"row 1 of .* its bytes are not in the file")
    write(first, [1, 2, 3], [0, -1, 0])
    refused("data hub", r"row 1 of .*: label = -1 \(-1 means that there is none\): must be from 0")
    write(first, [1, 2, 3], [0, 1, 2])
    refused("data hub", "row 2 of .*: label = 2: must be from 0 to 1")
    write(first, [1, 2, 3], [0, 1, 0], names=("cat", "cow"))
    refused("data hub", "have other classes for label")
    write(first, [1, 2, 3], [0.5, 1, 0], names=())
    refused("data hub", "the column label is double: labels must be whole numbers or texts")
    write(first, [1, 2, 3], [0, 1, 0], label="truth", names=())
    refused("data hub", "has the columns truth; give --data.label-column")
    pq.write_table(pa.table({"a": [1], "label": [1]}), first)
    refused("data hub", r"has no column of images called image, .*: it has a \(int64\), label")
    write(stored / "data" / "more.parquet", [1], [0])
    refused("data hub", r"more\.parquet is of no part, and other files of .*hub are")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refused("data hub/data/more.parquet", r"need an extra: pip install 'tutelage\[parquet\]'")


def test_a_survey_says_what_is_converted_of_bytes_too(here):
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (9, 9, 9, 100)).save(file, "PNG")
    write(here / "train.parquet", [*range(4), file.getvalue(), png(3)], [0, 1, 0, 1, 0, 1])
    found = survey(Data("train.parquet"))
    assert sum(part.converted["alpha"] for part in found.parts.values()) == 1
    assert {name for part in found.parts.values() for name in part.files} == {".parquet"}
    assert found.problems == []


# Memory -----------------------------------------------------------------------------------------


def rows_of(here, count=40, group=4):
    write(here / "x.parquet", range(count), [0, 1] * (count // 2), group=group)
    places = ((k // group, k % group, k) for k in range(count))
    return [Row("x.parquet", "image.bytes", *place) for place in places]


def test_a_group_is_read_once_for_all_threads_and_few_are_kept(here):
    rows, cache = rows_of(here), Cache(most=2000, folder=str(here))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(cache.bytes_of, rows))
    assert found == [png(k) for k in range(40)]
    assert cache.read == 10
    assert 0 < cache.size <= 2000
    assert len(cache._held) < 10
    order = np.random.default_rng(0).permutation(40).tolist()
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(cache.bytes_of, [rows[k] for k in order]))
    assert again == [png(k) for k in order]
    assert cache.read == 10  # from the temporary file
    assert sorted(x.name for x in here.iterdir()) == ["x.parquet"]  # which has no name


def test_a_full_disk_is_said_and_groups_are_read_again(here, monkeypatch, capsys):
    rows, cache = rows_of(here, 8), Cache(most=1, folder=str(here))

    def full(self, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(groups_file.Spool, "add", full)
    found = [cache.bytes_of(row) for row in (rows[0], rows[4], rows[0], rows[1], rows[5])]
    assert found == [png(k) for k in (0, 4, 0, 1, 5)]
    assert (cache.read, len(cache._held)) == (4, 1)
    out = capsys.readouterr().out
    assert out.count("takes no more images of Parquet files (No space left on device)") == 1


def test_a_file_that_is_written_again_is_read_again_and_large_groups_are_refused(here, monkeypatch):
    rows, cache = rows_of(here, 8), Cache()
    assert cache.bytes_of(rows[1]) == png(1)
    write(here / "x.parquet", range(10, 18), [0, 1] * 4)
    assert cache.bytes_of(rows[1]) == png(11)
    monkeypatch.setattr(groups_file, "LARGEST", 10)
    with pytest.raises(DataError, match=r"has a row group of .*; write it again with smaller"):
        cache.bytes_of(rows[5])


@pytest.mark.slow
def test_a_run_on_parquet_resumes_and_sees_changes(stored, tutelage):
    line = f"{SMALL} --limit-batches 1 --epochs 1"
    code, _, error = tutelage(f"search --data hub --via first-order {line} --out run")
    assert code == 0, error
    code, _, error = tutelage(f"retrain run {line} --auxiliary 0")
    assert code == 0, error
    assert tutelage("test run/retrain --data hub/data/test-00000-of-00001.parquet")[0] == 0
    assert tutelage("search --resume run")[0] == 0
    write(stored / "data" / "train-00000-of-00002.parquet", range(1, 8), [k % 2 for k in range(7)])
    code, _, error = tutelage("search --resume run")
    assert code == 1
    assert "was begun with other images" in error
    assert "such as data/train-00000-of-00002.parquet:0" in error
