"""Bytes that a program grows by where 16-bit codes go into a function of one element.

The machine answers such a function from a table of 65,536 entries, unless a few lines are as good
(`lowering.interpolate`): HardSwish and HardSigmoid have kinks that 16-bit codes resolve, GELU and Sigmoid have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.activations.int16 import wide_spec
from qcompiler.calibration.sensitivity import Pair
from qcompiler.graph.ir import Graph, Node, QuantSpec, constant_of, consumers, producer, read_spec
from qcompiler.graph.operators import UNARIES
from qcompiler.lowering.constants import evaluate
from qcompiler.lowering.interpolate import interpolated

__all__ = ["table_bytes"]

CLAMPS = frozenset({"Clip", "Neg", "Relu"})
"""Of these nothing is left behind a layer, and no table elsewhere."""


def table_bytes(graph: Graph, pairs: Sequence[Pair]) -> int:
    """Bytes of the tables that 16 bits for ``pairs``, which share a grid, would bring along."""
    return sum(
        _of_function(graph, node, pair)
        for pair in pairs
        for node in consumers(pair.dequantize.outputs[0])
        if node.op in UNARIES - CLAMPS
    )


def _of_function(graph: Graph, node: Node, pair: Pair) -> int:
    spec, target = read_spec(pair.quantize), _grid_behind(node)
    if spec is None or target is None:
        return 0
    wide = wide_spec(spec, producer(pair.quantize.inputs[0]))
    codes = np.arange(-32768, 32768).astype(np.int16)
    given = next(tensor for tensor in node.inputs if constant_of(tensor) is None and tensor.name)
    with np.errstate(all="ignore"):
        feed = {given.name: wide.dequantize(codes).astype(np.float32)}
        real = evaluate(graph, [node], node.outputs[0], feed, constant_of)
    values = np.nan_to_num(np.asarray(real, np.float32).reshape(-1))
    grids = [target] if target.dtype != np.uint8 else [target, target.widened()]  # that may become wide later on
    return max(_stored(grid.quantize(values)) for grid in grids)


def _stored(entries: NDArray[Any]) -> int:
    """Bytes of a table, 0 where lines do."""
    return 0 if interpolated(entries) is not None else int(entries.nbytes)


def _grid_behind(node: Node) -> QuantSpec | None:
    """The grid of a node's output; None where it has none of its own."""
    quantize = next((reader for reader in consumers(node.outputs[0]) if reader.op == "QuantizeLinear"), None)
    return None if quantize is None else read_spec(quantize)
