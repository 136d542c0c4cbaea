"""Writes 8-bit activations as int8 instead of uint8, for runtimes that ask for it: ``--activations int8``.

Code and zero point both move by 128, so every code stands for the number that it stood for; our machine moves them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..calibration.sensitivity import find_pairs, set_grid
from ..ir import Graph, QuantSpec, names_in, read_spec
from ..pass_base import Context, Pass


@dataclass(frozen=True)
class SignActivations(Pass):
    """int8 grids in the place of uint8 ones."""

    name: ClassVar[str] = "sign-activations"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Replace the grids; True when there was one."""
        taken, changed = names_in(graph), False
        for pair in find_pairs(graph):
            spec = read_spec(pair.quantize)
            if spec is not None and spec.dtype == np.uint8:
                set_grid(pair, QuantSpec.per_tensor(float(spec.scale), int(spec.zero_point) - 128, np.int8), taken)
                changed = True
        return changed
