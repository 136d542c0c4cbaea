"""Operators on token ids, masks and shapes: they are integers already and stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node, Tensor, is_float, producer
from qcompiler.graph.operators import lowered_by
from qcompiler.lowering.code_grid import CodeGrid, Target, common_factors
from qcompiler.lowering.engine import IntegerRule, Lowering
from qcompiler.lowering.ranks import rank_of
from qcompiler.lowering.rules.elementwise import whole_numbers
from qcompiler.lowering.rules.movers import mover_operands
from qcompiler.lowering.rules.operands import operand
from qcompiler.lowering.rules.reductions import reduced_axes

_COMPARE = {
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Equal": "equal",
}
_PLAIN = (
    "Add", "Sub", "Mul", "Div", "Min", "Max", "Mod", "Neg", "Abs", "Where", "Range", "ConstantOfShape", "ReduceProd",
)


def _write(lw: Lowering, node: Node, kind: str, inputs: list[Tensor], attrs: dict[str, Any]) -> None:
    output = node.outputs[0]
    lw.integers[id(output)] = lw.out.op(kind, output.name, inputs, attrs, output.dtype, output.shape)


def _shape(lw: Lowering, node: Node) -> None:
    source = node.inputs[0]
    # a float graph input has its shape before it has codes
    is_activation = is_float(source) and id(source) not in lw.integers
    inner = lw.natural(source).tensor if is_activation else lw.integer(source)
    _write(lw, node, "Shape", [inner], {key: int(node.attrs[key]) for key in ("start", "end") if key in node.attrs})


def _plain(lw: Lowering, node: Node) -> None:
    """Arithmetic of integers, under the name ``Integer<Op>``."""
    _write(
        lw, node, f"Integer{node.op}", [lw.integer(tensor) for tensor in node.inputs if tensor.name], dict(node.attrs)
    )


def _clip(lw: Lowering, node: Node) -> None:
    """Clip of integers: the larger of the lower limit, then the smaller of the upper one."""
    source, output = lw.integer(node.inputs[0]), node.outputs[0]
    for op, limit in zip(("Max", "Min"), node.inputs[1:], strict=False):
        if limit.name:
            name, inputs = f"{output.name}_{op.lower()}", [source, lw.integer(limit)]
            source = lw.out.op(f"Integer{op}", name, inputs, {}, output.dtype, output.shape)
    lw.integers[id(output)] = source


def _reduce(lw: Lowering, node: Node) -> None:
    """ReduceSum, ReduceMax and ReduceMin of integers, taken as codes; beyond 16 bits they saturate."""
    source, output = node.inputs[0], node.outputs[0]
    codes = lw.integer_codes(source, Target.whole(CodeGrid(1.0, 0, "int16"), f"{source.name}_codes"))
    kind, axes = node.op.removeprefix("Reduce").lower(), reduced_axes(lw, node)
    attrs = {
        "kind": kind,
        "axes": axes,
        "keepdims": int(node.attrs.get("keepdims", 1)),
        "x_zp": 0,
        "m": 1,
        "n": 0,
        "divide": 0,
    }
    narrow = lw.emit("Reduce", [codes.tensor], attrs, Target.whole(codes.grid, f"{output.name}_codes"), output.shape)
    _write(lw, node, "Cast", [narrow.tensor], {"to": int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(output.dtype)))})


def _cast(lw: Lowering, node: Node) -> None:
    source = node.inputs[0]
    if is_float(source):
        inner = producer(source)
        if inner is None or inner.op != "Cast" or is_float(inner.inputs[0]):
            return _write(lw, node, "Cast", [whole_numbers(lw, node).tensor], {"to": int(node.attrs["to"])})
        source = inner.inputs[0]  # integers that were float in between
    return _write(lw, node, "Cast", [lw.integer(source)], {"to": int(node.attrs["to"])})


def _identity(lw: Lowering, node: Node) -> None:
    lw.integers[id(node.outputs[0])] = lw.integer(node.inputs[0])


def _mover(lw: Lowering, node: Node) -> None:
    for index, output in enumerate(node.outputs):
        kind, others, attrs = mover_operands(lw, node, index, None)
        data = lw.integer(node.inputs[0])
        lw.integers[id(output)] = lw.out.op(kind, output.name, [data, *others], attrs, output.dtype, output.shape)


def _concat(lw: Lowering, node: Node) -> None:
    attrs = {"axis": int(node.attrs["axis"]) % rank_of(node.outputs[0])}
    _write(lw, node, "Concat", [lw.integer(tensor) for tensor in node.inputs], attrs)


def _compare(lw: Lowering, node: Node) -> None:
    if not is_float(node.inputs[0]):
        attrs: dict[str, Any] = {"kind": _COMPARE[node.op], "a_zp": 0, "b_zp": 0, "a_m": 1, "b_m": 1}
        return _write(lw, node, "Compare", [lw.integer(tensor) for tensor in node.inputs], attrs)
    (a, a_factor), (b, b_factor) = (operand(lw, tensor) for tensor in node.inputs)
    scales = [a_factor * a.grid.scale, b_factor * b.grid.scale]
    (a_m, b_m), _ = common_factors([scale / max(map(abs, scales)) for scale in scales], bits=31)
    attrs = {"kind": _COMPARE[node.op], "a_zp": a.grid.zero_point, "b_zp": b.grid.zero_point, "a_m": a_m, "b_m": b_m}
    return _write(lw, node, "Compare", [a.tensor, b.tensor], attrs)


def _logic(lw: Lowering, node: Node) -> None:
    _write(lw, node, node.op, [lw.integer(tensor) for tensor in node.inputs], {})


def _argmax(lw: Lowering, node: Node) -> None:
    source = node.inputs[0]
    inner = lw.natural(source).tensor if is_float(source) else lw.integer(source)
    attrs = {
        "axis": int(node.attrs.get("axis", 0)) % rank_of(source), "keepdims": int(node.attrs.get("keepdims", 1)),
        "select_last_index": int(node.attrs.get("select_last_index", 0)),
    }
    _write(lw, node, "ArgMax", [inner], attrs)


def _topk(lw: Lowering, node: Node) -> None:
    """Positions; values are taken by them (`expand-operators`)."""
    source, output = node.inputs[0], node.outputs[1]
    inner = lw.natural(source).tensor if is_float(source) else lw.integer(source)
    attrs = {"axis": int(node.attrs.get("axis", -1)) % rank_of(source), "largest": int(node.attrs.get("largest", 1))}
    count = lw.integer(node.inputs[1])
    lw.integers[id(output)] = lw.out.op("TopK", output.name, [inner, count], attrs, output.dtype, output.shape)


def _scatter(lw: Lowering, node: Node) -> None:
    if rank_of(node.inputs[0]) != 1 or str(node.attrs.get("reduction", "none")) != "none":
        raise UnsupportedError("only integers of one axis, put in their places without a reduction, have a form here")
    _write(lw, node, "Scatter", [lw.integer(tensor) for tensor in node.inputs], {})


def _quantize(lw: Lowering, node: Node) -> None:
    """Codes that are read as integers: only where the grid keeps their type."""
    codes = lw.stored_codes(node.outputs[0])
    if np.dtype(node.outputs[0].dtype) != np.dtype(codes.grid.dtype):
        raise UnsupportedError(
            f"its {np.dtype(node.outputs[0].dtype)} codes leave the integer graph; quantize to uint8 or int16"
        )
    lw.integers[id(node.outputs[0])] = codes.tensor


def _labels(lw: Lowering, node: Node) -> None:
    """LabelEncoder of an input of strings: the border looks them up."""
    source, attrs = node.inputs[0], node.attrs
    if not any(source is tensor for tensor in lw.source.inputs) or len(source.outputs) > 1:
        raise UnsupportedError("only the one LabelEncoder of an input has an integer form")
    keys = _listed(attrs, "keys_strings", "keys_tensor")
    numbers = _listed(attrs, "values_int64s", "values_tensor")
    if keys is None or numbers is None or not all(isinstance(number, int) for number in numbers):
        raise UnsupportedError("only strings that become int64 have an integer form")
    given = attrs.get("default_tensor")
    other = int(attrs.get("default_int64", -1)) if given is None else int(np.asarray(given.values).reshape(-1)[0])
    table = {"keys": [key if isinstance(key, str) else key.decode() for key in keys], "numbers": numbers}
    _write(lw, node, "Label", [lw.integers[id(source)]], {**table, "other": other})


def _listed(attrs: Mapping[str, Any], name: str, tensor: str) -> list[Any] | None:
    """The elements of an attribute that is a list or a tensor."""
    if name in attrs:
        return list(attrs[name])
    return np.asarray(attrs[tensor].values).reshape(-1).tolist() if tensor in attrs else None


INTEGER_RULES: dict[str, IntegerRule] = {
    "Shape": _shape,
    "Cast": _cast,
    "Identity": _identity,
    "Concat": _concat,
    "Clip": _clip,
    "ArgMax": _argmax,
    "TopK": _topk,
    "ScatterElements": _scatter,
    "LabelEncoder": _labels,
    "QuantizeLinear": _quantize,
    **dict.fromkeys(_COMPARE, _compare),
    **dict.fromkeys(("Not", "And", "Or", "Xor"), _logic),
    **dict.fromkeys(("ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    **dict.fromkeys(lowered_by("mover") - {"MaxPool"}, _mover),
    **dict.fromkeys(_PLAIN, _plain),
}
