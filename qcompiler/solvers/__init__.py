"""Solvers of a `LayerProblem`: from rounding to the nearest level to learning which level to take."""

from __future__ import annotations

from qcompiler.solvers.base import Solver
from qcompiler.solvers.clip import OptimalClip
from qcompiler.solvers.gptq import Gptq
from qcompiler.solvers.nearest import Nearest

__all__ = ["SOLVERS", "Gptq", "Nearest", "OptimalClip", "Solver"]

SOLVERS: dict[str, Solver] = {"nearest": Nearest(), "clip": OptimalClip(), "gptq": Gptq()}
"""By the name that options use, each with its default options."""
