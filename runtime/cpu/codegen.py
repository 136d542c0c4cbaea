"""Numba's front end alone: it types and lowers functions one by one; LLVM optimizes and emits them once, all together.

Numba makes each function ready to be called from Python: it links in everything that the function calls, optimizes
that, emits it and loads it. For functions that only call each other this is the same work again and again, more than
three quarters of the whole. So the machine is a target of its own (Numba's `target_extension`): what a function is
lowered to is kept, and `Codegen.link` makes one module of all. Passes for Python's objects, for parallel loops and for
inlining at Numba's level are left out; the kernels have no use for them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, typed_passes, untyped_passes
from numba.core.codegen import Codegen as NumbaCodegen
from numba.core.codegen import CodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.cpu import CPUContext, CPUTargetOptions
from numba.core.descriptors import TargetDescriptor
from numba.core.registry import CPUDispatcher
from numba.core.target_extension import CPU, dispatcher_registry, jit_registry, target_registry
from numba.core.typing.context import BaseContext

from .features import target_machine

_NAME = __name__
"""Of the target, in Numba's registries."""

_OPTIONS = {
    "nopython": True, "nogil": True, "error_model": "numpy", "fastmath": False, "_nrt": False,
    "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
}
_PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.IRProcessing,
    untyped_passes.GenericRewrites,  # an index known here is one of the types, not a call of `getitem`
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.NativeLowering,
    typed_passes.NoPythonBackend,
)


class Machine(CPU):  # type: ignore[misc]
    """The target."""


class _Library(CodeLibrary):  # type: ignore[misc]
    """The code of one function, as it was lowered, and the libraries of those that it calls."""

    def __init__(self, codegen: Codegen, name: str) -> None:
        super().__init__(codegen, name)
        self.texts: list[str] = []
        self.used: list[_Library] = []

    def add_ir_module(self, ir_module: ir.Module) -> None:
        self.texts.append(cgutils.normalize_ir_text(str(ir_module)))
        self._codegen.watch()

    def add_linking_library(self, library: CodeLibrary) -> None:
        self.used.append(library)

    def finalize(self) -> None:
        """Nothing is linked, optimized or emitted here."""
        self._finalized = True

    def get_function(self, name: str) -> Any:
        raise NotImplementedError

    def get_llvm_str(self) -> str:
        return "\n".join(self.texts)

    def get_asm_str(self) -> str:
        raise NotImplementedError


class Codegen(NumbaCodegen):  # type: ignore[misc]
    """Makes the libraries, and one module of a function's library and all that it needs.

    Attributes:
        watch: called when a function has been lowered.
    """

    _library_class = _Library

    def __init__(self) -> None:
        self.watch: Callable[[], None] = lambda: None
        self._machine = target_machine()
        self._target_data = self._machine.target_data

    def link(self, root: _Library) -> Any:
        """One LLVM module of a library and of all that it uses, directly or not."""
        module = binding.parse_assembly(str(self._create_empty_module("machine")))
        found, waiting = {root}, [root]
        while waiting:
            library = waiting.pop()
            for text in library.texts:
                module.link_in(binding.parse_assembly(text))
            new = [used for used in dict.fromkeys(library.used) if used not in found]
            found.update(new)
            waiting += new
        return module

    def optimize(self, module: Any) -> None:
        """Optimize a module as Numba does: loops are vectorized, straight code is not."""
        tuning = binding.create_pipeline_tuning_options(speed_level=3)
        tuning.loop_vectorization, tuning.slp_vectorization = True, False
        builder = binding.create_pass_builder(self._machine, tuning)
        builder.getModulePassManager().run(module, builder)

    def emit(self, module: Any) -> bytes:
        """The object file of a module."""
        return bytes(self._machine.emit_object(module))

    def _create_empty_module(self, name: str) -> ir.Module:
        module = ir.Module(cgutils.normalize_ir_text(name))
        module.triple, module.data_layout = self._machine.triple, str(self._target_data)
        return module

    def _add_module(self, module: Any) -> None:
        """Nothing is loaded."""


class _Typing(BaseContext):  # type: ignore[misc]
    """Types of Python's own functions, operators and enumerations; none of NumPy's."""

    def load_additional_registries(self) -> None:
        from numba.core.typing import enumdecl

        self.install_registry(enumdecl.registry)


class _Lowering(CPUContext):  # type: ignore[misc]
    """LLVM code for integers, ranges and tuples; none for Python's or NumPy's objects."""

    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = Codegen()

    def load_additional_registries(self) -> None:
        from numba.core import optional  # noqa: F401
        from numba.cpython import builtins, enumimpl, numbers, rangeobj, tupleobj  # noqa: F401

    def post_lowering(self, mod: ir.Module, library: CodeLibrary) -> None:
        """No run-time library is linked in: there are no objects to count."""

    def get_executable(self, library: CodeLibrary, fndesc: Any, env: Any) -> str:
        """What stands for the function in Numba's tables: its name, as nothing can be called from Python."""
        return str(fndesc.llvm_func_name)


class _Target(TargetDescriptor):  # type: ignore[misc]
    """What all compiled functions share, made at the first use."""

    options = CPUTargetOptions

    @functools.cached_property
    def typing_context(self) -> _Typing:
        return _Typing()

    @functools.cached_property
    def target_context(self) -> _Lowering:
        return _Lowering(self.typing_context, _NAME)


class _Pipeline(CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[PassManager]:
        manager = PassManager(_NAME)
        for item in _PASSES:
            manager.add_pass(item, item.__name__)
        manager.finalize()
        return [manager]


class Function(CPUDispatcher):  # type: ignore[misc]
    """A function that compiled functions can call, and Python cannot; ``py_func`` is the one that Python can."""

    targetdescr = _Target(_NAME)

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function, targetoptions=dict(_OPTIONS), pipeline_class=_Pipeline)

    def add_overload(self, cres: Any) -> None:
        """Known to Numba's typing only."""
        self.overloads[tuple(cres.signature.args)] = cres

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: it would compile a single kernel for nobody."""
        raise TypeError(f"{self.py_func.__name__} is compiled as a part of the machine; call its py_func")


target_registry[_NAME] = Machine
dispatcher_registry[Machine] = Function
jit_registry[Machine] = lambda *_, **__: Function
