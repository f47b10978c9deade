"""The command line: its help, and one sentence for every mistake, with nothing lost."""

import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage import cli
from tutelage.recipes import read_recipe
from tutelage.run import checkpoint, search, searching
from tutelage.spaces.published import PUBLISHED
from tutelage.virtual import leaves

TINY = "--channels 2 --cells 3 --batch-size 4 --limit-batches 2 --device cpu --via first-order"
BRIEF = "--channels 2 --cells 3 --batch-size 4 --limit-batches 1 --device cpu --epochs 1"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of the test's own, so that commands read as a user types them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tutelage(capsys):
    """Call the command line; return its exit code and what it wrote to the two streams."""

    def call(line, *more):
        capsys.readouterr()
        try:
            cli.main([*line.split(), *more])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(tutelage):
    """Call the command line with a mistake; check the form of its answer and that it says this."""

    def call(line, pattern, *more, code=None):
        status, _, error = tutelage(line, *more)
        assert re.fullmatch(r"tutelage: [^\n]+\n", error), error
        assert re.search(pattern, error), error
        assert "Traceback" not in error
        assert status == code if code else status in (1, 2)

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search of one learner and two epochs; not to be written to."""
    path = tmp_path_factory.mktemp("finished") / "run"
    with pytest.raises(SystemExit) as end:
        cli.main([*f"search {TINY} --epochs 2".split(), "--out", str(path)])
    assert not end.value.code
    return path


@pytest.fixture
def run(finished):
    """A copy of a finished search, as `run` in the test's folder."""
    shutil.copytree(finished, "run")
    return finished


@pytest.fixture
def stopped(here, tutelage, monkeypatch):
    """A search that Ctrl-C stopped at its third step, in the second epoch."""
    stop_at(monkeypatch, 3)
    code, _, error = tutelage(f"search {TINY} --epochs 2 --out run")
    assert code == 130
    assert "SIGINT came: saved at epoch 1, step 1; go on with tutelage search --resume run" in error
    monkeypatch.undo()
    monkeypatch.chdir(here)
    return here / "run"


def stop_at(monkeypatch, step):
    """Press Ctrl-C while a search takes this step."""
    advance, steps = searching.Searching.advance, iter(range(1, 1000))

    def pressed(self):
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
        advance(self)

    monkeypatch.setattr(searching.Searching, "advance", pressed)


