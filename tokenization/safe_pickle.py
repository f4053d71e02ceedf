"""Read the pickles that the published system shipped, without letting them run code.

The file's instructions are read through before any of them is obeyed: only those that make plain data are admitted,
none may ask for more than the file holds, nothing is nested deeper than data ever are. What is then built knows no
Python object of this process: where a pickle names NumPy's constructors, it gets a description, which is turned into
an array by code of ours once the pickle is read.
"""

import os
import pickle
import pickletools
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .errors import InputError

_DEEPEST = 100
_LARGEST_FILE = 1 << 31


def read_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """Load a pickle of plain containers, texts, numbers, NumPy numbers and arrays of them; refuse everything else.

    Nothing that the file names is imported or called: a class or function outside of the few listed here ends the
    reading. Whoever opens a dictionary found on the internet gets a dictionary or an error.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict, list, tuple, set, str, bytes, number, array, bool or None

    Raises
    ------
    InputError
        For a file that is missing, damaged, no pickle, or that holds anything but plain data.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "tokens.pickle"
    >>> _ = file.write_bytes(pickle.dumps({"ENSG00000254647": 2}))
    >>> read_plain_pickle(file)
    {'ENSG00000254647': 2}
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"{path}: no such file")
    if not file.is_file():
        raise InputError(f"{path}: not a file")
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise _ForbiddenError(f"{file.stat().st_size:,} bytes")
        content = file.read_bytes()
        _read_through(content)
        return _plain(_PlainUnpickler(_Once(content)).load())
    except _ForbiddenError as error:
        raise InputError(f"{path}: refers to {error}, which is code and not plain data; it was not loaded") from None
    except Exception as error:  # a damaged pickle can make the reader say anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: not a readable pickle ({reason})") from error


class _ForbiddenError(Exception):
    pass


# ---- the instructions, before any is obeyed ----

# numbers, texts, bytes; containers; the stack and the memo; names, which find_class judges, and calls of what it gives
_CODES = """
INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT NONE NEWTRUE NEWFALSE STRING BINSTRING SHORT_BINSTRING
BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET
ADDITEMS FROZENSET
POP DUP MARK POP_MARK GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
GLOBAL STACK_GLOBAL REDUCE BUILD PROTO FRAME STOP
"""
_ADMITTED_CODES = frozenset(_CODES.split())


def _read_through(content: bytes) -> None:
    """Refuse instructions that plain data do not need, and sizes that the file cannot hold."""
    end = 0
    for code, argument, place in pickletools.genops(content):
        if code.name not in _ADMITTED_CODES:
            raise _ForbiddenError(f"pickle instruction {code.name}")
        size: Any = argument
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(size) > len(content):
            raise ValueError("a memo entry beyond the size of the file")
        if code.name in ("INT", "LONG", "LONG1", "LONG4") and int(size).bit_length() > 4096:
            raise ValueError("a number of more than 4,096 bits")
        end = int(place or 0)
    if end + 1 != len(content):
        raise ValueError("bytes follow the end of the pickle")


class _Once:
    """A file of bytes in memory that gives no more than it has, whatever is asked."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def read(self, size: int = -1) -> bytes:
        end = len(self._content) if size < 0 else self._place + size
        piece = self._content[self._place : end]
        self._place += len(piece)
        return piece

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def readline(self) -> bytes:
        end = self._content.find(b"\n", self._place) + 1 or len(self._content)
        return self.read(end - self._place)


# ---- what a pickle's names stand for: descriptions, inert until the pickle is read ----


@dataclass(slots=True)
class _Call:
    """What a pickle asked to be made, and the state it gave it; slots, so that BUILD can add nothing else."""

    what: str
    arguments: tuple[Any, ...]
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __hash__(self) -> int:  # numbers may be keys; they are compared once they are numbers
        return id(self)


