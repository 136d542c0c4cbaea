"""Takes in files that are quantized otherwise than by QuantizeLinear / DequantizeLinear.

*Dynamic* quantization, where a scale is found anew in each run, is undone: the model becomes the float model that it
approximates, with the weights that its file holds.

    DynamicQuantizeLinear(x) = x, 1, -      MatMulInteger(x, W, -, z) = MatMul(x, W - z)      Cast(float) = -
    MatMulInteger(...) + Cast(Floor(b / s)) = MatMul(...) + b / s
    DynamicQuantizeLSTM, DynamicQuantizeMatMul, MatMulIntegerToFloat, QAttention, MatMulNBits: with ``scale * (W - z)``
    as the weights

So is the quantization of weights alone (DequantizeLinear of constants, and no QuantizeLinear). *Static* quantization
in operators of its own becomes the same between Q/DQ nodes:

    QLinearConv(x, …) = QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w), b));  QLinearMatMul, … alike
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompiler.graph.ir import (
    STANDARD_DOMAINS,
    Constant,
    Graph,
    Node,
    Tensor,
    constant_of,
    consumers,
    names_in,
    producer,
    replace_uses,
)
from qcompiler.graph.operators import LAYERS
from qcompiler.onnx_io.qlinear import STATIC, Site, given, to_qdq

__all__ = ["undo_quantization"]

_INTEGER_LAYERS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}
_WEIGHT_TYPES = (np.int8, np.uint8, np.int16, np.int32)
"""Codes of weights that become floats again; those of 4 bits and fewer are worth keeping."""
_LAYERS = frozenset({*LAYERS, "LSTM", "GRU", "RNN"})
_MOVEMENT = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity")


def undo_quantization(graph: Graph) -> int:
    """Rewrite ``graph`` in place; the number of nodes that were something else before."""
    changed = 0
    for body in (graph, *graph.subgraphs(recursive=True)):
        changed += sum(_undo_dynamic(body, node) for node in [n for n in body.nodes if n.op == "DynamicQuantizeLinear"])
        site = Site(body, names_in(body))
        for node in list(body.nodes):
            rule = _FLOAT.get(node.op) if node.domain == "com.microsoft" else None
            changed += rule(site, node) if rule is not None else 0
            changed += to_qdq(site, node) if node.op in STATIC else 0
        if not any(node.op == "QuantizeLinear" for node in body.nodes):
            changed += sum(_undo_weight(node) for node in list(body.nodes) if node.op == "DequantizeLinear")
            if any(node.op in _LAYERS for node in body.nodes):
                changed += sum(_undo_picked(body, site, node) for node in list(body.nodes) if node.op == "Gather")
        body.cleanup(remove_unused_graph_inputs=False).toposort()
    return changed


# ------------------------------------------------------------------ dynamic
def _undo_dynamic(graph: Graph, node: Node) -> bool:
    """Let the readers of the codes of ``node`` read its input; False, nothing changed, where one needs the codes."""
    codes, scale, zero = (*node.outputs, None, None)[:3]
    layers = list(_layers_behind(codes))
    zero_readers = [] if zero is None else consumers(zero)
    known = {id(layer) for layer in layers if layer is not None}
    if any(layer is None or not _ends_in_casts(layer) for layer in layers) or any(
        id(reader) not in known for reader in zero_readers
    ):
        return False
    if any(tensor is output for tensor in node.outputs for output in graph.outputs):
        return False
    taken = names_in(graph)
    for moved in _moved(codes):
        moved.dtype = node.inputs[0].dtype
    for layer in (layer for layer in layers if layer is not None and layer.op in _INTEGER_LAYERS):
        _to_float_layer(graph, layer)
    replace_uses(graph, codes, node.inputs[0])
    if scale is not None and scale.name:
        replace_uses(graph, scale, Site(graph, taken).constant(f"{scale.name}_one", np.float32(1)))
    node.outputs.clear()
    node.inputs.clear()
    return True


def _moved(codes: Tensor) -> Iterator[Tensor]:
    """The outputs of nodes that only move the codes."""
    for reader in consumers(codes):
        if reader.op in _MOVEMENT and reader.inputs[0] is codes:
            yield reader.outputs[0]
            yield from _moved(reader.outputs[0])


def _layers_behind(codes: Tensor) -> Iterator[Node | None]:
    """The integer layers that read codes, through movements; None for any other reader."""
    for reader in consumers(codes):
        if reader.op in _MOVEMENT and reader.inputs[0] is codes:
            yield from _layers_behind(reader.outputs[0])
        else:
            known = reader.op in (*_INTEGER_LAYERS, "MatMulIntegerToFloat", "QAttention") and any(
                codes is tensor for tensor in reader.inputs[:2]
            )
            yield reader if known else None


def _ends_in_casts(layer: Node) -> bool:
    """True where only Casts to float read an integer layer's sums, with or without a bias added to them."""
    if layer.op not in _INTEGER_LAYERS:
        return True
    readers = consumers(layer.outputs[0])
    return bool(readers) and all(_is_cast_to_float(reader) or _adds_bias(reader) for reader in readers)


