"""Genotypes: text forms both ways, every refusal, published cells, and the drawing's geometry."""

import json
import re
import subprocess
import sys
from itertools import product

import pytest

from tutelage.parts import PARTS, make_part
from tutelage.spaces.cells import CellSpace
from tutelage.spaces.chain import Chain
from tutelage.spaces.genotype import (
    DARTS_OPERATIONS,
    DARTS_SHAPED,
    NASBENCH201_OPERATIONS,
    OPERATIONS,
    Cell,
    Genotype,
)
from tutelage.spaces.published import PUBLISHED, resolve

DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)

# The papers' figures in shorthand, a node between dots.
CELLS = {
    "DARTS_V1": (
        "sep3 1, sep3 0 · skip 0, sep3 1 · skip 0, sep3 1 · sep3 0, skip 2",
        "max 0, max 1 · skip 2, max 0 · max 0, skip 2 · skip 2, avg 0",
    ),
    "DARTS_V2": (
        "sep3 0, sep3 1 · sep3 0, sep3 1 · sep3 1, skip 0 · skip 0, dil3 2",
        "max 0, max 1 · skip 2, max 1 · max 0, skip 2 · skip 2, max 1",
    ),
    "PDARTS": (
        "skip 0, dil3 1 · skip 0, sep3 1 · sep3 1, sep3 3 · sep3 0, dil5 4",
        "avg 0, sep5 1 · sep3 0, dil5 2 · max 0, dil3 1 · dil3 1, dil5 3",
    ),
    "PC_DARTS_cifar": (
        "sep3 1, skip 0 · sep3 0, dil3 1 · sep5 0, sep3 1 · avg 0, dil3 1",
        "sep5 1, max 0 · sep5 1, sep5 2 · sep3 0, sep3 3 · sep3 1, sep3 2",
    ),
    "PC_DARTS_image": (
        "skip 1, sep3 0 · sep3 0, skip 1 · sep3 1, sep3 3 · sep3 1, dil5 4",
        "sep3 0, skip 1 · dil5 2, max 1 · sep3 2, sep3 1 · sep5 0, sep3 3",
    ),
}
SHORT = {
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
}
NASBENCH201 = Genotype(
    "nasbench201",
    {
        "cell": Cell(
            (
                (("nor_conv_3x3", 0),),
                (("skip_connect", 0), ("none", 1)),
                (("avg_pool_3x3", 0), ("nor_conv_1x1", 1), ("nor_conv_3x3", 2)),
            ),
            concat=(3,),
            inputs=1,
        )
    },
)
NASBENCH201_TEXT = (
    "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"
)
SAME_EDGE = Cell(((("sep_conv_3x3", 0), ("skip_connect", 0)),) * 4, concat=(2, 3, 4, 5))
PRDARTS = Genotype("darts", {"normal": SAME_EDGE, "reduce": SAME_EDGE})
EVERY = [*PUBLISHED.values(), NASBENCH201, PRDARTS]


def changed(**cells):
    """DARTS_V2's JSON with keys of its normal cell replaced."""
    data = PUBLISHED["DARTS_V2"].to_dict()
    data["cells"]["normal"] |= cells
    return json.dumps(data)


def nodes(*, drop=None, **replace):
    found = PUBLISHED["DARTS_V2"].to_dict()["cells"]["normal"]["nodes"]
    for place, node in replace.items():
        found[int(place[1:])] = node
    return [node for place, node in enumerate(found) if place != drop]


@pytest.mark.parametrize("name", CELLS)
def test_published_cells_are_those_of_the_papers(name):
    for group, text in zip(("normal", "reduce"), CELLS[name], strict=True):
        wanted = tuple(
            tuple((SHORT[pair.split()[0]], int(pair.split()[1])) for pair in node.split(", "))
            for node in text.split(" · ")
        )
        assert PUBLISHED[name].cells[group] == Cell(wanted, (2, 3, 4, 5))


@pytest.mark.parametrize("genotype", EVERY)
def test_json_goes_both_ways(genotype):
    text = genotype.to_json({"learner": 1, "note": "ä [ ] { }"})
    assert Genotype.from_json(text) == genotype
    assert json.loads(text)["about"] == {"learner": 1, "note": "ä [ ] { }"}
    assert "about" not in json.loads(genotype.to_json())
    assert Genotype.from_dict(json.loads(json.dumps(genotype.to_dict()))) == genotype


