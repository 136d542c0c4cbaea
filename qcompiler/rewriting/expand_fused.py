"""What onnxruntime fuses, except attention: activations, layers with an activation, normalizations of sums, embeddings.

Source: docs/ContribOperators.md of onnxruntime.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompiler.graph.ir import Node, Tensor, constant_of
from qcompiler.rewriting.expand_standard import rms_norm
from qcompiler.rewriting.node_writer import Results, Rule, Writer, given, rank_of

_ACTIVATION_ATTRIBUTES: dict[str, tuple[tuple[str, float], ...]] = {
    "LeakyRelu": (("alpha", 0.01),), "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)), "Elu": (("alpha", 1.0),),
}
_PLAIN_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish")


def activated(w: Writer, x: Tensor, name: str, parameters: list[float]) -> Tensor | None:
    """``x`` behind the activation that a fused layer names; None for one that is not known."""
    if not name:
        return x
    if name in _PLAIN_ACTIVATIONS:
        return w.op(name, x)
    if name == "Clip":
        low, high = (
            parameters + [float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)][len(parameters) :]
        )[:2]
        return w.op("Clip", x, w.constant("min", low), w.constant("max", high))
    known = _ACTIVATION_ATTRIBUTES.get(name)
    if known is None:
        return None
    values = [*parameters, *(default for _, default in known[len(parameters):])]
    return w.op(name, x, **{key: float(value) for (key, _), value in zip(known, values, strict=False)})


def _layer(w: Writer, node: Node, op: str, inputs: list[Tensor | None], extra: Tensor | None = None) -> Results:
    name = str(node.attrs.get("activation", ""))
    parameters = [float(value) for value in node.attrs.get("activation_params", ())]
    parameters += [float(node.attrs[key]) for key in ("activation_alpha", "activation_beta") if key in node.attrs]
    own = {key: value for key, value in node.attrs.items() if not key.startswith("activation")}
    y = w.op(op, *inputs, **own)
    y = y if extra is None else w.op("Add", y, extra)
    result = activated(w, y, name, parameters)
    return f"its activation '{name}' is not known" if result is None else [result]


def _fused_conv(w: Writer, node: Node) -> Results:
    return _layer(w, node, "Conv", [given(node, 0), given(node, 1), given(node, 2)], given(node, 3))


def _fused_gemm(w: Writer, node: Node) -> Results:
    return _layer(w, node, "Gemm", [given(node, 0), given(node, 1), given(node, 2)])


def _fused_matmul(w: Writer, node: Node) -> Results:
    """``alpha * op(A) @ op(B)``, op swapping the last two axes."""
    if node.attrs.get("transBatchA", 0) or node.attrs.get("transBatchB", 0):
        return "its attributes transBatchA and transBatchB have no standard form"
    operands = []
    for tensor, flag in zip(node.inputs, ("transA", "transB"), strict=False):
        rank = rank_of(tensor)
        if node.attrs.get(flag, 0) and rank is None:
            return f"the rank of '{tensor.name}' is unknown"
        operands.append(_swapped(w, tensor, rank or 0) if node.attrs.get(flag, 0) and (rank or 0) > 1 else tensor)
    y, alpha = w.op("MatMul", *operands), float(node.attrs.get("alpha", 1.0))
    return [y if alpha == 1.0 else w.op("Mul", y, w.constant("alpha", alpha))]


def _swapped(w: Writer, tensor: Tensor, rank: int) -> Tensor:
    value = constant_of(tensor)
    if value is not None:
        return w.constant("turned", np.swapaxes(value, -1, -2))
    return w.op("Transpose", tensor, perm=[*range(rank - 2), rank - 1, rank - 2])


def _gelu(w: Writer, x: Tensor, **attrs: Any) -> Tensor:
    return w.op("Gelu", x, **attrs)


def _biased(w: Writer, node: Node) -> Tensor:
    bias = given(node, 1)
    return node.inputs[0] if bias is None else w.op("Add", node.inputs[0], bias)


def _bias_gelu(w: Writer, node: Node) -> Results:
    return [_gelu(w, _biased(w, node))]


def _fast_gelu(w: Writer, node: Node) -> Results:
    return [_gelu(w, _biased(w, node), approximate="tanh")]


def _quick_gelu(w: Writer, node: Node) -> Results:
    """``x * sigmoid(alpha * x)``."""
    x = node.inputs[0]
    inner = w.op("Mul", x, w.constant("alpha", float(node.attrs.get("alpha", 1.702))))
    return [w.op("Mul", x, w.op("Sigmoid", inner))]


def _bias_add(w: Writer, node: Node) -> Results:
    """``X + bias + skip``."""
    return [w.op("Add", w.op("Add", node.inputs[0], node.inputs[1]), node.inputs[2])]


def _sum_of(w: Writer, node: Node, bias: int) -> Tensor:
    """``input + bias + skip``: the bias goes with the layer that it comes from."""
    extra = given(node, bias)
    own = node.inputs[0] if extra is None else w.op("Add", node.inputs[0], extra)
    return w.op("Add", own, node.inputs[1])


def _used(node: Node, *outputs: int) -> bool:
    return any(
        index < len(node.outputs) and bool(node.outputs[index].name) and bool(node.outputs[index].outputs)
        for index in outputs
    )


def _layer_norm(w: Writer, node: Node, x: Tensor, gamma: Tensor, beta: Tensor | None, epsilon: float) -> Tensor:
    return w.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=float(node.attrs.get("epsilon", epsilon)))


def _skip_layer_norm(w: Writer, node: Node) -> Results:
    """``LayerNorm(input + skip + bias)``; the sum is output 3."""
    if _used(node, 1, 2):
        return "its mean or deviation is used"
    total = _sum_of(w, node, 4)
    return [_layer_norm(w, node, total, node.inputs[2], given(node, 3), 1e-12), None, None, total]


def _skip_rms_norm(w: Writer, node: Node) -> Results:
    if _used(node, 1, 2):
        return "its mean or deviation is used"
    total = _sum_of(w, node, 3)
    result = rms_norm(w, total, node.inputs[2], -1, float(node.attrs.get("epsilon", 1e-12)))
    return result if isinstance(result, str) else [result, None, None, total]


def _embed_layer_norm(w: Writer, node: Node) -> Results:
    """``LayerNorm(word[ids] + position[0 … S-1] + segment[ids])``; output 1: number of unmasked tokens."""
    ids, segments, positions = node.inputs[0], given(node, 1), given(node, 8)
    table = constant_of(node.inputs[3])
    if table is None:
        return f"its table of positions '{node.inputs[3].name}' is not constant"
    if positions is None:
        length = w.ints("Shape", ids, start=1, end=2)
        every = w.int64("position_ids", np.arange(table.shape[0])[None])
        positions = w.ints("Slice", every, w.int64("starts", [0]), length, w.int64("axes", [1]))
    words = w.op("Gather", node.inputs[2], ids, axis=0)
    total = w.op("Add", words, w.op("Gather", node.inputs[3], positions, axis=0))
    if segments is not None and given(node, 4) is not None:
        total = w.op("Add", total, w.op("Gather", node.inputs[4], segments, axis=0))
    result = w.op(
        "LayerNormalization",
        total,
        node.inputs[5],
        given(node, 6),
        axis=-1,
        epsilon=float(node.attrs.get("epsilon", 1e-12)),
    )
    return [result, _token_count(w, node), total]


def _token_count(w: Writer, node: Node) -> Tensor | None:
    """int32 [B]: how many tokens a row has by its mask; 0 for all of them without a mask."""
    if not _used(node, 1):
        return None
    mask, axes = given(node, 7), w.int64("sequence_axis", [1])
    if mask is None:
        zeros = w.op("Mul", node.inputs[0], w.constant("zero", np.array(0, np.int32)), dtype=np.int32)
        return w.op("ReduceSum", zeros, axes, dtype=np.int32, keepdims=0)
    return w.op("ReduceSum", mask, axes, dtype=np.int32, keepdims=0)


def _group_norm(w: Writer, node: Node) -> Results:
    """GroupNorm of [N, H, W, C], with a SiLU if ``activation`` is 1."""
    groups, gamma, beta = int(node.attrs["groups"]), constant_of(node.inputs[1]), constant_of(node.inputs[2])
    if not node.attrs.get("channels_last", 1) or gamma is None or beta is None:
        return "its channels come first, or its scale is not constant"
    turned = w.op("Transpose", node.inputs[0], perm=[0, 3, 1, 2])
    y = w.op(
        "GroupNormalization", turned, w.constant("gamma", gamma), w.constant("beta", beta), num_groups=groups,
        epsilon=float(node.attrs.get("epsilon", 1e-5)),
    )
    y = w.op("Transpose", y, perm=[0, 2, 3, 1])
    return [w.op("Mul", y, w.op("Sigmoid", y)) if node.attrs.get("activation", 0) else y]


FUSED: dict[str, Rule] = {
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "BiasGelu": _bias_gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "Gelu": lambda w, node: [_gelu(w, node.inputs[0])],
    "BiasAdd": _bias_add,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
    "EmbedLayerNormalization": _embed_layer_norm,
    "GroupNorm": _group_norm,
}
