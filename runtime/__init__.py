"""The integer machine: `Session("model.qprog").run({"x": array})`.

Imports numpy, numba and safetensors, nothing else; and those only when a name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .builder import ProgramBuilder
    from .errors import FeedError, MachineError, ProgramError
    from .program import Program
    from .session import Session

__all__ = ["FeedError", "MachineError", "Program", "ProgramBuilder", "ProgramError", "Session"]

_HOME = {
    "FeedError": ".errors", "MachineError": ".errors", "Program": ".program", "ProgramBuilder": ".builder", "ProgramError": ".errors",
    "Session": ".session",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOME[name], __name__), name)