def test_json_has_one_node_a_line():
    lines = PUBLISHED["DARTS_V2"].to_json().splitlines()
    assert '        [["sep_conv_3x3", 0], ["sep_conv_3x3", 1]],' in lines


def test_darts_text_goes_both_ways():
    genotype = PUBLISHED["DARTS_V2"]
    assert genotype.to_darts() == DARTS_V2
    for text in (
        DARTS_V2,
        f"DARTS_V2 = {DARTS_V2}",
        f"11/22 02:02:11 AM genotype = {DARTS_V2}\n",
        DARTS_V2.replace("range(2, 6)", "[2, 3, 4, 5]"),
        DARTS_V2.replace("normal=", "").replace("normal_concat=", "").replace("reduce=", ""),
        DARTS_V2.replace(", ", ",\n  "),
    ):
        assert Genotype.from_darts(text) == genotype
    assert Genotype.from_darts(PRDARTS.to_darts()) == PRDARTS


def test_all_strings_of_nasbench201_go_both_ways():
    edges = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
    texts = [edges.format(*each) for each in product(NASBENCH201_OPERATIONS, repeat=6)]
    genotypes = [Genotype.from_nasbench201(text) for text in texts]
    assert [genotype.to_nasbench201() for genotype in genotypes] == texts
    assert len({str(genotype.cells) for genotype in genotypes}) == 15_625


def test_a_string_of_nasbench201_names_its_cell():
    assert Genotype.from_nasbench201(NASBENCH201_TEXT) == NASBENCH201
    assert NASBENCH201.to_nasbench201() == NASBENCH201_TEXT
    assert Genotype.from_json(NASBENCH201.to_json()).to_nasbench201() == NASBENCH201_TEXT
    with pytest.raises(ValueError, match="has exactly one, cell"):
        PUBLISHED["DARTS_V2"].to_nasbench201()


@pytest.mark.parametrize("space", ["s1", "s2", "s3", "s4"])
def test_s1_to_s4_have_the_shape_of_darts_and_their_own_operations(space):
    names = [name for name in OPERATIONS[space] if name != "none"]
    for first, second in product(names, repeat=2):
        cell = Cell((((first, 0), (second, 1)),) * 4, concat=(2, 3, 4, 5))
        genotype = Genotype(space, {"normal": cell, "reduce": cell})
        assert Genotype.from_json(genotype.to_json()) == genotype
        assert Genotype.from_darts(genotype.to_darts(), space) == genotype
    with pytest.raises(ValueError, match=f"unknown operation 'nor_conv_3x3' for the .* '{space}'"):
        Genotype(space, {"normal": Cell(((("nor_conv_3x3", 0),) * 2,) * 4, (2, 3, 4, 5))})
    with pytest.raises(ValueError, match="DARTS' cells have 4"):
        Genotype(space, {"normal": cell, "reduce": Cell(cell.nodes[:3], (2, 3, 4))})


@pytest.mark.parametrize("name", PARTS["space"])
def test_genotypes_of_cells_are_checked_for_the_names_of_their_space(name):
    space = make_part("space", {"name": name})
    found = {each for edges in space.operations.values() for names in edges for each in names}
    if not isinstance(space, Chain):  # a chain's operations are in the layout of its genotypes
        assert found <= set(OPERATIONS.get(name, ())), f"OPERATIONS of spaces/genotype.py: {name}"
    if isinstance(space, CellSpace):
        assert name in DARTS_SHAPED, f"DARTS_SHAPED of spaces/genotype.py has no line for {name}"


def test_noise_is_of_s4_alone():
    assert [space for space, names in OPERATIONS.items() if "noise" in names] == ["s4"]
    assert OPERATIONS["s2"] == ("skip_connect", "sep_conv_3x3")


def test_a_concat_with_gaps_is_a_list_in_darts_text():
    cell = Cell(SAME_EDGE.nodes, (2, 4, 5))
    genotype = Genotype("darts", {"normal": cell, "reduce": cell})
    assert "normal_concat=[2, 4, 5]" in genotype.to_darts()
    assert Genotype.from_darts(genotype.to_darts()) == genotype


