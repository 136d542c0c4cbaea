"""Codes that a table of 256 entries gives for other codes: what ``curve="power"`` of `narrow-activations` writes."""

from __future__ import annotations

import numpy as np

from qcompiler.graph.ir import Node, producer, read_spec
from qcompiler.lowering.code_grid import Coded, CodeGrid
from qcompiler.lowering.engine import Lowering


def looked_up(lw: Lowering, node: Node) -> Coded | None:
    """QuantizeLinear -> Cast -> Gather(uint8 [256]) -> DequantizeLinear as a Table; None for anything else."""
    gather, spec = producer(node.inputs[0]), read_spec(node)
    cast = producer(gather.inputs[1]) if gather is not None and gather.op == "Gather" else None
    quantize = producer(cast.inputs[0]) if cast is not None and cast.op == "Cast" else None
    if (
        gather is None
        or spec is None
        or quantize is None
        or quantize.op != "QuantizeLinear"
        or quantize.outputs[0].dtype != np.uint8
    ):
        return None
    entries = lw.constants.value(gather.inputs[0])
    if entries is None or entries.dtype != np.uint8 or entries.shape != (256,) or spec.dtype != np.uint8:
        return None
    source, name = lw.stored_codes(quantize.outputs[0]), node.inputs[0].name
    codes = lw.out.op(
        "Table",
        name,
        [source.tensor, lw.out.constant(f"{name}_table", entries)],
        {"dtype": "uint8"},
        "uint8",
        node.inputs[0].shape,
    )
    reached = entries[source.lo : source.hi + 1]
    return Coded(codes, CodeGrid.from_spec(spec), int(reached.min()), int(reached.max()))