class _Maker:
    """Makes a description when a pickle calls it; without attributes that BUILD could change."""

    __slots__ = ("_what",)
    _what: str

    def __init__(self, what: str) -> None:
        object.__setattr__(self, "_what", what)

    def __call__(self, *arguments: Any) -> _Call:
        return _Call(self._what, arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _ForbiddenError("a change of the reader itself")

    def __setstate__(self, state: Any) -> None:
        raise _ForbiddenError("a change of the reader itself")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise _ForbiddenError("a copy of the reader itself")


_ADMITTED: dict[tuple[str, str], str] = {
    ("builtins", "set"): "set",
    ("builtins", "frozenset"): "frozenset",
    ("__builtin__", "set"): "set",
    ("__builtin__", "frozenset"): "frozenset",
    ("_codecs", "encode"): "bytes",
    ("numpy", "ndarray"): "ndarray",
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy.core.numeric", "_frombuffer"): "buffer",
    ("numpy._core.numeric", "_frombuffer"): "buffer",
    ("collections", "OrderedDict"): "ordered",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
}


class _Ordered(OrderedDict):
    """An ordered dictionary that BUILD cannot give attributes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _ForbiddenError("attributes of a dictionary")


class _PlainUnpickler(pickle._Unpickler):  # type: ignore[name-defined]  # in Python: keys are looked at
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise _ForbiddenError(f"{module}.{name}")
        what = _ADMITTED[module, name]
        # an ordered dictionary is filled by instructions that follow, so it must be one
        return _Ordered if what == "ordered" else _Maker(what)

    def persistent_load(self, pid: Any) -> Any:
        raise _ForbiddenError("an object outside of the file")


def _keys_checked(code: bytes, keys_of: Any) -> None:
    """Look at the keys on top of the stack before an instruction hashes them."""
    obey = pickle._Unpickler.dispatch[code[0]]  # type: ignore[attr-defined]

    def checked(reader: Any) -> None:
        for key in keys_of(reader.stack):
            _check_key(key)
        obey(reader)

    _PlainUnpickler.dispatch[code[0]] = checked


_keys_checked(pickle.SETITEM, lambda stack: stack[-2:-1])
for _code in (pickle.SETITEMS, pickle.DICT):
    _keys_checked(_code, lambda stack: stack[::2])
for _code in (pickle.ADDITEMS, pickle.FROZENSET):
    _keys_checked(_code, lambda stack: stack)


def _check_key(key: Any, depth: int = 0) -> None:
    """Refuse tuples that hold each other many times over: hashing one would never end."""
    if isinstance(key, tuple):
        if depth > 3 or len(key) > 16:
            raise ValueError("a key that is a tuple of many tuples")
        for inner in key:
            _check_key(inner, depth + 1)


# ---- from descriptions to plain data ----


def _plain(item: Any, depth: int = 0, seen: dict[int, Any] | None = None) -> Any:
    """The item with every description turned into the data it stands for."""
    if depth > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST}")
    if item is None or isinstance(item, bool | int | float | str | bytes | bytearray):
        return item
    seen = {} if seen is None else seen
    if id(item) in seen:
        if seen[id(item)] is _BUSY:
            raise ValueError("a container that contains itself")
        return seen[id(item)]
    seen[id(item)] = _BUSY
    made = _made(item, lambda inner: _plain(inner, depth + 1, seen))
    seen[id(item)] = made
    return made


_BUSY = object()


def _made(item: Any, plain: Any) -> Any:
    if isinstance(item, list):
        if all(type(inner) is float for inner in item):  # a vector of an embedding: there are millions of these
            return item
        return [plain(inner) for inner in item]
    if isinstance(item, tuple):
        return tuple(plain(inner) for inner in item)
    if isinstance(item, _Ordered):
        return OrderedDict((plain(key), plain(value)) for key, value in item.items())
    if isinstance(item, dict):
        return {plain(key): plain(value) for key, value in item.items()}
    if isinstance(item, set | frozenset):
        return type(item)(plain(inner) for inner in item)
    if not isinstance(item, _Call):
        raise _ForbiddenError(f"a {type(item).__name__.strip('_')}, not called")
    if item.what in ("set", "frozenset") and item.state is None and len(item.arguments) <= 1:
        members = plain(list(item.arguments[0])) if item.arguments else []
        for member in members:
            _check_key(member)
        return set(members) if item.what == "set" else frozenset(members)
    if item.what == "bytes" and item.state is None:
        text, encoding = item.arguments
        if not isinstance(text, str) or encoding != "latin1":
            raise _ForbiddenError("_codecs.encode")
        return text.encode("latin1")
    if item.what == "scalar" and item.state is None:
        dtype, raw = _dtype(item.arguments[0]), plain(item.arguments[1])
        if not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
            raise _ForbiddenError("a NumPy scalar that is not a number")
        return np.frombuffer(raw, dtype=dtype)[0].item()
    if item.what == "array" and isinstance(item.state, tuple) and len(item.state) == 5:
        _, shape, dtype, fortran, raw = item.state
        return _array(plain(raw), _dtype(dtype), plain(shape), "F" if fortran else "C")
    if item.what == "buffer" and item.state is None and len(item.arguments) == 4:
        raw, dtype, shape, order = item.arguments
        return _array(plain(raw), _dtype(dtype), plain(shape), "F" if order == "F" else "C")
    raise _ForbiddenError(f"a NumPy {item.what} in an unknown form")


def _dtype(item: Any) -> np.dtype:
    """A type of numbers; its byte order comes as state, separately from its name."""
    if not isinstance(item, _Call) or item.what != "dtype" or not item.arguments:
        raise _ForbiddenError("a NumPy type in an unknown form")
    name = item.arguments[0]
    if not isinstance(name, str) or len(name) > 8:
        raise _ForbiddenError("a NumPy type in an unknown form")
    dtype = np.dtype(name)
    if dtype.kind not in "biuf":
        raise _ForbiddenError(f"NumPy type {name}")
    if item.state is None:
        return dtype
    order = item.state[1] if isinstance(item.state, tuple) and len(item.state) > 1 else None
    if order not in ("<", ">", "|", "="):
        raise _ForbiddenError("a NumPy type in an unknown form")
    return dtype.newbyteorder(order) if order in "<>" else dtype


def _array(raw: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(raw, bytes | bytearray):
        raise _ForbiddenError("a NumPy array of something else than numbers")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("an array of no shape")
    numbers = np.frombuffer(bytes(raw), dtype=dtype).reshape(shape, order=order)
    return numbers.astype(dtype.newbyteorder("="))  # a copy that may be written, in the machine's own byte order
