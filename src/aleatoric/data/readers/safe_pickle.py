"""Pickle files of numpy arrays and plain containers, read without the power to run code.

A pickle is a program, and Python's reader runs it with the right to call anything that can be imported. This one keeps
the instructions that build dict, list, tuple, str, bytes, bool, int, float and None, and the few names that numpy's
arrays are pickled with. The names stand for methods of this module: nothing is imported or called because a file asks.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import re
from collections.abc import Callable
from pickle import UnpicklingError
from types import MethodType
from typing import Any, ClassVar

import numpy as np

from ...errors import InputError

__all__ = ["load_pickle"]

_DTYPE = re.compile(r"[<>=|]?(b1|\?|[iu][1248]|f[248])")  # bool, integers, floats; no objects, no records
_KEYS = (str, bytes, int, float, bool, type(None))  # hashing a deep tuple overflows the interpreter's stack
_NDARRAY = object()  # numpy.ndarray in a file: only ever an argument of _reconstruct
_OTHER_KINDS = {  # how such a file begins, what it is, what to do with it
    b"\x1f\x8b": ("gzip-compressed", "unpack it first"),
    b"BZh": ("bzip2-compressed", "unpack it first"),
    b"\xfd7zXZ": ("xz-compressed", "unpack it first"),
    b"PK\x03\x04": ("a zip archive (or a file of torch or numpy)", "unpack it first"),
    b"\x89HDF": ("an HDF5 file", "give the pickle that it was made from"),
    b"\x93NUMPY": ("a numpy file", "give a pickle"),
}
_PLAIN = """
    PROTO FRAME STOP MARK POP POP_MARK DUP MEMOIZE GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST EMPTY_DICT GLOBAL STACK_GLOBAL
"""
_OWN = "REDUCE BUILD APPEND APPENDS SETITEM SETITEMS DICT BYTEARRAY8"
_REFUSED = """
    PERSID BINPERSID INST OBJ NEWOBJ NEWOBJ_EX EXT1 EXT2 EXT4 EMPTY_SET ADDITEMS FROZENSET NEXT_BUFFER READONLY_BUFFER
"""


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Contents of a pickle file that holds numpy arrays and plain containers, of any protocol, Python 2 or 3.

    Memory is proportional to the file: a file that asks for more array data than it holds is refused. Byte strings of
    Python 2 become str (Latin-1).

    Raises:
        InputError: anything else in the file (the sentence names the forbidden global or instruction); a file that is
            damaged, cut off or no pickle; not readable.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            start = file.read(8)
            file.seek(0)
            for magic, (kind, advice) in _OTHER_KINDS.items():
                if start.startswith(magic):
                    raise InputError(f"{path} is {kind}, a pickle expected; {advice}.")
            unpickler = _Unpickler(_Bounded(file, size), size)
            try:
                return unpickler.load()
            finally:
                unpickler.forget()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}), a pickle file expected; correct the path or its "
            "permissions."
        ) from error
    except _ForbiddenError as error:
        raise InputError(
            f"{path} asks for {error}, only numpy arrays and plain containers are admitted because a pickle can run "
            "code; do not open it with Python's own reader unless you trust its origin."
        ) from error
    except InputError:
        raise
    except Exception as error:  # the file decides what fails in its program: stack, memo, text, numbers, memory
        raise InputError(
            f"{path} is no sound pickle ({_words(error)}), a file of numpy arrays and plain containers expected; get it"
            " again."
        ) from error


class _ForbiddenError(Exception):
    """The file asks for something outside the list; the message names it."""


class _Bounded:
    """A file that never makes room for more bytes than it has."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self._file = file
        self._size = size
        self.readline = file.readline

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._size - self._file.tell():
            raise UnpicklingError("it is cut off")
        return self._file.read(count)