def _is_cast_to_float(node: Node) -> bool:
    return bool(node.op == "Cast" and node.attrs.get("to") == 1)


def _adds_bias(add: Node) -> bool:
    """True for ``sums + Cast(Floor(bias / scale))`` in front of Casts to float."""
    readers = consumers(add.outputs[0])
    return add.op == "Add" and bool(readers) and all(map(_is_cast_to_float, readers)) and _rounding(add) is not None


def _rounding(add: Node) -> tuple[Tensor, Node] | None:
    """The Cast to int32 of a Floor or Round among the operands of a sum, through movements: (what is rounded, that
    Cast).
    """
    for operand in add.inputs:
        cast = producer(operand)
        while cast is not None and cast.op in _MOVEMENT:
            cast = producer(cast.inputs[0])
        rounded = None if cast is None or cast.op != "Cast" else producer(cast.inputs[0])
        if cast is not None and rounded is not None and rounded.op in ("Floor", "Round"):
            return rounded.inputs[0], cast
    return None


def _to_float_layer(graph: Graph, layer: Node) -> None:
    for slot, zero_slot in ((0, 2), (1, 3)):
        values = constant_of(layer.inputs[slot])
        if values is not None:
            layer.inputs[slot] = Site(graph, names_in(graph)).constant(
                f"{layer.inputs[slot].name}_float", _centred(values, given(layer, zero_slot))
            )
    layer.op, layer.inputs = _INTEGER_LAYERS[layer.op], layer.inputs[:2]
    sums = layer.outputs[0]
    sums.dtype = np.dtype(np.float32)
    for reader in consumers(sums):
        _without_casts(graph, reader)


def _without_casts(graph: Graph, reader: Node) -> None:
    """A Cast of float sums goes; a bias is added as it was before it became whole numbers."""
    if reader.op == "Cast":
        leaves = any(reader.outputs[0] is output for output in graph.outputs)
        _as_identity(reader) if leaves else replace_uses(graph, reader.outputs[0], reader.inputs[0])
        return
    found = _rounding(reader)
    if found is None:
        return
    exact, cast = found
    for moved in _moved(cast.outputs[0]):
        moved.dtype = np.dtype(np.float32)
    replace_uses(graph, cast.outputs[0], exact)
    reader.outputs[0].dtype = np.dtype(np.float32)
    for end in consumers(reader.outputs[0]):
        _without_casts(graph, end)


def _as_identity(cast: Node) -> None:
    cast.op = "Identity"
    cast.attrs.clear()


def _centred(values: np.ndarray, zero: Tensor | None) -> np.ndarray:
    """Weights minus their zero point, one for all or one a column."""
    offset = constant_of(zero)
    return values.astype(np.float32) - (0 if offset is None else offset.astype(np.float32))


def _dequantized(weight: Tensor, scale: Tensor | None, zero: Tensor | None) -> np.ndarray | None:
    """``scale * (W - z)`` with one scale for all or one a column; None where something is not constant."""
    values, factors = constant_of(weight), constant_of(scale)
    if values is None or factors is None or (zero is not None and constant_of(zero) is None):
        return None
    return (_centred(values, zero) * factors.astype(np.float32)).astype(np.float32)


# ------------------------------------------------------------------ onnxruntime's own
def _dynamic_lstm(site: Site, node: Node) -> bool:
    """W [D, I, 4H] and R [D, H, 4H] with scales [D] or [D, 4H] as the weights of an LSTM."""
    for slot, scale_slot in ((1, 8), (2, 10)):
        values, scale, zero = (constant_of(given(node, index)) for index in (slot, scale_slot, scale_slot + 1))
        if values is None or scale is None:
            return False
        shape = (scale.shape[0], 1, -1) if scale.ndim else (1, 1, 1)
        offset = np.float32(0) if zero is None else zero.astype(np.float32).reshape(shape)
        real = (values.astype(np.float32) - offset) * scale.reshape(shape)
        node.inputs[slot] = site.constant(f"{node.inputs[slot].name}_float", real.transpose(0, 2, 1))
    node.op, node.domain, node.inputs = "LSTM", None, node.inputs[:8]
    for output in node.outputs:
        output.dtype = np.dtype(np.float32)
    return True


def _matmul_of(site: Site, node: Node, weight: np.ndarray, bias: Tensor | None, x: Tensor) -> bool:
    product = site.op(
        "MatMul", [x, site.constant(f"{node.outputs[0].name}_weight", weight)], f"{node.outputs[0].name}_product"
    )
    site.finish(node, product if bias is None else site.op("Add", [product, bias], f"{node.outputs[0].name}_sum"))
    return True


def _dynamic_matmul(site: Site, node: Node) -> bool:
    weight = _dequantized(node.inputs[1], given(node, 2), given(node, 3))
    return weight is not None and _matmul_of(site, node, weight, given(node, 4), node.inputs[0])


