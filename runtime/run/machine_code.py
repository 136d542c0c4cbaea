"""The machine code of the machine: loaded from the user's cache folder, or compiled and kept there.

What is kept is an object file for this CPU and, where `image.py` knows how, an image of it that is mapped without LLVM; Numba is
imported only to make them. Their folder is named by a hash of everything that decides the code: the sources that are compiled, the
versions of Numba and llvmlite, and the CPU. Nothing in it can go stale, and several versions live side by side.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..cpu.features import cache_base, cpu_features, cpu_name, keep, kept, package_version, target_machine
from ..machine.control import FAULT
from .image import make_image, map_image

COMPILED = ("cpu", "instructions", "kernels", "machine", "vector")
"""Folders that the machine code is made of; a change in any other one does not cost a compilation. A test holds this to be true."""

_PARAMETERS = {"run": 1, "attend": 3, "execute": 4, "convert": 2}
_IMAGE, _OBJECT = "machine.image", "machine.o"
_LOG = logging.getLogger("qcompiler.runtime")
_LOCK = threading.Lock()


class Native(NamedTuple):
    """The compiled entry points; they release the GIL. Each returns `control.FAULT` on an error that a program's proof excludes.

    Attributes:
        run: `shared_run.run`.
        attend: `shared_run.attend`.
        execute: `interpreter.execute`.
        convert: `border_loops.convert`.
    """

    run: Callable[[int], int]
    attend: Callable[[int, int, int], int]
    execute: Callable[[int, int, int, int], int]
    convert: Callable[[int, int], int]


@functools.cache
def source_key() -> str:
    """Hash of everything that decides the machine code; the same for the package installed alone."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(path for folder in COMPILED for path in (root / folder).glob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    versions = (package_version("numba"), package_version("llvmlite"), sys.version)
    for part in (*versions, cpu_name(), ",".join(sorted(cpu_features()))):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


@functools.cache
def cache_folder() -> Path | None:
    """The folder of the machine code, created; None where it cannot be written."""
    base = cache_base()
    if base is None:
        return None
    folder = base / source_key()
    try:
        folder.mkdir(exist_ok=True)
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
    image = kept(folder / _IMAGE) if folder else None
    if image is not None:
        mapped = _map(image)
        if mapped is not None:
            return mapped
    code = kept(folder / _OBJECT) if folder else None
    if code is None:
        _LOG.warning("compiling the integer machine for this CPU (%s): about a minute, once", cpu_name())
        code = _compile()
        if folder is not None and not keep(folder / _OBJECT, code):
            _LOG.warning("cannot keep the machine code in %s", folder)
    image = make_image(code, tuple(_PARAMETERS))
    if image is not None and folder is not None:
        keep(folder / _IMAGE, image)
    return (_map(image) if image is not None else None) or _link(code)


def _compile() -> bytes:
    from ..cpu.jit import object_code
    from ..machine.entry import ATTEND, CONVERT, EXECUTE, RUN, enter

    numbers = {"run": RUN, "attend": ATTEND, "execute": EXECUTE, "convert": CONVERT}
    return object_code(enter, {name: (numbers[name], count) for name, count in _PARAMETERS.items()}, FAULT)


_OWNERS: list[Any] = []
"""What owns the memory of the code; it ends with the process."""


def _map(image: bytes) -> Native | None:
    mapped = map_image(image)
    if mapped is None:
        return None
    _OWNERS.append(mapped)
    return _native(mapped.addresses)


def _link(code: bytes) -> Native:
    """Load an object file with llvmlite."""
    from llvmlite import binding

    file = binding.ObjectFileRef.from_data(code)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target_machine())
    engine.add_object_file(file)
    engine.finalize_object()
    _OWNERS.append((engine, file))
    return _native({name: engine.get_function_address(name) for name in _PARAMETERS})


def _native(addresses: dict[str, int]) -> Native:
    return Native(**{name: _entry(addresses[name], parameters) for name, parameters in _PARAMETERS.items()})


def _entry(address: int, parameters: int) -> Callable[..., int]:
    """A Python function for a compiled one."""
    return ctypes.CFUNCTYPE(ctypes.c_int64, *([ctypes.c_int64] * parameters))(address)


def yield_address() -> int:
    """A C function without parameters that lets other threads have the core; 0 where none is known."""
    if sys.platform == "win32":
        return ctypes.cast(ctypes.WinDLL("kernel32").SwitchToThread, ctypes.c_void_p).value or 0
    library = ctypes.CDLL(None)
    return ctypes.cast(library.sched_yield, ctypes.c_void_p).value or 0 if hasattr(library, "sched_yield") else 0
