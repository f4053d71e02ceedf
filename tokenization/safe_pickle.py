"""Read the pickles that the published system shipped, without letting them run code."""

import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

from .errors import InputError


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
    try:
        with open(path, "rb") as handle:
            return _PlainUnpickler(handle).load()
    except _ForbiddenError as error:
        raise InputError(f"{path}: refers to {error}, which is code and not plain data; it was not loaded") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: not a readable pickle ({' '.join(str(error).split())[:120]})") from error


class _ForbiddenError(Exception):
    pass


def _numpy_scalar(dtype: np.dtype, raw: bytes) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or not isinstance(raw, bytes):
        raise _ForbiddenError("a NumPy scalar that is not a number")
    return np.frombuffer(raw, dtype=dtype, count=1)[0].item()


def _numpy_dtype(name: Any, *_: Any) -> np.dtype:
    dtype = np.dtype(str(name))
    if dtype.kind not in "biuf":
        raise _ForbiddenError(f"NumPy type {name}")
    return dtype


class _PlainArray(np.ndarray):
    """An array whose state is checked to hold numbers before NumPy sees it."""

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], np.dtype)):
            raise _ForbiddenError("a NumPy array in an unknown form")
        if state[2].kind not in "biuf" or not isinstance(state[4], bytes):
            raise _ForbiddenError("a NumPy array of something else than numbers")
        super().__setstate__(state)


def _numpy_array(*_: Any) -> np.ndarray:
    return np.ndarray.__new__(_PlainArray, (0,), "b")


def _array_of_bytes(raw: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or not isinstance(raw, bytes | bytearray):
        raise _ForbiddenError("a NumPy array of something else than numbers")
    return np.frombuffer(raw, dtype=dtype).reshape(shape, order=order)


def _latin1(text: Any, encoding: Any) -> bytes:
    # how bytes are written by pickle protocols 0 to 2
    if not isinstance(text, str) or encoding != "latin1":
        raise _ForbiddenError("_codecs.encode")
    return text.encode("latin1")


# everything that a plain pickle may name, each replaced by something that makes plain data
_ADMITTED: dict[tuple[str, str], Any] = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("_codecs", "encode"): _latin1,
    ("numpy", "ndarray"): "ndarray",
    ("numpy.core.multiarray", "_reconstruct"): _numpy_array,
    ("numpy._core.multiarray", "_reconstruct"): _numpy_array,
    ("numpy.core.numeric", "_frombuffer"): _array_of_bytes,
    ("numpy._core.numeric", "_frombuffer"): _array_of_bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): _numpy_dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise _ForbiddenError(f"{module}.{name}")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _ForbiddenError("an object outside of the file")
