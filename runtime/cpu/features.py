"""The CPU that machine code is made for, and the one that is there.

What is there the system says. What code is made for is, in this order: the one of `TARGETS` that the variable
``QCOMPILER_TARGET`` names, which need not be there; what Numba's variables ``NUMBA_CPU_NAME`` and
``NUMBA_CPU_FEATURES`` tell; the best of `TARGETS` that is there, where the installation has code for it; the CPU that
is there, as LLVM knows it.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, NamedTuple

from ..errors import MachineError

NAME_VARIABLE, FEATURES_VARIABLE = "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"
TARGET_VARIABLE = "QCOMPILER_TARGET"

X86_64, AARCH64 = "x86_64", "aarch64"
"""Architectures that code is made for ahead of time, as Linux names them."""

MACHINE = os.uname().machine if hasattr(os, "uname") and sys.maxsize > 1 << 32 else ""
"""The architecture that is there; '' in a process of 32 bits, which it may run, too."""

BUNDLES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "bundles")
"""Folder of the code that an installation has brought along: an image for each target, ``NAME.image``."""


class Cpu(NamedTuple):
    """LLVM's name of a CPU, its features as LLVM takes them (``+avx2,-avx512f``), and its architecture."""

    name: str
    features: str
    machine: str = X86_64

    @property
    def enabled(self) -> frozenset[str]:
        """Names of the features that code may use."""
        return frozenset(item[1:] for item in self.features.split(",") if item.startswith("+"))


_V2 = "+cx16,+sahf,+popcnt,+sse3,+ssse3,+sse4.1,+sse4.2"
_V3 = f"{_V2},+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe"
_V4 = f"{_V3},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
TARGETS = {
    "avx512-vnni": Cpu("x86-64", f"{_V4},+avx512vnni"),
    "avx-vnni": Cpu("x86-64", f"{_V3},+avxvnni"),
    "avx2": Cpu("x86-64", _V3),
    "portable": Cpu("x86-64", _V2),
    "neon": Cpu("generic", "+fp-armv8,+neon", AARCH64),
}
"""CPUs that code is made for ahead of time, the best of an architecture first: x86-64 in its levels 2 to 4, two of them
with dot products of bytes; any ARM of 64 bits."""

_LINUX_NAMES = {
    "cx16": "cx16",
    "lahf_lm": "sahf",
    "popcnt": "popcnt",
    "pni": "sse3",
    "ssse3": "ssse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "sse2": "sse2",
    "avx": "avx",
    "avx2": "avx2",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "f16c": "f16c",
    "fma": "fma",
    "abm": "lzcnt",
    "movbe": "movbe",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512_vnni": "avx512vnni",
    "avx512vbmi": "avx512vbmi",
    "avx_vnni": "avxvnni",
}
"""LLVM's names of the features that the kernels or `TARGETS` know, by the names in ``/proc/cpuinfo``."""

_HWCAP, _ARM_NAMES = 16, {"fp-armv8": 0, "neon": 1}
"""Key of the auxiliary vector, and bits of its value by LLVM's names of the features of an ARM."""

KNOWN = frozenset({*_LINUX_NAMES.values(), *_ARM_NAMES})
"""Features that are compared before code runs."""


def cpu_name() -> str:
    """LLVM's name of the CPU that code is made for."""
    return target().name


@functools.cache
def cpu_features() -> frozenset[str]:
    """Names of the features that the machine code of this process may use."""
    if is_told() or bundled_target() is not None:
        return target().enabled
    return present()


@functools.cache
def present() -> frozenset[str]:
    """Features that this CPU has, as far as they are `KNOWN`."""
    if MACHINE == AARCH64 and sys.platform.startswith("linux"):
        return _arm_features()
    lines = [line for line in cpu_description() if line.startswith("flags")]
    if lines:
        return frozenset(_LINUX_NAMES[flag] for flag in lines[0].partition(":")[2].split() if flag in _LINUX_NAMES)
    try:
        from llvmlite import binding
    except ImportError:
        return frozenset()
    return frozenset(name for name, has in binding.get_host_cpu_features().items() if has and name in KNOWN)


def _arm_features() -> frozenset[str]:
    import ctypes

    read = ctypes.CDLL(None).getauxval
    read.restype, read.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    return frozenset(name for name, bit in _ARM_NAMES.items() if read(_HWCAP) >> bit & 1)


def is_told() -> bool:
    """Whether a variable says what code is made for."""
    return any(os.environ.get(name) for name in (TARGET_VARIABLE, NAME_VARIABLE, FEATURES_VARIABLE))


@functools.cache
def cpu_description() -> tuple[str, ...]:
    """What the system says of the CPU and does not change; nothing where it is not Linux."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = file.read().partition("\n\n")[0].splitlines()
    except OSError:
        return ()
    stable = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")
    return tuple(line for line in lines if line.startswith(stable))


def missing() -> frozenset[str]:
    """Features that the code of this process needs and this CPU lacks."""
    return (cpu_features() & KNOWN) - present()


def bundle_file(name: str) -> str:
    """Path of the code for a target that an installation brings along."""
    return os.path.join(BUNDLES, f"{name}.image")


@functools.cache
def bundled_target() -> str | None:
    """The best target that this CPU can run and that the installation has code for; None where it has none, or a
    variable tells one.
    """
    if is_told() or not sys.platform.startswith("linux"):
        return None
    here = [name for name, cpu in TARGETS.items() if cpu.machine == MACHINE and cpu.enabled <= present()]
    return next((name for name in here if os.path.isfile(bundle_file(name))), None)


@functools.cache
def target() -> Cpu:
    """The CPU that code is made for.

    Raises:
        MachineError: a name is told whose features nobody knows, or a target that there is not.
    """
    chosen = os.environ.get(TARGET_VARIABLE) or bundled_target()
    if chosen:
        if chosen not in TARGETS:
            raise MachineError(f"{TARGET_VARIABLE} is {chosen}; choose {', '.join(TARGETS)}")
        return TARGETS[chosen]
    from llvmlite import binding

    name, features = os.environ.get(NAME_VARIABLE), os.environ.get(FEATURES_VARIABLE)
    host = str(binding.get_host_cpu_name())
    if features is None and name not in (None, "", "generic", "x86-64", host):
        raise MachineError(
            f"{NAME_VARIABLE} is {name}; set {FEATURES_VARIABLE} as well, so that they can be compared with this CPU's"
        )
    if features is None:
        features = str(binding.get_host_cpu_features().flatten()) if name in (None, "", host) else ""
    return Cpu(name or host, features, MACHINE)


def target_machine() -> Any:
    """LLVM's code generator for `target`."""
    from llvmlite import binding

    cpu = target()
    if cpu.machine == MACHINE:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        found = binding.Target.from_default_triple()
    else:
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
        found = binding.Target.from_triple(f"{cpu.machine}-unknown-linux-gnu")
    return found.create_target_machine(
        cpu=cpu.name, features=cpu.features, opt=3, reloc="pic", codemodel="default"
    )


def package_version(package: str) -> str:
    """What a package says of its version, without importing it; '' if it is not installed."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec(package)
    return (Path(spec.origin).parent / "_version.py").read_text() if spec and spec.origin else ""