def test_darts_text_is_for_cells_of_its_form():
    with pytest.raises(ValueError, match="normal and reduce"):
        NASBENCH201.to_darts()


def test_code_in_darts_text_is_not_run(tmp_path):
    canary = tmp_path / "canary"
    text = DARTS_V2.replace("range(2, 6)", f"[open({str(canary)!r}, 'w')]")
    with pytest.raises(ValueError, match="not DARTS' tuple text"):
        Genotype.from_darts(text)
    assert not canary.exists()


REFUSED = {
    "unknown operation": (
        changed(nodes=nodes(_0=[["skip_conect", 0], ["skip_connect", 1]])),
        "unknown operation 'skip_conect' for the space 'darts': did you mean skip_connect?",
    ),
    "missing last node": (changed(nodes=nodes(drop=3)), "a node is missing"),
    "missing middle node": (changed(nodes=nodes(drop=2)), "a node is missing"),
    "shorter cell": (changed(nodes=nodes(drop=3), concat=[2, 3, 4]), "cell 'normal' has 3 nodes"),
    "empty node": (changed(nodes=nodes(_2=[])), "node 4 is missing"),
    "one operation": (changed(nodes=nodes(_2=[["skip_connect", 0]])), "node 4 sums 1"),
    "no nodes": (changed(nodes=[]), "the cell is empty"),
    "reads itself": (
        changed(nodes=nodes(_1=[["skip_connect", 3], ["skip_connect", 0]])),
        "node 3 reads state 3: must be an earlier state, 0 to 2",
    ),
    "reads before the inputs": (
        changed(nodes=nodes(_1=[["skip_connect", -1], ["skip_connect", 0]])),
        "reads state -1",
    ),
    "state in words": (changed(nodes=nodes(_1=[["skip_connect", "0"]] * 2)), "must be"),
    "concat of an absent state": (changed(concat=[2, 3, 4, 6]), "concat names state 6"),
    "concat of an input": (changed(concat=[1, 2, 3]), "concat names state 1"),
    "concat empty": (changed(concat=[]), "must name nodes"),
    "concat twice": (changed(concat=[2, 2]), "each of them once"),
    "concat nested": (changed(concat=[[2], 3]), "concat names state"),
    "inputs": (changed(inputs=0), "at least 1"),
    "three inputs": (changed(inputs=3), "cell 'normal'"),
    "nodes of something else": (changed(nodes=[1, 2]), "must hold inputs, nodes"),
    "cells empty": (
        '{"format": "tutelage genotype", "version": 1, "space": "x", "cells": {}}',
        "empty",
    ),
    "cells a list": (
        '{"format": "tutelage genotype", "version": 1, "space": "x", "cells": []}',
        "cells",
    ),
    "cell a number": (
        '{"format": "tutelage genotype", "version": 1, "space": "x", "cells": {"a": 1}}',
        "cell 'a' must hold",
    ),
    "newer": (
        changed().replace('"version": 1', '"version": 2'),
        "made by a newer Tutelage: version 2; this one reads 1",
    ),
    "version in words": (changed().replace('"version": 1', '"version": "1"'), "must be 1"),
    "foreign": ('{"name": "resnet"}', '"format" must be "tutelage genotype"'),
    "a list": ("{}", "not a genotype"),
    "truncated": (changed()[:-30], "damaged or cut short"),
    "half a tuple text": (DARTS_V2[:100], "not DARTS' tuple text"),
    "odd pairs": (DARTS_V2.replace(", ('dil_conv_3x3', 2)", ""), "holds 7 pairs"),
    "tuple text without reduce": (DARTS_V2.replace("reduce", "reduction"), "lacks reduce"),
    "tuple text of numbers": ("Genotype(normal=1)", "not DARTS' tuple text"),
    "tuple text of flat lists": (
        "Genotype(normal=[1, 2], normal_concat=[2], reduce=[1, 2], reduce_concat=[2])",
        "must hold inputs, nodes",
    ),
    "tuple text of a huge range": (DARTS_V2.replace("2, 6", f"2, {10**30}"), "a node is missing"),
    "NAS-Bench-201's of two nodes": (
        "|none~0|+|none~0|none~1|",
        "has 1 inputs, 2 nodes and the output 2: NAS-Bench-201's has 1, 3 and the output 3",
    ),
    "NAS-Bench-201's with a typing error": (
        NASBENCH201_TEXT.replace("avg_pool_3x3", "avg_pol_3x3"),
        "cell 'cell': unknown operation 'avg_pol_3x3' for the space 'nasbench201': did you mean",
    ),
    "NAS-Bench-201's with DARTS' operation": (
        NASBENCH201_TEXT.replace("avg_pool_3x3", "sep_conv_3x3"),
        "unknown operation 'sep_conv_3x3'",
    ),
    "NAS-Bench-201's with an edge twice": (
        NASBENCH201_TEXT.replace("nor_conv_1x1~1", "nor_conv_1x1~0"),
        "node 3 reads 0, 0, 2: NAS-Bench-201's reads every earlier state once, in the order 0, 1",
    ),
    "NAS-Bench-201's without an edge": (
        NASBENCH201_TEXT.replace("|nor_conv_1x1~1", ""),
        "node 3 reads 0, 2",
    ),
    "NAS-Bench-201's that reads itself": (
        NASBENCH201_TEXT.replace("none~1", "none~2"),
        "node 2 reads state 2: must be an earlier state",
    ),
    "NAS-Bench-201's without states": ("|none|+|none|none|", "not NAS-Bench-201's string"),
    "NAS-Bench-201's cut short": (NASBENCH201_TEXT[:-3], "not NAS-Bench-201's string"),
    "NAS-Bench-201's with a state in words": ("|none~a|", "not NAS-Bench-201's string"),
    "a lone bar": ("|", "not NAS-Bench-201's string"),
    "mistyped name": (
        "DARTS_V3",
        "unknown genotype 'DARTS_V3', and no file or run: did you mean DARTS_V2?",
    ),
    "no name at all": ("zebra", "must be one of DARTS_V1, DARTS_V2, PDARTS"),
    "no such file": ("runs/none/genotype.json", "no such file or directory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case):
    text, message = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        resolve(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_darts_has_a_normal_and_a_reduce_cell():
    with pytest.raises(ValueError, match="exactly normal and reduce"):
        Genotype("darts", {"normal": SAME_EDGE})


def test_resolve_takes_nasbench201s_string(tmp_path):
    (tmp_path / "found.txt").write_text(f"{NASBENCH201_TEXT}\n")
    (tmp_path / "genotype.json").write_text(NASBENCH201.to_json())
    for given in (NASBENCH201_TEXT, f" {NASBENCH201_TEXT} ", tmp_path / "found.txt", tmp_path):
        assert resolve(given) == NASBENCH201
    assert Genotype.read(tmp_path / "found.txt") == NASBENCH201
    with pytest.raises(ValueError, match=r"found\.txt: not NAS-Bench-201's string"):
        (tmp_path / "found.txt").write_text("|none|")
        resolve(tmp_path / "found.txt")


def test_resolve_takes_every_form(tmp_path):
    genotype = PUBLISHED["PC_DARTS_cifar"]
    (tmp_path / "genotype.json").write_text(genotype.to_json({"learner": 0}))
    (tmp_path / "genotype.txt").write_text(f"PC_DARTS = {genotype.to_darts()}\n")
    for given in (
        tmp_path,
        str(tmp_path),
        tmp_path / "genotype.json",
        tmp_path / "genotype.txt",
        genotype.to_json(),
        genotype.to_darts(),
        "PC_DARTS_cifar",
        "pc_darts_CIFAR",
    ):
        assert resolve(given) == genotype


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "genotype.json"
    with pytest.raises(ValueError, match=r"has no genotype\.json"):
        resolve(tmp_path)
    for content in (b"", b"{", b"\xff\xfe\x00", b"[1]"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            resolve(tmp_path)


def test_genotypes_do_not_import_torch():
    code = (
        "import sys, tutelage.spaces.published, tutelage.benchmark.nats;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_operations_of_darts_in_the_order_of_its_alphas():
    assert DARTS_OPERATIONS[:4] == ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect")
    assert DARTS_OPERATIONS[4:] == ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
