"""Attention and MultiHeadAttention of onnxruntime as matrix products, Softmax and movements.

    softmax(scale * Q Kᵀ + mask) V,  heads of h channels, scale = 1 / sqrt(h) unless given

A mask adds ``mask_filter_value`` (-10000) to the scores of what it hides. It is one number of valid tokens a row [B],
zeros and ones for keys [B, T], or for queries and keys [B, S, T]. ``unidirectional`` hides later keys from a query.
``past`` [2, B, N, P, h] comes before the keys and values.

Source: docs/ContribOperators.md of onnxruntime; `onnxruntime/contrib_ops/cpu/bert/attention_helper.h` for the masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from qcompiler.graph.ir import Node, Tensor, constant_of
from qcompiler.rewriting.node_writer import Results, Rule, Writer, given, rank_of

_FILL = -10000.0


@dataclass(frozen=True)
class _Heads:
    """Queries, keys and values as [B, N, S or T, h], with what is added to the scores, and the sizes of a head."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    added: tuple[Tensor, ...]
    width: int


def _projected(w: Writer, node: Node, sizes: list[int]) -> list[Tensor] | str:
    """Queries, keys and values [B, S, N*h]: products with the thirds of the weight."""
    weight, bias = constant_of(node.inputs[1]), given(node, 2)
    offsets = constant_of(bias) if bias is not None else np.zeros(sum(sizes), np.float32)
    if weight is None or offsets is None:
        return "its weights are not constant"
    results: list[Tensor] = []
    for name, end, size in zip("qkv", np.cumsum(sizes), sizes, strict=True):
        product = w.op("MatMul", node.inputs[0], w.constant(f"weight_{name}", weight[:, end - size:end]))
        results.append(
            product if bias is None else w.op("Add", product, w.constant(f"bias_{name}", offsets[end - size : end]))
        )
    return results


def split_heads(w: Writer, x: Tensor, heads: int, width: int) -> Tensor:
    """[B, S, N*h] as [B, N, S, h]."""
    return w.op("Transpose", w.op("Reshape", x, w.int64("heads", [0, 0, heads, width])), perm=[0, 2, 1, 3])


def _attend(w: Writer, heads: _Heads) -> Tensor:
    """[B, S, N*h]."""
    scores = w.op("MatMul", heads.q, w.op("Transpose", heads.k, perm=[0, 1, 3, 2]))
    scores = w.op("Mul", scores, w.constant("scale", heads.scale))
    for term in heads.added:
        scores = w.op("Add", scores, term)
    mixed = w.op("MatMul", w.op("Softmax", scores, axis=-1), heads.v)
    return w.op("Reshape", w.op("Transpose", mixed, perm=[0, 2, 1, 3]), w.int64("joined", [0, 0, heads.width]))


def length_of(w: Writer, tensor: Tensor, axis: int) -> Tensor:
    """A size as a number (rank 0)."""
    return w.ints("Squeeze", w.ints("Shape", tensor, start=axis, end=axis + 1), w.int64("axis", [0]))


def positions_up_to(w: Writer, count: Tensor) -> Tensor:
    """0 … count - 1."""
    return w.ints("Range", w.int64("zero", 0), count, w.int64("one", 1))


def _filled(w: Writer, visible: Tensor, node: Node) -> Tensor:
    """0 where ``visible`` holds, the fill elsewhere."""
    fill = float(node.attrs.get("mask_filter_value", _FILL))
    return w.op("Where", visible, w.constant("visible", 0.0), w.constant("hidden", fill))


def _mask_term(w: Writer, node: Node, mask: Tensor, keys: Tensor) -> Tensor | str:
    """What a mask adds to the scores [B, N, S, T]."""
    rank = rank_of(mask)
    if rank == 1 and (mask.shape[0] is None or mask.shape[0] == node.inputs[0].shape[0]):
        lengths = w.ints("Unsqueeze", w.ints("Cast", mask, to=7), w.int64("row", [1]))
        visible = w.op("Less", positions_up_to(w, length_of(w, keys, 2)), lengths, dtype=bool)
        return _filled(w, w.op("Unsqueeze", visible, w.int64("heads_axes", [1, 2]), dtype=bool), node)
    if rank in (2, 3):
        visible = mask if mask.dtype == bool else w.op("Cast", mask, dtype=bool, to=9)
        axes = [1, 2] if rank == 2 else [1]
        return _filled(w, w.op("Unsqueeze", visible, w.int64("heads_axes", axes), dtype=bool), node)
    return f"its mask '{mask.name}' of rank {rank} has no standard form"


