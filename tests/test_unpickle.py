"""Pickles with arrays load, as Python 2 and chumpy wrote them; anything else is refused and does not run."""

import pickle
import struct
import sys
import types
from contextlib import contextmanager

import numpy as np
import pytest

from diffdyad.errors import UserError
from diffdyad.unpickle import load_arrays


@contextmanager
def foreign_class(module: str, name: str):
    """A class that pickles as `module.name`, from a module that exists only in here."""
    made = {}
    for depth in range(1, module.count(".") + 2):
        part = ".".join(module.split(".")[:depth])
        if part not in sys.modules:
            made[part] = sys.modules[part] = types.ModuleType(part)
    cls = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, cls)
    try:
        yield cls
    finally:
        for part in made:
            del sys.modules[part]


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings."""

    def save_bytes(self, obj):
        self.write(b"T" + struct.pack("<i", len(obj)) + obj)
        self.memoize(obj)

    dispatch = pickle._Pickler.dispatch | {bytes: save_bytes}


def with_state(cls, **state):
    made = cls()
    made.__dict__.update(state)
    return made


def old_numpy(data: bytes) -> bytes:
    return data.replace(b"numpy._core.", b"numpy.core.")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(tmp_path, protocol):
    content = {
        "float": np.linspace(0, 1, 12).reshape(3, 4), "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "uint": np.array([[2**32 - 1, 0]], np.uint32), "big": np.arange(3, dtype=">i2"), "scalar": np.float32(1.5),
        "empty": np.zeros((0, 3)), "objects": np.array([None, "a"], object), "text": "x", "list": [1, (2.0, True)],
        "bytes": b"\x00\xff",
    }  # fmt: skip
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found = load_arrays(tmp_path / "a.pkl")
    assert found.keys() == content.keys()
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype.newbyteorder("="), key
            np.testing.assert_array_equal(found[key], value)
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_a_chumpy_era_file_of_python_2(tmp_path, protocol):
    rng = np.random.default_rng(0)
    template, dense = rng.normal(size=(5, 3)), rng.normal(size=(2, 5)) * (rng.random((2, 5)) < 0.5)
    with foreign_class("chumpy.ch", "Ch") as chumpy, foreign_class("scipy.sparse.csc", "csc_matrix") as sparse:
        columns, rows = np.nonzero(dense.T)
        starts = np.concatenate([[0], np.cumsum((dense != 0).sum(0))]).astype(np.int32)
        content = {
            "v_template": with_state(chumpy, x=template, _dirty_vars=[], _itr=None),
            "J_regressor": with_state(
                sparse, data=dense[rows, columns], indices=rows.astype(np.int32), indptr=starts, _shape=dense.shape
            ),
            "bs_type": "lrotmin",
        }
        path = tmp_path / "generic_model.pkl"
        with open(path, "wb") as file:
            Python2Pickler(file, protocol).dump(content)
    path.write_bytes(old_numpy(path.read_bytes()))
    assert b"numpy.core.multiarray" in path.read_bytes() and b"numpy._core" not in path.read_bytes()
    if protocol < 2:
        assert b"copy_reg\n_reconstructor" in path.read_bytes()
    found = load_arrays(path)
    np.testing.assert_array_equal(found["v_template"], template)
    np.testing.assert_array_equal(found["J_regressor"], dense)
    assert found["bs_type"] == "lrotmin"
    assert "chumpy" not in sys.modules


class Runs:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def hostile(tmp_path):
    import builtins
    import os

    flag = str(tmp_path / "ran")
    yield "posix.system", pickle.dumps(Runs(os.system, f"touch {flag}"))
    yield "builtins.eval", pickle.dumps(Runs(builtins.eval, f"open({flag!r}, 'w')"))
    yield "io.open", pickle.dumps({"v_template": np.zeros(3), "x": Runs(open, flag, "w")})
    yield "builtins.getattr", pickle.dumps(Runs(getattr, "a", "upper"))
    yield "numpy.load", pickle.dumps(Runs(np.load, flag))
    yield "pathlib.", pickle.dumps(tmp_path)
    # a dotted name reaches into an admitted module's objects
    yield "numpy.ndarray.tofile", b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    yield "chumpy.ch.MatVecMult", b"cchumpy.ch\nMatVecMult\n."


def test_hostile_pickles_are_refused_by_name_and_nothing_runs(tmp_path):
    for name, data in hostile(tmp_path):
        path = tmp_path / "hostile.pkl"
        path.write_bytes(data)
        with pytest.raises(UserError, match=name) as error:
            load_arrays(path)
        assert "refused" in str(error.value) and "hostile.pkl" in str(error.value) and "\n" not in str(error.value)
        assert not (tmp_path / "ran").exists(), name


DTYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8I00\nI01\ntR"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"not a pickle", b"\x80\x04",
        b"(I1\nI2\n",  # cut short
        b"cchumpy.ch\nCh\n.",  # a class, no data
        b"cchumpy.ch\nCh\n)R.",  # a Ch without an array
        b"cchumpy.ch\nCh\n}b.",  # state for a class
        b"c_codecs\nencode\n}b.",  # state for a function
        b"ccopy_reg\n_reconstructor\n(c_codecs\nencode\nc__builtin__\nobject\nNtR.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zliptR.",
        ARRAY + b".",
        ARRAY + b"(I1\n(I2\nt" + DTYPE + b"I00\nC\x08" + bytes(8) + b"tb.",  # two doubles in eight bytes
        ARRAY + b"(I1\n(I1\nt" + DTYPE.replace(b"f8", b"O8") + b"I00\nC\x08" + bytes(8) + b"tb.",  # pointers from bytes
        ARRAY + b"(I1\n(I1\nt" + DTYPE.replace(b"f8", b"V8") + b"I00\nC\x08" + bytes(8) + b"tb.",
        b"\x80\x02Pid\n.",  # a persistent id
        b"(" * 5 + b"]" * 5 + b"R.",
    ],
)  # fmt: skip
def test_broken_pickles_are_one_line(tmp_path, data):
    path = tmp_path / "broken.pkl"
    path.write_bytes(data)
    with pytest.raises(UserError, match="broken.pkl") as error:
        load_arrays(path)
    assert "\n" not in str(error.value)


def test_the_array_opcodes_above_are_sound(tmp_path):
    path = tmp_path / "sound.pkl"
    path.write_bytes(ARRAY + b"(I1\n(I1\nt" + DTYPE + b"I00\nC\x08" + struct.pack("<d", 2.5) + b"tb.")
    np.testing.assert_array_equal(load_arrays(path), [2.5])


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="none.pkl"):
        load_arrays(tmp_path / "none.pkl")
