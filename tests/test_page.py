"""Spaces in pages of TOML, and operations of one's own: what they are, cost, and refuse."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import test_contracts as contracts
from pages import CELLS, CHAIN, EXAMPLE, OPERATIONS, forgotten
from retraining import FILE
from test_network_file import small_network
from tutelage.parts import PARTS, make_part, part_named, part_settings
from tutelage.run.cost.count import flops, params
from tutelage.run.cost.table import costs_of
from tutelage.run.networks.files import load, space_of
from tutelage.run.trained.export import export
from tutelage.spaces.base import ArchWeights, Size, Variant
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.grow import grow
from tutelage.spaces.mixed import MixedNode
from tutelage.spaces.mixed_cell import run_cell
from tutelage.spaces.own import Operation
from tutelage.spaces.paths import encode, genotype, path, sample
from tutelage.spaces.plan import Layout, weights_of
from tutelage.spaces.states import State, shuffle
from tutelage.spaces.style import Style

ONE_CELL = """
skeleton = "nasbench201"
candidates = ["none", "skip_connect", "involution"]
cells = 2
[operations.involution]
module = "involution:involution"
"""
WRITTEN = """
skeleton = "darts"
candidates = ["skip_connect", "mine"]
[operations.mine]
module = "written_operations:good"
cost = "written_operations:flops"
"""


@pytest.fixture(autouse=True)
def _apart():
    with forgotten("involution", "written_operations"):
        yield


@pytest.fixture
def written(tmp_path):
    """Write a page beside a module of right and wrong functions, and return its path."""
    (tmp_path / "written_operations.py").write_text(OPERATIONS)

    def write(text=WRITTEN):
        (tmp_path / "mine.toml").write_text(text)
        return str(tmp_path / "mine.toml")

    return write


@pytest.fixture(params=["cells", "chain", "one-cell"])
def page(request, tmp_path):
    """The path of a page of every skeleton, and a small size of its networks."""
    if request.param == "one-cell":
        text = (EXAMPLE / "involution.py").read_text()
        (tmp_path / "involution.py").write_text(text)
        (tmp_path / "one.toml").write_text(ONE_CELL)
        return str(tmp_path / "one.toml"), Size(4, 2, 3, 1)
    return (str(CELLS), Size(4, 3, 3, 1)) if request.param == "cells" else (str(CHAIN), Size(8, 4))


def test_the_documentation_shows_the_examples_files():
    text = (EXAMPLE.parent.parent / "docs" / "own-spaces.md").read_text()
    for file in (CELLS, CHAIN, EXAMPLE / "involution.py"):
        assert f"\n{file.read_text()}```" in text, file.name


def test_a_run_and_a_genotype_hold_the_whole_space(page):
    space = part_named("space", page[0])
    table = part_settings("space", space)
    stored = tomllib.loads(Path(page[0]).read_text())
    stored.pop("about", None)
    assert {key: table[key] for key in stored} == stored
    assert table["name"] == space.name not in PARTS["space"]
    assert part_settings("space", make_part("space", table)) == table
    found = genotype(space, sample(space))
    read = Genotype.from_json(found.to_json())
    assert read == found
    again = space_of(read)
    assert again.operations == space.operations and again.sizes == space.sizes
    assert encode(again, read) == encode(space, found)
    with pytest.raises(ValueError, match="another layout: build it by its own layout"):
        space.network(replace(found, layout={**found.layout, "skeleton": "none"}), page[1])


def test_a_sampled_path_is_its_network(page):
    """Cost by cost: the sum of the parts is what the network has, involution's FLOPs too."""
    space, size = part_named("space", page[0]), page[1]
    costs = costs_of(space, size, (9, 8))
    for _ in range(3):
        found = genotype(space, sample(space))
        with torch.device("meta"):
            network = space.network(found, size)
        assert costs.of(found).params == params(network)
        assert costs.of(found).flops == flops(network.eval(), (size.image_channels, 9, 8))
    supernet = space.supernet(size)
    arch = path(space, sample(space), torch.device("cpu"), torch.float32)
    assert supernet(torch.randn(2, size.image_channels, 8, 8), arch)[0].shape == (2, size.classes)


