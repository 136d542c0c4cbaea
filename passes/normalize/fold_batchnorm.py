"""Folds BatchNormalization into the layer before it, and keeps its statistics.

    y = gamma (x - mean) / sqrt(var + eps) + beta = a x + b,   a = gamma / sqrt(var + eps),  b = beta - a mean

Behind a Conv, ConvTranspose, Gemm or two-dimensional MatMul, a and b go into its weights and bias. Alone it becomes a
depthwise 1x1 convolution (one integer operator with a scale per channel), or Mul and Add for inputs of rank 2.

Training saw y with mean beta and variance gamma² per channel: that is written to ``ctx.batchnorm`` under the name of y,
for whoever works without data (bias correction, high-bias absorption, distillation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Graph, Node, constant_of
from ...graph.operators import LAYERS
from ...pass_base import BatchNormStatistics, Context, Pass
from ...rewriting.fold_into_layer import fold, why_not
from ...rewriting.match import (
    Array,
    insert_before,
    made_by,
    new_constant,
    new_variable,
    rename,
    sole_user,
    standard,
    take_over,
)
from ...shapes.infer import Shape, infer_shapes


@dataclass(frozen=True)
class _BatchNorm:
    """Parameters of one node, float64 [C]."""

    gamma: Array
    beta: Array
    scale: Array
    shift: Array


def _read(node: Node) -> _BatchNorm | None:
    """The parameters; None when one of them is computed."""
    values = [constant_of(tensor) for tensor in node.inputs[1:5]]
    if any(value is None for value in values):
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    return _BatchNorm(gamma, beta, scale, beta - scale * mean)


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold batch normalisation into layers; keep its statistics in ``ctx.batchnorm``."""

    name: ClassVar[str] = "fold-batchnorm"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a BatchNormalization was folded."""
        shapes = infer_shapes(graph)
        changed = False
        for node in standard(graph, "BatchNormalization"):
            reason = _fold(graph, node, shapes, ctx)
            if reason is not None:
                ctx.declined(node, reason)
            changed |= reason is None
        return changed


def _fold(graph: Graph, node: Node, shapes: dict[str, Shape], ctx: Context) -> str | None:
    """Fold one node; the reason when it was left alone."""
    parameters = _read(node)
    if parameters is None:
        return "its parameters are computed"
    if node.attrs.get("training_mode", 0) or len([tensor for tensor in node.outputs if tensor.name]) > 1:
        return "it is in training mode"
    shape = shapes.get(node.inputs[0].name)
    output = node.outputs[0]
    layer = made_by(node.inputs[0], *LAYERS)
    usable = (
        layer is not None
        and sole_user(graph, node.inputs[0]) is node
        and (layer.op != "MatMul" or (shape is not None and len(shape) == 2))
    )
    if (
        layer is not None
        and usable
        and (layer.op == "MatMul" or why_not(layer, shift=True) is None)
        and why_not(layer, shift=False) is None
    ):
        _into_layer(graph, node, layer, parameters)
    elif shape is None or len(shape) < 2:
        return "the rank of its input is unknown"
    elif 3 <= len(shape) <= 5:
        _depthwise(graph, node, len(shape), parameters)
    else:
        _multiply_add(graph, node, len(shape), parameters.scale, parameters.shift)
    ctx.batchnorm[output.name] = BatchNormStatistics(parameters.beta, parameters.gamma**2)
    return None


def _into_layer(graph: Graph, node: Node, layer: Node, parameters: _BatchNorm) -> None:
    if layer.op != "MatMul":
        fold(graph, layer, parameters.scale, parameters.shift)
        output = node.outputs[0]
        node.outputs.clear()
        output.inputs.clear()
        layer.outputs = [output]
        return
    dtype = constant_of(layer.inputs[1])
    fold(graph, layer, parameters.scale, np.zeros(1))
    bias = new_constant(graph, f"{node.name}_bias", parameters.shift.astype(np.asarray(dtype).dtype))
    rename(graph, layer.outputs[0], "normalised")
    take_over(graph, node, Node("Add", node.name, {}, [layer.outputs[0], bias]), node.outputs[0])


def _depthwise(graph: Graph, node: Node, rank: int, parameters: _BatchNorm) -> None:
    """A convolution of one tap a channel."""
    x, channels = node.inputs[0], parameters.scale.size
    dtype = np.dtype(node.inputs[1].dtype)
    weight = new_constant(
        graph, f"{node.name}_weight", parameters.scale.astype(dtype).reshape(channels, 1, *[1] * (rank - 2))
    )
    bias = new_constant(graph, f"{node.name}_bias", parameters.shift.astype(dtype))
    attrs = {"group": channels, "kernel_shape": [1] * (rank - 2)}
    take_over(graph, node, Node("Conv", node.name, attrs, [x, weight, bias]), node.outputs[0])


def _multiply_add(graph: Graph, node: Node, rank: int, scale: Array, shift: Array) -> None:
    x, output = node.inputs[0], node.outputs[0]
    dtype, shape = np.dtype(node.inputs[1].dtype), (-1, *[1] * (rank - 2))
    factor = new_constant(graph, f"{node.name}_scale", scale.astype(dtype).reshape(shape))
    offset = new_constant(graph, f"{node.name}_shift", shift.astype(dtype).reshape(shape))
    product = new_variable(graph, f"{output.name}_scaled", output)
    insert_before(graph, node, Node("Mul", f"{node.name}_mul", {}, [x, factor], [product]))
    take_over(graph, node, Node("Add", node.name, {}, [product, offset]), output)
