"""Arrays out of pickles that others made, without running anything that the pickles hold.

A pickle is a program: it may call any function that it names. Here no name leads to a function
outside this file: those that pickled arrays hold lead to stand-ins, which take numbers and bytes
apart, and any other is refused before it is looked up. Neither NumPy's nor torch's own unpickling
runs, and torch need not be installed. What can be read is one array of numbers, written by

    pickle.dump of a NumPy array or scalar, any protocol    (numpy/_core/src/multiarray/methods.c)
    pickle.dump of a torch tensor                           (torch/_tensor.py, torch/storage.py)
    torch.save of a tensor, as a zip file or before 1.6     (torch/serialization.py)
"""

import dataclasses
import io
import math
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from abaw_jax.errors import InputError

# Names of torch's storages -> their elements as NumPy stores them; bfloat16 as its 16 bits.
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch.save before 1.6
_ELEMENTS = re.compile(r"[?bBhHiIlLqQefd]|[biuf][1248]")


class _Fault(Exception):
    """What a pickle holds cannot be."""


def load_array(path: str | os.PathLike) -> np.ndarray:
    """The array of numbers that a file holds, in the type it was saved in (bfloat16 as float32).

    Raises InputError for a file that cannot be read, is damaged, names anything that arrays are not
    made of (nothing is run), or holds something else than one array.
    """
    try:
        return _values(_load(pathlib.Path(path).read_bytes()))
    except _Fault as fault:
        raise InputError(
            f"{path}: {fault}; expected one NumPy array or torch tensor and nothing else: not read"
        ) from fault
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # damage shows as whatever comes first
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{path}: is no pickle of an array ({reason}); copy the file again"
        ) from error


def _shown(text: str) -> str:
    """Text out of a file as an error message shows it: short, on one line, in printable letters."""
    return text[:100].encode("unicode_escape").decode()


def _load(data: bytes) -> Any:
    """The object of a file in any of the forms, as stand-ins."""
    if data.startswith(b"PK\x03\x04"):
        return _load_zip(data)
    stream = io.BytesIO(data)
    first = _Unpickler(stream).load()
    return _load_legacy(stream) if first == _LEGACY_MAGIC else first


def _load_zip(data: bytes) -> Any:
    """torch.save: `<name>/data.pkl`, and `<name>/data/<key>` for each storage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        found = [name for name in names if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise _Fault(f"is a zip file of {_shown(', '.join(names[:3])) or 'nothing'}")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise _Fault("is a compressed zip file, as torch.save writes none")
        root = found[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise _Fault("was saved in another byte order")
        unpickler = _Unpickler(io.BytesIO(archive.read(found[0])))
        loaded = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.data = archive.read(f"{root}data/{key}")
    return loaded


def _load_legacy(stream: io.BytesIO) -> Any:
    """torch.save before 1.6, behind its magic number: version, machine, object, keys, storages."""
    for _ in range(2):
        _Unpickler(stream).load()
    unpickler = _Unpickler(stream)
    loaded = unpickler.load()
    for key in _Unpickler(stream).load():
        storage, count = unpickler.storages[key], int.from_bytes(stream.read(8), "little")
        if count != storage.count:
            raise _Fault(f"holds {count} numbers where {storage.count} were announced")
        storage.data = stream.read(count * np.dtype(_STORAGES[storage.kind]).itemsize)
    return loaded


class _Unpickler(pickle.Unpickler):
    """Knows the names of `_KNOWN` alone. storages: those that were met, by key, without data."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream, encoding="latin1")  # Python 2 pickled bytes as text
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _Fault(f"names {_shown(f'{module}.{name}')}, of which no array is made")
        return _KNOWN[module, name]

    def persistent_load(self, key: Any) -> "_Storage":
        match key:
            case ("storage", str(kind), str(name), _, int(count), *view):
                if kind in _STORAGES and not any(view):
                    return self.storages.setdefault(name, _Storage(kind, count))
        raise _Fault("refers to something that is no storage of a tensor")