class _Dtype:
    """A dtype under construction: its type code, and the byte order that follows."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order: Any = "="

    def set_state(self, state: Any) -> None:
        """``dtype.__setstate__``: (version, byte order, subtype, names, fields, size, alignment, flags)."""
        if not (isinstance(state, tuple) and len(state) in (8, 9) and state[1] in ("<", ">", "=", "|")):
            raise UnpicklingError("a dtype in an unknown form")
        if any(part is not None for part in state[2:5]) or state[7] != 0:
            raise _ForbiddenError("a numpy dtype with fields or objects")
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        return np.dtype(self.code).newbyteorder(self.order)


class _Unpickler(pickle._Unpickler):
    """Python's own reader, most of its instructions taken away.

    The one in Python, because the one in C makes room for any index that a file names, hashes any key and calls
    ``__setstate__`` of anything.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {}
    stack: list[Any]
    memo: dict[int, Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: _Bounded, size: int) -> None:
        super().__init__(file, encoding="latin1")
        # a sound file holds every byte of its arrays, once; in old protocols these pass through _encode before
        self._encoded, self._stored = size, size
        self._names: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _NDARRAY,
            ("numpy", "dtype"): self._dtype,
            ("_codecs", "encode"): self._encode,
            ("builtins", "bytes"): self._empty_bytes,
            ("__builtin__", "bytes"): self._empty_bytes,
        }
        for core in ("numpy.core", "numpy._core"):
            self._names[core + ".multiarray", "_reconstruct"] = self._reconstruct
            self._names[core + ".multiarray", "scalar"] = self._scalar
            self._names[core + ".numeric", "_frombuffer"] = self._from_buffer

    def find_class(self, module: Any, name: Any) -> Any:
        known = self._names.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if known is None:
            raise _ForbiddenError(f"the global {_short(module, 60)}.{_short(name, 60)}")
        return known

    def forget(self) -> None:
        """Let go of the contents: the names refer to this object, a cycle that would keep them until it is found."""
        self.memo.clear()
        self._names.clear()

    # What the admitted names do.

    def _reconstruct(self, kind: Any, shape: Any, code: Any) -> np.ndarray:
        """``numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")``: an empty array, which BUILD fills."""
        if kind is not _NDARRAY:
            raise _ForbiddenError("an array of another class than numpy.ndarray")
        return np.ndarray((0,), np.uint8)

    def _dtype(self, code: Any, align: Any = False, copy: Any = False) -> _Dtype:
        """``numpy.dtype("f8", False, True)``."""
        if not (isinstance(code, str) and _DTYPE.fullmatch(code)):
            raise _ForbiddenError(f"a numpy dtype {_short(code)}, which is no number")
        return _Dtype(code)

    def _scalar(self, dtype: Any, data: Any) -> Any:
        """``numpy.core.multiarray.scalar(dtype, data)``."""
        data, real = self._checked(data, dtype, ())
        return np.frombuffer(data, real)[0]

    def _from_buffer(self, data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> np.ndarray:
        """``numpy.core.numeric._frombuffer``: arrays of protocol 5."""
        data, real = self._checked(data, dtype, shape)
        flat = np.frombuffer(data, real)
        if order == "K" and axis_order is not None:
            return flat.reshape(shape).transpose(axis_order)
        return flat.reshape(shape, order="F" if order == "F" else "C")

    def _encode(self, text: Any, encoding: Any) -> bytes:
        """``_codecs.encode(text, "latin1")``: how Python 3 writes bytes into protocols 0 to 2."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _ForbiddenError(f"the encoding {_short(encoding)}")
        self._encoded = _spent(self._encoded, len(text))
        return text.encode("latin-1")

    def _empty_bytes(self) -> bytes:
        """``bytes()``: how Python 3 writes empty bytes into protocols 0 to 2."""
        return b""

    def _checked(self, data: Any, dtype: Any, shape: Any) -> tuple[bytes, np.dtype[Any]]:
        """An array's bytes and dtype, once they agree with its shape: numpy's own code would believe them."""
        if isinstance(data, str):  # Python 2
            data = data.encode("latin-1")
        if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
            raise UnpicklingError("an array in an unknown form")
        if not (isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)):
            raise UnpicklingError("an array with an impossible shape")
        real = dtype.real()
        if math.prod(shape) * real.itemsize != len(data):
            raise UnpicklingError("an array whose data does not fit its shape")
        self._stored = _spent(self._stored, len(data))
        return bytes(data), real

    # What the instructions do that are not Python's own.

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not isinstance(function, MethodType) or not isinstance(arguments, tuple):  # one of the methods above
            raise _ForbiddenError(f"a call of {type(function).__name__}")
        self.stack[-1] = function(*arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        built = self.stack[-1]
        if type(built) is _Dtype:
            built.set_state(state)
        elif type(built) is np.ndarray and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, data = state
            data, real = self._checked(data, dtype, shape)
            built.__setstate__((1, shape, real, bool(fortran), data))  # type: ignore[arg-type]
        else:
            raise _ForbiddenError(f"a change of {type(built).__name__}")

    def load_append(self) -> None:
        value = self.stack.pop()
        _exactly(list, self.stack[-1]).append(value)

    def load_appends(self) -> None:
        values = self.pop_mark()
        _exactly(list, self.stack[-1]).extend(values)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _update(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        _update(self.stack[-1], items)

    def load_dict(self) -> None:
        new: dict[Any, Any] = {}
        _update(new, self.pop_mark())
        self.append(new)

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))


def _dispatch() -> dict[int, Callable[..., None]]:
    """Opcode -> method: Python's own for the plain ones, a refusal by name for those that make objects."""
    table: dict[int, Any] = {}
    for name in _PLAIN.split():
        opcode = getattr(pickle, name)[0]
        table[opcode] = pickle._Unpickler.dispatch[opcode]
    for name in _OWN.split():
        table[getattr(pickle, name)[0]] = getattr(_Unpickler, f"load_{name.lower()}")
    for name in _REFUSED.split():
        table[getattr(pickle, name)[0]] = _refusal(name)
    return table


def _refusal(name: str) -> Callable[..., None]:
    def refuse(self: Any) -> None:
        raise _ForbiddenError(f"the instruction {name}")

    return refuse


_Unpickler.dispatch = _dispatch()


def _spent(budget: int, count: int) -> int:
    if count > budget:
        raise UnpicklingError("it asks for more array data than it holds")
    return budget - count


def _exactly(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise UnpicklingError(f"a {kind.__name__} expected")
    return value


def _update(target: Any, items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in _KEYS:
            raise UnpicklingError("a key that is no text or number")
        _exactly(dict, target)[key] = value


def _short(value: Any, length: int = 30) -> str:
    """A few words for a message: what a file holds may be of any length, or have no end when it is printed."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "?" for c in value[:length])
    return type(value).__name__.lstrip("_")


def _words(error: Exception) -> str:
    if isinstance(error, UnpicklingError):
        return _short(str(error), 80)
    if isinstance(error, KeyError):
        return "unknown instruction or reference"
    return "it is cut off" if isinstance(error, EOFError) else type(error).__name__