def _matmul_to_float(site: Site, node: Node) -> bool:
    """Behind a DynamicQuantizeLinear that was undone: its first input is float by now."""
    weight = _dequantized(node.inputs[1], given(node, 3), given(node, 5))
    if weight is None or node.inputs[0].dtype != np.float32:
        return False
    return _matmul_of(site, node, weight, given(node, 6), node.inputs[0])


def _attention(site: Site, node: Node) -> bool:
    weight = _dequantized(node.inputs[1], given(node, 4), given(node, 7))
    if weight is None or node.inputs[0].dtype != np.float32:
        return False
    constant = site.constant(f"{node.outputs[0].name}_weight", weight)
    inputs = [node.inputs[0], constant, node.inputs[2], given(node, 5), given(node, 8)]
    node.op, node.inputs = "Attention", [site.empty() if tensor is None else tensor for tensor in inputs]
    return True


def _matmul_of_blocks(site: Site, node: Node) -> bool:
    """MatMulNBits: B [N, K / block, block * bits / 8] of packed codes, one scale and zero point per block."""
    codes, scales, zeros = (constant_of(given(node, index)) for index in (1, 2, 3))
    bits, block, rows, k = (int(node.attrs[key]) for key in ("bits", "block_size", "N", "K"))
    if codes is None or scales is None or bits not in (2, 4, 8) or given(node, 4) is not None:
        return False
    blocks = -(-k // block)
    whole = (
        _unpacked(codes.reshape(rows, -1), bits)[:, : blocks * block].reshape(rows, blocks, block).astype(np.float32)
    )
    offset = np.full((rows, blocks), 2.0 ** (bits - 1), np.float32)
    if zeros is not None:
        offset = (_unpacked(zeros.reshape(rows, -1), bits) if zeros.dtype == np.uint8 else zeros.reshape(rows, -1))[
            :, :blocks
        ].astype(np.float32)
    weight = (whole - offset[:, :, None]) * scales.astype(np.float32).reshape(rows, blocks, 1)
    return _matmul_of(site, node, weight.reshape(rows, -1)[:, :k].T, given(node, 5), node.inputs[0])


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Codes [R, n * 8 / bits] of bytes [R, n], the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((packed[:, :, None] >> shifts) & np.uint8(2**bits - 1)).reshape(len(packed), -1)


_FLOAT = {
    "DynamicQuantizeLSTM": _dynamic_lstm,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _matmul_to_float,
    "QAttention": _attention,
    "MatMulNBits": _matmul_of_blocks,
}


def _undo_weight(node: Node) -> bool:
    """A DequantizeLinear of a constant becomes that constant, in float."""
    values, scale = constant_of(node.inputs[0]), constant_of(node.inputs[1])
    if (
        values is None
        or scale is None
        or node.domain not in STANDARD_DOMAINS
        or "block_size" in node.attrs
        or producer(node.inputs[0]) is not None
    ):
        return False
    zero = constant_of(given(node, 2))
    axis = int(node.attrs.get("axis", 1))
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[axis] = -1
    offset = 0 if zero is None else zero.astype(np.int64).reshape(shape if scale.size > 1 else ())
    real = (values.astype(np.int64) - offset).astype(np.float32) * scale.astype(np.float32).reshape(
        shape if scale.size > 1 else ()
    )
    output = node.outputs[0]
    if type(node.inputs[0]) is not Constant or values.dtype not in _WEIGHT_TYPES or not output.outputs:
        return False
    output.inputs.clear()
    output.to_constant(np.asarray(real, np.float32))
    return True


def _undo_picked(graph: Graph, site: Site, node: Node) -> bool:
    """A Gather from a table of codes that DequantizeLinear nodes alone read, through movements: a table of floats."""
    codes = constant_of(node.inputs[0])
    readers = list(_dequantizers_behind(node.outputs[0]))
    known = [reader for reader in readers if reader is not None]
    if codes is None or codes.dtype not in _WEIGHT_TYPES or not known or len(known) < len(readers):
        return False
    scale, zero = known[0].inputs[1], given(known[0], 2)
    factor = constant_of(scale)
    alike = all(reader.inputs[1] is scale and given(reader, 2) is zero for reader in known)
    if factor is None or factor.size != 1 or not alike:
        return False
    real = _dequantized(node.inputs[0], scale, zero)
    moved = [node.outputs[0], *_moved(node.outputs[0])]
    if real is None or any(tensor is output for tensor in moved for output in graph.outputs):
        return False
    node.inputs[0] = site.constant(f"{node.inputs[0].name}_float", real.reshape(codes.shape))
    for tensor in moved:
        tensor.dtype = np.dtype(np.float32)
    for reader in known:
        replace_uses(graph, reader.outputs[0], reader.inputs[0])
    return True


def _dequantizers_behind(codes: Tensor) -> Iterator[Node | None]:
    """The DequantizeLinear nodes that read codes, through movements; None for any other reader."""
    for reader in consumers(codes):
        if reader.op in _MOVEMENT and reader.inputs[0] is codes:
            yield from _dequantizers_behind(reader.outputs[0])
        else:
            yield reader if reader.op == "DequantizeLinear" and reader.domain in STANDARD_DOMAINS else None