class _Function:
    """A stand-in for a function or class. It cannot be changed by a pickle that holds it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Fault(f"sets {name} of a function")


class _Elements:
    """numpy.dtype, of plain numbers alone."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, align: Any = False, copy: Any = False):
        if not (isinstance(code, str) and _ELEMENTS.fullmatch(code)):
            raise _Fault(f"holds elements of type {str(code)[:40]!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        """(version, byte order, subarray, names, fields, ...)."""
        if state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise _Fault("holds elements of several parts")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """numpy.ndarray. values is None until the pickle has given it its state."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray | None = None):
        self.values = values

    def __setstate__(self, state: tuple) -> None:
        _, shape, elements, by_columns, data = state
        data = data.encode("latin-1") if isinstance(data, str) else data
        self.values = _frombuffer(data, elements, shape, "F" if by_columns else "C").values


def _frombuffer(data: Any, elements: Any, shape: Any, order: Any) -> _Array:
    """Numbers from their bytes, which must be as many as the shape says."""
    if not isinstance(data, bytes | bytearray) or not isinstance(elements, _Elements):
        raise _Fault("holds an array of objects")
    values = np.frombuffer(bytes(data), elements.dtype)
    if len(values) != math.prod(_whole(shape)) or order not in ("C", "F"):
        raise _Fault(f"holds {len(values)} numbers for the shape {shape}")
    return _Array(values.reshape(shape, order=order))


def _whole(numbers: Any) -> tuple[int, ...]:
    """A tuple of whole numbers of at least 0, as shapes, strides and places are."""
    if not (isinstance(numbers, tuple) and all(type(n) is int and n >= 0 for n in numbers)):
        raise _Fault(f"holds the shape {str(numbers)[:80]}")
    return numbers


@dataclasses.dataclass(slots=True)
class _Storage:
    """A torch storage: `count` elements of the kind named in `_STORAGES`."""

    kind: str
    count: int
    data: bytes = b""

    def elements(self) -> np.ndarray:
        found = np.frombuffer(self.data, _STORAGES[self.kind])
        if len(found) != self.count:
            raise _Fault(f"holds {len(found)} numbers where {self.count} were announced")
        if self.kind == "BFloat16Storage":  # the upper half of a float32's bits
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found


@dataclasses.dataclass(slots=True)
class _Tensor:
    """A torch tensor: a view of a storage, which is read later than the tensor is met."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> np.ndarray:
        elements, (offset,) = self.storage.elements(), _whole((self.offset,))
        size, stride = _whole(self.size), _whole(self.stride)
        if math.prod(size) == 0:
            return np.zeros(size, elements.dtype)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        # More numbers than there are would be repeated ones: a file of a few bytes must not fill
        # the memory.
        if last >= len(elements) or math.prod(size) > len(elements):
            raise _Fault(f"holds {len(elements)} numbers for the shape {size}")
        steps = [elements.itemsize * step for step in stride]
        return np.lib.stride_tricks.as_strided(elements[offset:], size, steps).copy()


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> _Tensor:
    """torch._utils._rebuild_tensor_v2; gradients and hooks are left."""
    if not isinstance(storage, _Storage):
        raise _Fault("holds a tensor without storage")
    return _Tensor(storage, offset, size, stride)


def _scalar(elements: Any, data: Any) -> _Array:
    """numpy.core.multiarray.scalar."""
    data = data.encode("latin-1") if isinstance(data, str) else data
    return _frombuffer(data, elements, (), "C")


def _encode(text: Any, encoding: Any) -> bytes:
    """_codecs.encode, by which Python 3 writes bytes in protocols up to 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Fault(f"encodes text as {str(encoding)[:40]!r}")
    return text.encode("latin-1")


def _legacy_storage(data: Any) -> Any:
    """torch.storage._load_from_bytes: a storage as torch.save wrote it before 1.6."""
    if not isinstance(data, bytes):
        raise _Fault("holds a storage that is not of bytes")
    return _load(data)


def _values(loaded: Any) -> np.ndarray:
    if isinstance(loaded, _Tensor):
        return loaded.array()
    if isinstance(loaded, _Array) and loaded.values is not None:
        return loaded.values
    raise _Fault(f"holds a {type(loaded).__name__.lstrip('_').lower()}")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "ndarray",  # an argument; not called
    ("numpy", "dtype"): _Function(_Elements),
    ("_codecs", "encode"): _Function(_encode),
    ("builtins", "bytes"): _Function(lambda: b""),  # empty ones are made so
    ("__builtin__", "bytes"): _Function(lambda: b""),
    ("collections", "OrderedDict"): _Function(lambda: {}),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch.storage", "_load_from_bytes"): _Function(_legacy_storage),
    **{("torch", kind): kind for kind in _STORAGES},
}
for _core in ("numpy.core", "numpy._core"):  # before NumPy 2, and since
    _KNOWN[f"{_core}.multiarray", "_reconstruct"] = _Function(lambda kind, shape, code: _Array())
    _KNOWN[f"{_core}.multiarray", "scalar"] = _Function(_scalar)
    _KNOWN[f"{_core}.numeric", "_frombuffer"] = _Function(_frombuffer)