def _causal_term(w: Writer, node: Node, queries: Tensor, keys: Tensor) -> Tensor:
    """Hides the keys behind a query; the last query sees all."""
    total = length_of(w, keys, 2)
    own = w.ints("Unsqueeze", positions_up_to(w, total), w.int64("row", [1]))
    first = w.ints("Sub", total, length_of(w, queries, 2))
    rows = w.ints(
        "Slice",
        own,
        w.ints("Unsqueeze", first, w.int64("start_axis", [0])),
        w.int64("end", [2**63 - 1]),
        w.int64("axes", [0]),
    )
    return _filled(w, w.op("GreaterOrEqual", rows, positions_up_to(w, total), dtype=bool), node)


def _terms(
    w: Writer, node: Node, mask: Tensor | None, bias: Tensor | None, q: Tensor, k: Tensor
) -> tuple[Tensor, ...] | str:
    terms: list[Tensor] = []
    if bias is not None:
        terms.append(bias)
    if mask is not None:
        key = ("mask", id(mask), node.attrs.get("mask_filter_value", _FILL), id(given(node, 4)), id(given(node, 6)))
        term = w.shared.get(key) or _mask_term(w, node, mask, k)
        if isinstance(term, str):
            return term
        w.shared[key] = term
        terms.append(term)
    if node.attrs.get("unidirectional", 0):
        terms.append(_causal_term(w, node, q, k))
    return tuple(terms)


def _with_past(w: Writer, past: Tensor | None, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    if past is None:
        return k, v
    old = [w.op("Gather", past, w.int64(f"part_{index}", index), axis=0) for index in (0, 1)]
    return w.op("Concat", old[0], k, axis=2), w.op("Concat", old[1], v, axis=2)


def _attention(w: Writer, node: Node) -> Results:
    heads, weight = int(node.attrs["num_heads"]), constant_of(node.inputs[1])
    if node.attrs.get("do_rotary", 0) or node.attrs.get("past_present_share_buffer", 0) or given(node, 6) is not None:
        return "its attributes do_rotary and past_present_share_buffer have no standard form"
    if weight is None:
        return "its weights are not constant"
    sizes = [int(size) for size in node.attrs.get("qkv_hidden_sizes", [weight.shape[1] // 3] * 3)]
    parts = _projected(w, node, sizes)
    if isinstance(parts, str):
        return parts
    q, k, v = (split_heads(w, part, heads, size // heads) for part, size in zip(parts, sizes, strict=True))
    k, v = _with_past(w, given(node, 4), k, v)
    added = _terms(w, node, given(node, 3), given(node, 5), q, k)
    if isinstance(added, str):
        return added
    scale = float(node.attrs.get("scale", 0.0)) or 1 / sqrt(sizes[0] // heads)
    results: list[Tensor | None] = [_attend(w, _Heads(q, k, v, scale, added, sizes[2]))]
    if len(node.outputs) > 1 and node.outputs[1].name:
        first = w.int64("stack", [0])
        results.append(w.op("Concat", w.op("Unsqueeze", k, first), w.op("Unsqueeze", v, first), axis=0))
    return results


def _multi_head(w: Writer, node: Node) -> Results:
    """Queries, keys and values are projected already; one bias holds the three of them."""
    x, heads = node.inputs[:3], int(node.attrs["num_heads"])
    if len(x) < 3 or any(not tensor.name or rank_of(tensor) != 3 for tensor in x):
        return "its queries, keys and values are packed, or of unknown rank"
    bias, widths = given(node, 3), [tensor.shape[-1] for tensor in x]
    values = None if bias is None else constant_of(bias)
    if not all(isinstance(width, int) for width in widths) or (bias is not None and values is None):
        return "its bias is not constant, or the number of its channels is unknown"
    if len(node.outputs) > 3 and node.outputs[3].name:
        return "its output of scores is used"
    parts = list(x)
    if values is not None:
        ends = np.cumsum(widths)
        biases = [values[end - width:end] for end, width in zip(ends, widths, strict=True)]
        parts = [
            w.op("Add", part, w.constant(f"bias_{name}", value))
            for name, part, value in zip("qkv", x, biases, strict=True)
        ]
    q, k, v = (split_heads(w, part, heads, width // heads) for part, width in zip(parts, widths, strict=True))
    if given(node, 6) is not None and given(node, 7) is not None:
        k, v = w.op("Concat", node.inputs[6], k, axis=2), w.op("Concat", node.inputs[7], v, axis=2)
    added = _terms(w, node, given(node, 4), given(node, 5), q, k)
    if isinstance(added, str):
        return added
    scale = float(node.attrs.get("scale", 0.0)) or 1 / sqrt(widths[0] // heads)
    return [_attend(w, _Heads(q, k, v, scale, added, widths[2])), k, v]


ATTENTION: dict[str, Rule] = {"Attention": _attention, "MultiHeadAttention": _multi_head}
