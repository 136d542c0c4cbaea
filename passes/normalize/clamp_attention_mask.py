"""Limits the constants that mask attention scores, so that they do not stretch a quantized range.

Models add -1e4, -3.4e38 or -inf to the scores they mask, before a Softmax. Softmax computes exp(s - max) in float32,
which is exactly 0.0 below -104 (the smallest subnormal is exp(-103.28)). So with scores that differ by less than
``spread``, every masked score at or below

    M = -(104 + spread)

gives exactly the same probabilities, and a constant below M may be raised to M. A row in which *everything* is masked
has no meaningful probabilities before or after, and may change.

A constant is changed only where all that it reaches is a Softmax, through additions, choices (Where) and operators that
move elements. A product of such a constant with a tensor of integers ((1 - mask) * -1e4) counts as a constant: its
elements are 0, or at least as far from 0 as the constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.exactness import passes_to_softmax, reaches_only_softmax
from ...graph.ir import Graph, Node, Tensor, constant_of, consumers
from ...graph.operators import MOVEMENT
from ...pass_base import Context, Pass
from ...rewriting.match import made_by, new_constant, rename, standard

UNDERFLOW = 104.0
"""exp(-104) is 0.0 in float32."""

_INTEGRAL = (*MOVEMENT, "Add", "Sub", "Mul", "Neg", "Abs", "Floor", "Ceil", "Round", "Trilu", "Concat", "Max", "Min")
_DEPTH = 12


def is_integral(tensor: Tensor, depth: int = _DEPTH) -> bool:
    """True when every element of ``tensor`` is proven to be an integer, whatever its type."""
    value = constant_of(tensor)
    if value is not None:
        return value.dtype.kind in "iub" or bool(np.all(np.isfinite(value)) and np.all(value == np.rint(value)))
    if tensor.dtype is not None and not isinstance(tensor.dtype, int) and np.dtype(tensor.dtype).kind in "iub":
        return True
    node = made_by(tensor, *_INTEGRAL, "Cast", "Where")
    if node is None or depth == 0:
        return False
    if node.op in MOVEMENT or node.op in ("Cast", "Trilu"):
        return is_integral(node.inputs[0], depth - 1)
    operands = node.inputs[1:] if node.op == "Where" else node.inputs
    return all(is_integral(operand, depth - 1) for operand in operands)


def _rename_up_to_softmax(graph: Graph, node: Node) -> None:
    if node.op != "Softmax":
        for tensor in node.outputs:
            if not tensor.name.endswith("_clamped"):
                rename(graph, tensor, "clamped")
            for user in consumers(tensor):
                _rename_up_to_softmax(graph, user)


def _is_mask_product(node: Node, slot: int) -> bool:
    return node.op == "Mul" and is_integral(node.inputs[1 - slot])


@dataclass(frozen=True)
class ClampAttentionMask(Pass):
    """Raise mask constants to the value at which Softmax still gives exactly 0.

    Attributes:
        spread: bound on the difference of two scores of one row.
    """

    name: ClassVar[str] = "clamp-attention-mask"
    exact: ClassVar[bool] = True
    spread: float = 64.0

    @property
    def limit(self) -> float:
        """The value below which constants are raised to it."""
        return -(UNDERFLOW + self.spread)

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a constant was limited."""
        changed = False
        for node in standard(
            graph, "Add", "Sum", "Where", "Mul", "Expand", "Slice", "Gather", "Unsqueeze", "Reshape", "Trilu", "Concat"
        ):
            for slot, tensor in enumerate(node.inputs):
                changed |= self._limit(graph, node, slot, tensor, ctx)
        return changed

    def _limit(self, graph: Graph, node: Node, slot: int, tensor: Tensor, ctx: Context) -> bool:
        value = constant_of(tensor)
        if value is None or value.dtype.kind != "f" or not np.any(value < self.limit) or np.isnan(value).any():
            return False
        harmless = (
            node.op == "Mul"
            and slot < 2
            and _is_mask_product(node, slot)
            and bool(np.all((value == 0) | (value < self.limit)))
        )
        if node.op == "Mul" and not (harmless and all(reaches_only_softmax(graph, output) for output in node.outputs)):
            if is_integral(node.inputs[1 - slot]):
                ctx.declined(
                    node, f"its result reaches more than a Softmax, so the constant '{tensor.name}' keeps its value"
                )
            return False
        if node.op != "Mul" and not passes_to_softmax(graph, node, tensor):
            return False
        name = f"{tensor.name}_clamped"
        node.inputs[slot] = new_constant(graph, name, np.maximum(value, np.asarray(self.limit, value.dtype)))
        _rename_up_to_softmax(graph, node)
        return True
