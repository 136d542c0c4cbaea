"""Compilation of the kernels by Numba: without Python objects, without the GIL, without fast-math.

Nothing of Numba's global configuration is touched. `machine_code.py` keeps the machine code on disk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from llvmlite import binding, ir
from numba import types

from .codegen import Codegen, Function

_F = TypeVar("_F", bound=Callable[..., Any])
_FUNCTION = "qcompiler_enter"

RECURSION = 10_000
"""Frames that typing the machine may take; it takes some hundreds."""

FUNCTIONS, _TOLD_EVERY = 320, 80
"""Compiled functions of the machine, roughly, and after how many of them progress is told."""


def jit(function: _F) -> _F:
    """Compile ``function`` at its first use inside compiled code; integers only."""
    return Function(function)


def object_code(
    function: Any, entries: Mapping[str, tuple[int, int]], fault: int, tell: Callable[[str], None] = lambda _: None
) -> bytes:
    """An object file with a C function for each entry: ``int64 symbol(int64, ...)``.

    Args:
        function: made by `jit`; takes int64 and returns int64. The C functions call it.
        entries: by symbol the first argument that the C function passes on, and how many of its own follow; the rest
            are 0.
        fault: what a C function returns when ``function`` has met an error that Numba knows.
        tell: called with what is done, several times, as this takes a minute.
    """
    codegen: Codegen = function.targetctx.codegen()
    codegen.watch = _Progress(tell).step
    module = linked(function)
    module.link_in(binding.parse_assembly(str(_callers(entries, function.py_func.__code__.co_argcount, fault))))
    module.get_function(_FUNCTION).linkage = "internal"
    tell("optimizing")
    codegen.optimize(module)
    tell("writing machine code")
    return codegen.emit(module)


def linked(function: Any) -> Any:
    """The LLVM module, not optimized, of a function that takes int64: it is called `_FUNCTION`; all else in it is
    private.
    """
    parameters = (types.int64,) * function.py_func.__code__.co_argcount
    limit = sys.getrecursionlimit()
    # Numba types callees inside their callers, and the caller of this may be deep in a stack, too
    sys.setrecursionlimit(max(limit, RECURSION))
    try:
        function.compile(parameters)
    finally:
        sys.setrecursionlimit(limit)
    result = function.overloads[parameters]
    module = function.targetctx.codegen().link(result.library)
    for item in (*module.functions, *module.global_variables):
        if not item.is_declaration:
            item.linkage = "internal"
    root = module.get_function(result.fndesc.llvm_func_name)
    root.name, root.linkage = _FUNCTION, "external"
    return module


class _Progress:
    """Tells how many functions have been read."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._count = tell, 0

    def step(self) -> None:
        self._count += 1
        if self._count % _TOLD_EVERY == 0:
            self._tell(f"{self._count} of about {FUNCTIONS} functions read")


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
