"""Writes 8-bit activations as int8 instead of uint8, for runtimes that ask for it: ``--activations int8``.

Code and zero point both move by 128, so every code stands for the number that it stood for; our machine moves them
back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...activations.pairs import set_grid
from ...calibration.sensitivity import Pair, find_pairs
from ...graph.ir import Constant, Graph, QuantSpec, consumers, names_in, read_spec
from ...pass_base import Context, Pass


def _is_multiplied_constant(pair: Pair) -> bool:
    """True for a constant that a MatMul reads."""
    readers = consumers(pair.dequantize.outputs[0])
    return isinstance(pair.quantize.inputs[0], Constant) and any(node.op == "MatMul" for node in readers)


@dataclass(frozen=True)
class SignActivations(Pass):
    """int8 grids in the place of uint8 ones.

    Attributes:
        exact_pairs: leave constants that a MatMul multiplies as uint8: as int8 their products could saturate
            (`qcompiler.weights.saturation`).
    """

    name: ClassVar[str] = "sign-activations"
    exact_pairs: bool = False

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Replace the grids; True when there was one."""
        taken, changed = names_in(graph), False
        for pair in find_pairs(graph):
            spec = read_spec(pair.quantize)
            if spec is not None and spec.dtype == np.uint8 and not (self.exact_pairs and _is_multiplied_constant(pair)):
                set_grid(pair, QuantSpec.per_tensor(float(spec.scale), int(spec.zero_point) - 128, np.int8), taken)
                changed = True
        return changed
