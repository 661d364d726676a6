"""The restricted unpickler: what it reads it reads as Python does, and nothing in a file is ever executed."""

from __future__ import annotations

import builtins
import copyreg
import gc
import io
import os
import pickle
import struct
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aleatoric.data.readers.safe_pickle import load_pickle
from aleatoric.errors import InputError

DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    ">f8",
]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def same(a: Any, b: Any) -> bool:
    """Equal in type, dtype, shape and bits, all the way down."""
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


def stored(folder: Path, data: bytes) -> Path:
    path = folder / "some.pickle"
    path.write_bytes(data)
    return path


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(DTYPES).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    )
    | st.sampled_from(["f8", "i4", "?"]).flatmap(lambda name: hnp.arrays(name, ()).map(lambda a: a[()])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS), old_names=st.booleans())
def test_reads_what_python_reads(
    value: Any, protocol: int, old_names: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = pickle.dumps(value, protocol)
    if old_names and protocol < 4:  # numpy 1 (module names are lines of text there)
        data = data.replace(b"cnumpy._core.", b"cnumpy.core.")
    path = stored(tmp_path_factory.mktemp("sound"), data)
    assert same(load_pickle(path), pickle.loads(data, encoding="latin1"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", ["C", "F", "strided", "transposed"])
def test_memory_order_survives(tmp_path: Path, protocol: int, order: str) -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    value = {
        "C": array,
        "F": np.asfortranarray(array),
        "strided": array[:, ::2],
        "transposed": array.transpose(1, 2, 0),
    }[order]
    assert np.array_equal(load_pickle(stored(tmp_path, pickle.dumps(value, protocol))), value)


def python2_array(values: np.ndarray, order: bytes = b"<") -> bytes:
    """A float64 array as Python 2 wrote it with protocol 2: its data is a byte string."""
    raw = values.astype(order.decode() + "f8").tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03(K\x01K"
        + bytes([len(values)])
        + b"\x85cnumpy\ndtype\nq\x04U\x02f8K\x00K\x01\x87Rq\x05(K\x03U\x01"
        + order
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tb"
    )


@pytest.mark.parametrize("order", [b"<", b">"])
def test_python_2(tmp_path: Path, order: bytes) -> None:
    values = np.array([0.5, -1e300, 255.0])
    data = b"\x80\x02}q\x00U\x03keyq\x06" + python2_array(values, order) + b"s."
    twin = pickle.loads(data, encoding="latin1")
    assert same(load_pickle(stored(tmp_path, data)), twin)
    assert np.array_equal(twin["key"], values)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_kept(tmp_path: Path, protocol: int) -> None:
    """The arrays go with the last reference to them, not when the garbage collector comes round."""
    value = load_pickle(stored(tmp_path, pickle.dumps({"a": np.arange(9.0)}, protocol)))
    alive = weakref.ref(value["a"])
    gc.disable()
    try:
        del value
        assert alive() is None
    finally:
        gc.enable()


# What must not happen. Each payload would make the file `canary` in the working directory.


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


TOUCH = "open('canary','w')"


def by_hand(module: str, name: str, arguments: str) -> bytes:
    """Protocol 0: a call of any name, without importing it here."""
    return f"c{module}\n{name}\n({arguments}tR.".encode()


def object_array(protocol: int) -> bytes:
    return pickle.dumps(np.array([Call(builtins.eval, TOUCH), None], dtype=object), protocol)


def record_array() -> bytes:
    return pickle.dumps(np.zeros(2, dtype=[("a", "f4"), ("b", "O")]))


DTYPE_F8 = b"cnumpy\ndtype\n(S'f8'\nI00\nI01\ntR"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
PAYLOADS: dict[str, tuple[bytes, str]] = {
    **{f"system-{p}": (pickle.dumps(Call(os.system, "touch canary"), p), "posix.system") for p in PROTOCOLS},
    **{f"eval-{p}": (pickle.dumps(Call(builtins.eval, TOUCH), p), "eval") for p in PROTOCOLS},
    **{f"object-array-{p}": (object_array(p), "dtype O8") for p in PROTOCOLS if p < 5},
    "object-array-5": (object_array(5), "dtype O8"),
    "records": (record_array(), "dtype V"),
    "deep-in-an-entry": (pickle.dumps({"a": {"masks": [np.zeros(3), Call(builtins.eval, TOUCH)]}}), "builtins.eval"),
    "before-the-data": (pickle.dumps(Call(builtins.eval, TOUCH))[:-1] + b"0}.", "builtins.eval"),
    "exec": (by_hand("__builtin__", "exec", f"V{TOUCH}\n"), "__builtin__.exec"),
    "import": (by_hand("__builtin__", "__import__", "S'os'\n"), "__builtin__.__import__"),
    "getattr": (by_hand("builtins", "getattr", "S'a'\nS'b'\n"), "builtins.getattr"),
    "numpy-load": (by_hand("numpy", "load", "S'evil.npy'\nNI01\n"), "numpy.load"),
    "numpy-runstring": (
        by_hand("numpy.testing._private.utils", "runstring", f"V{TOUCH}\n}}"),
        "numpy.testing._private.utils.runstring",
    ),
    "numpy-f2py": (by_hand("numpy.f2py.crackfortran", "myeval", f"V{TOUCH}\n"), "numpy.f2py.crackfortran.myeval"),
    "numpy-f2py-param": (by_hand("numpy.f2py.crackfortran", "param_eval", f"V{TOUCH}\n"), "crackfortran.param_eval"),
    "numpy-fromfile": (by_hand("numpy.core.multiarray", "fromfile", "S'/etc/passwd'\n"), "multiarray.fromfile"),
    "numpy-memmap": (by_hand("numpy", "memmap", "S'canary'\nS'u1'\nS'w+'\nI0\nI1\n"), "numpy.memmap"),
    "numpy-pickle": (by_hand("numpy.core._methods", "pickle.loads", "S'x'\n"), "numpy.core._methods.pickle.loads"),
    "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x16ndarray.__subclasses__\x93)R.", "numpy.ndarray.__subclasses__"),
    "subclass": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmatrix\n(I0\ntS'b'\ntR.",
        "numpy.matrix",
    ),
    "subclass-by-data": (b"cnumpy.core.multiarray\n_reconstruct\n(S'x'\n(I0\ntS'b'\ntR.", "another class"),
    "codec-other": (by_hand("_codecs", "encode", "S'x'\nS'zlib'\n"), "the encoding zlib"),
    "codec-decode": (by_hand("_codecs", "decode", "S'x'\nS'latin1'\n"), "_codecs.decode"),
    "codec-lookup": (by_hand("_codecs", "lookup", "S'x'\n"), "_codecs.lookup"),
    "codec-register": (by_hand("_codecs", "register", "N"), "_codecs.register"),
    "scalar-object": (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI00\nI01\ntRS'x'\ntR.",
        "a numpy dtype O8",
    ),
    "dtype-with-objects": (DTYPE_F8 + b"(I3\nS'|'\nNNNI-1\nI-1\nI63\ntb.", "fields or objects"),
    "dtype-with-fields": (DTYPE_F8 + b"(I3\nS'|'\nN(S'a'\nt}I-1\nI-1\nI0\ntb.", "fields or objects"),
    "persistent-id": (b"Pevil\n.", "the instruction PERSID"),
    "persistent-object": (b"\x80\x02K\x01Q.", "the instruction BINPERSID"),
    "inst": (b"(S'touch canary'\nios\nsystem\n.", "the instruction INST"),
    "obj": (b"(cos\nsystem\nS'touch canary'\no.", "os.system"),
    "obj-of-numpy": (b"(cnumpy\ndtype\nS'f8'\no.", "the instruction OBJ"),
    "newobj": (b"\x80\x02cnumpy\nndarray\n)\x81.", "the instruction NEWOBJ"),
    "extension": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "set": (b"\x80\x04\x8f.", "the instruction EMPTY_SET"),
    "reconstructor": (pickle.dumps(Call(copyreg._reconstructor, io.BytesIO, object, None), 0), "copy_reg"),
    "call-of-text": (b"S'os.system'\n(S'touch canary'\ntR.", "a call of str"),
    "call-of-ndarray": (b"cnumpy\nndarray\n(I3\ntR.", "a call of object"),
    "call-of-an-array": (ARRAY + b"(tR.", "a call of ndarray"),
    "build-on-a-function": (b"c_codecs\nencode\n}S'__doc__'\nS'x'\nsb.", "a change of method"),
    "build-slots": (b"c_codecs\nencode\n(N}S'__self__'\nNstb.", "a change of method"),
    "build-on-a-list": (b"]}b.", "a change of list"),
    "build-on-ndarray-itself": (b"cnumpy\nndarray\n(I1\n(I0\nttb.", "a change of object"),
    "array-state-dict": (ARRAY + b"}S'__class__'\nNsb.", "a change of ndarray"),
}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data, named = PAYLOADS[kind]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_pickle(stored(tmp_path, data))
    assert not (tmp_path / "canary").exists()
    assert named in str(caught.value) and "can run code" in str(caught.value)


@pytest.mark.parametrize("kind", ["system-0", "eval-4", "object-array-3", "inst", "before-the-data"])
def test_the_canary_sings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The same bytes do execute code in Python's reader: the test above looks for the right thing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(PAYLOADS[kind][0])
    assert (tmp_path / "canary").exists()


DEPTH = 200_000  # hashing a tuple of this depth overflows the stack
ROOM = 1 << 28  # bytes that a bomb may take


def bombs() -> dict[str, bytes]:
    f8 = DTYPE_F8
    shared = b"\x80\x04B" + struct.pack("<I", 1 << 22) + bytes(1 << 22) + b"\x940("  # 4 MB, used 1,000 times
    encoded = b"\x80\x02X" + struct.pack("<I", 1 << 22) + b"a" * (1 << 22) + b"q\x000("
    return {
        "memo-index": b"\x80\x02Nr\xff\xff\xff\xff.",
        "bytes8": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        "bytes": b"\x80\x04B" + struct.pack("<I", (1 << 32) - 1) + b"x.",
        "bytearray8": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        "text8": b"\x80\x04\x8d" + struct.pack("<Q", (1 << 63) - 1) + b"x.",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
        "string-negative": b"T\xff\xff\xff\xffx.",
        "long4-negative": b"\x80\x02\x8b\xff\xff\xff\xff.",
        "shape": ARRAY + b"(I1\n(I1099511627776\nt" + f8 + b"I00\nS'x'\ntb.",
        "shape-product": ARRAY + b"(I1\n(I4294967296\nI4294967296\nt" + f8 + b"I00\nS''\ntb.",
        "shape-negative": ARRAY + b"(I1\n(I-1\nt" + f8 + b"I00\nS'xxxxxxxx'\ntb.",
        "shape-bool": ARRAY + b"(I1\n(I01\nt" + f8 + b"I00\nS'xxxxxxxx'\ntb.",
        "shape-text": ARRAY + b"(I1\nS'ab'\n" + f8 + b"I00\nS'xxxxxxxx'\ntb.",
        "shape-deep": ARRAY + b"(I1\n(" + b"I1\n" * 65 + b"t" + f8 + b"I00\nS'xxxxxxxx'\ntb.",
        "data-short": ARRAY + b"(I1\n(I2\nt" + f8 + b"I00\nS'xxxxxxxx'\ntb.",
        "data-list": ARRAY + b"(I1\n(I1\nt" + f8 + b"I00\n(lS'x'\natb.",
        "data-number": ARRAY + b"(I1\n(I1\nt" + f8 + b"I00\nI7\ntb.",
        "dtype-text": ARRAY + b"(I1\n(I1\ntS'f8'\nI00\nS'xxxxxxxx'\ntb.",
        "dtype-state": f8 + b"(I3\nS'q'\nNNNI-1\nI-1\nI0\ntb.",
        "dtype-state-short": f8 + b"(I3\nS'<'\ntb.",
        "dtype-state-number": f8 + b"I3\nb.",
        "scalar-short": b"cnumpy.core.multiarray\nscalar\n(" + f8 + b"S'x'\ntR.",
        "transpose": b"cnumpy._core.numeric\n_frombuffer\n(S'xxxxxxxx'\n" + f8 + b"(I1\ntS'K'\n(I7\nttR.",
        "shared-data": shared
        + (
            b"cnumpy._core.numeric\n_frombuffer\n(h\x00cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R"
            + b"J"
            + struct.pack("<i", 1 << 22)
            + b"\x85X\x01\x00\x00\x00CtR"
        )
        * 1000
        + b"l.",
        "shared-text": encoded + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 1000 + b"l.",
        "tuple-key": b"\x80\x02}" + b")" + b"\x85" * DEPTH + b"Ns.",
        "list-key": b"\x80\x02}]Ns.",
        "tuple-keys": b"\x80\x02}()" + b"\x85" * DEPTH + b"Nu.",
        "tuple-dict": b"\x80\x02()" + b"\x85" * DEPTH + b"Nd.",
        "odd-dict": b"(S'a'\nd.",
        "deep-list": b"\x80\x02" + b"]" * DEPTH + b"a" * (DEPTH - 1) + b".",
        "deep-tuple": b"\x80\x02)" + b"\x85" * DEPTH + b".",
        "digits": b"I" + b"9" * 1_000_000 + b"\n.",
        "itself": b"\x80\x02]q\x00h\x00a.",
        "empty": b"",
        "nothing": b".",
        "only-mark": b"(.",
        "pop-nothing": b"0.",
        "reduce-nothing": b"R.",
        "name-no-text": b"\x80\x04K\x01K\x02\x93.",
        "protocol-9": b"\x80\x09N.",
    }


SOUND = {"memo-index", "deep-list", "deep-tuple", "itself"}  # plain containers: memory is what the file is long


def test_bombs_do_nothing(tmp_path: Path) -> None:
    """In a process of its own, with little memory: neither a crash of the interpreter nor the machine's memory."""
    cases = bombs()
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    program = f"""
import resource, sys
from aleatoric.data.readers.safe_pickle import load_pickle
from aleatoric.errors import InputError
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + {ROOM},) * 2)
for name in {list(cases)!r}:
    try:
        load_pickle(name)
        print(name, "read", flush=True)
    except InputError as error:
        assert len(str(error)) < 400
        print(name, "InputError", "MemoryError" in str(error), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    outcomes = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert done.returncode == 0, (list(cases)[len(outcomes)], done.stderr[-500:])
    # "InputError True": refused only because the memory was short, so the machine's would be taken
    assert outcomes == {name: "read" if name in SOUND else "InputError False" for name in cases}


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"\x89HDF\r\n", "HDF5"),
        (b'{"image": [1, 2]}', "no sound pickle"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, start: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_pickle(stored(tmp_path, start + b"\x00" * 100))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pickle", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            load_pickle(path)


ENTRY = {"image": np.linspace(0, 1, 12).reshape(3, 4), "masks": [np.eye(3, 4, dtype=np.uint8)] * 2, "uid": "1.2.3"}


def only_plain(value: Any, seen: set[int] | None = None) -> bool:
    seen = seen if seen is not None else set()
    if id(value) in seen:
        return True
    seen.add(id(value))
    if type(value) in (list, tuple):
        return all(only_plain(item, seen) for item in value)
    if type(value) is dict:
        return all(only_plain(item, seen) for pair in value.items() for item in pair)
    if type(value) is np.ndarray:
        return value.dtype.kind in "biuf" and value.sum() is not None
    # names and dtypes that no array uses are inert, and only a damaged file ends with one
    return isinstance(value, str | bytes | bytearray | int | float | np.generic | type(None)) or (
        type(value).__name__ in ("_Dtype", "method", "object")
    )


@settings(max_examples=150, deadline=None)
@given(data=st.data(), protocol=st.sampled_from(PROTOCOLS))
def test_damaged_files(data: st.DataObject, protocol: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = stored(
        tmp_path_factory.mktemp("damaged"), data.draw(damaged(pickle.dumps({"a": ENTRY, "b": ENTRY}, protocol)))
    )
    try:
        value = load_pickle(path)
    except InputError:
        return
    assert only_plain(value)


FRAGMENTS = [
    ARRAY,
    DTYPE_F8,
    b"(I3\nS'<'\nNNNI-1\nI-1\nI0\nt",
    b"cnumpy.core.multiarray\nscalar\n",
    b"cnumpy.core.numeric\n_frombuffer\n",
    b"c_codecs\nencode\n",
    b"cbuiltins\nbytes\n",
    b"cnumpy\nndarray\n",
    b"S'xxxxxxxx'\n",
    b"S'latin1'\n",
    b"I1\n",
    b"N",
    b"K\x01\x85",
    b"I00\n",
    b"p1\n",
    b"g1\n",
    *(bytes([opcode]) for opcode in b"()]}2RbtlduseaoQ012"),
    b"\x81",
    b"\x85",
    b"\x86",
    b"\x93",
]


@settings(max_examples=300, deadline=None)
@given(program=st.lists(st.sampled_from(FRAGMENTS), max_size=40))
def test_programs_of_admitted_parts(program: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = stored(tmp_path_factory.getbasetemp(), b"".join(program) + b".")
    try:
        value = load_pickle(path)
    except InputError:
        return
    assert only_plain(value)
