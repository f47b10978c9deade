"""TransNAS-Bench-101: its file as torch.save wrote it, made a table, asked in its own texts."""

import json
import pickle
from itertools import product

import numpy as np
import pytest
import torch

from tutelage.benchmark import transnas
from tutelage.benchmark.absent import AbsentError
from tutelage.benchmark.table import open_table
from tutelage.spaces.notation import (
    read_micro,
    read_modules,
    write_micro,
    write_modules,
)
from tutelage.spaces.published import resolve

METRICS = {
    "class_object": ["valid_top1", "test_top1", "test_loss", "time_elapsed"],
    "room_layout": ["valid_neg_loss", "test_loss"],
    "normal": ["test_ssim"],
}
COSTS = ["inference_time", "encoder_params"]
MICRO = [f"64-41414-{a}_{b}{c}_{x}{y}{z}" for a, b, c, x, y, z in product("0123", repeat=6)]
MACRO = [f"64-{''.join(each)}-basic" for n in (4, 5, 6) for each in product("1234", repeat=n)]
NAMES = {"macro": MACRO[:5], "micro": MICRO[-6:]}


def figure(place, column):
    """Invent a figure of the last epoch; the values of a column all differ."""
    return (place * 7 + column) % 11 + place / 100


def network(place):
    """Write what the file holds of a network; the third has no results for one task."""
    found = {}
    for number, (task, metrics) in enumerate(METRICS.items()):
        curves = {
            name: [99.0, -1.0, figure(place, 10 * number + column)]
            for column, name in enumerate(metrics)
        }
        costs = {"inference_time": np.float64(place / 8), "encoder_params": 1000 + place}
        found[task] = {"total_epochs": 3, "model_info": costs, "metrics": curves}
    if place == 3:
        del found["normal"]
    return found


def content():
    names = [(space, text) for space, texts in NAMES.items() for text in texts]
    data = {space: {} for space in NAMES}
    for place, (space, text) in enumerate(names):
        data[space][text] = network(place)
    tasks = list(METRICS)
    return {"metrics_dict": METRICS, "info_names": COSTS, "task_list": tasks, "data": data}


@pytest.fixture(params=["zip", "legacy"])
def file(request, tmp_path):
    path = tmp_path / "transnas-bench_v10141024.pth"
    torch.save(content(), path, _use_new_zipfile_serialization=request.param == "zip")
    return path


def test_texts_are_cells_and_modules_in_both_directions():
    for text in MICRO[::97]:
        assert write_micro(read_micro(text)) == text
        genotype = resolve(text)
        assert genotype.names == read_micro(text) and genotype.space == "transnas-micro"
    for text in MACRO[::97]:
        assert write_modules(read_modules(text)) == text
        assert resolve(text).names == read_modules(text)
    # as its authors explain these two
    nodes = resolve("64-41414-1_02_333").cells["cell"].nodes
    assert nodes[0] == (("skip_connect", 0),)
    assert nodes[1] == (("none", 0), ("nor_conv_1x1", 1))
    assert nodes[2] == (("nor_conv_3x3", 0), ("nor_conv_3x3", 1), ("nor_conv_3x3", 2))
    assert read_modules("64-1234-basic")[2] == "module_smaller"


@pytest.mark.parametrize(
    "text",
    ["64-12-basic", "64-1235-basic", "64-1111111-basic", "64-41414-1_02_33", "64-41414-4_02_333"],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="of TransNAS-Bench-101"):
        resolve(text)
    with pytest.raises(ValueError, match="unknown operation 'sep_conv_3x3'"):
        write_micro(["sep_conv_3x3"] * 6)
    with pytest.raises(ValueError, match="unknown operation"):
        write_modules(["none"] * 4)


def test_a_table_has_the_last_epoch_and_ranks_within_a_space(file, tmp_path, tutelage):
    out = tmp_path / "transnas.table"
    code, text, _ = tutelage(f"table build --transnas {file} --out {out}")
    assert code == 0 and str(out) in text
    table = open_table(out)
    assert table.spaces == ("transnas-macro", "transnas-micro")
    assert table.ranked_by == "class_object_valid_top1"
    place = 0
    for space, texts in NAMES.items():
        places = range(place, place + len(texts))
        for text in texts:
            answer = table.query(resolve(text))
            assert answer.count == len(texts) and answer.architecture == text
            for number, (task, metrics) in enumerate(METRICS.items()):
                for column, metric in enumerate(metrics):
                    at, name = 10 * number + column, f"{task}_{metric}"
                    if (place, task) == (3, "normal"):
                        assert name not in answer.accuracy
                        continue
                    values = answer.costs if "time" in metric else answer.accuracy
                    assert values[name] == figure(place, at)
                    if "time" in metric:
                        continue
                    others = [figure(x, at) for x in places if (x, task) != (3, "normal")]
                    down = metric != "test_loss"
                    order = sorted(others, reverse=down)
                    assert answer.rank[name] == order.index(figure(place, at)) + 1, (space, name)
                if (place, task) != (3, "normal"):
                    assert answer.costs[f"{task}_inference_time"] == place / 8
                    assert answer.costs[f"{task}_encoder_params"] == 1000 + place
            place += 1
    with pytest.raises(AbsentError, match="did not train it"):
        table.query(resolve("64-444444-basic"))
    _, text, _ = tutelage(f"query {MICRO[-1]} --table {out} --json")
    assert json.loads(text) == table.query(resolve(MICRO[-1])).as_dict()


def fails(path, out, message):
    with pytest.raises(ValueError, match=message) as caught:
        transnas.build(path, out)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def bad(change):
    found = content()
    change(found)
    return found


BAD = {
    "another": (lambda: {"state_dict": {}}, "is not the file of TransNAS-Bench-101"),
    "a list": (lambda: [1], "is not the file of"),
    "no names": (lambda: bad(lambda c: c.update(task_list=[1])), "is not the file of"),
    "no networks": (lambda: bad(lambda c: c.update(data={})), "has no networks"),
    "empty curve": (
        lambda: bad(
            lambda c: c["data"]["macro"][MACRO[0]]["normal"]["metrics"].update(test_ssim=[])
        ),
        "is not the file of",
    ),
    "tensors": (lambda: {"w": torch.zeros(2)}, "cannot be read as TransNAS-Bench-101"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_files_are_refused_in_one_sentence(tmp_path, case):
    make, message = BAD[case]
    for new in (True, False):
        path = tmp_path / f"{new}.pth"
        torch.save(make(), path, _use_new_zipfile_serialization=new)
        fails(path, tmp_path / "out", message)
    assert not (tmp_path / "out").exists()


def test_damaged_files_are_refused_in_one_sentence(file, tmp_path, refused, monkeypatch):
    build = f"table build --out {tmp_path}/out --transnas"
    whole = file.read_bytes()
    for change in (whole[: len(whole) // 2], b"", b"# a page", pickle.dumps(1)):
        file.write_bytes(change)
        fails(file, tmp_path / "out", "cannot be read as TransNAS-Bench-101")
    file.write_bytes(whole)
    monkeypatch.setattr(transnas, "LARGEST", 100)
    fails(file, tmp_path / "out", "more than 100 bytes")
    refused(f"{build} {tmp_path}/none.pth", "cannot be read")
    refused(f"{build} {file} --trust-pickle", "made from that file alone")
    refused(f"table build --out {tmp_path}/out", "from --csv FILE, from --nats PATH")
