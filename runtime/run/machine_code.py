"""The machine's code: brought by the installation, found in a cache folder, or compiled and kept there.

What is kept is an object file for this CPU and, where `image.py` knows how, an image of it that is mapped without LLVM;
Numba is imported only to make them. Their folder is named by a hash of everything that decides the code: the sources
that are compiled, the versions of Numba and llvmlite, and the CPU. Nothing in it can go stale, and several versions
live side by side. Code that the installation brings (`bundle.py`) is used if it was made of these sources. Each image
says which features of a CPU it needs; without them it is not run.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cpu.features import (
    BUNDLES,
    FEATURES_VARIABLE,
    KNOWN,
    NAME_VARIABLE,
    TARGET_VARIABLE,
    bundle_file,
    bundled_target,
    cpu_description,
    missing,
    package_version,
    present,
    target,
    target_machine,
)
from ..errors import MachineError
from ..machine.control import FAULT
from .image import MadeFor, made_for, make_image, map_image
from .kept_files import kept

if TYPE_CHECKING:
    from pathlib import Path

COMPILED = ("cpu", "instructions", "kernels", "machine", "vector")
"""Folders that the machine code is made of; a change in any other one does not cost a compilation. A test holds this
to be true.
"""

_PARAMETERS = {"run": 1, "attend": 3, "execute": 4, "convert": 2}
SEAL = "sealed"
"""A file beside the code that an installation brings along: sources and code are of one build. Without it, as in a
checkout, whose sources change, they are compared.
"""

_IMAGE, _OBJECT = "machine.image", "machine.o"
_LOCK = threading.Lock()


class Native(NamedTuple):
    """Compiled entry points (they release the GIL); each returns `control.FAULT` on what the proof excludes.

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
def code_key() -> str:
    """Hash of the modules that are compiled; the same for the package installed alone."""
    import hashlib

    digest = hashlib.sha256()
    for name, content in _modules():
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:24]


def _modules() -> list[tuple[str, bytes]]:
    """Names and contents: sources, or byte code where there are none, or what the importer of an archive gives."""
    from pathlib import Path

    root = Path(__file__).parent.parent
    for suffix in (".py", ".pyc"):
        files = sorted(path for folder in COMPILED for path in (root / folder).glob(f"*{suffix}"))
        if files:
            return [(path.relative_to(root).as_posix(), path.read_bytes()) for path in files]
    import pkgutil

    package = __package__.rpartition(".")[0]
    names = sorted(
        f"{folder}.{item.name}" for folder in COMPILED for item in pkgutil.iter_modules([str(root / folder)])
    )
    found: list[tuple[str, Any]] = [(name, find_spec(f"{package}.{name}")) for name in names]
    return [(name, spec.loader.get_data(spec.origin)) for name, spec in found]


