"""Compound standard operators as their parts: GroupNormalization, RMSNormalization, LogSoftmax, norms, sums.

RMSNorm(x)    = the first half of LayerNorm([x, -x]): mean 0, variance mean(x²)
LogSoftmax(x) = d - log(sum(exp(d))), d = x - max(x): every part has a range of its own, and the sum is at least 1
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from qcompiler.graph.ir import Node, Tensor, constant_of
from qcompiler.rewriting.expand_einsum import einsum
from qcompiler.rewriting.expand_padding import explicit_padding
from qcompiler.rewriting.expand_recurrent import lstm_of_loop, recurrent
from qcompiler.rewriting.node_writer import Results, Rule, Writer, given, rank_of

_NORM_EPSILON = 1e-9
"""What ONNX's MeanVarianceNormalization adds to the deviation."""


def rms_norm(w: Writer, x: Tensor, scale: Tensor, axis: int, epsilon: float) -> Tensor | str:
    """``x / sqrt(mean(x²) + epsilon) * scale`` over axes from ``axis`` on; a reason where the scale is no constant."""
    values = constant_of(scale)
    if values is None or values.ndim == 0 or values.shape[-1] == 1:
        return f"its scale '{scale.name}' is not a constant with a number for each channel"
    both = w.op("Concat", x, w.op("Neg", x), axis=-1)
    gamma = w.constant("gamma", np.concatenate([values, np.zeros_like(values)], axis=-1))
    whole = w.op("LayerNormalization", both, gamma, axis=axis, epsilon=epsilon)
    width = w.int64("ends", [values.shape[-1]])
    return w.op("Slice", whole, w.int64("starts", [0]), width, w.int64("axes", [-1]))


def _rms(w: Writer, node: Node) -> Results:
    if any(output.name and output.outputs for output in node.outputs[1:]):
        return "its second output is used"
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    result = rms_norm(w, node.inputs[0], node.inputs[1], int(node.attrs.get("axis", -1)), epsilon)
    return result if isinstance(result, str) else [result]


def _group_norm(w: Writer, node: Node) -> Results:
    """InstanceNormalization of [N, groups, the rest], then a scale and a bias for each channel."""
    x, groups = node.inputs[0], int(node.attrs["num_groups"])
    scale, bias, rank = constant_of(node.inputs[1]), constant_of(node.inputs[2]), rank_of(x)
    if scale is None or bias is None or rank is None:
        return "its scale and bias are not constant, or the rank of its input is unknown"
    per_channel = scale.size != groups  # until opset 20 there was one number for each group
    ones, zeros = (w.constant(name, np.full(groups, fill)) for name, fill in (("ones", 1.0), ("zeros", 0.0)))
    inner = (
        (ones, zeros) if per_channel else (w.constant("scale", scale.reshape(-1)), w.constant("bias", bias.reshape(-1)))
    )
    rows = w.op("Reshape", x, w.int64("groups", [0, groups, -1]))
    flat = w.op("InstanceNormalization", rows, *inner, epsilon=float(node.attrs.get("epsilon", 1e-5)))
    y: Tensor = w.op("Reshape", flat, w.ints("Shape", x))
    if per_channel:
        channels = (-1, *[1] * (rank - 2))
        y = w.op("Mul", y, w.constant("scale", scale.reshape(channels)))
        y = w.op("Add", y, w.constant("bias", bias.reshape(channels)))
    return [y]


def _log_softmax(w: Writer, node: Node) -> Results:
    x, axes = node.inputs[0], w.int64("axes", [int(node.attrs.get("axis", -1))])
    distance = w.op("Sub", x, w.op("ReduceMax", x, axes, keepdims=1))
    total = w.op("ReduceSum", w.op("Exp", distance), axes, keepdims=1)
    return [w.op("Sub", distance, w.op("Log", total))]


def _reduced(w: Writer, node: Node, op: str, x: Tensor) -> Tensor:
    kept = {key: value for key, value in node.attrs.items() if key in ("keepdims", "noop_with_empty_axes")}
    return w.op(op, x, given(node, 1), **kept)


