"""Solvers of a `LayerProblem`: from rounding to the nearest level to learning which level to take."""

from __future__ import annotations

from qcompiler.solvers.adaquant import AdaQuant
from qcompiler.solvers.adaround import AdaRound
from qcompiler.solvers.base import Nearest, Solver
from qcompiler.solvers.clip import OptimalClip
from qcompiler.solvers.descent import CoordinateDescent
from qcompiler.solvers.gptq import Gptq
from qcompiler.solvers.soft import SoftAssignment

__all__ = [
    "SOLVERS",
    "AdaQuant",
    "AdaRound",
    "CoordinateDescent",
    "Gptq",
    "Nearest",
    "OptimalClip",
    "SoftAssignment",
    "Solver",
]

SOLVERS: dict[str, Solver] = {
    "nearest": Nearest(),
    "clip": OptimalClip(),
    "gptq": Gptq(),
    "beam": Gptq(beam=8),
    "descent": CoordinateDescent(),
    "adaround": AdaRound(),
    "adaquant": AdaQuant(),
    "soft": SoftAssignment(),
}
"""By the name that options use, each with its default options."""
