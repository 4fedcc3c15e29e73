"""Reads pickles that hold arrays, and nothing that could run.

Official FLAME files are pickles, some of them from Python 2 with objects of chumpy and scipy in them. Unpickling
runs whatever the file names, so this reader admits a short list of names and gives each an inert stand-in: numpy's
own pickling hooks, `chumpy.Ch`, scipy's `csc_matrix`, `copy_reg._reconstructor`, `_codecs.encode` and the empty
`bytes()`. Not even numpy's hooks are called: an array is rebuilt from its shape, its dtype and its bytes, after
checking that they agree. A file that names anything else is refused before anything of it is used.
"""

from __future__ import annotations

import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.errors import UserError


class _Stateful:
    """A stand-in that keeps its constructor's arguments and its state, and does nothing with them."""

    def __init__(self, *args):
        self.args = args
        self.state = None

    def __setstate__(self, state):
        self.state = state


class _Object(_Stateful):
    """`object`, the base that `copy_reg._reconstructor` is told."""


class _Function:
    """A function that a pickle may call, and do nothing else with: attributes cannot be set on it."""

    __slots__ = ("_function",)

    def __init__(self, function):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args):
        return self._function(*args)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("a state given to a function")


class _Array(_Stateful):
    """numpy.ndarray; state = (version, shape, dtype, column-major, bytes or list)."""


class _DType(_Stateful):
    """numpy.dtype; args = (code, align, copy), state = (version, byte order, ...)."""


class _Chumpy(_Stateful):
    """chumpy.Ch; its state's `x` is the array."""


class _SparseColumns(_Stateful):
    """scipy.sparse.csc_matrix; its state holds data, indices, indptr and the shape."""


def _reconstruct(subtype, shape, code) -> _Array:
    return _Array()


def _from_buffer(buffer, dtype, shape, order) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", buffer)
    return array


class _Scalar(_Stateful):
    """numpy.core.multiarray.scalar; args = (dtype, bytes)."""


def _reconstructor(cls, base, state) -> _Stateful:
    if not (isinstance(cls, type) and issubclass(cls, _Stateful)):
        raise pickle.UnpicklingError("copy_reg._reconstructor of something that is no array")
    return cls()


def _encode(text, encoding="latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"_codecs.encode with encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes(*args) -> bytes:
    """`bytes()`: how Python 3 writes the content of an empty array for Python 2."""
    if args:
        raise pickle.UnpicklingError("bytes made from something")
    return b""


_NUMPY_CORES = ("numpy.core", "numpy._core")
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("chumpy", "Ch"): _Chumpy,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("scipy.sparse.csc", "csc_matrix"): _SparseColumns,
    ("scipy.sparse._csc", "csc_matrix"): _SparseColumns,
    ("copy_reg", "_reconstructor"): _Function(_reconstructor),
    ("copyreg", "_reconstructor"): _Function(_reconstructor),
    ("__builtin__", "object"): _Object,
    ("builtins", "object"): _Object,
    ("_codecs", "encode"): _Function(_encode),
    ("__builtin__", "bytes"): _Function(_no_bytes),
}
for _core in _NUMPY_CORES:
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Function(_reconstruct)
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _Scalar
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _Function(_from_buffer)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise UserError(
                f"expected a pickle of arrays only, found that it names {module}.{name}; refused, nothing of it was run"
            ) from None


