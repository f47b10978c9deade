"""What ranks divide beside the images of a batch: learners, candidates, and files to decode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.multiprocessing.spawn import ProcessRaisedException

from dividing import drawing, evolved, steps_of, taken, toy
from launched import searching, together
from tutelage import shares
from tutelage.config import Run
from tutelage.parts import from_table

# Learners ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "via"),
    [("sgl", "finite-difference"), ("pamkd", "first-order"), ("lbt", "first-order")],
)
def test_learners_of_several_ranks_are_those_of_one_process_to_the_bit(method, via):
    variables, metrics, every = steps_of(method, via)
    found = together(2, steps_of, method, via)
    for place, (theirs, measured, called) in enumerate(found):
        assert all(map(torch.equal, variables, theirs))
        assert measured == metrics
        assert called == {place: every[place]}  # a rank computes its own network, as often
    assert len(every) == 2


def test_a_second_derivative_needs_all_learners_everywhere():
    with pytest.raises(ValueError, match="--divide images, or --via finite-difference"):
        from_table(Run, toy("sgl", "exact"), "a search")


def test_one_network_is_not_divided():
    with pytest.raises(ValueError, match="this method has one network"):
        searching(toy("single", "first-order"))


def test_networks_that_draw_are_not_divided(tmp_path):
    with pytest.raises(ProcessRaisedException):
        together(2, drawing, tmp_path / "said", seconds=60)
    assert "use --divide images" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("gpu", [False, True])
def test_a_learner_that_draws_is_refused_whichever_generator_it_draws_from(monkeypatch, gpu):
    """The GPU's generator, which this machine may lack, is one of the CPU here."""
    of_gpu = torch.Generator()
    monkeypatch.setattr(shares, "count", lambda: 2)
    monkeypatch.setattr(shares, "rank", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_rng_state", of_gpu.get_state)
    with shares.by_learners(divide=True):
        with shares.share(4, learner=0) as own:
            assert not own.empty
        with pytest.raises(ValueError, match="use --divide images"), shares.share(4, learner=0):
            torch.rand(3, generator=of_gpu if gpu else None)


# Candidates -------------------------------------------------------------------------------------


def test_candidates_are_scored_once_and_in_the_same_order():
    history, scored = evolved()
    assert scored == len(history) == 21
    every = together(3, evolved)
    assert all(each == history for each, _ in every)
    assert sorted(count for _, count in every) == [6, 6, 9]  # of 3, 3 and 1, in each generation
    assert evolved(stop=10)[0] == history
    assert all(each == history for each, _ in together(2, evolved, 10))


# Files ------------------------------------------------------------------------------------------


def test_each_rank_decodes_its_share(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(7, 4, 4, 3), dtype=np.uint8)
    paths = [tmp_path / f"{k}.png" for k in range(7)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    *whole, _ = taken(paths)
    first, second = together(2, taken, paths)
    for *found, _ in (first, second):
        assert all(map(torch.equal, whole, found))
    # of five images two and three; all of a single one, and of a batch that is not shared
    assert first[-1] == ["0.png", "1.png", "3.png", "4.png", "6.png"]
    assert second[-1] == ["1.png", "2.png", "3.png", "5.png", "6.png", "6.png"]
