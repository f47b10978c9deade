"""Parts of an installed package: by name as ours, and no harm where the package is broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from commands import BRIEF
from tutelage import installed

OFFERED = Path(__file__).parent / "data" / "offered"
SEARCH = Path(__file__).parent.parent / "examples" / "06_own_search.py"
"""The search that the package offers."""
ALL = "--method alone --search cooling --space pooled --data stripes"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip has installed `tests/data/offered` and the example of a search."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    shutil.copytree(OFFERED, source, dirs_exist_ok=True)
    shutil.copy(SEARCH, source / "tutelage_offered" / "search.py")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return target


@pytest.fixture
def call(site, here):
    """Call the command line in a process that has the package."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "200"}

    def run(line, code=0):
        command = [sys.executable, "-m", "tutelage", *line.split()]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        note, *errors = done.stderr.splitlines()
        assert re.fullmatch(
            "tutelage: searches 'darts' of the package tutelage-offered is left out: Tutelage has "
            "that name itself, so the package must choose another",
            note,
        )
        return done.stdout, errors

    return run


def test_parts_of_a_package_are_listed_as_ours(call):
    out, errors = call("list")
    of = r" \(package tutelage-offered\)$"
    assert not errors
    for line in (
        r"^  alone +Alone: one learner whose loss has a factor\." + of,
        r"^  absent +no description" + of,
        r"^  cooling +A search of one's own: DARTS' softmax with a temperature.*" + of,
        r"^  pooled +Cells of skips, poolings and convolutions\." + of,
        r"^  stripes +Stripes: 120 grey images .*" + of,
        r"^  PUBLISHED_ELSEWHERE +tutelage_offered\.genotypes:ELSEWHERE" + of,
        r"^  sgl +SGL: small-group learning",
    ):
        assert re.search(line, out, re.MULTILINE), line


@pytest.mark.slow
def test_a_search_with_parts_of_a_package_is_retrained(call, here):
    out, _ = call("search --method alone --search cooling --help")
    assert re.search(r"--loss-factor FLOAT +Factor of the loss of the weights\.", out)
    assert re.search(r"--end FLOAT +Temperature at the end of the search", out)
    call(f"search {ALL} {BRIEF} --loss-factor 2 --out run")
    settings = tomllib.loads((here / "run" / "run.toml").read_text())
    assert settings["method"] == {"name": "alone", "loss_factor": 2.0}
    assert settings["space"] == {"name": "pooled"}
    out, _ = call("retrain run --epochs 1 --limit-batches 1 --channels 4 --cells 3")
    assert "on 40 images" in out
    out, _ = call("describe run --channels 4 --cells 3")
    assert "parameters" in out
    call(f"search {ALL} --quick --unlabelled stripes --out look")


@pytest.mark.slow
def test_a_package_that_cannot_be_imported_is_named(call):
    _, (error,) = call("search --method absent --out x", code=1)
    assert error == (
        "tutelage: methods 'absent' of the package tutelage-offered cannot be imported: "
        "ModuleNotFoundError: No module named 'tutelage_offered.absent'; mend or uninstall the "
        "package"
    )
    _, (error,) = call("search --loss-facto 3 --out x", code=2)  # looks through all parts
    assert "unknown flag --loss-facto" in error
    out, _ = call("describe published_elsewhere")
    assert "sep_conv_3x3" in out
    _, (error,) = call("search --search coolin --out x", code=1)
    assert error.endswith("did you mean cooling?")


CHAIN = """
epochs = 1
limit_batches = 1
batch_size = 8
evolution = {population = 4, generations = 1, parents = 2, images = 16, judged = 16}
search.name = "single-path"

[space]
name = "shuffle"
candidates = ["identity", "mbconv3_3x3", "ghost"]
widths = [8, 16]
depths = [2, 2]
strides = [1, 2]
stem_channels = 8
last = 16
"""


@pytest.mark.slow
def test_a_space_of_a_page_of_toml_has_a_block_of_a_package(call, here):
    (here / "mine.toml").write_text(CHAIN)
    call("search --recipe mine.toml --max-params 0.02 --out run")
    genotype = json.loads((here / "run" / "genotype.json").read_text())
    genotype["cells"]["chain"]["nodes"] = [[["ghost", k]] for k in range(4)]
    (here / "ghosts.json").write_text(json.dumps(genotype))
    out, _ = call("describe ghosts.json --channels 8 --image-channels 1 --side 8 --json")
    # convolutions: stem 9 * 8; three ghosts to 8 or 16 channels at half by 1x1 and 3x3; last
    halves = [(8, 4), (8, 4), (8, 8), (16, 8)]
    weights = 9 * 8 + sum(n * half + 9 * half + 4 * half for n, half in halves) + 16 * 16
    norms = 2 * (8 + 16)
    assert json.loads(out)["params"] == weights + norms + 16 * 10 + 10
    (here / "mine.toml").write_text(CHAIN.replace("ghost", "flat"))
    _, (error,) = call("search --recipe mine.toml --out other", code=1)
    assert re.search(r"block 'flat' of the package tutelage-offered maps .* must be \(2, 16", error)


class Offer:
    """An entry point of a package."""

    def __init__(self, name, of):
        self.name, self.value = name, "module:attribute"
        self.dist = type("Dist", (), {"name": of})


@pytest.mark.parametrize(
    ("offers", "names", "sentence"),
    [
        ([("mine", "a")], ["mine"], None),
        ([("mine", "a"), ("other", "b")], ["mine", "other"], None),
        ([("sgl", "a"), ("mine", "a")], ["mine"], "methods 'sgl' of the package a .* that name"),
        ([("mine", "a"), ("mine", "b")], [], "'mine' of the package a .*: b has that name too"),
        ([("a:b", "a")], [], "'a:b' of the package a is left out: a name has letters"),
    ],
)
def test_names_that_clash(offers, names, sentence, monkeypatch):
    monkeypatch.setattr(installed, "_offers", lambda: {"methods": [Offer(*x) for x in offers]})
    assert list(installed.added("methods", ["sgl"])) == names
    notes = installed.left_out("methods", ["sgl"])
    assert bool(notes) == bool(sentence)
    if sentence:
        assert re.search(sentence, notes[0])
