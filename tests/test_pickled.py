"""Plain values are read from pickles; whatever would run code or fill the memory is refused."""

import collections
import io
import os
import pickle
import struct

import numpy as np
import pytest

from tutelage.benchmark import pickled
from tutelage.benchmark.pickled import read_pickle

VALUES = {
    "name": "8:8:8:8:8",
    ("cifar10", 777): [1, 2.5, -3, 10**6, True, False, None, b"raw", "ü", (), (1,), (1, 2, 3, 4)],
    "empty": [{}, []],
    "ordered": collections.OrderedDict([("01", 1), ("12", 2)]),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_come_back(protocol):
    assert read_pickle(pickle.dumps(VALUES, protocol)) == VALUES
    if protocol >= 4:  # before, a set was a call
        assert read_pickle(pickle.dumps([set(), {1, 2}], protocol)) == [set(), {1, 2}]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "value", [np.float64(0.1), np.float32(0.5), np.int64(-7), np.uint8(9), np.bool_(True)]
)
def test_numbers_of_numpy_come_back_as_plain_ones(protocol, value):
    found = read_pickle(pickle.dumps([value, value], protocol))
    assert found == [value.item()] * 2 and type(found[0]) is type(value.item())


class Runs:
    """Runs a function when it is unpickled."""

    def __init__(self, function, *given):
        self.function, self.given = function, given

    def __reduce__(self):
        return self.function, self.given


class Plain:
    pass


def of(*operations):
    return b"\x80\x04" + b"".join(operations) + b"."


BAD = {
    "a command": (pickle.dumps(Runs(os.system, "touch ran")), "posix.system, which is not allowed"),
    "eval": (pickle.dumps(Runs(eval, "1")), "builtins.eval"),
    "open": (pickle.dumps(Runs(open, "ran", "w")), "open, which is not allowed"),
    "early protocol": (pickle.dumps(Runs(eval, "1"), 0), "operation"),
    "protocol 2": (pickle.dumps(Runs(eval, "1"), 2), "__builtin__.eval"),
    "an object": (pickle.dumps(Plain()), "operation NEWOBJ, which is not allowed"),
    "a class": (pickle.dumps(Plain), "test_pickled.Plain"),
    "an array": (pickle.dumps(np.zeros(3)), "not allowed"),
    "objects of numpy": (
        pickle.dumps(Runs(np.dtype, "O8", False, True)),
        "numpy's type 'O8': must be a number",
    ),
    "a large place": (of(b"N", b"r", struct.pack("<I", 0xFFFFFFF0)), "memory"),
    "a large array of bytes": (of(b"\x96", struct.pack("<Q", 1 << 60)), "bytes"),
    "an instance": (of(b"(", b"i", b"os\nsystem\n"), "operation INST"),
    "by number": (of(b"\x82\x01"), "operation EXT1"),
    "by name": (of(b"Pname\n"), "operation PERSID"),
    "nothing": (b"", "damaged|exhausted"),
    "text": (b"# a page\n", "unknown"),
    "cut": (pickle.dumps(VALUES)[:-20], "STOP|expected|damaged"),
    "an empty stack": (of(b"s"), "damaged"),
    "a list as a key": (of(b"}", b"]", b"N", b"s"), "damaged"),
    "no pickle's end": (of(b"N")[:-1], "STOP|damaged|exhausted"),
}


@pytest.mark.parametrize("case", BAD)
def test_all_else_is_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        read_pickle(content)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_cannot_change_what_reads_the_next_one():
    content = of(b"c_codecs\nencode\n", b"}", b"\x8c\x01x", b"N", b"s", b"b")
    read_pickle(content)
    assert not vars(pickled.encoded)
    changed = of(b"c_codecs\nencode\n", b"N}\x8c\x08__name__\x8c\x01xs\x86", b"b")
    read_pickle(changed)
    assert pickled.encoded.__name__ == "encoded"
    for name in ("numpy\ndtype", "collections\nOrderedDict"):
        with pytest.raises(ValueError, match="damaged"):
            read_pickle(of(f"c{name}\n".encode(), b"N}\x8c\x01x\x8c\x01xs\x86", b"b"))
    assert read_pickle(pickle.dumps(np.float64(2))) == 2


def test_random_damage_gives_values_or_one_sentence():
    draw = np.random.default_rng(0)
    content = pickle.dumps({**VALUES, "n": np.float64(1)})
    for _ in range(2000):
        damaged = bytearray(content)
        for place in draw.integers(len(content), size=draw.integers(1, 4)):
            damaged[place] = draw.integers(256)
        try:
            read_pickle(bytes(damaged))
        except ValueError as error:
            assert str(error)


def test_the_reader_is_no_unpickler_of_objects():
    with pytest.raises(ValueError, match="would run"):
        pickled.Reader(io.BytesIO(pickle.dumps(Runs(eval, "1")))).load()