def test_declared_flops_are_the_counted_ones_and_the_weighing():
    (operation,) = part_named("space", str(CELLS)).own
    counted = operation._replace(cost="")
    for channels, stride, sides in ((8, 1, (6, 6)), (8, 2, (7, 6))):
        pixels = -(-sides[0] // stride) * -(-sides[1] // stride)
        with torch.device("meta"):
            ours, torchs = (
                each.build(channels, channels, stride, Style()).eval()
                for each in (operation, counted)
            )
        weighing = 9 * channels * pixels
        assert flops(ours, (channels, *sides)) == flops(torchs, (channels, *sides)) + weighing


def test_the_penalty_moves_alphas_away_from_what_is_declared(written):
    space = part_named("space", written())
    costs = costs_of(space, Size(4, 3, 3, 1), (8, 8))
    alphas = {g: torch.zeros(s, requires_grad=True) for g, s in space.choices.items()}
    arch = ArchWeights({group: a.softmax(-1) for group, a in alphas.items()})
    costs.table(space).expected(arch)[1].backward()
    for alpha in alphas.values():  # columns: skip, mine
        assert bool((alpha.grad[2:, 1] > 0).all() and (alpha.grad[2:, 0] < 0).all())
    of_edge = {group: each[2]["mine"].flops for group, each in costs.operations.items()}
    assert of_edge == {"normal": 7 * 4**2, "reduce": 7 * (8**2 + 16**2)}  # cells of 4, 8 and 16


@pytest.mark.parametrize("partial", [1, 2])
def test_a_mixed_node_sums_the_operation_as_it_is(partial, written):
    """Against the plain sum of module outputs, with the shuffle of partial channels, in float64."""
    part_named("space", written())
    own = (Operation("mine", "written_operations:good"),)
    edges, variant = (("skip_connect", "mine"), ("mine", "skip_connect")), Variant(partial)
    node = MixedNode(edges, [2, 1], 4, variant, own).double()
    inputs = [torch.randn(3, 4, side, side, dtype=torch.float64) for side in (7, 4)]
    weights = torch.tensor([[0.3, 0.7], [0.4, 0.6]], dtype=torch.float64)
    layout = Layout((2,), halved=frozenset({0}))
    (sorted_weights,) = weights_of(ArchWeights({"normal": weights}), "normal", edges, layout, 1)
    states = [State(x, stride, variant) for x, stride in zip(inputs, (2, 1), strict=True)]
    found = run_cell([node], states, sorted_weights, variant)[-1].whole
    x, y = states
    skip = node.reductions["0"](x.halves)
    total = 0.3 * skip + 0.7 * node.own["0"]["mine"].inner(x.x)
    total = total + 0.4 * node.own["1"]["mine"].inner(y.x) + 0.6 * y.x
    if partial > 1:
        total = shuffle(torch.cat([total, x.bypass + y.bypass], 1), partial)
    torch.testing.assert_close(found, total, rtol=1e-12, atol=1e-12)


def test_a_phase_with_more_channels_copies_the_operation(written):
    """DrNAS' phases: old channels stay, and new ones repeat one, in all of a module's tensors."""
    space = part_named("space", written())
    old, new = (space.varied(partial=k).supernet(Size(8, 3, 3, 1)) for k in (4, 2))
    wide = grow(old, new)(dict(old.named_parameters()))
    name = "cells.0.nodes.0.own.1.mine.inner.1.weight"
    before, after = old.get_parameter(name), wide[name]
    assert after.shape == new.get_parameter(name).shape == (4, 4, 1, 1)
    assert torch.equal(after[:2, :2], before)
    rows = [next(k for k in range(2) if torch.equal(row[:2], before[k])) for row in after]
    assert torch.equal(after, before[rows][:, rows])
    assert torch.equal(
        wide[name.replace("weight", "bias")],
        old.get_parameter(name.replace("weight", "bias"))[rows],
    )


MISTAKES = [
    ('skeleton = "darts"', "", "skeleton = missing: must be one of darts, nasbench201, chain"),
    ('"darts"', '"dart"', "skeleton = 'dart': did you mean darts"),
    ("candidates", "candidate", "unknown setting 'candidate' of a space .* mean candidates"),
    ('["skip_connect", "mine"]', '"mine"', "candidates = 'mine': must be texts"),
    ('["skip_connect", "mine"]', "[]", "candidates = nothing: give one operation or more"),
    ('"skip_connect"', '"skip_conect"', "candidates: unknown operation 'skip_conect': did you"),
    ('"skip_connect"', '"mine"', "candidates = mine, mine: .* each of them once"),
    ('"mine"]', '"none"]', r"operations\.mine is no candidate"),
    ("[operations", "nodes = 9\n[operations", "nodes = 9: must be between 1 and 8"),
    ("[operations", "cells = 2\n[operations", "cells = 2: must be between 3 and"),
    ("[operations", 'name = "darts"\n[operations', "name = 'darts': must be of letters"),
    (
        "operations.mine",
        "operations.auxiliary",
        r"operations\.auxiliary: Tutelage or torch has that name",
    ),
    ("operations.mine", "operations.noise", r"operations\.noise: Tutelage or torch has that name"),
    ("operations.mine", "operations.keys", r"operations\.keys: Tutelage or torch has that name"),
    ("operations.mine", 'operations."a.b"', r"operations\.a\.b: a name has letters"),
    ("[operations.mine]", "[operations]", r"operations\.module = .*: must be a table"),
    ("module", "modul", r"operations\.mine: unknown setting 'modul' of an operation: did you mean"),
    ('module = "written_operations:good"', "", r"operations\.mine: module is missing"),
    (":good", "", "module = 'written_operations': must be an import path, as module:function"),
    (":good", ":god", r"operations\.mine\.module = '.*:god' cannot be imported: .*no attribute"),
    ("written_operations:good", "absent:good", r"module = 'absent:good' cannot .* named 'absent'"),
    (":good", ":CONSTANT", r"mine\.module = '.*' is no function: it is a int"),
    (
        ":good",
        ":narrow",
        r"mine\.module = '.*' maps \(2, 8, 7, 8\) to \(2, 7, 7, 8\): must be \(2, 8",
    ),
    (":good", ":flat", r"to \(2, 8, 7, 8\): must be \(2, 8, 4, 4\), for 8 channels and stride 2"),
    (":good", ":down", r"to \(2, 8, 3, 4\): must be \(2, 8, 4, 4\)"),
    (":good", ":running", "keeps running statistics in a supernet.* style.norm"),
    (":good", ":fails", "fails for 8 channels to 8, stride 1: RuntimeError: no such luck"),
    (":good", ":two", "fails for 8 channels to 8, stride 1: TypeError: two.. takes 2"),
    (":good", ":number", "returns 3: must be a torch.nn.Module"),
    (":good", ":listed", r"maps \(2, 8, 7, 8\) to a list: must be"),
    (":flops", ":nan", r"mine\.cost = '.*' gives nan for inputs = 8, .* between 0 and"),
    (":flops", ":negative", "gives -1.0 for inputs = 8"),
    (":flops", ":endless", "gives inf for inputs = 8"),
    (":flops", ":CONSTANT", r"mine\.cost = '.*' is no function: it is a int"),
    (":flops", ":text", "cost = '.*' fails for inputs = 8, .*could not convert"),
    (":flops", ":one", "cost = '.*' fails for inputs = 8, .*it must take these five"),
    (":flops", ":missing", r"operations\.mine\.cost = '.*:missing' cannot be imported"),
    ("skeleton =", "skeleton", "is not TOML"),
]


@pytest.mark.parametrize(("part", "instead", "pattern"), MISTAKES)
def test_a_mistake_is_one_sentence_with_the_page_and_the_key(part, instead, pattern, written):
    assert part in WRITTEN
    file = written(WRITTEN.replace(part, instead))
    with pytest.raises(ValueError, match=pattern) as error:
        part_named("space", file)
    assert file in str(error.value) and "\n" not in str(error.value)


def test_more_mistakes(written, tmp_path):
    chain = CHAIN.read_text()
    for text, pattern in (
        (chain.replace("widths", "width"), "widths missing: a chain needs candidates, widths"),
        (chain.replace("[2, 2]", "[2]"), "2 widths, 1 depths and 2 strides"),
        (chain.replace('"involution"]', '"involutions"]'), "candidates = involutions: must be"),
    ):
        with pytest.raises(ValueError, match=pattern) as error:
            part_named("space", written(text))
        assert "mine.toml: " in str(error.value)
    with pytest.raises(ValueError, match=r"space .*absent\.toml: there is no such file"):
        part_named("space", str(tmp_path / "absent.toml"))


def test_a_genotype_of_a_page_is_checked():
    space = part_named("space", str(CELLS))
    data = json.loads(genotype(space, sample(space)).to_json())
    for change, pattern in (
        (lambda d: d["cells"].pop("reduce"), "DARTS' are exactly normal and reduce"),
        (lambda d: d["cells"]["normal"]["nodes"].pop(), "concat names state 4|has 2 nodes"),
        (lambda d: d["layout"].update(nodes=5), "has 3 nodes: cells of this layout have 5"),
    ):
        changed = json.loads(json.dumps(data))
        change(changed)
        with pytest.raises(ValueError, match=pattern):
            Genotype.from_dict(changed)
    data["layout"]["nodes"] = "three"
    with pytest.raises(ValueError, match="nodes"):
        space_of(Genotype.from_dict(data))


# Every method, every search ----------------------------------------------------------------------

SAMPLED = ("ennas", "dna")
"""Methods that teach sampled sub-networks."""
METHODS = [(name, "single-path" if name in SAMPLED else "darts") for name in PARTS["method"]]
SEARCHES = [("single", name) for name in PARTS["search"] if name != "darts"]
FEWER = {
    CELLS: {"pdarts", "prdarts", "dna"},
    CHAIN: {"pdarts", "prdarts", "pcdarts", "darts-minus"},
}
"""What the page's operations, or its skeleton, do not fit."""


def every_pair():
    """Methods with one search, and searches with one method; in chains longer runs have methods."""
    for file in (CELLS, CHAIN):
        for method, search in [*METHODS, *SEARCHES]:
            longer = file == CHAIN and method not in ("single", "dna")
            marks = (pytest.mark.slow, pytest.mark.exhaustive) if longer else (pytest.mark.slow,)
            yield pytest.param(
                method, search, file, id=f"{method}-{search}-{file.stem}", marks=marks
            )


@pytest.fixture
def _as_chain(monkeypatch):
    monkeypatch.setattr(contracts, "CHAINS", [*contracts.CHAINS, str(CHAIN)])


@pytest.mark.parametrize(("method", "search", "file"), list(every_pair()))
def test_a_step_or_a_refusal(method, search, file, _as_chain):
    sentence = contracts.refusal(method, search, str(file))
    assert bool(sentence) == bool({method, search} & FEWER[file]), sentence
    if sentence:
        return
    triple = (method, search, str(file))
    if contracts.KINDS[search] != "random":
        contracts.test_one_step_changes_every_optimised_variable_and_nothing_else(triple)
    if contracts.KINDS[search] != "one-shot":
        contracts.test_reads_off_a_genotype_that_the_space_builds(triple)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("search", ["darts", "pcdarts", "darts-minus", "drnas", "gdas"])
@pytest.mark.parametrize("file", [CELLS, CHAIN], ids=["cells", "chain"])
def test_the_hypergradient_through_an_operation_of_ones_own(search, file, _as_chain):
    if contracts.refusal("single", search, str(file)) is None:
        contracts.test_hypergradient_equals_the_full_unroll(("single", search, str(file)))


@pytest.mark.slow
def test_a_run_is_retrained_loaded_and_exported_from_its_directory(tutelage, refused, here):
    """The code is imported only where the user trusts it; without, nothing of it runs."""
    for name in ("involution.py", "cells.toml"):
        (here / name).write_bytes((EXAMPLE / name).read_bytes())
    text = (here / "cells.toml").read_text()
    only = text.replace('"none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", ', "")
    (here / "cells.toml").write_text(only)
    code, out, error = tutelage("search --space cells.toml --quick --max-params 1 --out run")
    assert (code, error) == (0, "") and "tutelage retrain run --trust involution" in out
    settings = tomllib.loads((here / "run" / "run.toml").read_text())
    assert settings["space"]["operations"]["involution"]["module"] == "involution:involution"

    no = r"involution-cells.*\.module = .* names code of the module involution.* --trust involution"
    with forgotten("involution"):
        refused("retrain run", no)
        assert not (here / "run" / "retrain").exists()
        refused("describe run", no)
        refused("search --resume run", no)
        assert "involution" not in sys.modules
        assert tutelage("report run")[0] == tutelage("draw run --out run.svg")[0] == 0
        assert "involution" not in sys.modules
        assert tutelage("search --resume run --space cells.toml")[0] == 0
    with forgotten("involution"):
        assert tutelage("retrain run --trust involution --channels 8")[::2] == (0, "")
    with forgotten("involution"):
        refused("test run", no)
        refused("export run --out copy", no)
        assert tutelage("export run --out copy --trust involution")[0] == 0
        assert "\ntutelage.trust('involution')\n" in (here / "copy" / "README.md").read_text()
        assert tutelage("export run --out run.pt2 --trust involution")[0] == 0
    with forgotten("involution"):
        refused("predict copy run.png", no)
    code, out, _ = tutelage("test copy --data digits --trust involution")
    assert code == 0 and "of 599 images" in out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnx_has_operations_of_ones_own(tmp_path, capfd):
    """And the exporter says nothing of packages that it does not need."""
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    space = part_named("space", str(CELLS))
    found = genotype(space, sample(space))
    while "involution" not in found.names:
        found = genotype(space, sample(space))
    small_network(tmp_path / FILE, found)
    export(tmp_path, tmp_path / "network.onnx")
    assert capfd.readouterr().err == ""
    session = runtime.InferenceSession(tmp_path / "network.onnx")
    for count in (1, 7):
        x = torch.randn(count, 3, 16, 16)
        (logits,) = session.run(None, {"images": x.numpy()})
        assert torch.allclose(torch.from_numpy(logits), load(tmp_path)(x), atol=1e-5)


def test_dense_operations_have_a_stride_in_a_network_of_cells(written):
    space = part_named(
        "space", written('skeleton = "darts"\ncandidates = ["nor_conv_3x3", "nor_conv_1x1"]')
    )
    size, found = Size(4, 3, 10), genotype(space, sample(space))
    assert space.network(found, size)(torch.randn(2, 3, 8, 8))[0].shape == (2, 10)
    with torch.device("meta"):
        counted = flops(space.network(found, size).eval(), (3, 8, 8))
    assert costs_of(space, size, (8, 8)).of(found).flops == counted


def test_pairs_keep_the_layout_of_a_page(written):
    candidates = '"none", "skip_connect", "sep_conv_3x3"'
    text = f'skeleton = "darts"\nnodes = 3\ncandidates = [{candidates}]'
    space, search = part_named("space", written(text)), make_part("search", {"name": "gdas"})
    found = search.derive(space, search.alphas(space))
    again = space_of(Genotype.from_json(found.to_json()))
    assert again.operations == space.operations
