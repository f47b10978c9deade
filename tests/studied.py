"""A stand-in for the command line in tests of studies: the files of runs, without torch.

    python studied.py search --recipe FILE --seed N --retrain.seed N --out RUN
    python studied.py search --resume RUN
    python studied.py retrain RUN [--recipe FILE] --seed N

Every epoch takes `save_every` minutes; SIGTERM or SIGINT ends a run after its epoch. A learning
rate of the weights of 13 fails, of 9 is ended by SIGKILL.
"""

import json
import os
import signal
import sys
import time
import tomllib
from pathlib import Path

import tomli_w

stopped = []
for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda *_: stopped.append(True))


def flag(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def fail(sentence, code=1):
    print("epoch 1 of something")
    print("tutelage:", sentence, file=sys.stderr)
    print("a warning that a library gives at exit", file=sys.stderr)
    sys.exit(code)


def epochs(folder, count, seconds):
    """Work as the loop does: from the rows that there are, until a signal."""
    metrics = folder / "metrics.jsonl"
    done = metrics.read_text().count('"event": "epoch"') if metrics.exists() else 0
    for epoch in range(done, count):
        time.sleep(seconds)
        with metrics.open("a") as file:
            file.write(json.dumps({"event": "epoch", "epoch": epoch, "pid": os.getpid()}) + "\n")
        if stopped:
            fail("SIGINT came: saved", 130)


def search():
    out = Path(flag("--resume") or flag("--out"))
    if not flag("--resume"):
        settings = tomllib.loads(Path(flag("--recipe")).read_text()) | {"seed": int(flag("--seed"))}
        out.mkdir(parents=True)
        (out / "run.toml").write_text(tomli_w.dumps(settings))
    settings = tomllib.loads((out / "run.toml").read_text())
    match settings.get("weights", {}).get("lr"):
        case 13:
            fail("the loss is not finite")
        case 9:
            os.kill(os.getpid(), signal.SIGKILL)
    epochs(out, settings["epochs"], 60 * settings.get("save_every", 0))
    (out / "genotype.json").write_text("{}")


def retrain():
    run = Path(sys.argv[2])
    out = run / "retrain"
    out.mkdir(exist_ok=True)
    table = {"retrain": {"epochs": 1, "seed": int(flag("--seed"))}}
    (out / "run.toml").write_text(tomli_w.dumps(table))
    epochs(out, 1, 0.0)
    (out / "result.json").write_text("{}")


def query():
    print(json.dumps({"accuracy": {}}))


if __name__ == "__main__":
    {"search": search, "retrain": retrain, "query": query}[sys.argv[1]]()
