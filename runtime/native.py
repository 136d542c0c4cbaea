"""The machine code of the machine: loaded from the user's cache folder, or compiled and kept there.

The file is an object file for this CPU, linked into the process by llvmlite; Numba is imported only to make it. Its folder is
named by a hash of everything that decides the code: the sources that are compiled, the versions of Numba and
llvmlite, and the CPU. Nothing in it can go stale, and several versions live side by side.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
from llvmlite import binding

from .cpu import cpu_features, cpu_name, target_machine
from .errors import MachineError

WITHOUT_MACHINE_CODE = frozenset({
    "__init__", "arena", "border", "builder", "container", "expressions", "native", "packing", "parts", "plan", "program", "requant", "session",
    "team", "walks", "warm",
})
"""Modules that no compiled function reads: a change in them does not cost a compilation. A test holds this list to be true."""

EXECUTE_PARAMETERS, CONVERT_PARAMETERS = 5, 2
_LOG = logging.getLogger("qcompiler.runtime")
_LOCK = threading.Lock()


class Native(NamedTuple):
    """The compiled entry points; they release the GIL.

    Attributes:
        execute: `machine.execute`.
        convert: `conversion.convert`.
    """

    execute: Callable[..., int]
    convert: Callable[..., int]


@functools.cache
def source_key() -> str:
    """Hash of everything that decides the machine code; it also names the package it belongs to (installed alone, another one)."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted((*root.glob("*.py"), *root.glob("kernels/*.py"))):
        if path.stem in WITHOUT_MACHINE_CODE:
            continue
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for part in (__name__, _numba_version(), llvmlite.__version__, sys.version, cpu_name(), ",".join(sorted(cpu_features()))):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


def _numba_version() -> str:
    """What Numba says of its version, without importing it."""
    spec = importlib.util.find_spec("numba")
    if spec is None or spec.origin is None:
        raise MachineError("Numba is not installed; the machine is compiled with it")
    return (Path(spec.origin).parent / "_version.py").read_text()


@functools.cache
def cache_folder() -> Path | None:
    """The folder of the machine code, created; None where it cannot be written."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "qcompiler" / "machine" / source_key()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def load() -> Native:
    """The machine, compiled if this is the first time on this CPU; the same in all threads."""
    with _LOCK:
        return _load()


@functools.cache
def _load() -> Native:
    folder = cache_folder()
    path = None if folder is None else folder / "machine.o"
    code = _read(path)
    if code is None:
        _LOG.warning("compiling the integer machine for this CPU (%s): about a minute, once", cpu_name())
        code = _compile()
        if path is not None:
            _write(path, code)
    return _link(code)


def _read(path: Path | None) -> bytes | None:
    """The cached object file behind its own checksum; None where there is none, or a damaged one."""
    try:
        data = path.read_bytes() if path else b""
    except OSError:
        return None
    digest, code = data[:32], data[32:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    """Keep the object file; a folder that is full or gone only costs the next process its time."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        Path(temporary).replace(path)
    except OSError as error:
        _LOG.warning("cannot keep the machine code in %s: %s", path.parent, error.strerror)


def _compile() -> bytes:
    from .conversion import convert
    from .jit import object_code
    from .machine import execute

    return object_code({"execute": (execute, EXECUTE_PARAMETERS), "convert": (convert, CONVERT_PARAMETERS)})


class _Linked(NamedTuple):
    """Owns the memory of the code; ends with the process."""

    engine: Any
    code: Any


_LINKED: list[_Linked] = []


def _link(code: bytes) -> Native:
    file = binding.ObjectFileRef.from_data(code)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target_machine())
    engine.add_object_file(file)
    engine.finalize_object()
    _LINKED.append(_Linked(engine, file))
    return Native(
        _entry(engine.get_function_address("execute"), EXECUTE_PARAMETERS), _entry(engine.get_function_address("convert"), CONVERT_PARAMETERS)
    )


def _entry(address: int, parameters: int) -> Callable[..., int]:
    """A Python function for a compiled one with Numba's native signature."""
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *([ctypes.c_int64] * parameters))
    function, size_of, address_of = kind(address), ctypes.c_int64, ctypes.addressof

    def call(*arguments: int) -> int:
        result, exception = size_of(), size_of()
        if function(address_of(result), address_of(exception), *arguments):
            raise MachineError("the machine stopped on an error that its program's proof excludes; please report it")
        return result.value

    return call
