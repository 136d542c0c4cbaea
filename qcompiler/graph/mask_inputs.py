"""Which inputs of a graph are masks: by what they do, by their names, by the values seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from qcompiler.graph.ir import Graph, Node, Tensor, constant_of, consumers
from qcompiler.graph.value_kinds import FILL_FROM, MOVES, TRUTH, Kind, Value, is_added_to_scores


def mask_candidates(graph: Graph) -> list[str]:
    """Inputs of integers or floats whose name or use is that of a mask."""
    numbers = [tensor for tensor in graph.inputs if tensor.dtype is not None and np.dtype(tensor.dtype).kind in "iuf"]
    return [tensor.name for tensor in numbers
    if _is_named(tensor) or _is_complemented(tensor) or is_added_to_scores(tensor)]


def _is_named(tensor: Tensor) -> bool:
    return "mask" in tensor.name.lower()


def mask_inputs(graph: Graph, seen: Mapping[str, Collection[float]] | None = None) -> dict[str, Value]:
    """Inputs of integers or floats that are masks, with the values that they can have.

    0 and 1, where the name says "mask", or a use: ``1 - m``, or a product with a constant of the size of a fill. 0 and
    less, where all that is done is to add it to what a Softmax reads, and the name says so or calibration shows 0 and
    fills alone. Where calibration shows anything else, the input is no mask.

    Args:
        graph: float graph.
        seen: different values of an input in calibration, by name.
    """
    found, candidates = {}, set(mask_candidates(graph))
    for tensor in graph.inputs:
        values = set((seen or {}).get(tensor.name, ()))
        if tensor.name not in candidates:
            continue
        if not is_added_to_scores(tensor) and values <= {0.0, 1.0}:
            found[tensor.name] = TRUTH
        elif is_added_to_scores(tensor) and (values or _is_named(tensor)) and all(value == 0 or value <= -FILL_FROM
        for value in values):
            found[tensor.name] = Value(Kind.INDEX, hi=0.0)
    return found


def _is_complemented(tensor: Tensor, depth: int = 8) -> bool:
    """True where somebody computes ``1 - m``, or multiplies by a fill."""
    return depth > 0 and any(_complements(node, tensor, depth) for node in consumers(tensor))


def _complements(node: Node, tensor: Tensor, depth: int) -> bool:
    others = [constant_of(other) for other in node.inputs if other is not tensor]
    constant = (
        others[0]
        if len(others) == 1 and others[0] is not None and others[0].size == 1 and others[0].dtype.kind == "f"
        else None
    )
    if node.op == "Sub" and constant is not None:
        return node.inputs[1] is tensor and float(constant.reshape(())) == 1.0 and any(_is_filling(output)
        for output in node.outputs)
    if node.op == "Mul" and constant is not None:
        return float(constant.reshape(())) <= -1e3
    return (node.op == "Cast" or (node.op in MOVES and node.inputs[0] is tensor)) and any(_is_complemented(out,
    depth - 1) for out in node.outputs)


def _is_filling(tensor: Tensor, depth: int = 4) -> bool:
    """True where a truth is made a mask: by a fill, or as a condition."""
    for node in consumers(tensor):
        values = [constant_of(other) for other in node.inputs if other is not tensor]
        if any(value is not None and value.size == 1 and value.dtype.kind == "f"
        and abs(float(value.reshape(()))) >= FILL_FROM for value in values):
            return True
        if node.op in ("Cast", *MOVES) and depth > 0 and any(_is_filling(output,
        depth - 1) for output in node.outputs):
            return True
    return False
