"""Instructions of the layers: conv, conv_transpose, gemm and matmul."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node, Tensor, consumers
from qcompiler.lowering.factors import DYNAMIC_LIMIT
from qcompiler.lowering.to_machine.emitter import Emitter, output_fields
from qcompiler.lowering.to_machine.views import Order, View, channels_last, product
from qcompiler.shapes.dims import Dim, same, to_nested

_MATMUL_BATCH = 4


def _values(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.values)


def image(view: View) -> tuple[Dim, Dim, Dim, Dim]:
    """(batch, height, width, channels) of an NCHW or NCW tensor; a sequence is an image of height 1."""
    if view.rank == 3:
        return view.shape[0], 1, view.shape[2], view.shape[1]
    return view.shape[0], view.shape[2], view.shape[3], view.shape[1]


def geometry(node: Node, x: View, y: View) -> dict[str, Any]:
    """The geometry fields that convolutions and pools share."""
    attrs = node.attrs
    one = x.rank == 3
    pairs = {
        key: ([1] if one else []) + [int(v) for v in attrs[key]] for key in ("kernel_shape", "strides", "dilations")
    }
    starts = ([0] if one else []) + [int(v) for v in attrs["pads"][: x.rank - 2]]
    fields: dict[str, Any] = {}
    for key, name in (("kernel_shape", "kernel"), ("strides", "stride"), ("dilations", "dilation")):
        fields |= {f"{name}_h": pairs[key][0], f"{name}_w": pairs[key][1]}
    fields |= {"pad_top": starts[0], "pad_left": starts[1]}
    batch, in_h, in_w, in_c = (to_nested(size) for size in image(x))
    _, out_h, out_w, _ = (to_nested(size) for size in image(y))
    return fields | {"batch": batch, "in_h": in_h, "in_w": in_w, "in_c": in_c, "out_h": out_h, "out_w": out_w}


def emit_conv(emitter: Emitter, node: Node) -> None:
    """Conv; one whose kernel is a single position is a gemm over positions."""
    order = channels_last(len(emitter.shape(node.inputs[0])))
    x = emitter.in_order(emitter.view(node.inputs[0]), order, node.name)
    weight, bias = _values(node.inputs[1]), _values(node.inputs[2]).astype(np.int64)
    zero, outputs = int(node.attrs["x_zp"]), weight.shape[0]
    y = emitter.place(node.outputs[0], order)
    pitch = to_nested(y.strides[order[-2]])
    folded = (bias - zero * weight.reshape(outputs, -1).sum(axis=1, dtype=np.int64)).astype(np.int32)
    common = {
        "x": x.handle,
        "y": y.handle,
        "y_offset": to_nested(y.offset),
        "bias": folded,
        **_factors(node, outputs),
        **output_fields(node),
    }
    if _is_pointwise(node):
        columns = np.ascontiguousarray(weight.reshape(outputs, -1).T)
        rows = product([size for axis, size in enumerate(x.shape) if axis != 1])
        emitter.program.emit(
            "gemm",
            node=node.name,
            w=columns,
            rows=to_nested(rows),
            k=columns.shape[0],
            cols=outputs,
            y_row=pitch,
            **common,
        )
        return
    packed = _as_image(weight).transpose(2, 3, 1, 0)
    emitter.program.emit(
        "conv",
        node=node.name,
        w=np.ascontiguousarray(packed),
        out_c=outputs,
        groups=int(node.attrs["group"]),
        x_zp=zero,
        y_pitch=pitch,
        **geometry(node, x, y),
        **common,
    )


def _is_pointwise(node: Node) -> bool:
    attrs = node.attrs
    return (
        int(attrs["group"]) == 1
        and all(k == 1 for k in attrs["kernel_shape"])
        and all(s == 1 for s in attrs["strides"])
        and all(p == 0 for p in attrs["pads"])
    )


def _as_image(weight: NDArray[Any]) -> NDArray[Any]:
    return weight[:, :, None, :] if weight.ndim == 3 else weight


def _factors(node: Node, outputs: int) -> dict[str, NDArray[np.int32]]:
    m, n = (np.broadcast_to(_values(tensor), (outputs,)).astype(np.int32) for tensor in node.inputs[3:5])
    return {"m": m, "n": n}


def emit_conv_transpose(emitter: Emitter, node: Node) -> None:
    """ConvTranspose. ``[I, O/g, k...]`` becomes ``[kh, kw, I, O/g]``."""
    order = channels_last(len(emitter.shape(node.inputs[0])))
    x = emitter.in_order(emitter.view(node.inputs[0]), order, node.name)
    weight, groups = _as_image(_values(node.inputs[1])), int(node.attrs["group"])
    outputs = weight.shape[1] * groups
    y = emitter.new(node.outputs[0], order)
    emitter.program.emit(
        "conv_transpose",
        node=node.name,
        x=x.handle,
        y=y.handle,
        w=np.ascontiguousarray(weight.transpose(2, 3, 0, 1)),
        out_c=outputs,
        groups=groups,
        bias=_values(node.inputs[2]),
        x_zp=int(node.attrs["x_zp"]),
        **_factors(node, outputs),
        **geometry(node, x, y),
        **output_fields(node),
    )


def emit_gemm(emitter: Emitter, node: Node) -> None:
    """Gemm over the last axis; rows may lie apart."""
    x = emitter.view(node.inputs[0])
    rows = x.merged(0, x.rank - 1)
    if rows is None or not (same(x.strides[-1], 1) or same(x.shape[-1], 1)):
        x = emitter.in_order(x, None, node.name)
        rows = x.merged(0, x.rank - 1)
    if rows is None:
        raise UnsupportedError("its rows do not lie evenly in memory")
    weight, bias = _values(node.inputs[1]), _values(node.inputs[2]).astype(np.int64)
    depth, outputs = weight.shape
    folded = (bias - int(node.attrs["x_zp"]) * weight.sum(axis=0, dtype=np.int64)).astype(np.int32)
    y = emitter.new(node.outputs[0])
    step = rows[1] if not same(rows[0], 1) else depth
    emitter.program.emit(
        "gemm",
        node=node.name,
        x=x.handle,
        y=y.handle,
        w=weight,
        bias=folded,
        rows=to_nested(rows[0]),
        k=depth,
        cols=outputs,
        x_row=to_nested(step),
        x_offset=to_nested(x.offset),
        **_factors(node, outputs),
        **output_fields(node),
    )


def emit_matmul(emitter: Emitter, node: Node) -> None:
    """MatMul of codes; transposes of its operands, and of its result, are strides."""
    shape = emitter.shape(node.outputs[0])
    batch = list(shape[:-2])
    if len(batch) > _MATMUL_BATCH:
        raise UnsupportedError(f"it has {len(batch)} batch axes; the machine takes {_MATMUL_BATCH}")
    a, b = (emitter.view(tensor) for tensor in node.inputs)
    if not same(a.shape[-1], b.shape[-2]):
        emitter.require_equal(a.shape[-1], b.shape[-2], node.name)
    emitter.require_at_most(a.shape[-1], DYNAMIC_LIMIT, node.name)
    y = emitter.new(node.outputs[0], _wanted_order(node.outputs[0], len(shape)))
    fields: dict[str, Any] = {}
    for name, view in (("a", a), ("b", b), ("y", y)):
        fields |= {name: view.handle, **_matrix_fields(emitter, node, name, view, batch)}
    emitter.program.emit(
        "matmul",
        node=node.name,
        batch=emitter.nested(batch) if batch else [1],
        rows=to_nested(shape[-2]),
        k=to_nested(a.shape[-1]),
        cols=to_nested(shape[-1]),
        a_zp=int(node.attrs["a_zp"]),
        b_zp=int(node.attrs["b_zp"]),
        m=int(node.attrs["m"]),
        n=int(node.attrs["n"]),
        acc64=int(node.attrs["acc_bits"] == 64),
        **fields,
        **output_fields(node),
    )


def _matrix_fields(emitter: Emitter, node: Node, name: str, view: View, batch: list[Dim]) -> dict[str, Any]:
    strides = emitter.nested(emitter.broadcast(view, [*batch, *view.shape[-2:]], node.name).strides)
    return {
        f"{name}_strides": strides[:-2] or [0],
        f"{name}_row": strides[-2],
        f"{name}_col": strides[-1],
        f"{name}_offset": to_nested(view.offset),
    }


def _wanted_order(result: Tensor, rank: int) -> Order | None:
    """The axis order that a lone Transpose behind ``result`` asks for: written so, the Transpose costs nothing."""
    readers = consumers(result)
    while len(readers) == 1 and readers[0].op in ("Requantize", "Table", "PiecewiseLinear"):
        readers = consumers(readers[0].outputs[0])
    if len(readers) != 1 or readers[0].op != "Transpose":
        return None
    perm = tuple(int(axis) for axis in readers[0].attrs["perm"])
    return perm if len(perm) == rank else None
