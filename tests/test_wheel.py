"""The release: `pip wheel` gives one pure wheel, with every file of the package and no others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from email import message_from_bytes
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from commands import TINY

ROOT = Path(__file__).parent.parent
RELEASE = f"tutelage-{version('tutelage')}"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built by the hatchling of this environment: no network."""
    out = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True)
    (path,) = out.iterdir()
    return path


@pytest.fixture
def away(wheel, tmp_path):
    """The wheel unpacked in a folder, in front of the checkout; run a module of it elsewhere."""
    site, work = tmp_path / "lib", tmp_path / "work"
    work.mkdir()
    with ZipFile(wheel) as archive:
        archive.extractall(site)

    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=work,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    run.work = work
    return run


def metadata(wheel, name):
    with ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"{RELEASE}.dist-info/{name}"))


def test_one_wheel_for_every_python_and_system(wheel):
    assert wheel.name == f"{RELEASE}-py3-none-any.whl"
    assert metadata(wheel, "WHEEL")["Root-Is-Purelib"] == "true"


def test_every_file_of_the_package_and_no_other(wheel):
    source = ROOT / "src"
    expected = {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in (source / "tutelage").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        packed = {
            name: archive.read(name)
            for name in archive.namelist()
            if not name.startswith(f"{RELEASE}.dist-info/")
        }
    assert packed.keys() == expected.keys()
    assert packed == expected
    for needed in (
        "py.typed",
        "recipes/digits-demo.toml",
        "report/page.html.jinja",
        "report/sampled.html.jinja",
        "data/embedded/digits_train.npz",
        "data/embedded/NOTICE.md",
    ):
        assert f"tutelage/{needed}" in packed


def test_what_the_wheel_says_of_itself(wheel):
    told = metadata(wheel, "METADATA")
    assert (told["Name"], told["License-Expression"]) == ("tutelage", "Apache-2.0")
    assert told["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in told.get_all("Classifier")
    required = [line for line in told.get_all("Requires-Dist") if "extra ==" not in line]
    assert [line for line in required if line.startswith("torch")] == ["torch>=2.6"]


def test_it_runs_away_from_the_checkout(away):
    """In a folder of another repository, too: its commit is not the package's."""
    subprocess.run(["git", "init", "--quiet", str(away.work.parent)], check=True)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-qm", "a"]
    subprocess.run(["git", "-C", str(away.work.parent), *commit], check=True)
    found = away("-c", "import tutelage; print(tutelage.__file__)")
    assert Path(found.strip()) == away.work.parent / "lib" / "tutelage" / "__init__.py"
    assert away("-m", "tutelage", "--version").strip() == version("tutelage")
    assert "digits-demo" in away("-m", "tutelage", "list", "recipes")
    away("-m", "tutelage", *f"search {TINY} --out run".split())
    away("-m", "tutelage", "report", "run")
    assert (away.work / "run" / "report.html").read_text(encoding="utf-8").count("<svg") > 1
    (session,) = json.loads((away.work / "run" / "environment.json").read_text())["sessions"]
    assert session["commit"] is None
    assert session["versions"]["tutelage"] == version("tutelage")
