"""The grid of a Q/DQ pair, changed in place."""

from __future__ import annotations

from qcompiler.calibration.sensitivity import Pair
from qcompiler.graph.ir import Constant, QuantSpec, unique_name


def set_grid(pair: Pair, spec: QuantSpec, taken: set[str]) -> None:
    """Give both nodes of a pair the scale and zero point of ``spec``, and the codes between them its type."""
    scale = Constant(unique_name(taken, f"{pair.name}_scale"), spec.scale)
    zero_point = Constant(unique_name(taken, f"{pair.name}_zero_point"), spec.zero_point)
    for node in (pair.quantize, pair.dequantize):
        node.inputs = [node.inputs[0], scale, zero_point]
    pair.quantize.outputs[0].dtype = spec.dtype
