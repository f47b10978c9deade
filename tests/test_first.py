"""The first minutes: a demonstration, an examination, completion, and errors that are ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from commands import SMALL, content
from tutelage import cli, crash
from tutelage.commands import first
from tutelage.methods.sgl import SGL
from tutelage.run import doctor
from tutelage.run.doctor import KNOWN, Stepped, known_step
from tutelage.searches.darts import Darts
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.virtual import FirstOrder

RECIPE = """
epochs = 1
limit_batches = 1
batch_size = 8
channels = 4
cells = 1
space.name = "nasbench201"
retrain = {epochs = 1, limit_batches = 1, batch_size = 8, channels = 4, cells = 1}
"""


@pytest.mark.slow
def test_a_demo_ends_with_a_report_and_goes_on_where_it_was(tutelage, here, monkeypatch):
    (here / "small.toml").write_text(RECIPE)
    monkeypatch.setattr(first, "RECIPE", "small.toml")
    code, out, _ = tutelage("demo")
    assert not code and "Report: runs/demo/report.html" in out
    run = here / "runs" / "demo"
    before = content(run)
    (run / "retrain" / "result.json").unlink()
    assert tutelage("demo")[0] == 0
    after = content(run)
    assert before.keys() == after.keys()
    same = ("genotype.json", "metrics.jsonl", "retrain/result.json", "retrain/metrics.jsonl")
    assert [name for name in same if before[name] != after[name]] == []
    (here / "small.toml").write_text(RECIPE.replace("epochs = 1", "epochs = 2", 1))
    (run / "genotype.json").unlink()
    code, _, error = tutelage("demo")
    assert code == 1 and "was begun with other settings: epochs = 2 (was 1)" in error


def test_a_doctor_knows_a_step_and_says_what_differs(tutelage, monkeypatch):
    code, out, _ = tutelage("doctor")
    assert not code
    for what in ("python", "packages", "threads", "GPU", "memory", "disk", "known step on cpu"):
        assert re.search(rf"^{what} +\S", out, re.MULTILINE), what
    assert f"torch {torch.__version__}" in out and "WRONG" not in out
    monkeypatch.setattr(doctor, "KNOWN", {**KNOWN, "norm": KNOWN["norm"] * (1 + 1e-6)})
    monkeypatch.setattr(doctor, "LEAST_DISK", 1e9)
    code, out, error = tutelage("doctor")
    assert code == 1 and error == "tutelage: something is wrong: disk, known step on cpu\n"
    assert "WRONG: differs from the stored result by 1.0e-06" in out


def test_the_known_step_sees_a_wrong_derivative(monkeypatch):
    """What a first-order gradient would be is far from what is stored."""
    monkeypatch.setattr(doctor, "Exact", FirstOrder)
    found = known_step(Stepped(SGL(), Darts(), NASBENCH201), torch.device("cpu"))
    assert abs(found["norm"] / KNOWN["norm"] - 1) > 1e-3


@pytest.fixture(scope="module")
def app():
    """The application with the flags of all parts."""
    return cli.application(cli.every_flag())


@pytest.fixture(scope="module")
def completes(app, tmp_path_factory):
    """Ask bash what it would complete of a line."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    script = tmp_path_factory.mktemp("completion") / "tutelage.bash"
    script.write_text(app.generate_completion(shell="bash"))

    def ask(line):
        words = line.split(" ")
        commands = f"""
            source {script}
            COMP_WORDS=({" ".join(repr(word) for word in words)})
            COMP_CWORD={len(words) - 1}
            $(complete -p tutelage | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run([bash, "-c", commands], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    return ask


def test_bash_completes_commands_flags_and_parts(completes):
    assert completes("tutelage re") == {"report", "retrain"}
    assert completes("tutelage search --peer-w") == {"--peer-weight"}
    assert completes("tutelage search --method s") == {"single", "sgl", "sd-darts"}
    assert completes("tutelage search --space nas") == {"nasbench201", "nasbench-macro"}


def test_bash_completes_paths_where_nothing_else_fits(tutelage, monkeypatch):
    monkeypatch.setattr(cli, "every_flag", lambda: cli.flags_for(["search", "--method", "sgl"]))
    _, script, _ = tutelage("completion bash")
    (last,) = (line for line in script.splitlines() if line.startswith("complete "))
    assert last == "complete -o bashdefault -o default -F _tutelage tutelage"


def test_zsh_calls_the_function_and_completes_paths(tutelage, monkeypatch):
    monkeypatch.setattr(cli, "every_flag", lambda: cli.flags_for(["search", "--method", "sgl"]))
    _, script, _ = tutelage("completion zsh")
    page = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text()
    (name,) = re.findall(r"completion zsh > ~/\.zfunc/(\w+)", page)
    assert f"\n{name}() {{" in script, "zsh loads the file, and calls the function of its name"
    ends = dict(re.findall(r"""(?m)^ +['"](\d:|\*--\w+).*:([^:\n]+)['"] \\$""", script))
    assert ends["*--recipe"] == ends["*--out"] == "_files"
    assert ends["*--via"] == "(exact finite-difference first-order)"
    (run,) = re.findall(r"'1:A run directory.*:(\S+)' ", script.partition("retrain)")[2])[:1]
    assert run == "_files"


def test_a_script_for_every_shell(tutelage, refused, monkeypatch):
    monkeypatch.setattr(cli, "every_flag", lambda: cli.flags_for(["search", "--method", "sgl"]))
    for shell, mark in (("zsh", "#compdef tutelage"), ("fish", "complete -c tutelage")):
        code, out, _ = tutelage(f"completion {shell}")
        assert not code and mark in out and "peer-weight" in out
    refused("completion csh", r"completion csh: did you mean \w*sh\?")


# Errors that are ours ----------------------------------------------------------------------------


def test_an_error_of_ours_says_where_to_report_it_and_with_which_file(tutelage, here, monkeypatch):
    monkeypatch.setattr(crash, "gettempdir", lambda: str(here))
    monkeypatch.setattr("tutelage.run.search.joined", lambda *given: {}["absent"])
    code, _, error = tutelage(f"search {SMALL} --out", "a b")
    assert code == 70
    (file,) = here.glob("tutelage-error-*.txt")
    assert error.startswith("Traceback (most recent call last):")
    last = error.splitlines()[-1]
    assert last.startswith("tutelage: this KeyError is an error of tutelage: please report it ")
    assert "in the project's issue tracker" in last and str(file) in last
    written = file.read_text()
    assert written.startswith("command   tutelage search --channels 2")
    assert "--out 'a b'\n" in written and f"torch     {torch.__version__}" in written
    assert written.rstrip().endswith("KeyError: 'absent'")
    assert not (here / "a b").exists()


def test_an_address_comes_from_the_packages_metadata(monkeypatch):
    class Metadata:
        def get_all(self, name):
            return ["Homepage, https://example.org", "Issues, https://example.org/issues"]

    monkeypatch.setattr(crash, "metadata", lambda name: Metadata())
    assert crash.address() == "https://example.org/issues"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModuleNotFoundError("x", name="absent"), "the package absent is missing"),
        (MemoryError(), "the machine's memory is full: lower --batch-size"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
            "the machine's memory is full: lower",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), "the GPU's memory is full: lower"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(error, sentence, refused, monkeypatch):
    def fails(*given):
        raise error

    monkeypatch.setattr("tutelage.run.search.joined", fails)
    refused(f"search {SMALL} --out x", sentence, code=1)