@functools.cache
def cache_key() -> str:
    """Hash of everything that decides what is compiled here."""
    import hashlib

    told = [os.environ.get(name) or "" for name in (TARGET_VARIABLE, NAME_VARIABLE, FEATURES_VARIABLE)]
    cpu = cpu_description() or tuple(target())
    parts = (
        code_key(),
        package_version("numba"),
        package_version("llvmlite"),
        sys.version,
        bundled_target() or "",
        *told,
        *cpu,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def places(cache_dir: str | Path | None = None) -> list[Path]:
    """Folders for the machine code of this process, in the order in which they are looked through."""
    from . import cache

    return [folder / cache_key() for folder in cache.folders(cache_dir)]


def load(cache_dir: str | Path | None = None) -> Native:
    """The machine, compiled if this is the first time on this CPU; the same in all threads.

    Args:
        cache_dir: folder for machine code; default: `cache.folders`. Only the first call of a process looks there.

    Raises:
        MachineError: the code needs what this CPU lacks, or there is none and nothing to compile it with.
    """
    with _LOCK:
        return _load(cache_dir)


_LOADED: list[Native] = []


def _load(cache_dir: str | Path | None) -> Native:
    if not _LOADED:
        _refuse(missing())
        _LOADED.append(_bundled() or _found_or_made(cache_dir))
    return _LOADED[0]


def _refuse(lacking: frozenset[str]) -> None:
    if lacking:
        set_ones = [name for name in (TARGET_VARIABLE, NAME_VARIABLE, FEATURES_VARIABLE) if os.environ.get(name)]
        told = f"; unset {' and '.join(set_ones)}" if set_ones else ""
        raise MachineError(f"the machine code needs {', '.join(sorted(lacking))}, which this CPU does not have{told}")


def _bundled() -> Native | None:
    """The installation's code for this CPU; None where it has none, or one of other sources."""
    name = bundled_target()
    image = kept(bundle_file(name)) if name else None
    if image is None:
        return None
    if not os.path.exists(os.path.join(BUNDLES, SEAL)) and made_for(image).sources != code_key() and _has_sources():
        _tell("the machine code in %s is of other sources; it is not used", BUNDLES)
        return None
    return _map(image)


def _tell(message: str, *values: object) -> None:
    """Warn whoever reads the log of the runtime."""
    import logging

    logging.getLogger("qcompiler.runtime").warning(message, *values)


def find_spec(name: str) -> Any:
    """Where a module is; None where it is not installed."""
    from importlib.util import find_spec

    return find_spec(name)


def _has_sources() -> bool:
    return __file__.endswith(".py") and os.path.isfile(__file__)


def _found_or_made(cache_dir: str | Path | None) -> Native:
    from . import cache

    where = places(cache_dir)
    found = _found(where)
    if found is not None:
        return found
    if find_spec("numba") is None:
        package = "pip install 'qcompiler-runtime[jit]'"
        raise MachineError(f"this installation has no machine code for this CPU, and no compiler to make it: {package}")
    with cache.alone(where):
        return _found(where) or _make(where)


def _found(where: list[Path]) -> Native | None:
    """The code in the first folder that has it."""
    from . import cache

    image = cache.find(where, _IMAGE)
    mapped = _map(image) if image is not None else None
    if mapped is not None:
        return mapped
    code = cache.find(where, _OBJECT)
    return None if code is None else _link(code)


def _make(where: list[Path]) -> Native:
    from . import cache

    _tell("compiling the integer machine for this CPU (%s), once: about a minute on a free core", target().name)
    code = compiled()
    image = image_of(code)
    kept_in = cache.store(where, _OBJECT, code)
    if image is not None:
        cache.store(where, _IMAGE, image)
    if kept_in is None:
        _tell(
            "the machine code cannot be kept in any of %s: name a folder by %s",
            ", ".join(map(str, where)),
            cache.VARIABLE,
        )
    else:
        cache.prune(kept_in.parent)
    return (_map(image) if image is not None else None) or _link(code)


def compiled() -> bytes:
    """The object file of the machine for `features.target`."""
    from ..cpu.jit import object_code
    from ..machine.entry import ATTEND, CONVERT, EXECUTE, RUN, enter

    numbers = {"run": RUN, "attend": ATTEND, "execute": EXECUTE, "convert": CONVERT}
    entries = {name: (numbers[name], count) for name, count in _PARAMETERS.items()}
    code_key()  # of the sources as they are now: they may change while this takes its minute
    collects = gc.isenabled()
    # Numba's representations are large and live until the end: to search them for garbage takes a sixth of the time
    gc.disable()
    try:
        return object_code(enter, entries, FAULT, lambda done: _tell("compiling the integer machine: %s", done))
    finally:
        if collects:
            gc.enable()


def image_of(code: bytes) -> bytes | None:
    """The image of `compiled`; None where `image.py` knows none."""
    return make_image(code, tuple(_PARAMETERS), MadeFor(code_key(), tuple(sorted(target().enabled & KNOWN))))


_OWNERS: list[Any] = []
"""What owns the memory of the code; it ends with the process."""


def _map(image: bytes) -> Native | None:
    _refuse(frozenset(made_for(image).needs) - present())
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
