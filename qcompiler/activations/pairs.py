"""The grid of a Q/DQ pair, changed in place, and the pair taken away."""

from __future__ import annotations

from qcompiler.calibration.sensitivity import Pair
from qcompiler.graph.ir import Constant, Graph, QuantSpec, replace_uses, unique_name
from qcompiler.graph.origin import origin_of

WIDE_OPSET = 21
"""The first opset with 16-bit codes."""


def set_grid(pair: Pair, spec: QuantSpec, taken: set[str]) -> None:
    """Give both nodes of a pair the scale and zero point of ``spec``, and the codes between them its type."""
    scale = Constant(unique_name(taken, f"{pair.name}_scale"), spec.scale)
    zero_point = Constant(unique_name(taken, f"{pair.name}_zero_point"), spec.zero_point)
    for node in (pair.quantize, pair.dequantize):
        node.inputs = [node.inputs[0], scale, zero_point]
    pair.quantize.outputs[0].dtype = spec.dtype


def remove_pair(graph: Graph, pair: Pair) -> None:
    """Let everyone read the float tensor in front of a pair; a graph output keeps its name."""
    source, end = pair.quantize.inputs[0], pair.dequantize.outputs[0]
    leaves = any(end is output for output in graph.outputs)
    replace_uses(graph, end, source)
    if leaves:
        source.name, end.name = end.name, source.name


def is_older(graph: Graph) -> bool:
    """True for a model from a file of an opset without 16-bit codes, in which its ``.onnx`` form stays."""
    return 0 < origin_of(graph).opset < WIDE_OPSET
