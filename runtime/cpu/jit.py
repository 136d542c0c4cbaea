"""Compilation of the kernels by Numba: without Python objects, without the GIL, without fast-math.

Nothing of Numba's global configuration is touched. `machine_code.py` keeps the machine code on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numba
from llvmlite import binding, ir
from numba import types

from .features import target_machine

_F = TypeVar("_F", bound=Callable[..., Any])
_FUNCTION = "qcompiler_enter"


def jit(function: _F) -> _F:
    """Compile ``function`` at its first use inside compiled code; integers only."""
    return numba.njit(nogil=True, error_model="numpy", fastmath=False)(function)  # type: ignore[no-any-return]


def object_code(function: Any, entries: Mapping[str, tuple[int, int]], fault: int) -> bytes:
    """An object file with a C function for each entry: ``int64 symbol(int64, ...)``.

    Args:
        function: made by `jit`; takes int64 and returns int64. The C functions call it.
        entries: by symbol the first argument that the C function passes on, and how many of its own follow; the rest are 0.
        fault: what a C function returns when ``function`` has met an error that Numba knows.
    """
    count = function.py_func.__code__.co_argcount
    module = _module(function.py_func, (types.int64,) * count)
    kernels = {item.name for item in module.functions if not item.is_declaration}
    module.link_in(binding.parse_assembly(str(_callers(entries, count, fault))))
    for item in module.functions:
        if item.name in kernels:
            item.linkage = "internal"
    return bytes(target_machine().emit_object(module))


def _module(function: Callable[..., int], parameters: tuple[Any, ...]) -> Any:
    """The optimized LLVM module of a function, which is called `_FUNCTION` there; all data in it is private."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath=False, **options)(function)
    dispatcher.compile(parameters)
    result = dispatcher.overloads[parameters]
    module = binding.parse_assembly(result.library.get_llvm_str())
    for item in module.functions:
        if item.name == result.fndesc.llvm_func_name:
            item.name = _FUNCTION
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    return module


def _callers(entries: Mapping[str, tuple[int, int]], count: int, fault: int) -> ir.Module:
    """The C functions: they hide Numba's native signature, ``int32 f(int64 *result, void **exception, int64 ...)``."""
    module, number, pointer = ir.Module(), ir.IntType(64), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.IntType(32), [number.as_pointer(), pointer.as_pointer(), *[number] * count])
    callee = ir.Function(module, kind, _FUNCTION)
    for symbol, (first, own) in entries.items():
        caller = ir.Function(module, ir.FunctionType(number, [number] * own), symbol)
        builder = ir.IRBuilder(caller.append_basic_block())
        result, exception = builder.alloca(number), builder.alloca(pointer)
        rest = [ir.Constant(number, 0)] * (count - 1 - own)
        status = builder.call(callee, [result, exception, ir.Constant(number, first), *caller.args, *rest])
        fine = builder.icmp_signed("==", status, ir.Constant(ir.IntType(32), 0))
        builder.ret(builder.select(fine, builder.load(result), ir.Constant(number, fault)))
    return module
