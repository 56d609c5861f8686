"""The restricted unpickler: what numpy writes comes back; nothing that a pickle asks for is run."""

import os
import pickle
import struct

import numpy as np
import pytest

from balancemm_cli.data.reading.unpickle import load
from balancemm_cli.errors import InputError

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "axes moved": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "strided": np.arange(10)[::2],
    "big-endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "half": np.array([np.nan, -np.inf, 1], np.float16),
    "complex": np.array([1 + 2j]),
    "no dimension": np.array(2.5),
    "no item": np.zeros((0, 3)),
    "text": np.array(["a", "längst"]),
    "bytes": np.array([[b"a", b"bc"], [b"\xff", b""]]),
    "objects": np.array(["a", b"bc"], object),
}


def write(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_values_come_back(tmp_path, protocol):
    plain = {
        "list": [1, 2.5, -(2**70), None, True],
        "tuple": ("a", b"\xff\x00", b"", "ü"),
        3: {},
        "nested": [[()]],
    }
    scalars = [np.float32(1.5), np.int64(-3), np.str_("ab"), np.bool_(True)]
    shared = [1]
    content = {**plain, **ARRAYS, "scalars": scalars, "twice": [shared, shared]}
    found = load(write(tmp_path / "a.pkl", content, protocol))
    assert list(found) == list(content)
    assert {key: found[key] for key in plain} == plain
    assert found["scalars"] == scalars and found["scalars"][0].dtype == np.float32
    assert found["twice"][0] is found["twice"][1]
    for name, array in ARRAYS.items():
        assert found[name].dtype.newbyteorder("=") == array.dtype.newbyteorder("="), name
        assert found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array)
        assert type(np.asarray(found[name])) is np.ndarray


@pytest.mark.parametrize("protocol", range(4))  # later ones state lengths of names
def test_the_names_of_numpy_1(tmp_path, protocol):
    content = [*ARRAYS.values(), np.float64(2)]
    path = tmp_path / "a.pkl"
    data = pickle.dumps(content, protocol)
    path.write_bytes(data.replace(b"numpy._core.", b"numpy.core."))
    assert path.stat().st_size < len(data)
    for found, array in zip(load(path), content, strict=True):
        np.testing.assert_array_equal(found, array)


def test_a_pickle_of_python_2(tmp_path):
    # As Python 2 with numpy 1.16 writes {'id': array(['ab', 'c'])} in protocol 2: strings where Python 3 has bytes.
    path = tmp_path / "a.pkl"
    path.write_bytes(
        b"\x80\x02}q\x00U\x02idq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02S2q\nK\x00K\x01\x87q\x0bRq\x0c"
        b"(K\x03U\x01|q\rNNNK\x02K\x01K\x00tq\x0eb\x89U\x04abc\x00q\x0ftq\x10bs."
    )
    found = load(path)
    assert found["id"].dtype == "S2" and found["id"].tolist() == [b"ab", b"c"]


