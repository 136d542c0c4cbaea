"""Folds multiplication and addition by constants into the layers behind them.

    (a x) W + b        = x (a W) + b
    (x + c) W + b      = x W + (c W + b)                no padding: what a convolution pads is 0, not c
    (a x + c) W + b    = (x + c / a) (a W) + b          with padding, too

a and c are scalars, or one number per input channel of the layer. Everybody who reads the product must be such a layer.
Mean and standard deviation of an image, and the learned affine blocks between convolutions, end here. A scaler of an
input whose columns differ in size stays: in front of it they would need a grid each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.float_zones import is_unequal
from ...graph.ir import Graph, Node, Tensor, constant_of, float_inputs, is_float, producer
from ...pass_base import Context, Pass
from ...rewriting.fold_into_layer import fold, why_not
from ...rewriting.layer_inputs import input_channels, is_padded, layers_behind, scale_weights, shift_of
from ...rewriting.match import (
    Array,
    bypass,
    constant_operand,
    made_by,
    new_constant,
    rename,
    sole_user,
    standard,
)
from ...shapes.infer import Shape, infer_shapes

_RATIO = 1e4
"""Largest |c / a| for which an addition may change places with a multiplication: beyond, float32 loses digits."""


def _per_channel(values: Array, shape: Shape, layers: list[Node]) -> Array | None:
    """``values`` as [1] or [C] along the input channels of all ``layers``."""
    if shape is None or values.ndim > len(shape) or not np.all(np.isfinite(values)):
        return None
    if values.size == 1:
        return values.astype(np.float64).reshape(1)
    axes = {1 if layer.op in ("Conv", "ConvTranspose") else len(shape) - 1 for layer in layers}
    sizes = {input_channels(layer) for layer in layers}
    wanted = tuple(min(sizes) if {index} == axes else 1 for index in range(len(shape)))
    fits = len(axes) == 1 and len(sizes) == 1 and (1,) * (len(shape) - values.ndim) + values.shape == wanted
    return values.astype(np.float64).reshape(-1) if fits else None


def _factor(node: Node, tensor: Tensor, values: Array | None) -> Array | None:
    """What a Mul or Div multiplies by."""
    if values is None or node.op == "Mul":
        return values
    return 1 / values if node.inputs[0] is tensor and np.all(values) else None


@dataclass(frozen=True)
class FoldScaleForward(Pass):
    """Fold factors and offsets into the layers behind them."""

    name: ClassVar[str] = "fold-scale-forward"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a node was folded."""
        shapes = infer_shapes(graph)
        last_first = reversed(list(standard(graph, "Mul", "Div", "Add", "Sub")))
        changes = [_fold(graph, node, shapes, ctx) for node in last_first if node.outputs]
        return any(changes)


def _fold(graph: Graph, node: Node, shapes: dict[str, Shape], ctx: Context) -> bool:
    found = constant_operand(node)
    layers = layers_behind(graph, node.outputs[0])
    if found is None or not layers or not is_float(found[0]):
        return False
    vector = _per_channel(found[1], shapes.get(node.outputs[0].name), layers)
    if vector is None or (found[1].ndim > len(shapes.get(found[0].name) or ())):
        return False
    if node.op in ("Mul", "Div"):
        factor = _factor(node, found[0], vector)
        if is_unequal(node) and _is_scaled_input(graph, found[0]):
            ctx.declined(node, "it brings columns of an input to one size, which is quantized behind it")
            return False
        if factor is None or not bypass(graph, node, found[0]):
            return False
        scale_weights(graph, layers, factor)
        return True
    return _fold_offset(graph, node, found[0], vector, layers) or _swap(graph, node, found[0], found[1], layers, shapes)


def _is_scaled_input(graph: Graph, tensor: Tensor) -> bool:
    """True for a graph input, as it is or behind sums and products with constants."""
    node = producer(tensor)
    while (
        node is not None and node.op in ("Add", "Sub", "Mul", "Div") and (found := constant_operand(node)) is not None
    ):
        tensor, node = found[0], producer(found[0])
    return any(tensor is given for given in float_inputs(graph))


def _fold_offset(graph: Graph, node: Node, x: Tensor, vector: Array, layers: list[Node]) -> bool:
    """Move an addition into the biases."""
    if node.op == "Sub" and node.inputs[0] is not x:
        return False
    if any(
        layer.op not in ("Conv", "Gemm") or is_padded(layer) or why_not(layer, shift=True) is not None
        for layer in layers
    ):
        return False
    if not bypass(graph, node, x):
        return False
    for layer in layers:
        fold(graph, layer, np.ones(1), shift_of(layer, -vector if node.op == "Sub" else vector))
    return True


def _swap(graph: Graph, node: Node, x: Tensor, offset: Array, layers: list[Node], shapes: dict[str, Shape]) -> bool:
    """Let the addition take place before the multiplication, which then goes into the weights."""
    product = made_by(x, "Mul", "Div")
    found = constant_operand(product) if product is not None else None
    if (
        product is None
        or found is None
        or sole_user(graph, x) is None
        or (node.op == "Sub" and node.inputs[0] is not x)
    ):
        return False
    if is_unequal(product) and _is_scaled_input(graph, found[0]):
        return False
    factor = _factor(product, found[0], _per_channel(found[1], shapes.get(x.name), layers))
    if factor is None or found[1].ndim > len(shapes.get(found[0].name) or ()) or not np.all(factor):
        return False
    shift = _per_channel(offset, shapes.get(x.name), layers)
    if shift is None or np.any(np.abs(shift / factor) > _RATIO) or not bypass(graph, product, found[0]):
        return False
    moved = shift / factor
    rank = offset.ndim if offset.size > 1 else found[1].ndim
    shape = offset.shape if offset.size > 1 else found[1].shape
    values = moved.reshape(shape) if moved.size > 1 else np.reshape(moved, (1,) * rank)
    slot = 0 if constant_of(node.inputs[0]) is not None else 1
    node.inputs[slot] = new_constant(graph, f"{node.inputs[slot].name}_swapped", values.astype(offset.dtype))
    rename(graph, node.outputs[0], "swapped")
    scale_weights(graph, layers, factor)
    return True
