"""Compilation of the kernels by Numba: without Python objects, without the GIL, without fast-math.

Nothing of Numba's global configuration is touched. `native.py` keeps the machine code on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numba
from llvmlite import binding
from numba import types

from .cpu import target_machine

_F = TypeVar("_F", bound=Callable[..., Any])


def jit(function: _F) -> _F:
    """Compile ``function`` at its first use inside compiled code; integers only."""
    return numba.njit(nogil=True, error_model="numpy", fastmath=False)(function)  # type: ignore[no-any-return]


def object_code(entries: Mapping[str, tuple[Any, int]]) -> bytes:
    """An object file in which each entry is a global function.

    Args:
        entries: by symbol a function made by `jit` and its number of int64 parameters; it returns an int64.

    Returns:
        The file's bytes. A function has Numba's native signature: ``int32 f(int64 *result, void **exception, int64 ...)``.
    """
    whole: Any = None
    for symbol, (dispatcher, parameters) in entries.items():
        module = _module(symbol, dispatcher.py_func, (types.int64,) * parameters)
        if whole is None:
            whole = module
        else:
            whole.link_in(module)
    return bytes(target_machine().emit_object(whole))


def _module(symbol: str, function: Callable[..., int], parameters: tuple[Any, ...]) -> Any:
    """The optimized LLVM module of one entry; all else in it becomes private."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath=False, **options)(function)
    dispatcher.compile(parameters)
    result = dispatcher.overloads[parameters]
    module = binding.parse_assembly(result.library.get_llvm_str())
    for item in module.functions:
        if item.is_declaration:
            continue
        if item.name == result.fndesc.llvm_func_name:
            item.name = symbol
        else:
            item.linkage = "internal"
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    return module
