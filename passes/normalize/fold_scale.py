"""Folds multiplication and addition by constants into the layer before them.

    a (x W + b) + c = x (a W) + (a b + c)       a, c scalars or one number per output channel

Mul, Div, Add and Sub behind a Conv, ConvTranspose or Gemm; Mul and Div behind a MatMul and behind its bias (the Add of
a MatMul *is* its bias). A scalar factor also travels backwards through operators that only move elements, and through a
product of two activations into one of them: the 1 / sqrt(d) of attention ends in the projection of the queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Graph, Node, Tensor, constant_of, is_float
from ...graph.operators import LAYERS, MOVEMENT
from ...pass_base import BatchNormStatistics, Context, Pass
from ...rewriting.fold_into_layer import channel_axis, channels_of, fold, why_not
from ...rewriting.match import Array, bypass, constant_operand, made_by, new_constant, rename, sole_user, standard
from ...shapes.infer import Shape, infer_shapes

_MOVERS = tuple(op for op in MOVEMENT if op not in ("Expand", "Gather", "Tile"))
"""Movement that repeats no element, so that channels stay channels."""
_DEPTH = 8


@dataclass(frozen=True)
class _Map:
    """``y -> scale * y + shift``, per channel [C] or scalar [1]."""

    scale: Array
    shift: Array


def _per_channel(values: Array, rank: int, axis: int, channels: int) -> Array | None:
    """``values`` as [1] or [C] if they vary along ``axis`` alone, and do not enlarge the result."""
    if values.size == 1 and values.ndim <= rank:
        return values.astype(np.float64).reshape(1)
    padded = (1,) * (rank - values.ndim) + values.shape
    wanted = tuple(channels if index == axis else 1 for index in range(rank))
    return values.astype(np.float64).reshape(-1) if padded == wanted else None


def _map_of(node: Node, y: Tensor, values: Array) -> _Map | None:
    """What a node with one constant operand does to ``y``; None for a constant divided by y."""
    one, zero = np.ones(1), np.zeros(1)
    constant_first = node.inputs[0] is not y
    if node.op == "Mul":
        return _Map(values, zero)
    if node.op == "Div":
        return None if constant_first or not np.all(values) else _Map(1 / values, zero)
    if node.op == "Add":
        return _Map(one, values)
    return _Map(-one, values) if constant_first else _Map(one, -values)


@dataclass(frozen=True)
class FoldScale(Pass):
    """Fold factors and offsets into the layer before them."""

    name: ClassVar[str] = "fold-scale"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a node was folded."""
        shapes = infer_shapes(graph)
        changes = [_fold(graph, node, shapes, ctx) for node in standard(graph, "Mul", "Div", "Add", "Sub")]
        return any(changes)


def _fold(graph: Graph, node: Node, shapes: dict[str, Shape], ctx: Context) -> bool:
    found = constant_operand(node)
    if found is None or not is_float(found[0]) or not np.all(np.isfinite(found[1])):
        return False
    y, values = found
    layer = made_by(y, *LAYERS)
    if layer is None or constant_of(layer.inputs[1]) is None:
        return _fold_back(graph, node, y, values, ctx)
    shape, channels = shapes.get(y.name), channels_of(layer)
    if shape is None or channels is None or (layer.op == "MatMul" and node.op in ("Add", "Sub")):
        return False
    vector = _per_channel(values, len(shape), channel_axis(layer, len(shape)), channels)
    step = _map_of(node, y, vector) if vector is not None else None
    if step is None:
        return False
    reason = why_not(layer, shift=bool(step.shift.any()))
    if reason is None and sole_user(graph, y) is not node:
        reason = f"other nodes read '{y.name}', too"
    if reason is not None:
        ctx.declined(node, reason)
        return False
    fold(graph, layer, step.scale, step.shift)
    _join(node, layer, y, step, ctx)
    return True


def _join(node: Node, layer: Node, y: Tensor, step: _Map, ctx: Context) -> None:
    """Let the layer write what ``node`` wrote; statistics of y become those of the result."""
    output = node.outputs[0]
    node.outputs.clear()
    output.inputs.clear()
    layer.outputs = [output]
    known = ctx.batchnorm.pop(y.name, None)
    if known is not None:
        ctx.batchnorm[output.name] = BatchNormStatistics(
            known.mean * step.scale + step.shift, known.variance * step.scale**2
        )


def _fold_back(graph: Graph, node: Node, y: Tensor, values: Array, ctx: Context) -> bool:
    """Fold a scalar factor into a layer further back; in the end the node computes nothing and is bypassed."""
    step = _map_of(node, y, values.astype(np.float64)) if values.shape in {(), (1,)} else None
    if step is None or node.op not in ("Mul", "Div"):
        return False
    place = _place_for(graph, y, node, _DEPTH)
    result = node.outputs[0].name
    if place is None or not bypass(graph, node, y):
        return False
    for inner in place[:-1]:
        _scale(graph, inner, step.scale.reshape(1), None, ctx)
    _scale(graph, place[-1], step.scale.reshape(1), result, ctx)
    return True


def _scale(graph: Graph, node: Node, factor: Array, name: str | None, ctx: Context) -> None:
    """Multiply a node's output by the factor, in its weights, its bias Add, or before it; rename the output."""
    output = node.outputs[0]
    known = ctx.batchnorm.pop(output.name, None)
    if name is None:
        rename(graph, output, "scaled")
    else:
        output.name = name
    if known is not None:
        ctx.batchnorm[output.name] = BatchNormStatistics(known.mean * factor, known.variance * factor**2)
    if node.op in LAYERS and constant_of(node.inputs[1]) is not None:
        fold(graph, node, factor, np.zeros(1))
    if node.op != "Add":
        return
    slot = 0 if constant_of(node.inputs[0]) is not None else 1
    values = np.asarray(constant_of(node.inputs[slot]))
    node.inputs[slot] = new_constant(
        graph, f"{node.inputs[slot].name}_folded", (values * factor.reshape(())).astype(values.dtype)
    )


def _place_for(graph: Graph, tensor: Tensor, user: Node, depth: int) -> list[Node] | None:
    """Nodes from the layer that can absorb a scalar factor of ``tensor`` to its writer; ``user`` alone reads it."""
    if depth == 0 or sole_user(graph, tensor) is not user:
        return None
    node = made_by(tensor, *LAYERS, *_MOVERS, "Add")
    if node is None:
        return None
    if node.op in LAYERS and constant_of(node.inputs[1]) is not None:
        return [node] if why_not(node, shift=False) is None else None
    for source in _scalable_inputs(node):
        place = _place_for(graph, source, node, depth - 1)
        if place is not None:
            return [*place, node]
    return None


def _scalable_inputs(node: Node) -> list[Tensor]:
    """The inputs of which a factor of the output may come from one."""
    if node.op in _MOVERS:
        return [node.inputs[0]]
    if node.op == "MatMul":
        return list(node.inputs)
    found = constant_operand(node) if node.op == "Add" else None
    layer = made_by(found[0], "MatMul") if found is not None else None
    return [found[0]] if found is not None and layer is not None and constant_of(layer.inputs[1]) is not None else []
