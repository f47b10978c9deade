"""Checkpoints edited deep inside, with the right checksums: a sentence or a result, no traceback.

The result may be another one: nobody can tell a number from the right one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import edited
import pytest
from damage import call
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from tutelage.run.job import checkpoint
from tutelage.run.job.loop import DAMAGED
from tutelage.searches.evolution import Evolution
from tutelage.searches.evolving import Evolving

SEED = int(os.environ.get("FAULT_SEED", 0))
NEWEST = checkpoint.NEWEST
EDITED = {
    "search": NEWEST,
    "retraining": f"retrain/{NEWEST}",
    "pool": NEWEST,
    "members": f"retrain/member-1/{NEWEST}",
    "ranking": f"ranking/{NEWEST}",
    "evolving": f"evolution/{NEWEST}",
}
"""Scenes, and the checkpoint that is edited in each."""


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


def edits(scene, place, amount, figures):
    """Edit the checkpoint of a scene once or twice, and call its command, so many times."""
    file = EDITED[scene.name]
    content = (scene.folder / file).read_bytes()
    [command] = scene.commands
    run = place / "run"

    @seeded(SEED)
    @settings(
        max_examples=amount,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.sampled_from(edited.every(content)), min_size=1, max_size=2))
    def one(chosen):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(scene.folder, run)
        (run / file).write_bytes(edited.edited(content, *chosen))
        outcome = call(*(x.format(run=run, root=scene.folder.parent) for x in command.line.split()))
        figures["edits of checkpoints"] += 1
        figures["tracebacks"] += outcome.kind == "traceback"
        assert outcome.kind in ("done", "refused"), (chosen, outcome.text)

    one()


@pytest.mark.parametrize(
    ("name", "path", "sentence"),
    [
        ("search", ("velocities",), "velocities lacks w"),
        ("search", ("optimisers", "A", "state"), "is of 0 weights: must be of at least 1"),
        ("search", ("watching", "history"), "history has 0 epochs, of 1"),
        ("search", ("watching", "history", 0), "history has 0 learners in some epoch, of 1"),
        slow("retraining", ("optimiser", "state"), "is of 0 weights: must be of at least 1"),
        slow("retraining", ("optimiser", "state", 0), "weight 0 lacks momentum_buffer"),
        slow("retraining", ("optimiser", "state", None), "the checkpoint lacks momentum_buffer of"),
    ],
)
def test_what_training_has_left_is_missed(searched, tmp_path, name, path, sentence):
    """Momentum, Adam's moments and diagnostics may be missing before the first step only."""
    scene = searched[name]
    [command] = scene.commands
    run = Path(shutil.copytree(scene.folder, tmp_path / "run"))
    file = run / EDITED[name]
    whole = edited.read(file.read_bytes())
    if path[-1] is None:
        edited.at(whole["state"]["work"], path[:-1]).pop(0)
    else:
        edited.at(whole["state"]["work"], path).clear()
    file.write_bytes(edited.written(whole))
    outcome = call(*command.line.format(run=run).split())
    assert outcome.kind == "refused" and sentence in outcome.text, outcome.text


@pytest.mark.parametrize("name", ["search", "retraining"])
@pytest.mark.parametrize("entry", ["epoch", "step"])
def test_a_place_that_the_run_does_not_have_is_refused_before_anything_counts_to_it(
    searched, tmp_path, name, entry
):
    scene = searched[name]
    [command] = scene.commands
    run = Path(shutil.copytree(scene.folder, tmp_path / "run"))
    file = run / EDITED[name]
    whole = edited.read(file.read_bytes())
    for value in (10**30, -1, 1.5):
        whole["state"]["work"][entry] = value
        file.write_bytes(edited.written(whole))
        outcome = call(*command.line.format(run=run).split())
        assert outcome.kind == "refused" and f"{entry} {value}" in outcome.text, outcome.text


def test_an_evolution(amount, figures):
    """Every edit of its state, alone: it is refused, or the evolution ends."""
    settings = Evolution(population=6, generations=4, parents=3, mutation=0.3)

    def begun():
        return Evolving([3] * 8, settings, lambda encoding: True, 0)

    evolving = begun()
    for place in range(15):
        evolving.tell((place / 7,))
    content = edited.written(evolving.state())
    cases = edited.every(content)
    for case in cases[:: amount(20, 2, 1)]:
        other = begun()
        figures["edits of checkpoints"] += 1
        try:
            other.restore(edited.read(edited.edited(content, case)))
        except DAMAGED:
            continue
        while not other.done:
            other.tell((0.5,))
        assert other.best.generation < 4, case


def test_a_search(searched, tmp_path, amount, figures):
    edits(searched["search"], tmp_path, amount(4, 10, 200), figures)


@pytest.mark.slow
def test_a_retraining(searched, tmp_path, amount, figures):
    edits(searched["retraining"], tmp_path, amount(4, 10, 200), figures)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["pool", "members", "ranking", "evolving"])
def test_every_other_kind_of_run(everything, tmp_path, amount, figures, name):
    [scene] = [each for each in everything if each.name == name]
    edits(scene, tmp_path, amount(4, 20, 100), figures)