class Calls:
    """Pickles as a call of `function`, which is not what comes back."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def names():
    import functools
    import subprocess

    return {
        "posix.system": Calls(os.system, "touch ran"),
        "builtins.eval": Calls(eval, "open('ran', 'w')"),
        "builtins.exec": Calls(exec, "open('ran', 'w')"),
        "builtins.getattr": Calls(getattr, np.ndarray, "tofile"),
        "builtins.bytearray": Calls(bytearray, 10),
        "subprocess.Popen": Calls(subprocess.Popen, ["touch", "ran"]),
        "functools.partial": Calls(functools.partial, print),
        "numpy.load": Calls(np.load, "x.npy"),
        "numpy.fromfile": Calls(np.fromfile, "a.pkl"),
        "numpy.ma._mareconstruct": np.ma.array([1]),
        "builtins.set": Calls(set),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", names())
def test_a_name_is_refused_and_not_called(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    hidden = {"train": [np.zeros(3), names()[name]]}
    asked = name.rsplit(".", 1)[1]
    with pytest.raises(InputError, match=rf"a\.pkl asks for '[\w.]+\.{asked}', which is neither .*not read"):
        load(write(tmp_path / "a.pkl", hidden, protocol))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
ARRAY = RECONSTRUCT + b"(cnumpy\nndarray\n(I0\nt" + text("b") + b"tR"
WRITTEN_BY_HAND = {  # the opcodes, and what the message says
    "an instance by INST": (b"(" + text("touch ran") + b"ios\nsystem\n.", "os.system"),
    "an object by OBJ": (b"(cos\nsystem\n" + text("touch ran") + b"o.", "os.system"),
    "a dotted name": (text("numpy") + text("f2py.os.system") + b"\x93.", "numpy.f2py.os.system"),
    "a dotted name behind an allowed one": (
        text("numpy") + text("ndarray.tofile") + b"\x93.",
        "ndarray.tofile",
    ),
    "numpy's test runner": (b"cnumpy.testing._private.utils\nrunstring\n.", "runstring"),
    "fromfile beside _reconstruct": (b"cnumpy.core.multiarray\nfromfile\n.", "fromfile"),
    "copyreg": (b"ccopyreg\n_reconstructor\n.", "_reconstructor"),
    "copy_reg of Python 2": (b"ccopy_reg\n_reconstructor\n.", "_reconstructor"),
    "a line end in a name": (text("os\n\x1b[2J") + text("system") + b"\x93.", r"os\\n\\x1b\[2J.system"),
    "a persistent id": (b"Psomething\n.", "persistent"),
    "an extension code": (b"\x82\x01.", "extension"),
    "a buffer from elsewhere": (b"\x97.", "out-of-band"),
    "ndarray called": (b"cnumpy\nndarray\n(I1000000000000\ntR.", "not callable"),
    "ndarray made": (b"cnumpy\nndarray\n)\x81.", "damaged"),
    "a text encoding with code": (
        b"c_codecs\nencode\n(" + text("x") + text("unicode_escape") + b"tR.",
        "encoding",
    ),
    "bytes of a huge number": (b"c__builtin__\nbytes\n(I1000000000000\ntR.", "argument"),
    "the memo's last place": (b"Nr\xff\xff\xff\x7f.", "memo"),
    "the memo's last place as text": (b"Np4000000000\n.", "memo"),
    "a string beyond the file": (b"\x8d" + struct.pack("<Q", 2**40) + b"a.", "damaged|memory"),
    "a frame beyond the file": (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "damaged|memory"),
    "no end": (b"\x80\x04]", "damaged"),
    "an array that grows": (ARRAY + b"(Nl" + b"a.", "damaged"),
}


@pytest.mark.parametrize("case", WRITTEN_BY_HAND)
def test_opcodes_written_by_hand(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    data, message = WRITTEN_BY_HAND[case]
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / "a.pkl")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def array(shape, kind, content, state=(3, "<", None, None, None, -1, -1, 0)):
    """A pickled array with any type, state of the type, shape and content, right or wrong."""

    def part(value):
        return pickle.dumps(value, 2)[2:-1]

    dtype = b"cnumpy\ndtype\n(" + part(kind) + b"\x89\x88tR" + part(state) + b"b"
    return ARRAY + b"(K\x01" + part(shape) + dtype + b"\x89" + part(content) + b"tb."


def test_arrays_by_hand_work_where_they_are_right(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(array((2, 1), "f4", struct.pack("<2f", 1, 2)))
    assert load(path).tolist() == [[1], [2]]
    path.write_bytes(array((2,), "O8", ["a", b"b"], (3, "|", None, None, None, -1, -1, 63)))
    assert load(path).tolist() == ["a", b"b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2**40,), "f4", b"abcd"), "do not fill"),  # numpy would take 4 TiB for it
        (((2**40,), "O8", ["a"]), "do not fill"),
        (((2,), "f4", b"abcd"), "do not fill"),
        (((1,), "f4", b"abcdabcd"), "do not fill"),
        (((2**62, 2**62), "f4", b""), "do not fill"),
        (((-1,), "f4", b"abcd"), "whole numbers"),
        (((1.0,), "f4", b"abcd"), "whole numbers"),
        ((2, "f4", b"abcdabcd"), "without a type or a shape"),
        (((1,), "f4", ["abcd"]), "without its bytes"),
        (((1,), "O8", b"abcdefgh"), "objects other than strings"),  # addresses, if numpy took them
        (((1,), "O8", [1]), "objects other than strings"),
        (((1,), "O8", [["a"]]), "objects other than strings"),
        (((1,), "U0", b""), "type 'U0'"),
        (((1,), "V8", b"abcdefgh"), "type 'V8'"),
        (((1,), "f4,O8", b"abcdefgh"), "type"),
        (((1,), "M8[s]", b"abcdefgh"), "type"),
        (((1,), "f4", b"abcd", (3, "<", ("f4", (2,)), None, None, -1, -1, 0)), "composite"),
        (((1,), "f4", b"abcd", (3, "<", None, ("a",), {"a": ("O8", 0)}, -1, -1, 0)), "composite"),
        (((1,), "f4", b"abcd", (3, "O", None, None, None, -1, -1, 0)), "composite"),
        (((1,), "f4", b"abcd", (3,)), "damaged"),
    ],
)
def test_arrays_that_lie(tmp_path, arguments, message):
    (tmp_path / "a.pkl").write_bytes(array(*arguments))
    with pytest.raises(InputError, match=message):
        load(tmp_path / "a.pkl")


def test_flags_of_a_type_are_of_no_effect(tmp_path):
    """With numpy's own dtype, objects whose flags say that they are none would be read from bytes."""
    lying = (3, "|", None, None, None, 8, 8, 0)
    (tmp_path / "a.pkl").write_bytes(array((1,), "O8", struct.pack("<Q", 0xDEADBEEF), lying))
    with pytest.raises(InputError, match="objects other than strings"):
        load(tmp_path / "a.pkl")


def test_state_given_to_a_name_stays_in_the_pickle(tmp_path):
    whole = array((1,), "f4", b"abcd")
    for state in (
        b"}" + text("_function") + b"Ns",
        b"N}" + text("_function") + b"Ns\x86",
        b"N}" + text("__call__") + b"Ns\x86",
    ):
        (tmp_path / "a.pkl").write_bytes(RECONSTRUCT + state + b"b0" + whole)
        try:
            load(tmp_path / "a.pkl")
        except InputError as error:
            assert "damaged" in str(error)
        (tmp_path / "b.pkl").write_bytes(whole)
        assert load(tmp_path / "b.pkl").shape == (1,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_any_cut_and_many_changed_bytes_end_in_one_error_or_a_value(tmp_path, protocol):
    data = pickle.dumps(
        {"a": np.arange(4.0), "o": np.array(["x"], object), "s": np.float32(1), "t": (1, b"b")}, protocol
    )
    path = tmp_path / "a.pkl"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            load(path)
    draw = np.random.default_rng(protocol)
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        changed[draw.integers(len(data))] = draw.integers(256)
        path.write_bytes(changed)
        try:
            load(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


def test_files_that_are_no_pickles(tmp_path):
    path = tmp_path / "a.pkl"
    with pytest.raises(InputError, match="There is no file"):
        load(path)
    for content, message in [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04 a zip file", "damaged or no pickle"),
        (b"just text", "damaged or no pickle"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load(path)
