"""LayerNormalization out of its parts.

    d = x - mean(x);  v = mean(d * d);  y = d / sqrt(v + epsilon) * gamma + beta        means over the last axes

`d * d` may be a Pow, the quotient a product with a Reciprocal or with a power -1/2, and d may be computed twice. gamma
and beta are optional constants over the normalised axes. A mean over other axes (channels first) and the RMS form have
no operator in opset 21: they are declined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Graph, Node, Tensor, constant_of, is_float
from ...pass_base import Context, Pass
from ...rewriting.match import Array, constant_operand, made_by, new_constant, scalar_of, sole_user, standard, take_over
from ...shapes.infer import Shape, infer_shapes

_OPSET = 17


def _mean_axes(node: Node) -> list[int] | None:
    """The axes of a ReduceMean that keeps its dimensions; None for any other."""
    if not node.attrs.get("keepdims", 1):
        return None
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else np.asarray(node.attrs.get("axes", []))
    return None if axes is None or axes.size == 0 else [int(axis) for axis in axes.reshape(-1)]


def _centred(tensor: Tensor) -> tuple[Tensor, Node] | None:
    """(x, mean node) of ``x - mean(x)``."""
    node = made_by(tensor, "Sub")
    mean = made_by(node.inputs[1], "ReduceMean") if node is not None else None
    if node is None or mean is None or mean.inputs[0] is not node.inputs[0] or _mean_axes(mean) is None:
        return None
    return node.inputs[0], mean


def _squared(tensor: Tensor) -> Tensor | None:
    """The d of ``d * d`` or ``d ** 2``."""
    node = made_by(tensor, "Mul", "Pow")
    if node is None:
        return None
    twice = node.inputs[0] is node.inputs[1] if node.op == "Mul" else scalar_of(node.inputs[1]) == 2.0
    return node.inputs[0] if twice else None


def _variance(tensor: Tensor) -> tuple[Tensor, Node, float] | None:
    """(x, mean node of the variance, epsilon) of ``mean((x - mean(x))²) + epsilon``."""
    node = made_by(tensor, "Add")
    found = constant_operand(node) if node is not None else None
    if found is None or found[1].size != 1:
        return None
    mean = made_by(found[0], "ReduceMean")
    difference = _squared(mean.inputs[0]) if mean is not None else None
    centred = _centred(difference) if difference is not None else None
    if mean is None or centred is None or _mean_axes(mean) != _mean_axes(centred[1]):
        return None
    return centred[0], mean, float(found[1].reshape(-1)[0])


def _under_root(tensor: Tensor, exponent: float) -> Tensor | None:
    """The t of ``sqrt(t)`` or ``t ** exponent``."""
    node = made_by(tensor, "Sqrt", "Pow")
    if node is None or (node.op == "Sqrt" and exponent < 0):
        return None
    return node.inputs[0] if node.op == "Sqrt" or scalar_of(node.inputs[1]) == exponent else None


def _inverse_root(tensor: Tensor) -> Tensor | None:
    """The t of ``1 / sqrt(t)`` in one of its forms."""
    node = made_by(tensor, "Reciprocal", "Div", "Pow")
    if node is None or node.op == "Pow":
        return _under_root(tensor, -0.5)
    if node.op == "Div":
        return _under_root(node.inputs[1], 0.5) if scalar_of(node.inputs[0]) == 1.0 else None
    return _under_root(node.inputs[0], 0.5)


def _quotient(node: Node) -> tuple[Tensor, Tensor] | None:
    """(d, t) of ``d / sqrt(t)``."""
    if node.op == "Div":
        inner = _under_root(node.inputs[1], 0.5)
        return None if inner is None else (node.inputs[0], inner)
    for left, right in (node.inputs, list(reversed(node.inputs))):
        inner = _inverse_root(right)
        if inner is not None:
            return left, inner
    return None


def _affine(graph: Graph, tensor: Tensor, op: str, dims: tuple[int, ...]) -> tuple[Tensor, Array] | None:
    """(result, values) where a constant over the normalised axes is multiplied with or added to ``tensor``."""
    user = sole_user(graph, tensor)
    found = constant_operand(user) if user is not None and user.op == op else None
    if user is None or found is None:
        return None
    values = found[1]
    trailing = (
        values.reshape(values.shape[values.ndim - len(dims) :])
        if values.ndim >= len(dims) and _leading_ones(values, len(dims))
        else None
    )
    if trailing is None or trailing.shape != dims:
        return None
    return user.outputs[0], trailing


def _leading_ones(values: Array, rank: int) -> bool:
    return all(size == 1 for size in values.shape[: values.ndim - rank])


@dataclass(frozen=True)
class FuseLayerNorm(Pass):
    """Recognise hand-expanded layer normalisation."""

    name: ClassVar[str] = "fuse-layer-norm"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a LayerNormalization was made."""
        if graph.opset < _OPSET:
            return False
        shapes = infer_shapes(graph)
        changes = [_fuse(graph, node, shapes, ctx) for node in standard(graph, "Div", "Mul")]
        return any(changes)


def _normalised_dims(x: Tensor, axes: list[int], shapes: dict[str, Shape]) -> tuple[int, ...] | str:
    """Sizes of the normalised axes, or the reason to decline."""
    shape = shapes.get(x.name)
    if shape is None:
        return "the rank of its input is unknown"
    rank = len(shape)
    if sorted(axis % rank for axis in axes) != list(range(rank - len(axes), rank)):
        return "it normalises other axes than the last ones, which LayerNormalization cannot"
    dims = shape[rank - len(axes) :]
    return (
        tuple(int(size) for size in dims)
        if all(isinstance(size, int) for size in dims)
        else "a normalised axis has no fixed size"
    )


def _fuse(graph: Graph, node: Node, shapes: dict[str, Shape], ctx: Context) -> bool:
    parts = _quotient(node)
    variance = _variance(parts[1]) if parts is not None else None
    if parts is None or variance is None:
        return False
    x, mean, epsilon = variance
    centred = _centred(parts[0])
    if centred is None or centred[0] is not x or _mean_axes(centred[1]) != _mean_axes(mean) or not is_float(x):
        return False
    axes = _mean_axes(mean) or []
    dims = _normalised_dims(x, axes, shapes)
    if isinstance(dims, str):
        ctx.declined(node, dims)
        return False
    output, last = node.outputs[0], node
    gamma = _affine(graph, output, "Mul", dims)
    output = gamma[0] if gamma is not None else output
    beta = _affine(graph, output, "Add", dims)
    output = beta[0] if beta is not None else output
    last = output.inputs[0]
    scale = gamma[1] if gamma is not None else np.ones(dims)
    inputs = [x, new_constant(graph, f"{node.name}_gamma", scale.astype(np.dtype(x.dtype)))]
    if beta is not None:
        inputs.append(new_constant(graph, f"{node.name}_beta", beta[1].astype(np.dtype(x.dtype))))
    fused = Node("LayerNormalization", last.name, {"axis": -len(dims), "epsilon": epsilon}, inputs)
    take_over(graph, last, fused, output)
    return True
