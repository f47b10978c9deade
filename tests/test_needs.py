"""What searches need of spaces: every pair as it was recorded, and how others are refused."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch

from tutelage.parts import PARTS, make_part, part_named
from tutelage.searches.base import Needs, Phase
from tutelage.searches.darts import Darts
from tutelage.searches.drnas import DrNas
from tutelage.searches.needs import fit, lacks, size_of
from tutelage.searches.pdarts import PDarts
from tutelage.spaces.base import Variant, keeps_none
from tutelage.spaces.cells import DARTS, S1, S3, CellSpace
from tutelage.spaces.nb201 import NASBENCH201

SPACES = {
    **dict.fromkeys(("darts", "s1", "s2", "s3", "s4"), (16, 8)),
    **{"nasbench201": (16, 5), "nasbench-macro": (32, 8), "ennas-s1": (32, 21)},
    **{"ennas-s2": (32, 21), "ennas-s3": (32, 26), "shuffle": (16, 20), "cream": (32, 21)},
    **{"dna": (32, 19), "resnet": (64, 8)},
}
"""Channels and cells of every space's supernets."""
CELLS = ("darts", "s1", "s2", "s3", "s4", "nasbench201")


@dataclass(frozen=True)
class Recorded:
    """What a search has of a space, but for what is the space's own."""

    spaces: tuple[str, ...] = tuple(SPACES)
    size: tuple[int, int] | None = None
    phases: tuple[Phase, ...] = (Phase(),)
    left_out: str = ""
    auxiliary_skip: bool = False
    final_norm: bool = False
    normalised_pools: bool = True


TWO_PHASES = (
    Phase(frozen=0.4, partial=6),
    Phase(frozen=0.4, operations=4, partial=4, carries=True),
)
THREE_PHASES = (
    Phase(frozen=0.4),
    Phase(frozen=0.4, cells=6, operations=5),
    Phase(frozen=0.4, cells=12, operations=3),
)
RECORDED = {
    "darts": [Recorded()],
    "pdarts": [Recorded(("darts",), (16, 5), THREE_PHASES)],
    "pcdarts": [Recorded(CELLS, phases=(Phase(frozen=0.3, partial=4),))],
    "darts-minus": [Recorded(CELLS, auxiliary_skip=True)],
    "drnas": [
        Recorded(("darts",), (36, 20), TWO_PHASES, left_out="none"),
        Recorded(("s3",), left_out="none"),
        Recorded(tuple(name for name in SPACES if name not in ("darts", "s3"))),
    ],
    "prdarts": [Recorded(("darts",), (16, 6), final_norm=True, normalised_pools=False)],
    "gdas": [
        Recorded(CELLS[:5], final_norm=True, normalised_pools=False),
        Recorded(tuple(name for name in SPACES if name not in CELLS[:5])),
    ],
    "single-path": [Recorded()],
    "diverse-paths": [Recorded()],
    "random": [Recorded()],
}
"""Of the searches that made their own space, sizes and phases, as each had it then.

A record of what was: a new search or space has none, and its needs are tested with its own numbers.
"""


def space_named(name):
    return make_part("space", {"name": name})


@pytest.mark.parametrize("search", RECORDED)
@pytest.mark.parametrize("space", SPACES)
def test_every_pair_is_as_recorded(search, space):
    own, asked = make_part("search", {"name": search}), space_named(space)
    (expected,) = [x for x in RECORDED[search] if space in x.spaces] or [None]
    if expected is None:
        with pytest.raises(ValueError, match=f"space '{space}'"):
            fit(own, asked)
        return
    found = fit(own, asked)
    assert found.operations == {
        group: tuple(tuple(n for n in names if n != expected.left_out) for names in edges)
        for group, edges in asked.operations.items()
    }
    assert found.variant == Variant(
        normalised_pools=expected.normalised_pools and space != "nasbench201",
        auxiliary_skip=expected.auxiliary_skip,
        final_norm=expected.final_norm,
    )
    assert size_of(own, found) == (expected.size or SPACES[space])
    assert tuple(own.needs(found).phases) == tuple(own.needs(asked).phases) == expected.phases


def test_needs_ask_for_facts_and_not_for_a_name():
    mine = replace(DARTS, name="mine")
    search = DrNas()
    assert fit(search, mine).operations == fit(search, DARTS).operations
    assert search.needs(mine) == search.needs(DARTS)
    assert fit(PDarts(), mine) is mine
    few = CellSpace("darts", S3.operations)
    assert search.needs(few).phases == (Phase(),) and size_of(search, few) == (16, 8)


@pytest.mark.parametrize("name", PARTS["space"])
def test_only_cells_of_darts_shape_never_keep_none(name):
    space = space_named(name)
    assert keeps_none(space) == (not isinstance(space, CellSpace))


