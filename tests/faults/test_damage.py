"""Every file of a run damaged in every way: a sentence or the same result, never a traceback."""

from __future__ import annotations

import ast
import gzip
import json
import lzma
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from damage import DEEP, call, damages, of_json, packed, plain
from damage_runs import Scene, campaign, tried

import tutelage
from tutelage.formats import DEEPEST, from_json, from_toml, read_packed
from tutelage.run.networks.files import FILE, About, about, load

ROOT = Path(tutelage.__file__).parent
LINE = "search --resume {run}"


SEED = int(os.environ.get("FAULT_SEED", 0))
KINDS = {
    **dict.fromkeys(("search", "retraining", "pool", "members", "ranking", "evolving"), 150),
    **dict.fromkeys(("finished", "ensemble", "evolved", "study", "given"), 60),
}
"""How scenes' names begin, and how many damages of each the whole campaign tries."""


def right(scene: Scene, place: Path, most: int | None, seed: int = 0) -> int:
    """Check a sample of damages of a scene; return how many commands were called."""
    verdicts = list(campaign(scene, place / "work", most, seed))
    assert len(verdicts) >= len(scene.commands)
    assert not [str(each) for each in verdicts if each.wrong]
    return len(verdicts)


@pytest.mark.parametrize("name", ["search", pytest.param("retraining", marks=pytest.mark.slow)])
def test_a_run_in_its_midst_resumes_or_says_why_not(searched, tmp_path, name):
    right(searched[name], tmp_path, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["search", "retraining", "finished"])
def test_a_search_and_a_retraining(searched, tmp_path, name):
    right(searched[name], tmp_path, 24, seed=1)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run(everything, tmp_path, figures, kind):
    for scene in everything:
        if scene.name.split()[0] == kind:
            tried = right(scene, tmp_path, KINDS[kind], seed=2 + SEED)
            figures["commands on damaged files"] += tried
    assert figures["commands on damaged files"] >= KINDS[kind]


# What is not needed stops nothing ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["closed brackets", "list", "object", "number", "no UTF-8"])
def test_a_diary_that_cannot_be_read_is_put_aside_and_that_is_said(searched, tmp_path, kind):
    scene = searched["search"]
    run = Path(shutil.copytree(scene.folder, tmp_path / "run"))
    diary = run / "environment.json"
    [text] = [x.make() for x in of_json(diary.read_bytes()) if x.name == kind]
    diary.write_bytes(text)
    outcome = call("search", "--resume", run)
    assert outcome.kind == "done"
    assert (run / "genotype.json").read_bytes() == (scene.whole / "genotype.json").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (scene.whole / "metrics.jsonl").read_bytes()
    if kind != "object":  # an empty one holds no sessions, and is no damage
        assert re.search(r"environment\.json is damaged: .*\.damaged\.json", outcome.text)
        assert (run / "environment.damaged.json").read_bytes() == text
    assert json.loads(diary.read_text())["sessions"][-1]["from_epoch"] == 1


def test_a_report_names_what_it_leaves_out(searched, tmp_path):
    run = Path(shutil.copytree(searched["finished"].folder, tmp_path / "run"))
    (run / "environment.json").write_bytes(b"[" * DEEP)
    (run / "retrain" / "result.json").write_text("[]")
    assert call("report", run).kind == "done"
    page = (run / "report.html").read_text()
    for name in ("environment.json", "retrain/result.json"):
        assert f"{name} is damaged and left out: " in page


@pytest.mark.parametrize("kind", ["removed", "cut", "other"])
def test_no_split_is_guessed(searched, tmp_path, kind):
    run = Path(shutil.copytree(searched["search"].folder, tmp_path / "run"))
    split = run / "split.npz"
    content = {"removed": None, "cut": split.read_bytes()[:99], "other": packed({"a": [1]})}[kind]
    split.unlink() if content is None else split.write_bytes(content)
    outcome = call("search", "--resume", run)
    assert outcome.kind == "refused"
    assert "split.npz is not a stored split" in outcome.text
    assert "restore it, or start the search again" in outcome.text


# Networks, which no command reads alone ---------------------------------------------------------


