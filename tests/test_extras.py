"""What a method hands over beside its levels."""

from __future__ import annotations

import pytest

from tutelage.extras import AfterStep, Members, Notice, Share
from tutelage.problem import Problem


def test_an_extra_is_found_by_its_class():
    notice, share = Notice("4 MB"), Share(0.5)
    problem = Problem({}, [], [], extras=[notice, share])
    assert problem.extra(Notice) is notice and problem.extra(Share) is share
    assert problem.extra(Members) is None
    assert Problem({}, [], []).extra(AfterStep) is None


def test_two_of_a_class_are_refused():
    problem = Problem({}, [], [], extras=[Share(0.5), Share(0.25)])
    with pytest.raises(ValueError, match="2 extras are Share: a problem has at most one"):
        problem.extra(Share)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Share(0.0), "of_images = 0.0"),
        (lambda: Share(1.5), r"of_images = 1\.5"),
        (lambda: Members(0), "count = 0"),
    ],
)
def test_values_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
