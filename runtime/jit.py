"""Compilation of the kernels by Numba, and the cache of the machine code on disk.

`jit` compiles a function without Python objects, without the GIL, without fast-math. `cached` does the same for the one
entry point and keeps its machine code (all kernels linked in) in the user's cache folder. Numba's own cache watches only
the file of the function itself; this one is keyed by the sources of everything that is compiled, the versions of
Numba and llvmlite, and the CPU. Nothing of Numba's global configuration is touched.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import numba
from llvmlite import binding
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache

WITHOUT_MACHINE_CODE = frozenset({
    "__init__", "border", "builder", "container", "expressions", "packing", "plan", "program", "requant", "session", "walks", "warm",
})
"""Modules that no compiled function reads: a change in them does not cost a compilation. A test holds this list to be true."""

_LOG = logging.getLogger("qcompiler.runtime")
_F = TypeVar("_F", bound=Callable[..., Any])


def jit(function: _F) -> _F:
    """Compile ``function`` at its first use inside compiled code; integers only."""
    return numba.njit(nogil=True, error_model="numpy", fastmath=False)(function)  # type: ignore[no-any-return]


def cached(function: _F) -> _F:
    """`jit`, with the machine code kept on disk between processes."""
    dispatcher: Any = jit(function)
    if cache_folder() is not None:
        dispatcher._cache = _MachineCache(function)
    return dispatcher  # type: ignore[no-any-return]


@functools.cache
def cpu_name() -> str:
    """The CPU that code is generated for."""
    return str(config.CPU_NAME or binding.get_host_cpu_name())


@functools.cache
def cpu_features() -> frozenset[str]:
    """Names of the instruction set extensions that code may use."""
    if config.CPU_FEATURES is not None:
        return frozenset(item[1:] for item in str(config.CPU_FEATURES).split(",") if item.startswith("+"))
    if config.CPU_NAME not in (None, "", binding.get_host_cpu_name()):
        return frozenset()
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


@functools.cache
def source_key() -> str:
    """Hash of everything that decides the machine code; it also names the package it belongs to (installed alone, another one)."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted((*root.glob("*.py"), *root.glob("kernels/*.py"))):
        if path.stem in WITHOUT_MACHINE_CODE:
            continue
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for part in (__name__, numba.__version__, llvmlite.__version__, sys.version, cpu_name(), ",".join(sorted(cpu_features()))):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


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


class _Locator:
    """Tells Numba where the cache is; the folder's name already holds everything that could go stale."""

    def __init__(self, source: str) -> None:
        self._py_file = source

    def ensure_cache_path(self) -> None:
        Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return source_key()

    def get_disambiguator(self) -> str:
        return ""

    @classmethod
    def from_function(cls, function: Any, source: str) -> _Locator:
        return cls(source)


class _CacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _MachineCache(FunctionCache):  # type: ignore[misc]
    _impl_class = _CacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)
        if found is None:
            _LOG.warning("compiling the integer machine for this CPU (%s): about a minute, once", cpu_name())
        return found