@pytest.mark.parametrize("most", [60, pytest.param(None, marks=[pytest.mark.slow])])
def test_a_networks_file_is_read_or_named(searched, tmp_path, most):
    path = searched["finished"].folder / "retrain" / FILE
    cases = damages(path)
    for place, each in enumerate(cases):
        if most and place % (len(cases) // most):
            continue
        damaged = tmp_path / FILE
        damaged.write_bytes(each.make())
        for read in (about, load):
            try:
                found = read(damaged)
            except ValueError as error:
                assert str(damaged) in str(error), each.name
            else:
                assert isinstance(found, (torch.nn.Module, About)), each.name  # it is readable


# One reader for each format ---------------------------------------------------------------------

READERS = {
    "json.load": set(),
    "json.loads": {"formats.py"},
    "tomllib.load": set(),
    "tomllib.loads": {"formats.py"},
    "np.load": {"data/digits.py", "records/predictions.py"},  # of the package; bounded there
    "np.lib.format.read_array": {"data/splits.py"},
    "torch.load": {"run/job/checkpoint.py"},
    "pickle.load": set(),
    "pickle.loads": set(),
    "pickle.Unpickler": {"benchmark/pickled.py", "data/cifar.py"},  # both restricted
}
"""What reads a format, and the files that may call it."""


def test_every_format_has_one_reader():
    found: dict[str, set[str]] = {name: set() for name in READERS}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in found:
                found[name].add(path.relative_to(ROOT).as_posix())
    assert found == READERS


@pytest.mark.parametrize(
    "text",
    ["[" * DEEP, "[" * DEEP + "]" * DEEP, '{"a":' * 65 + "1" + "}" * 65, "9" * 19, '"\\ud800"'],
)
def test_json_has_bounds(text):
    with pytest.raises(ValueError):
        from_json(text)


def test_json_of_a_bearable_depth_is_read():
    deepest = "[" * DEEPEST + "]" * DEEPEST
    assert str(from_json(deepest)) == deepest
    with pytest.raises(ValueError, match=f"more than {DEEPEST} levels deep"):
        from_json(f"[{deepest}]")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * DEEP,
        ".".join(["a"] * DEEP) + " = 1",
        " . ".join(["'a b'"] * DEEP) + " = 1",
        "[" + ".".join(["a"] * DEEP) + "]",
        f"a = {2**64}",
        "a = " + "9" * 10_000,
        "a = '" + "x" * 2**22 + "'",
    ],
    ids=lambda text: text[:12],
)
def test_toml_has_bounds(text):
    with pytest.raises(ValueError):
        from_toml(text)


def test_toml_of_settings_is_read():
    assert from_toml("a.b.c = [[1.5, 2.5]]\ns = 'a.b.c.d'") == {
        "a": {"b": {"c": [[1.5, 2.5]]}},
        "s": "a.b.c.d",
    }
    assert from_toml(f"seed = {2**63}")["seed"] == 2**63


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_a_packed_file_that_grows_without_end_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("tutelage.formats.LARGEST", 2**16)
    pack = {"gz": gzip.compress, "xz": lzma.compress}[kind]
    path = tmp_path / f"table.{kind}"
    path.write_bytes(pack(bytes(2**16)))
    assert len(read_packed(path)) == 2**16
    path.write_bytes(pack(bytes(2**16 + 1)))
    with pytest.raises(ValueError, match="holds more than 65,536 bytes"):
        read_packed(path)


def test_the_campaign_sees_what_is_wrong(searched, tmp_path, monkeypatch):
    """Otherwise the tests above show nothing."""
    scene = searched["search"]
    [resume] = scene.commands
    other = Path(shutil.copytree(scene.whole, tmp_path / "other"))
    (other / "metrics.jsonl").write_bytes((other / "metrics.jsonl").read_bytes() + b"{}\n")
    against = replace(scene, whole=other)
    diary = "environment.json", plain("an object", b"{}")
    assert tried(scene, *diary, resume, tmp_path / "work").kind == "done"
    assert tried(against, *diary, resume, tmp_path / "work").other == "metrics.jsonl"
    monkeypatch.setattr(
        "tutelage.run.job.directory.read_json",
        lambda path: json.loads(path.read_text())["sessions"],
    )
    assert tried(scene, *diary, resume, tmp_path / "work").kind == "traceback"
