"""The CPU that machine code is made for.

LLVM knows it best, but to load LLVM takes more time and memory than the machine itself. So its answer is kept in the user's
cache folder, under what the system says of the CPU; only a process that compiles, or meets a CPU for the first time, asks again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

_TOLD = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
"""Variables by which Numba is told to compile for another CPU."""


class Cpu(NamedTuple):
    """LLVM's name of a CPU, and its features as LLVM takes them: ``+avx2,-avx512f``."""

    name: str
    features: str


def cpu_name() -> str:
    """The CPU that code is generated for."""
    return _cpu().name


@functools.cache
def cpu_features() -> frozenset[str]:
    """Names of the instruction set extensions that code may use."""
    return frozenset(item[1:] for item in _cpu().features.split(",") if item.startswith("+"))


def target_machine() -> Any:
    """LLVM's code generator for this CPU."""
    from llvmlite import binding

    if hasattr(binding, "initialize_native_target"):
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu_name(), features=_cpu().features, opt=3, reloc="pic", codemodel="default")


@functools.cache
def cache_base() -> Path | None:
    """The user's folder for what this package keeps; None where there is none that can be written."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "qcompiler" / "machine"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def keep(path: Path, content: bytes) -> bool:
    """Write a file behind its checksum, atomically; False where that fails: it only costs the next process some time."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        Path(temporary).replace(path)
    except OSError:
        return False
    return True


def kept(path: Path) -> bytes | None:
    """What `keep` wrote; None where there is nothing, or something damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, content = data[:32], data[32:]
    return content if content and hashlib.sha256(content).digest() == digest else None


@functools.cache
def _cpu() -> Cpu:
    base, identity = cache_base(), _identity()
    path = None if base is None or identity is None else base / f"cpu-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"
    known = kept(path) if path else None
    if known is not None:
        return Cpu(*json.loads(known))
    found = _ask_llvm()
    if path:
        keep(path, json.dumps(found).encode())
    return found


def _identity() -> str | None:
    """What decides LLVM's answer, as far as the system tells without LLVM; None where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return None
    stable = [line for line in lines if line.startswith(("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU "))]
    told = [f"{name}={os.environ.get(name)}" for name in _TOLD]
    return "\n".join([platform.machine(), platform.release(), package_version("llvmlite"), *told, *stable]) if stable else None


def package_version(package: str) -> str:
    """What a package says of its version, without importing it; '' if it is not installed."""
    from importlib.util import find_spec

    spec = find_spec(package)
    return (Path(spec.origin).parent / "_version.py").read_text() if spec and spec.origin else ""


def _ask_llvm() -> Cpu:
    from llvmlite import binding

    name, features = (os.environ.get(variable) for variable in _TOLD)
    host = str(binding.get_host_cpu_name())
    if features is None:
        features = str(binding.get_host_cpu_features().flatten()) if name in (None, "", host) else ""
    return Cpu(name or host, features)