def content(folder):
    """Every file's bytes but the lock's, to see that nothing has changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


# Help -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("--help", "Neural architecture search"),
        ("list", "sgl-darts-cifar10"),
        ("--version", "0."),
    ],
)
def test_help_and_listings_answer_without_torch(line, shown):
    code = (
        "import sys; from tutelage.cli import main\n"
        f"try: main({line.split()})\n"
        "finally: assert 'torch' not in sys.modules"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds = time.monotonic() - began
    assert shown in done.stdout
    assert done.stderr == ""
    print(f"tutelage {line}: {seconds:.2f} s")
    assert seconds < 5  # 0.4 s alone; the assertion on torch is the guard, this one a net


def test_alone_it_prints_the_help(tutelage):
    assert tutelage("") == tutelage("--help")
    code, out, _ = tutelage("")
    assert code == 0
    for verb in ("search", "retrain", "report", "describe", "draw", "export", "list"):
        assert re.search(rf"^│ {verb} +[A-Z]", out, re.MULTILINE)


def test_the_help_of_a_search_has_its_parts_flags_in_order(tutelage, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = tutelage("search --method sgl --recipe digits-demo --help")
    assert code == 0
    assert re.findall(r"^╭─ (.*?) ─*╮$", out, re.MULTILINE) == [
        "Run",
        "Parts",
        "Of --method sgl",
        "Of --search darts",
        "Data",
        "Weights, by SGD",
        "Alphas, by Adam",
        "Retraining, for `tutelage retrain`",
    ]
    flags = re.findall(r"^│ (--[\w.-]+)", out, re.MULTILINE)
    assert len(flags) == len(set(flags))
    assert {"--learners", "--peer-weight", "--init", "--data-root", "--weights.lr"} <= set(flags)
    epochs = read_recipe("digits-demo")[0]["epochs"]
    assert "Weight of the peers' labels, λ in stage II. [default: 1.0]" in out
    assert re.search(rf"--epochs INT +Epochs of the search. \[default: {epochs}\]", out)
    assert "__" not in out and "Any" not in out and "None" not in out


def test_the_help_of_every_verb_describes_every_flag(tutelage, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    for verb in ("retrain", "report", "describe", "draw", "export", "list"):
        code, out, _ = tutelage(f"{verb} --help")
        assert code == 0
        assert re.match(rf"Usage: tutelage {verb} .*\n\n[A-Z].*\.\n", out)
        for line in re.findall(r"^│ [ *]*((?:--|[A-Z]).*?) *│$", out, re.MULTILINE):
            assert re.match(r"\S+( --\S+| [A-Z]+)?  +[\dA-Z]\S* \S+", line), line


def test_list_one_kind(tutelage):
    code, out, _ = tutelage("list methods")
    assert code == 0
    assert out.startswith("methods\n  single  No teaching")
    assert "cifar10" not in out


# What is typed wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("serch", r"unknown command serch: did you mean search\?"),
        ("--nonsense", "unknown command --nonsense: must be one of search, retrain"),
        ("search --method sgll --out x", r"unknown method 'sgll': did you mean sgl\?"),
        ("search --search dart --out x", r"unknown search 'dart': did you mean darts\?"),
        ("search --space drts --out x", r"unknown space 'drts': did you mean darts\?"),
        ("search --data digitz --out x", r"unknown data set 'digitz'.* did you mean digits\?"),
        ("search --unlabelled cifer100 --out x", r"'cifer100'.* did you mean cifar100\?"),
        ("search --recipe digits-dem --out x", r"'digits-dem': did you mean digits-demo\?"),
        ("search --recipe mine.toml --out x", "recipe mine.toml: there is no such file"),
        ("search --method mine:Part --out x", "method 'mine:Part' cannot be imported"),
        ("search --method json:dumps --out x", "method 'json:dumps' is no dataclass"),
        ("search --method : --out x", "method ':' cannot be imported"),
        ("search --epoch 3 --out x", r"unknown flag --epoch: did you mean --epochs\?"),
        ("search --method sgl --learner 3", r"flag --learner: did you mean --learners\?"),
        ("search --learners 3 --out x", "unknown flag --learners: it belongs to --method sgl"),
        ("search --lr 1 --out x", r"--weights.lr or --alphas.lr or --retrain.lr\?"),
        ("search --zzzz 1 --out x", "unknown flag --zzzz: see tutelage search --help"),
        ("retrain DARTS_V2 --epochz 1", r"unknown flag --epochz: did you mean --epochs\?"),
        ("search extra --out x", "search does not take 'extra': see tutelage search --help"),
        ("search", "a search needs --out DIR for its run directory, or --resume DIR"),
        ("search --epochs", "--epochs needs a value"),
        ("search --epochs --out x", "--epochs needs a value"),
        ("search --method --out x", "--method needs a value"),
        ("search --out a --out b", "--out is given more than once"),
        ("search --epochs two --out x", "--epochs two: must be a whole number"),
        ("search --method sgl --learners 1.5 --out x", "--learners 1.5: must be a whole number"),
        ("search --weights.lr big --out x", "--weights.lr big: must be a number"),
        ("search --download=maybe --out x", "--download maybe: must be true or false"),
        ("search --via exakt --out x", r"--via exakt: did you mean exact\?"),
        ("search --precision fp8 --out x", r"--precision fp8: "),
        ("search --weights.lr -1 --out x", r"weights: lr = -1.0: must be .*above 0"),
        ("search --alphas.lr nan --out x", "alphas: lr = nan: must be a finite number"),
        ("search --weights.lr inf --out x", "weights: lr = inf: must be a finite number"),
        ("search --epochs 0 --out x", r"epochs = 0: must be .*at least 1"),
        ("search --method sgl --learners 0 --out x", r"learners = 0: must be .*at least 1"),
        ("search --method sgl --pretrain 50 --out x", "pretrain = 50 of 50 epochs: leave some"),
        ("search --method lbt --student resnet19 --out x", "student 'resnet19': must be resnet18"),
        ("search --data.cutout 8 --out x", "cutout = 8: would hide whole images of digits"),
        ("search --data.train-fraction 1 --out x", "train_fraction = 1.0: must lie strictly"),
        ("search --data cifar10 --out x", "cifar10 needs its folder: give --data-root DIR"),
        ("search --data cifar10 --data-root . --out x", "cifar10 is not in .*--download"),
        ("describe", "describe needs GENOTYPE: see tutelage describe --help"),
        ("describe DARTS_V3", r"unknown genotype 'DARTS_V3'.*: did you mean DARTS_V2\?"),
        ("describe DARTS_V2 --channels 1.5", "--channels 1.5: must be a whole number"),
        ("describe DARTS_V2 --channels 0", "channels = 0: must be at least 1"),
        ("describe no/genotype.json", "no/genotype.json: no such file or directory"),
        ("draw DARTS_V2", "draw needs --out: see tutelage draw --help"),
        ("draw DARTS_V2 --out x.gif", r"must end in \.svg or \.png"),
        ("draw DARTS_V2 --out no/x.svg", "no/x.svg: No such file or directory"),
        ("report", "report needs RUNS"),
        ("report nowhere", "nowhere: no such directory"),
        ("list recipe", r"list recipe: did you mean recipes\?"),
        ("retrain", "retrain needs RUN"),
        ("retrain nowhere", "unknown genotype 'nowhere', and no file or run"),
        ("retrain DARTS_V2", "a genotype that no run found needs --out DIR"),
        ("retrain DARTS_V2 --out x --cutout 8", "cutout = 8: would hide whole images of digits"),
        ("retrain DARTS_V2 --out x --batch-size 0", r"batch_size = 0: must be .*at least 1"),
        ("search --resume nowhere", "nowhere does not exist; give the --out of an earlier run"),
        ("search --resume .", r"\. is no run: it has no run.toml"),
    ],
)
def test_a_mistake_is_one_sentence(line, sentence, refused, here):
    refused(line, sentence)
    assert list(here.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(refused):
    refused("search --device cuda --out x", "there is no CUDA device; use 'cpu' or 'auto'")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs =", "recipe mine.toml is not TOML"),
        ("epoch = 3", r"unknown setting 'epoch' of a search: did you mean epochs\?"),
        ("epochs = 'two'", "epochs = 'two': must be a whole number"),
        ("epochs = true", "epochs = True: must be a whole number"),
        ("method = 'sgl'", "method = 'sgl': must be a table of settings"),
        ("weights = 3", "weights = 3: must be a table of settings"),
        ("[method]\nname = 3", "unknown method '3'"),
        ("[method]\nlearners = 3", "unknown setting 'learners' of method single"),
        ("[weights]\nlr = '1'", "weights: lr = '1': must be a number"),
        ("[data]\ncolour = 'blue'", "data: colour = 'blue': must be one of auto, grey, rgb"),
    ],
)
def test_a_bad_recipe_is_one_sentence(text, sentence, refused, here):
    (here / "mine.toml").write_text(text)
    refused("search --recipe mine.toml --out x", sentence)
    assert not (here / "x").exists()


# Data -------------------------------------------------------------------------------------------


def write_cifar(folder, **changed):
    """A CIFAR-10 of two images a file."""
    folder.mkdir()
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]} | changed
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a"] * 10}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "data_batch_3").unlink(), "lacks data_batch_3: unpack cifar-10-python"),
        (lambda f: os.truncate(f / "data_batch_2", 60), "data_batch_2 is truncated"),
        (lambda f: os.truncate(f / "batches.meta", 9), "batches.meta is truncated"),
    ],
)
def test_damaged_files_of_a_data_set(damage, sentence, refused, here):
    write_cifar(here / "cifar-10-batches-py")
    damage(here / "cifar-10-batches-py")
    refused("search --data cifar10 --data-root . --out x", sentence)
    assert not (here / "x").exists()


def test_files_of_the_wrong_shape(refused, here):
    folder = here / "cifar-10-batches-py"
    write_cifar(folder)
    wrong = {b"data": np.zeros((2, 3071), np.uint8), b"labels": [0, 1]}
    (folder / "data_batch_1").write_bytes(pickle.dumps(wrong, protocol=2))
    refused("search --data cifar10 --data-root . --out x", "3071 values instead of 3 x 32 x 32")


@pytest.fixture
def images(here):
    """A good folder of two classes, of four images each."""
    for kind in ("cat", "dog"):
        (here / "images" / kind).mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (8, 8), 60 * k).save(here / "images" / kind / f"{k}.png")
    return here / "images"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: shutil.rmtree(f / "dog"), "has 1 class folders: .* needs at least 2"),
        (lambda f: os.truncate(f / "dog" / "1.png", 30), r"dog/1\.png is not a readable image"),
        (
            lambda f: Image.new("L", (8, 8)).save(f / "dog" / "1.png"),
            r"dog/1\.png is grey and .*cat/.\.png is RGB: say --data.colour rgb",
        ),
    ],
)
def test_damaged_folders_of_images(damage, sentence, refused, images, here):
    damage(images)
    before = content(here)
    refused("search --data images --data.resolution 8 --out x", sentence)
    assert content(here) == before


# Genotypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("sep_conv_3x3", "sep_conv_3x4"), r"'sep_conv_3x4' .*: did you mean sep_conv_3x3\?"),
        (('"version": 1', '"version": 2'), "made by a newer Tutelage: version 2; this one reads 1"),
        (("tutelage genotype", "something"), "not a genotype"),
        (('"concat": [2, 3, 4, 5]', '"concat": [2, 3, 4, 6]'), "a node is missing"),
        (("}", ""), "the JSON is damaged or cut short"),
    ],
)
@pytest.mark.parametrize("verb", ["describe", "draw --out x.svg", "retrain --out x"])
def test_a_bad_genotype(verb, change, sentence, refused, here):
    text = PUBLISHED["DARTS_V2"].to_json()
    assert change[0] in text
    (here / "mine.json").write_text(text.replace(*change))
    refused(f"{verb} mine.json", rf"mine\.json: .*{sentence}")
    assert [path.name for path in here.iterdir()] == ["mine.json"]


def test_a_genotype_with_a_node_too_few(refused, here):
    data = PUBLISHED["DARTS_V2"].to_dict()
    data["cells"]["normal"]["nodes"].pop()
    (here / "mine.json").write_text(json.dumps(data))
    refused("describe mine.json", "a node is missing")
    text = "Genotype(normal=[('sep_conv_3x3', 1)], normal_concat=[2])"
    refused("describe", "lacks reduce and reduce_concat", text)


# Run directories --------------------------------------------------------------------------------


def test_what_is_already_there_is_not_overwritten(refused, run, here):
    (here / "other").mkdir()
    (here / "other" / "thesis.tex").write_text("x")
    before = content(here)
    refused(f"search {BRIEF} --out run", "run holds a run: go on with --resume, or give another")
    refused(f"search {BRIEF} --out other", "other is not empty and no run to --resume")
    refused(f"search {BRIEF} --out other/thesis.tex", "thesis.tex is a file: give another --out")
    refused(f"search {BRIEF} --out other/thesis.tex/run", "other/thesis.tex/run: Not a directory")
    refused(f"retrain DARTS_V2 {BRIEF} --out other", "other is not empty and no run to --resume")
    refused("search --resume run --out other", "--out other with --resume run: a run goes on where")
    assert content(here) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="a folder is never unwritable for root")
def test_a_folder_without_permission(refused, here):
    (here / "locked").mkdir(mode=0o500)
    refused(f"search {BRIEF} --out locked/run", "locked/run: Permission denied")


def test_a_refused_write_names_the_file(refused, here, monkeypatch):
    def denied(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", denied)
    refused(f"search {BRIEF} --out run", "run: Permission denied", code=1)


def test_changed_settings_are_named_on_resume(refused, run, here):
    before = content(here)
    line = "search --resume run --epochs 3 --weights.lr 0.5"
    refused(line, r"run was begun with other settings: .*lr = 0\.5 \(was 0\.025\)")
    refused(line, r"epochs = 3 \(was 2\)")
    refused("search --resume run --method sgl", r"method.name = sgl \(was single\)")
    assert content(here) == before


def test_a_damaged_run_toml_is_named(refused, run, here):
    os.truncate(here / "run" / "run.toml", 40)
    before = content(here)
    refused("search --resume run", r"run/run\.toml is damaged")
    refused("retrain run", r"run/run\.toml is damaged")
    assert content(here) == before


def test_ctrl_c_saves_and_resuming_ends_as_if_never_stopped(stopped, finished, tutelage):
    rows = (stopped / "metrics.jsonl").read_text().count("epoch")
    code, out, error = tutelage("search --resume run")
    assert (code, error) == (0, "")
    assert "Found: run/genotype.json" in out
    assert (stopped / "metrics.jsonl").read_text().count("epoch") > rows
    found = json.loads((stopped / "genotype.json").read_text())
    assert found == json.loads((finished / "genotype.json").read_text())


def test_ctrl_c_before_the_first_step(refused, here, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "read", interrupted)
    refused("search --out run", "^tutelage: interrupted$", code=130)
    assert not (here / "run").exists()


def test_a_run_that_has_not_ended_is_not_retrained(stopped, refused):
    before = content(stopped)
    refused("retrain run", r"run has no genotype\.json: a search writes it when it ends")
    refused("describe run", r"run has no genotype\.json")
    assert content(stopped) == before


@pytest.mark.parametrize("kept", [0, 5000])
def test_truncated_checkpoints(stopped, refused, tutelage, kept):
    os.truncate(stopped / checkpoint.NEWEST, kept)
    code, out, _ = tutelage("search --resume run")  # from the one before
    assert code == 0
    assert f"{checkpoint.NEWEST} is truncated or no checkpoint: going on from" in out
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS):
        os.truncate(stopped / name, kept)
    before = content(stopped)
    refused("search --resume run", "checkpoint.pt is truncated .*no earlier one to go on from")
    assert content(stopped) == before


def test_a_foreign_checkpoint(stopped, refused, tutelage):
    """Of a torch.save of something else, and of a run of another size."""
    (stopped / checkpoint.PREVIOUS).unlink()
    torch.save({"model": torch.zeros(3)}, stopped / checkpoint.NEWEST)
    before = content(stopped)
    refused("search --resume run", "checkpoint.pt is not a checkpoint of this package")
    assert content(stopped) == before
    assert tutelage(f"search {BRIEF} --channels 3 --out other".replace("--channels 2 ", ""))[0] == 0
    shutil.copy("other/checkpoint.pt", stopped / checkpoint.NEWEST)
    before = content(stopped)
    refused("search --resume run", r"the checkpoint in run is another run's: .*channels = 2")
    assert content(stopped) == before


def test_a_full_disk(stopped, refused, tutelage):
    """A limit on the size of files stands in for a full disk: the writes fail half-way."""
    before = content(stopped)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (stopped / checkpoint.NEWEST).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        refused("search --resume run", r"no room for run/checkpoint.*: everything written .*safe")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    after = content(stopped)
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS, "run.toml", "split.npz"):
        assert after[name] == before[name]
    assert after["metrics.jsonl"].startswith(before["metrics.jsonl"])
    assert not any(name.endswith(".partial") for name in after)
    assert tutelage("search --resume run")[0] == 0


@pytest.mark.parametrize("verb", ["search", "retrain DARTS_V2"])
def test_a_loss_that_is_no_number(verb, refused, here):
    lr = "--weights.lr 1e30 --weights.clip 0" if verb == "search" else "--lr 1e30 --clip 0"
    lr += " --via first-order" if verb == "search" else ""  # not yet at the first, virtual step
    line = f"{verb} {BRIEF} --limit-batches 9 {lr} --save-every 0 --log-every 1 --out run"
    level = r"loss of level '\w+' is (nan|inf)" if verb == "search" else "the loss is (nan|inf)"
    refused(line.replace("--limit-batches 1 ", ""), rf"{level}.* at epoch 0, step \d")
    rows = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all("NaN" not in str(row) for row in rows)
    stored = checkpoint.load(here / "run")["work"]  # the last good one is kept
    assert stored["step"] == rows[-1]["step"] >= 1
    kept = stored["variables" if verb == "search" else "network"]
    tensors = leaves(kept) if verb == "search" else kept.values()
    assert all(bool(torch.isfinite(x).all()) for x in tensors)


# The verbs, for real ----------------------------------------------------------------------------


def test_describe_says_the_papers_number_in_json(tutelage):
    code, out, _ = tutelage("describe DARTS_V2 --channels 36 --cells 20 --classes 10 --json")
    found = json.loads(out)
    assert code == 0
    assert found["weights"] == 3_349_342
    assert list(found) == [
        "genotype",
        "size",
        "side",
        "weights",
        "weights_with_auxiliary",
        "multiply_adds",
    ]
    assert list(found["size"]) == ["channels", "cells", "classes", "image_channels", "form"]
    assert found["genotype"] == PUBLISHED["DARTS_V2"].to_dict()


def test_from_a_search_to_a_page(run, tutelage, refused, here):
    """Retrain with the default cutout, again, report, draw, and refuse an export of nothing."""
    code, out, error = tutelage(f"retrain run {BRIEF}")
    assert (code, error) == (0, "")
    assert re.search(r"test error \d+\.\d+ % on 599 images", out)
    settings = (here / "run" / "retrain" / "run.toml").read_text()
    assert settings.count("cutout = 4\n") == 2  # half of the digits' side, for data and retrain
    for again in ("run", "run/retrain"):  # a retraining's own folder names it too
        code, out, _ = tutelage(f"retrain {again} {BRIEF}")
        assert (code, out.split(":")[0]) == (0, "run/retrain is finished")
    refused(f"retrain run {BRIEF} --cutout 3", r"retrain.cutout = 3 \(was 4\)")
    code, out, _ = tutelage("report run")
    assert (code, out) == (0, "Report: run/report.html\n")
    assert "test error" in (here / "run" / "report.html").read_text()
    code, out, _ = tutelage("draw run --out cells.svg")
    assert (code, out) == (0, "Drawing: cells.svg\n")
    assert "<svg" in (here / "cells.svg").read_text()
    code, out, _ = tutelage("describe run --channels 4 --cells 3")
    assert code == 0 and "normal\n" in out


def test_retrain_a_published_genotype(tutelage, here):
    code, _, error = tutelage(f"retrain DARTS_V2 --data digits {BRIEF} --out net --cutout 0")
    assert (code, error) == (0, "")
    assert json.loads((here / "net" / "result.json").read_text())["test_images"] == 599
    assert "cutout = 0\n" in (here / "net" / "run.toml").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_export_for_real(run, tutelage, refused, here):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    refused("export nowhere --out x.onnx", "nowhere does not exist")
    refused("export run --out x.onnx", r"run has no network\.safetensors: make it with")
    assert tutelage(f"retrain run {BRIEF}")[0] == 0
    code, out, _ = tutelage("export run --out net.onnx")
    assert code == 0
    assert "largest difference of a logit from the module" in out
    assert (here / "net.onnx").stat().st_size > 1000


def test_the_program_itself_ends_with_a_sentence():
    """Through the installed entry, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", "retrain", "DARTS_V3", "--out", "x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"tutelage: unknown genotype [^\n]+\n", done.stderr)