def load_arrays(path: str | os.PathLike) -> Any:
    """The content of a pickle: dicts, lists, tuples, numbers, strings, and numpy arrays.

    chumpy objects and sparse matrices come out as dense arrays; byte strings of Python 2 as `str` (latin1).
    Raises UserError, naming the file, where it cannot be read, where it names a global that is not admitted (in which
    case nothing of it has run), or where an array's shape, dtype and bytes disagree.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        return _resolve(content, {})
    except UserError as error:
        raise UserError(f"{error} ({path})") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (
        pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError, AssertionError,
        ImportError, MemoryError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"expected a pickle of arrays, cannot read {path}: {reason}") from None


def _resolve(value: Any, done: dict[int, Any]) -> Any:
    """Stand-ins -> numpy arrays, through all containers; `done` holds what is resolved already, by id."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        result = done[id(value)] = {}
        result.update((_resolve(key, done), _resolve(item, done)) for key, item in value.items())
    elif isinstance(value, list):
        result = done[id(value)] = []
        result.extend(_resolve(item, done) for item in value)
    elif isinstance(value, tuple):
        result = tuple(_resolve(item, done) for item in value)
    elif isinstance(value, _Array):
        result = _array(value, done)
    elif isinstance(value, _Scalar):
        dtype, raw = value.args
        result = _from_bytes((), _dtype(dtype), raw)[()]
    elif isinstance(value, _DType):
        result = _dtype(value)
    elif isinstance(value, _Chumpy):
        result = np.asarray(_resolve(_entry(value, "x"), done))
    elif isinstance(value, _SparseColumns):
        result = _dense(value, done)
    elif value is None or isinstance(value, str | bytes | bytearray | bool | int | float | complex):
        return value
    else:
        raise pickle.UnpicklingError(f"a {type(value).__name__.strip('_')} that is no data")
    done[id(value)] = result
    return result


def _entry(value: _Stateful, key: str) -> Any:
    if not isinstance(value.state, dict) or key not in value.state:
        raise pickle.UnpicklingError(f"a {type(value).__name__.strip('_')} object without {key!r}")
    return value.state[key]


def _dtype(value: Any) -> np.dtype:
    if not isinstance(value, _DType) or not value.args or not isinstance(value.args[0], str):
        raise pickle.UnpicklingError("an array without a dtype")
    dtype = np.dtype(value.args[0])
    if dtype.kind not in "biufcSUO" or dtype.names or dtype.subdtype:
        raise pickle.UnpicklingError(f"an array of dtype {dtype}, where numbers or strings are expected")
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
    return dtype.newbyteorder(order) if order in ("<", ">") else dtype


def _array(value: _Array, done: dict[int, Any]) -> np.ndarray:
    if not isinstance(value.state, tuple) or len(value.state) != 5:
        raise pickle.UnpicklingError("an array without its content")
    _, shape, dtype, column_major, raw = value.state
    dtype = _dtype(dtype)
    if dtype.kind != "O":
        return _from_bytes(shape, dtype, raw, "F" if column_major else "C")
    if not isinstance(raw, list) or len(raw) != math.prod(shape):
        raise pickle.UnpicklingError(f"an object array of shape {shape} without as many items")
    array = np.empty(len(raw), object)
    array[:] = [_resolve(item, done) for item in raw]
    return array.reshape(shape, order="F" if column_major else "C")


def _from_bytes(shape: tuple[int, ...], dtype: np.dtype, raw: Any, order: str = "C") -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    if dtype.kind == "O" or len(raw) != math.prod(shape) * dtype.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {shape} and dtype {dtype} with {len(raw)} bytes")
    native = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))
    return native.reshape(shape, order=order)


def _dense(value: _SparseColumns, done: dict[int, Any]) -> np.ndarray:
    data, rows, starts = (np.asarray(_resolve(_entry(value, key), done)) for key in ("data", "indices", "indptr"))
    shape = value.state.get("_shape", value.state.get("shape"))
    agree = isinstance(shape, tuple) and len(shape) == 2 and starts.shape == (shape[1] + 1,)
    if not agree or data.shape != rows.shape:
        raise pickle.UnpicklingError(f"a sparse matrix of shape {shape} whose parts disagree")
    dense = np.zeros(shape, data.dtype)
    # entries at the same place add up, as in scipy
    np.add.at(dense, (rows, np.repeat(np.arange(shape[1]), np.diff(starts))), data)
    return dense
