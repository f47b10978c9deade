"""Read plain values from pickles of benchmarks, without running code that is in them.

Only operations that build numbers, texts, lists and dictionaries are allowed, and of functions only
those by which numpy writes a number. Memory is bounded by the file's size. Nothing in this file
imports torch.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

ALLOWED: Final = frozenset(
    "ADDITEMS APPEND APPENDS BINBYTES BINFLOAT BINGET BININT BININT1 BININT2 BINPUT BINUNICODE "
    "BUILD EMPTY_DICT EMPTY_LIST EMPTY_SET EMPTY_TUPLE FRAME GLOBAL LONG1 LONG_BINGET LONG_BINPUT "
    "MARK MEMOIZE NEWFALSE NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS SHORT_BINBYTES "
    "SHORT_BINUNICODE STACK_GLOBAL STOP TUPLE TUPLE1 TUPLE2 TUPLE3".split()
)
"""Operations of a pickle that are read."""
STORED: Final = ("BINPUT", "LONG_BINPUT")
"""Operations with a place in the unpickler's memory, which grows to that place."""


class NumberType:
    """Stands for numpy's dtype, of numbers only."""

    def __init__(self, code: str, *_: Any) -> None:
        """Read a code such as f8.

        Raises:
            ValueError: It is not that of a number.
        """
        self.dtype = np.dtype(code).newbyteorder("<") if len(code) == 2 else np.dtype(object)
        if self.dtype.kind not in "biuf":
            raise ValueError(f"a value of numpy's type {code!r}: must be a number")

    def __setstate__(self, state: Any) -> None:
        """Set the order of the bytes.

        Raises:
            ValueError: It is not the usual one.
        """
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|"):
            raise ValueError("a number whose bytes are not in the usual order")


def number(kind: Any, content: Any) -> Any:
    """Read a number as numpy writes it.

    Raises:
        ValueError: It is none.
    """
    if type(kind) is not NumberType or len(content) != kind.dtype.itemsize:
        raise ValueError("a value of numpy that is no number")
    return np.frombuffer(content, kind.dtype)[0].item()


def encoded(text: Any, encoding: Any) -> bytes:
    """Return bytes, which early protocols write as a text.

    Raises:
        ValueError: It is written in another way.
    """
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes that are not written as a text")
    return text.encode("latin1")


FUNCTIONS: Final[Mapping[tuple[str, str], Callable[..., Any]]] = {
    ("_codecs", "encode"): encoded,
    ("collections", "OrderedDict"): dict,
    ("numpy", "dtype"): NumberType,
    ("numpy.core.multiarray", "scalar"): number,
    ("numpy._core.multiarray", "scalar"): number,
}
"""What stands for the functions that may be called."""


class Reader(pickle.Unpickler):
    """An unpickler that calls nothing but FUNCTIONS."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a function.

        Raises:
            ValueError: It may not be called.
        """
        if (module, name) not in FUNCTIONS:
            raise ValueError(f"it would run {module}.{name}, which is not allowed")
        found = FUNCTIONS[module, name]
        if isinstance(found, type):
            return found
        return lambda *given: found(*given)  # a pickle can set attributes of what it gets


def read_pickle(content: bytes) -> Any:
    """Read a pickle.

    Raises:
        ValueError: It is damaged, or holds anything but plain values.

    >>> read_pickle(pickle.dumps({"a": [1, 2.5, ("b", None)]}))
    {'a': [1, 2.5, ('b', None)]}
    """
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(content), start=1):
            if operation.name not in ALLOWED:
                raise ValueError(f"it has the operation {operation.name}, which is not allowed")
            if operation.name in STORED and (argument or 0) > count:
                raise ValueError("it asks for memory that its values do not need")
        return Reader(io.BytesIO(content)).load()
    except ValueError:
        raise
    except Exception as error:  # pickle raises any, for what is damaged
        raise ValueError(f"it is damaged: {error or type(error).__name__}") from None