@pytest.mark.parametrize(
    ("needs", "space", "message"),
    [
        (Needs(), DARTS, ""),
        (Needs(groups=frozenset({"normal", "reduce"})), DARTS, ""),
        (
            Needs(groups=frozenset({"normal"})),
            DARTS,
            "has choices in normal and reduce, not in normal",
        ),
        (Needs(least=8), DARTS, ""),
        (
            Needs(least=8, left_out=frozenset({"none"})),
            DARTS,
            "has edges of 7 operations, and at least 8 are needed",
        ),
        (Needs(least=3), S1, "has edges of 2 operations, and at least 3 are needed"),
        (Needs(operations=DARTS.operations), DARTS, ""),
        (Needs(operations=DARTS.operations), S3, "has other operations on its edges"),
    ],
)
def test_what_a_space_lacks_by_hand(needs, space, message):
    assert lacks(needs, space) == message


@dataclass(frozen=True)
class Asking(Darts):
    """DARTS with needs of one's own."""

    asked: Needs = field(default_factory=Needs)

    def needs(self, space):
        """Ask for what was given."""
        return self.asked


def test_a_refusal_names_the_ready_spaces_that_fit():
    need = Needs(groups=frozenset({"cell"}), why="it counts six edges")
    with pytest.raises(ValueError) as refusal:
        fit(Asking(asked=need), S1)
    assert str(refusal.value) == (
        "space 's1' has choices in normal and reduce, not in cell: it counts six edges: "
        "use the space nasbench201"
    )
    with pytest.raises(ValueError) as refusal:
        fit(Asking(asked=Needs(least=99, why="it narrows much")), S1)
    message = "space 's1' has edges of 2 operations, and at least 99 are needed"
    assert str(refusal.value) == f"{message}: it narrows much"
    with pytest.raises(ValueError, match=f"^{message}$"):
        fit(Asking(asked=Needs(least=99)), S1)


def test_a_phase_that_a_space_cannot_build_is_refused_at_once():
    phases = (Phase(), Phase(partial=2))
    with pytest.raises(ValueError, match="a chain has neither partial channels"):
        fit(Asking(asked=Needs(phases=phases)), space_named("resnet"))
    assert fit(Asking(asked=Needs(phases=phases)), NASBENCH201) is NASBENCH201


# What is allowed --------------------------------------------------------------------------------


DERIVING = [x for x in PARTS["search"] if part_named("search", x).kind != "one-shot"]


@pytest.mark.parametrize("search", DERIVING)
def test_every_rule_keeps_to_what_is_allowed(search):
    own = make_part("search", {"name": search})
    space = fit(own, DARTS)
    for seed in range(5):
        torch.manual_seed(seed)
        alphas = own.alphas(space)
        allowed = {g: torch.rand(shape) < 0.5 for g, shape in space.choices.items()}
        for group, edges in space.operations.items():
            for edge, names in enumerate(edges):  # one is left everywhere, and it is no skip
                allowed[group][edge, names.index("sep_conv_3x3")] = True
        found = own.derive(space, alphas, allowed)
        for group, cell in found.cells.items():
            starts = [sum(space.nodes[:node]) for node in range(len(space.nodes))]
            for start, kept in zip(starts, cell.nodes, strict=True):
                for name, source in kept:
                    column = space.operations[group][start + source].index(name)
                    assert allowed[group][start + source, column]
        everything = {g: torch.ones_like(mask) for g, mask in allowed.items()}
        assert own.derive(space, alphas, everything) == own.derive(space, alphas)


def test_two_operations_of_one_edge_are_kept_only_if_both_are_allowed():
    own = make_part("search", {"name": "prdarts"})
    weights = torch.full((14, 8), 0.1)  # rows that sum to 1, so that softmax gives them back
    weights[1, 6] = 0.3
    weights[0] = torch.tensor([0.1 / 6] * 8)
    weights[0, 4], weights[0, 5] = 0.5, 0.4
    alphas = {g: weights.log() for g in ("normal", "reduce")}
    two = (("sep_conv_3x3", 0), ("sep_conv_5x5", 0))
    assert own.derive(DARTS, alphas).cells["normal"].nodes[0] == two
    allowed = {g: torch.ones(14, 8, dtype=torch.bool) for g in alphas}
    allowed["normal"][0, 5] = False
    found = own.derive(DARTS, alphas, allowed)
    assert found.cells["normal"].nodes[0] == (("sep_conv_3x3", 0), ("dil_conv_3x3", 1))
    assert found.cells["reduce"].nodes[0] == two


@dataclass(frozen=True)
class Old(Darts):
    """A search whose rule cannot be told what is allowed."""

    def derive(self, space, alphas):
        """Derive the strongest operations."""
        return space.genotype(self.expected(alphas))


def test_a_rule_that_cannot_be_told_what_is_allowed_is_refused():
    name = f"{__name__}:Old"
    with pytest.raises(ValueError, match="derive must take space, alphas, allowed"):
        make_part("search", {"name": name})
    assert part_named("search", name) is Old
