"""Reads the tensors of a PyTorch checkpoint without PyTorch, and without running anything that is in it.

A checkpoint is a pickle that names classes to call. Only what a table of tensors needs may be named; all else is
refused.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STORAGES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "LongStorage": np.int64, "IntStorage": np.int32}
LEGACY_HEADER = 3
"""Pickles before the table in a file of the old format: magic number, version, machine."""


@dataclass(frozen=True)
class _Storage:
    """A storage type, named in the pickle as if it were a class."""

    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _View:
    """A tensor: part of a stored array."""

    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Reader(pickle.Unpickler):
    """Knows tensors, their storages and OrderedDict."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda key, offset, shape, strides, *_: _View(key, offset, tuple(shape), tuple(strides))
        if module == "torch" and name in STORAGES:
            return _Storage(np.dtype(STORAGES[name]))
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"the checkpoint names {module}.{name}, which no table of tensors needs")

    def persistent_load(self, pid: Any) -> str:
        key = str(pid[2])
        self.dtypes[key] = pid[1].dtype
        return key


def load_tensors(path: Path) -> dict[str, Array]:
    """Every tensor of a state dictionary by name, from a file of the old format or the zip format.

    Raises:
        pickle.UnpicklingError: the file names anything besides tensors.
    """
    return _load_zip(path) if zipfile.is_zipfile(path) else _load_legacy(io.BytesIO(path.read_bytes()))


def _load_zip(path: Path) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("data.pkl")).removesuffix("data.pkl")
        reader = _Reader(io.BytesIO(archive.read(f"{root}data.pkl")))
        views = reader.load()
        arrays = {key: np.frombuffer(archive.read(f"{root}data/{key}"), dtype) for key, dtype in reader.dtypes.items()}
    return _cut(views, arrays)


def _load_legacy(file: io.BytesIO) -> dict[str, Array]:
    for _ in range(LEGACY_HEADER):
        _Reader(file).load()
    reader = _Reader(file)
    views = reader.load()
    arrays = {}
    for key in _Reader(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        dtype = reader.dtypes[key]
        arrays[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return _cut(views, arrays)


def _cut(views: dict[str, _View], arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: _view(arrays[view.key], view) for name, view in views.items()}


def _view(array: Array, view: _View) -> Array:
    strides = [step * array.itemsize for step in view.strides]
    return np.lib.stride_tricks.as_strided(array[view.offset :], view.shape, strides).copy()
