"""qcompiler: a float ONNX model in, an integer ONNX model and an integer program out.

Nothing heavy is imported here: a process that only runs programs (`qcompiler.runtime`) never loads onnx.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompiler.version import __version__ as __version__

if TYPE_CHECKING:
    from qcompiler.api import compile, load
    from qcompiler.mixed.joined import run
    from qcompiler.pass_base import Context, Pass
    from qcompiler.pipeline import Pipeline

__all__ = ["Context", "Pass", "Pipeline", "compile", "load", "run"]

_HOME = {
    "compile": "api", "load": "api", "run": "mixed.joined", "Pass": "pass_base", "Context": "pass_base",
    "Pipeline": "pipeline",
}  # fmt: skip

if not (Path(__file__).parent / "passes").is_dir():  # a checkout: passes/ and runtime/ lie beside this folder
    __path__.append(str(Path(__file__).parent.parent))


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'qcompiler' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"qcompiler.{_HOME[name]}"), name)