def _square(w: Writer, x: Tensor) -> Tensor:
    return w.op("Mul", x, x)


def _reduce_l2(w: Writer, node: Node) -> Results:
    return [w.op("Sqrt", _reduced(w, node, "ReduceSum", _square(w, node.inputs[0])))]


def _reduce_l1(w: Writer, node: Node) -> Results:
    return [_reduced(w, node, "ReduceSum", w.op("Abs", node.inputs[0]))]


def _reduce_sum_square(w: Writer, node: Node) -> Results:
    return [_reduced(w, node, "ReduceSum", _square(w, node.inputs[0]))]


def _reduce_log_sum(w: Writer, node: Node) -> Results:
    return [w.op("Log", _reduced(w, node, "ReduceSum", node.inputs[0]))]


def _reduce_log_sum_exp(w: Writer, node: Node) -> Results:
    """``m + log(sum(exp(x - m)))`` with the maximum m, which the largest codes of the sum then belong to."""
    if given(node, 1) is None or constant_of(node.inputs[1]) is None:
        return "its axes are not constant"
    x, axes = node.inputs[0], node.inputs[1]
    largest = w.op("ReduceMax", x, axes, keepdims=1)
    total = w.op("ReduceSum", w.op("Exp", w.op("Sub", x, largest)), axes, keepdims=1)
    y = w.op("Add", largest, w.op("Log", total))
    return [y if node.attrs.get("keepdims", 1) else w.op("Squeeze", y, axes)]


def _lp_normalization(w: Writer, node: Node) -> Results:
    """``x / |x|`` along an axis."""
    x, axes = node.inputs[0], w.int64("axes", [int(node.attrs.get("axis", -1))])
    power = int(node.attrs.get("p", 2))
    parts = _square(w, x) if power == 2 else w.op("Abs", x)
    total = w.op("ReduceSum", parts, axes, keepdims=1)
    return [w.op("Div", x, w.op("Sqrt", total) if power == 2 else total)]


def _mean_variance(w: Writer, node: Node) -> Results:
    """``(x - mean) / (deviation + 1e-9)``."""
    axes = w.int64("axes", list(node.attrs.get("axes", [0, 2, 3])))
    distance = w.op("Sub", node.inputs[0], w.op("ReduceMean", node.inputs[0], axes, keepdims=1))
    variance = w.op("ReduceMean", _square(w, distance), axes, keepdims=1)
    deviation = w.op("Add", w.op("Sqrt", variance), w.constant("epsilon", _NORM_EPSILON))
    return [w.op("Div", distance, deviation)]


def _chained(op: str) -> Rule:
    """Sum, Max and Min of many tensors, two by two."""

    def rule(w: Writer, node: Node) -> Results:
        inputs = [tensor for tensor in node.inputs if tensor.name]
        return (
            None
            if len(inputs) == 2 and node.op == op
            else [reduce(lambda total, tensor: w.op(op, total, tensor), inputs)]
        )

    return rule


def _mean(w: Writer, node: Node) -> Results:
    total = reduce(lambda total, tensor: w.op("Add", total, tensor), node.inputs)
    return [total if len(node.inputs) == 1 else w.op("Mul", total, w.constant("share", 1.0 / len(node.inputs)))]


STANDARD: dict[str, Rule] = {
    "GroupNormalization": _group_norm,
    "RMSNormalization": _rms,
    "SimplifiedLayerNormalization": _rms,
    "LogSoftmax": _log_softmax,
    "ReduceL1": _reduce_l1,
    "ReduceL2": _reduce_l2,
    "ReduceSumSquare": _reduce_sum_square,
    "ReduceLogSum": _reduce_log_sum,
    "ReduceLogSumExp": _reduce_log_sum_exp,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance,
    "Einsum": einsum,
    "Loop": lstm_of_loop,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool"), explicit_padding),
    "Sum": _chained("Add"),
    "Mean": _mean,
    "Max": _chained("Max"),
    "Min": _chained("Min"),
}
