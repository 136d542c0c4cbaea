"""The integer machine: loads ``.qprog`` programs and runs them on integers alone.

from qcompiler.runtime import Session outputs = Session("net.qprog").run({"x": array})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .program.builder import ProgramBuilder
    from .program.model import Program
    from .session import Session

from .errors import FeedError, MachineError, ProgramError

__all__ = ["FeedError", "MachineError", "Program", "ProgramBuilder", "ProgramError", "Session", "__version__"]

__version__ = "0.1.0"

_HOME = {"Session": "session", "Program": "program.model", "ProgramBuilder": "program.builder"}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: the compiler needs the arithmetic, but not the compiled kernels."""
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
