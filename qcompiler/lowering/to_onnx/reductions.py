"""Pools, reductions, Softmax and normalizations as standard integer ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node, Tensor
from qcompiler.lowering.ranks import static_shape
from qcompiler.lowering.to_onnx.products import finish_codes, split_bytes, sum_of_products
from qcompiler.lowering.to_onnx.writer import OnnxWriter

_ROOT_BITS = 62
_NEWTON_STEPS = 7


def _ones(writer: OnnxWriter, x: Tensor) -> Tensor:
    """int64 ones of the shape of ``x``."""
    return writer.cast(writer.test("Equal", writer.wide(x), writer.wide(x)), np.int64)


def write_reduce(writer: OnnxWriter, node: Node) -> None:
    """Reduce."""
    attrs = node.attrs
    kind, axes, keep = str(attrs["kind"]), [int(axis) for axis in attrs["axes"]], int(attrs["keepdims"])
    x = writer.tensor(node.inputs[0])
    if kind in ("max", "min"):
        code = writer.reduce(f"Reduce{kind.capitalize()}", writer.wide(x), axes, keep)
        writer.finish(
            node.outputs[0], writer.cast(writer.clip(code, int(attrs["lo"]), int(attrs["hi"])), attrs["dtype"])
        )
        return
    total = writer.reduce("ReduceSum", writer.centred(x, int(attrs["x_zp"])), axes, keep)
    m, n = int(attrs["m"]), int(attrs["n"])
    if not int(attrs["divide"]):
        finish_codes(writer, node, writer.requant(total, m, n))
        return
    scaled = writer.mul(writer.reduce("ReduceSum", _ones(writer, x), axes, keep), 1 << n)
    numerator = writer.add(writer.mul(total, 2 * m), scaled)
    finish_codes(writer, node, writer.floor_div(numerator, writer.mul(scaled, 2)))


def write_softmax(writer: OnnxWriter, node: Node) -> None:
    """Softmax."""
    axis, x = [int(node.attrs["axis"])], writer.wide(writer.tensor(node.inputs[0]))
    distance = writer.sub(writer.reduce("ReduceMax", x, axis), x)
    fine = writer.emit("Mod", [distance, 64])
    above = writer.emit("Div", [writer.sub(distance, fine), 64])
    middle = writer.emit("Mod", [above, 32])
    coarse = writer.emit("Div", [writer.sub(above, middle), 32])
    tables = [writer.constant(np.asarray(tensor.values).astype(np.int64)) for tensor in node.inputs[1:]]
    factors = [
        writer.emit("Gather", [table, index], axis=0)
        for table, index in zip(tables, (coarse, middle, fine), strict=True)
    ]
    terms = writer.shift(writer.mul(writer.shift(writer.mul(factors[0], factors[1]), 30), factors[2]), 30)
    inverse = writer.emit("Div", [1 << 61, writer.reduce("ReduceSum", terms, axis)])
    shares = writer.shift(writer.mul(terms, inverse), 30)
    finish_codes(writer, node, writer.requant(shares, int(node.attrs["m"]), int(node.attrs["n"])))


def write_norm(writer: OnnxWriter, node: Node) -> None:
    """LayerNorm and InstanceNorm, with the exact integer square root."""
    source, attrs = node.inputs[0], node.attrs
    rank, first = len(source.shape), int(attrs["axis"])
    axes = list(range(first, rank))
    x = writer.wide(writer.tensor(source))
    sizes = [source.shape[axis] for axis in axes]
    static = all(isinstance(size, int) for size in sizes)
    count: Any = int(np.prod(sizes)) if static else writer.reduce("ReduceSum", _ones(writer, x), axes)
    total = writer.reduce("ReduceSum", x, axes)
    squares = writer.reduce("ReduceSum", writer.mul(x, x), axes)
    variance = writer.sub(writer.mul(squares, count), writer.mul(total, total))
    variance = writer.add(variance, _epsilon(writer, attrs, count))
    inverse, powers = _inverse_root(writer, variance)
    z = writer.floor_div(writer.mul(writer.sub(writer.mul(x, count), total), inverse), powers)
    gamma, beta = (np.asarray(tensor.values) for tensor in node.inputs[1:])
    shape = [-1, *([1] * (rank - 2))] if node.op == "InstanceNorm" else list(sizes)
    scaled = writer.add(writer.mul(z, gamma.reshape(shape)), beta.reshape(shape))
    finish_codes(writer, node, writer.round_shift(scaled, int(attrs["n"])))


def _epsilon(writer: OnnxWriter, attrs: dict[str, Any], count: Any) -> Any:
    if int(attrs["epsilon"]) > 0:
        return int(attrs["epsilon"])
    quantity = writer.mul(writer.mul(count, count), int(attrs["epsilon_q"]))
    return writer.emit("Max", [writer.shift(quantity, 16), 1])


def _inverse_root(writer: OnnxWriter, variance: Tensor) -> tuple[Tensor, Tensor]:
    """``2^61 // isqrt(V << 2t)`` and ``2^(41-t)``, with the largest t for which ``V << 2t < 2^62``."""
    limits = np.array([1 << (_ROOT_BITS - 2 * k) for k in range(1, 31)], np.int64)
    apart = writer.emit("Unsqueeze", [variance, np.array([-1])])
    below = writer.cast(writer.test("Less", apart, limits), np.int64)
    t = writer.reduce("ReduceSum", below, [-1], keep=0)
    fours = writer.constant(np.array([1 << (2 * k) for k in range(31)], np.int64))
    shifted = writer.mul(variance, writer.emit("Gather", [fours, t], axis=0))
    root: Any = 1 << 31  # at least the root, at most twice it: Newton's method falls to floor(root) or one above
    for _ in range(_NEWTON_STEPS):
        quotient = writer.emit("Div", [shifted, root])
        root = writer.emit("Div", [writer.emit("Add", [quotient, root]), 2])
    above = writer.cast(writer.test("Greater", writer.mul(root, root), shifted), np.int64)
    powers = writer.constant(np.array([1 << (41 - k) for k in range(31)], np.int64))
    inverse = writer.emit("Div", [1 << 61, writer.sub(root, above)])
    return inverse, writer.emit("Gather", [powers, t], axis=0)


