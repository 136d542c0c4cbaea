"""Attention of ONNX (opset 23), onnxruntime's GroupQueryAttention, and rotary positions, as their parts.

    Attention            softmax(cap(scale * Q Kᵀ) + mask) V,   cap(s) = c tanh(s / c)
    rotary, x = [a, b]   [a cos - b sin, b cos + a sin];        interleaved: a and b are the even and the odd channels

Heads that share keys and values read copies of them. A row in which a mask of truth values hides every key is 0; one
in which a mask of numbers does is the mean of the values (ONNX: 0). GroupQueryAttention takes its cache as what comes
before the new keys, of the same length in every row.

Source: Operators.md of ONNX; docs/ContribOperators.md of onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import sqrt

import numpy as np

from qcompiler.graph.ir import Node, Tensor
from qcompiler.rewriting.expand_attention import length_of, positions_up_to, split_heads
from qcompiler.rewriting.node_writer import Results, Rule, Writer, given, rank_of

_FILL = -1e9
_END = 2**63 - 1


@dataclass(frozen=True)
class _Scores:
    """How scores are made: their factor, the cap (0: none) and what is added, in this order."""

    scale: float
    cap: float
    added: tuple[Tensor, ...]


def _attended(w: Writer, q: Tensor, k: Tensor, v: Tensor, how: _Scores) -> tuple[Tensor, list[Tensor]]:
    """[B, N, S, h] of queries, keys and values with equally many heads; and scores: raw, capped, masked, as weights."""
    raw = w.op("MatMul", q, w.op("Transpose", k, perm=[0, 1, 3, 2]))
    raw = w.op("Mul", raw, w.constant("scale", how.scale))
    capped = raw
    if how.cap:
        cap = w.constant("cap", how.cap)
        capped = w.op("Mul", w.op("Tanh", w.op("Div", raw, cap)), cap)
    masked = capped
    for term in how.added:
        masked = w.op("Add", masked, term)
    weights = w.op("Softmax", masked, axis=-1)
    return w.op("MatMul", weights, v), [raw, capped, masked, weights]


def _joined(w: Writer, x: Tensor, width: int) -> Tensor:
    """[B, N, S, h] as [B, S, N*h]."""
    return w.op("Reshape", w.op("Transpose", x, perm=[0, 2, 1, 3]), w.int64("joined", [0, 0, width]))


def _repeated(w: Writer, x: Tensor, heads: int, own: int) -> Tensor:
    """Each of ``own`` heads several times, so that there are ``heads``."""
    return x if heads == own else w.op("Gather", x, w.int64("head_of", np.arange(heads) // (heads // own)), axis=1)


def _hidden(w: Writer, visible: Tensor) -> Tensor:
    return w.op("Where", visible, w.constant("visible", 0.0), w.constant("hidden", _FILL))


def _visible(w: Writer, q: Tensor, k: Tensor, before: Tensor, windows: tuple[int, int]) -> list[Tensor]:
    """Where query i, which is at ``before + i``, sees keys: so many behind it and so many beyond; -1: all of them."""
    rows = w.ints("Unsqueeze", positions_up_to(w, length_of(w, q, 2)), w.int64("row", [1]))
    rows, columns = w.ints("Add", rows, before), positions_up_to(w, length_of(w, k, 2))
    found: list[Tensor] = []
    for low, high, size in ((columns, rows, windows[1]), (rows, columns, windows[0])):
        if size >= 0:
            reach = high if not size else w.ints("Add", high, w.int64("window", size))
            found.append(w.op("LessOrEqual", low, reach, dtype=bool))
    return found


def _where_any(w: Writer, visible: list[Tensor], y: Tensor) -> Tensor:
    """``y`` in rows in which a key is visible, 0 in others."""
    both = reduce(lambda total, term: w.op("And", total, term, dtype=bool), visible)
    number = w.op("Cast", both, dtype=np.int32, to=6)
    largest = w.op("ReduceMax", number, w.int64("last", [-1]), dtype=np.int32, keepdims=1)
    return w.op("Where", w.op("Cast", largest, dtype=bool, to=9), y, w.constant("nothing", 0.0))


def _shows_masked(node: Node) -> bool:
    """True where scores behind a mask are an output."""
    return len(node.outputs) > 3 and bool(node.outputs[3].name) and int(node.attrs.get("qk_matmul_output_mode", 0)) == 2


def _attention(w: Writer, node: Node) -> Results:
    q, k, v = node.inputs[:3]
    rank = rank_of(q)
    if rank not in (3, 4) or any(not isinstance(tensor.shape[-1], int) for tensor in (q, k, v)):
        return "the rank or the width of its queries is unknown"
    heads, own = (
        (int(node.attrs["q_num_heads"]), int(node.attrs["kv_num_heads"])) if rank == 3 else (q.shape[1], k.shape[1])
    )
    if not isinstance(heads, int) or not isinstance(own, int):
        return "the number of its heads is unknown"
    width = int(q.shape[-1]) // (heads if rank == 3 else 1)
    out = int(v.shape[-1]) // (own if rank == 3 else 1)
    if rank == 3:
        q, k, v = split_heads(w, q, heads, width), split_heads(w, k, own, width), split_heads(w, v, own, out)
    before, lengths, mask = w.int64("before", 0), given(node, 6), given(node, 3)
    if lengths is not None:
        lengths = w.ints("Unsqueeze", lengths, w.int64("rows", [1, 2, 3]))
        before = w.ints("Sub", lengths, length_of(w, q, 2))
    if given(node, 4) is not None:
        before = length_of(w, node.inputs[4], 2)
        k, v = w.op("Concat", node.inputs[4], k, axis=2), w.op("Concat", node.inputs[5], v, axis=2)
    visible = [mask] if mask is not None and mask.dtype == bool else []
    left, right = (int(node.attrs.get(f"{side}_window_size", -1)) for side in ("left", "right"))
    if node.attrs.get("is_causal", 0):
        right = 0
    if _shows_masked(node) and (visible or max(left, right) >= 0 or lengths is not None):
        return "its masked scores are an output"
    visible += _visible(w, q, k, before, (left, right)) if max(left, right) >= 0 else []
    if lengths is not None:
        visible.append(w.op("Less", positions_up_to(w, length_of(w, k, 2)), lengths, dtype=bool))
    added = [_hidden(w, term) for term in visible]
    added += [mask] if mask is not None and mask.dtype != bool else []
    how = _Scores(float(node.attrs.get("scale", 1 / sqrt(width))), float(node.attrs.get("softcap", 0.0)), tuple(added))
    y, scores = _attended(w, q, _repeated(w, k, heads, own), _repeated(w, v, heads, own), how)
    mode = int(node.attrs.get("qk_matmul_output_mode", 0))
    shown = scores[mode]
    if lengths is not None or (mask is not None and mask.dtype == bool):
        y = _where_any(w, visible, y)
        shown = _where_any(w, visible, shown) if mode == len(scores) - 1 else shown
    return [_joined(w, y, heads * out) if rank == 3 else y, k, v, shown]


def _turned(w: Writer, x: Tensor, cos: Tensor, sin: Tensor, width: int, *, interleaved: bool) -> Tensor:
    """The first ``width`` channels of x [B, N, S, h] turned by angles [B, 1, S, width / 2]; others stay."""
    half, last = width // 2, w.int64("last", [-1])
    step = 2 if interleaved else 1
    bounds = ((0, width, step), (1, width, step)) if interleaved else ((0, half, 1), (half, width, 1))
    a, b = (
        w.op("Slice", x, *(w.int64("bound", [value]) for value in (first, end)), last, w.int64("step", [by]))
        for first, end, by in bounds
    )
    turned = [
        w.op("Sub", w.op("Mul", a, cos), w.op("Mul", b, sin)), w.op("Add", w.op("Mul", b, cos), w.op("Mul", a, sin)),
    ]  # fmt: skip
    if interleaved:
        pairs = w.op("Concat", *(w.op("Unsqueeze", part, last) for part in turned), axis=-1)
        turned = [w.op("Reshape", pairs, w.int64("paired", [0, 0, 0, width]))]
    if x.shape is None or x.shape[-1] != width:
        turned.append(w.op("Slice", x, w.int64("bound", [width]), w.int64("end", [_END]), last))
    return turned[0] if len(turned) == 1 else w.op("Concat", *turned, axis=-1)


def _angles(w: Writer, cache: Tensor, positions: Tensor | None) -> Tensor:
    """[B, 1, S, h / 2] of a table by position, or of what is there for every token."""
    rows = cache if positions is None else w.op("Gather", cache, positions, axis=0)
    return w.op("Unsqueeze", rows, w.int64("heads_axis", [1]))


def _by_heads(w: Writer, x: Tensor, heads: int, width: int) -> tuple[Tensor, bool]:
    """x as [B, N, S, h], and whether it was [B, S, N*h]."""
    if rank_of(x) == 4:
        return x, False
    split = split_heads(w, x, heads, width)
    split.shape = (x.shape[0], heads, x.shape[1], width)
    return split, True


def _rotary(w: Writer, x: Tensor, cos: Tensor, sin: Tensor, node: Node) -> Results:
    """Rotary positions of x, [B, N, S, h] or [B, S, N*h], by angles [B, 1, S, r]."""
    heads, turned = int(node.attrs.get("num_heads", 0)), int(node.attrs.get("rotary_embedding_dim", 0))
    channels, half = x.shape[-1], cos.shape[-1] if cos.shape is not None else None
    if not isinstance(channels, int) or (rank_of(x) == 3 and not heads and not isinstance(half, int)):
        return "the width of its input is unknown"
    if rank_of(x) == 3 and not heads:
        heads = channels // (2 * int(half or 1))
    width = channels // heads if rank_of(x) == 3 else channels
    split, flat = _by_heads(w, x, heads, width)
    y = _turned(w, split, cos, sin, turned or width, interleaved=bool(node.attrs.get("interleaved", 0)))
    return [_joined(w, y, channels) if flat else y]


def _with_shape(table: Tensor, angles: Tensor) -> Tensor:
    """Say how many angles there are."""
    angles.shape = None if table.shape is None else (None, 1, None, table.shape[-1])
    return angles


def _standard_rotary(w: Writer, node: Node) -> Results:
    if rank_of(node.inputs[0]) not in (3, 4):
        return "the rank of its input is unknown"
    cos, sin = (_with_shape(table, _angles(w, table, given(node, 3))) for table in node.inputs[1:3])
    return _rotary(w, node.inputs[0], cos, sin, node)


def _onnxruntime_rotary(w: Writer, node: Node) -> Results:
    """Positions are a row of each token, or the one of the first token."""
    x, positions = node.inputs[:2]
    if rank_of(x) not in (3, 4) or rank_of(positions) not in (1, 2):
        return "the rank of its input or of its positions is unknown"
    if node.attrs.get("is_packed_batching", 0) or float(node.attrs.get("scale", 1.0)) != 1.0:
        return "its attributes scale and is_packed_batching have no standard form"
    if rank_of(positions) == 1:
        counts = positions_up_to(w, length_of(w, x, 1 if rank_of(x) == 3 else 2))
        positions = w.ints("Unsqueeze", w.ints("Add", counts, positions), w.int64("batch", [0]))
    cos, sin = (_with_shape(table, _angles(w, table, positions)) for table in node.inputs[2:4])
    return _rotary(w, x, cos, sin, node)


def _packed(w: Writer, node: Node, heads: int, own: int) -> list[Tensor] | str:
    """Queries, keys and values [B, N, S, h] that come in one tensor or in three."""
    x, many = node.inputs[0], (heads, own, own)
    whole = given(node, 1) is None
    if rank_of(x) != 3 or not isinstance(x.shape[-1], int):
        return "the width of its queries is unknown"
    width = int(x.shape[-1]) // (sum(many) if whole else heads)
    if not whole:
        parts = list(node.inputs[:3])
    else:
        ends = np.cumsum([count * width for count in many])
        parts = [
            w.op("Slice", x, w.int64("from", [end - count * width]), w.int64("to", [end]), w.int64("last", [2]))
            for end, count in zip(ends, many, strict=True)
        ]
    result: list[Tensor] = []
    for part, count in zip(parts, many, strict=True):
        split = split_heads(w, part, count, width)
        split.shape = (x.shape[0], count, x.shape[1], width)
        result.append(split)
    return result


def _in_place(past: Tensor, present: Tensor) -> bool:
    """True where a cache does not grow."""
    sizes = [None if tensor.shape is None else tensor.shape[2] for tensor in (past, present)]
    return isinstance(sizes[0], int) and sizes[0] == sizes[1]


def _group_query(w: Writer, node: Node) -> Results:
    """Causal attention of queries that share keys, behind a cache."""
    heads, own, past = int(node.attrs["num_heads"]), int(node.attrs["kv_num_heads"]), given(node, 3)
    if any(given(node, index) is not None for index in range(9, len(node.inputs))) or any(
        node.attrs.get(name, 0) for name in ("smooth_softmax", "k_quant_type", "v_quant_type", "kv_cache_bit_width")
    ):
        return "its own positions, biases, sinks or quantized caches have no standard form"
    if past is not None and past.shape is not None and node.outputs[1:2] and _in_place(past, node.outputs[1]):
        return "its cache has one size before and after: new keys are written into it"
    parts = _packed(w, node, heads, own)
    if isinstance(parts, str):
        return parts
    q, k, v = parts
    width = int(q.shape[-1])
    before = w.int64("before", 0) if past is None else length_of(w, past, 2)
    if node.attrs.get("do_rotary", 0):
        counts = w.ints("Add", positions_up_to(w, length_of(w, q, 2)), before)
        positions = w.ints("Unsqueeze", counts, w.int64("batch", [0]))
        cos, sin = (_angles(w, table, positions) for table in node.inputs[7:9])
        table = node.inputs[7]
        turned = 2 * int(table.shape[-1]) if table.shape is not None else width
        between = bool(node.attrs.get("rotary_interleaved", 0))
        q, k = (_turned(w, x, cos, sin, turned, interleaved=between) for x in (q, k))
    if past is not None:
        k, v = w.op("Concat", past, k, axis=2), w.op("Concat", node.inputs[4], v, axis=2)
    window = int(node.attrs.get("local_window_size", -1))
    terms = tuple(_hidden(w, term) for term in _visible(w, q, k, before, (window - 1 if window > 0 else -1, 0)))
    scale = float(node.attrs.get("scale", 0.0)) or 1 / sqrt(width)
    how = _Scores(scale, float(node.attrs.get("softcap", 0.0)), terms)
    y, _ = _attended(w, q, _repeated(w, k, heads, own), _repeated(w, v, heads, own), how)
    return [_joined(w, y, heads * width), k, v]


HEADS: dict[str, Rule] = {"Attention": _attention, "RotaryEmbedding": _standard_rotary}
"""Of the standard domain."""
FUSED_HEADS: dict[str, Rule] = {"GroupQueryAttention": _group_query, "RotaryEmbedding": _onnxruntime_rotary}
"""Of onnxruntime's."""
