"""The CPU that machine code is made for. Asks llvmlite alone: a process that finds its machine code ready never imports Numba."""

from __future__ import annotations

import functools
import os
from typing import Any

from llvmlite import binding


@functools.cache
def cpu_name() -> str:
    """The CPU that code is generated for: this one, or what Numba was told by its own variable ``NUMBA_CPU_NAME``."""
    return os.environ.get("NUMBA_CPU_NAME") or str(binding.get_host_cpu_name())


@functools.cache
def feature_text() -> str:
    """Instruction set extensions as LLVM takes them: ``+avx2,-avx512f``."""
    told = os.environ.get("NUMBA_CPU_FEATURES")
    if told is not None:
        return told
    return str(binding.get_host_cpu_features().flatten()) if cpu_name() == binding.get_host_cpu_name() else ""


@functools.cache
def cpu_features() -> frozenset[str]:
    """Names of the instruction set extensions that code may use."""
    return frozenset(item[1:] for item in feature_text().split(",") if item.startswith("+"))


def target_machine() -> Any:
    """LLVM's code generator for this CPU."""
    if hasattr(binding, "initialize_native_target"):
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu_name(), features=feature_text(), opt=3, reloc="pic", codemodel="default")