def _extended_pads(node: Node) -> list[int]:
    """The pads with which ``ceil_mode`` becomes plain: its last, partial window fits."""
    attrs = node.attrs
    pads = [int(pad) for pad in attrs["pads"]]
    if not int(attrs["ceil_mode"]):
        return pads
    spatial = len(pads) // 2
    sizes = static_shape(node.inputs[0], "ceil_mode needs a static size")[2:]
    for axis, size in enumerate(sizes):
        stride, reach = (
            int(attrs["strides"][axis]),
            int(attrs["dilations"][axis]) * (int(attrs["kernel_shape"][axis]) - 1) + 1,
        )
        room = size + pads[axis] + pads[axis + spatial]
        count = -(-(room - reach) // stride) + 1
        if (count - 1) * stride >= size + pads[axis]:
            count -= 1
        pads[axis + spatial] = (count - 1) * stride + reach - size - pads[axis]
    return pads


def write_average_pool(writer: OnnxWriter, node: Node) -> None:
    """AveragePool: sums and counts are depthwise convolutions with ones."""
    attrs, x = node.attrs, writer.tensor(node.inputs[0])
    channels, kernel = node.inputs[0].shape[1], list(attrs["kernel_shape"])
    if not isinstance(channels, int):
        raise UnsupportedError(
            f"node '{node.name}' (AveragePool): its number of channels is symbolic; use the .qprog output"
        )
    pads, shared = _extended_pads(node), {key: attrs[key] for key in ("strides", "dilations", "kernel_shape")}
    if any(pad < 0 for pad in pads):
        raise UnsupportedError(f"node '{node.name}' (AveragePool): ceil_mode cuts its input; use the .qprog output")
    ones = writer.constant(np.ones((channels, 1, *kernel), np.uint8))
    parts = split_bytes(writer, x, int(attrs["x_zp"]))
    total = sum_of_products(writer, "ConvInteger", parts, [(ones, 0, 1)], group=channels, pads=pads, **shared)
    count = _window_counts(writer, node, x, pads, shared)
    index = writer.sub(count, 1)
    m, n = (np.asarray(tensor.values).astype(np.int64) for tensor in node.inputs[1:3])
    factor = writer.emit("Gather", [writer.constant(m), index], axis=0)
    powers = writer.emit("Gather", [writer.constant(np.left_shift(np.int64(1), n)), index], axis=0)
    finish_codes(writer, node, writer.round_shift_by(writer.mul(total, factor), powers))


def _window_counts(writer: OnnxWriter, node: Node, x: Tensor, pads: list[int], shared: dict[str, Any]) -> Tensor:
    """How many positions of each window count, shape [N, 1, ...]."""
    spatial = len(pads) // 2
    one = writer.cast(
        _ones(writer, writer.emit("Slice", [x, np.array([0]), np.array([1]), np.array([1])], x.dtype)), np.int32
    )
    if int(node.attrs["count_include_pad"]):
        given = [int(pad) for pad in node.attrs["pads"]]
        inside = [min(a, b) for a, b in zip(given, pads, strict=True)]
        whole = np.array([0, 0, *inside[:spatial], 0, 0, *inside[spatial:]], np.int64)
        one = writer.emit("Pad", [one, whole, np.int32(1).reshape(())], np.int32)
        pads = [have - done for have, done in zip(pads, inside, strict=True)]
    kernel = writer.constant(np.ones((1, 1, *shared["kernel_shape"]), np.uint8))
    zero = np.uint8(0).reshape(())
    counts = writer.emit("ConvInteger", [writer.cast(one, np.uint8), kernel, zero, zero], np.int32, pads=pads, **shared)
    return writer.cast(counts, np.int64)


def write_max_pool(writer: OnnxWriter, node: Node) -> None:
    """MaxPool: onnxruntime's own for uint8; for int16 the largest of shifted slices."""
    x, result = writer.tensor(node.inputs[0]), node.outputs[0]
    if np.dtype(x.dtype) == np.dtype(np.uint8):
        writer.finish(result, writer.emit("MaxPool", [x], np.uint8, **node.attrs))
        return
    attrs, spatial = node.attrs, len(node.attrs["kernel_shape"])
    pads = _extended_pads(node)
    whole = np.array([0, 0, *pads[:spatial], 0, 0, *pads[spatial:]], np.int64)
    padded = writer.emit("Pad", [writer.wide(x), whole, int(np.iinfo(np.int16).min)])
    best: Tensor | None = None
    for tap in np.ndindex(*attrs["kernel_shape"]):
        piece = _tap(writer, padded, attrs, tap)
        best = piece if best is None else writer.emit("Max", [best, piece])
    writer.finish(result, writer.cast(best, np.int16))


def _tap(writer: OnnxWriter, padded: Tensor, attrs: dict[str, Any], tap: tuple[int, ...]) -> Tensor:
    """The elements under one position of the window."""
    starts = [int(d) * i for d, i in zip(attrs["dilations"], tap, strict=True)]
    lasts = [int(d) * (int(k) - 1) for d, k in zip(attrs["dilations"], attrs["kernel_shape"], strict=True)]
    ends = [start - last if last > start else 1 << 31 for start, last in zip(starts, lasts, strict=True)]
    axes = np.arange(2, 2 + len(tap))
    return writer.emit(
        "Slice", [padded, np.array(starts), np.array(ends), axes, np.array([int(s) for s in attrs["strides"]])]
    )
