"""Resize: nearest moves codes (Repeat for whole factors, else Gather along each axis), linear blends four of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Graph, Node, Tensor
from qcompiler.graph.runner import Runner
from qcompiler.lowering.code_grid import Coded, Target
from qcompiler.lowering.engine import Lowering
from qcompiler.lowering.factors import wide_fixed_point
from qcompiler.lowering.ranks import rank_of
from qcompiler.lowering.rules.resize_places import WEIGHT_BITS, Axis, linear_places, nearest_places
from qcompiler.shapes import dims

_PROBE = 6
"""Elements of an axis from which an integer scale factor is recognized."""
_LINEAR_MODES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners")


def lower_resize(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Rule of Resize."""
    mode = node.attrs.get("mode", "nearest")
    if (
        int(node.attrs.get("antialias", 0))
        or node.attrs.get("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    ):
        raise UnsupportedError("antialias and tf_crop_and_resize have no integer form")
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError("keep_aspect_ratio_policy must be 'stretch'")
    if mode == "linear":
        return _lower_linear(lw, node, target)
    if mode != "nearest":
        raise UnsupportedError(f"its mode is '{mode}'; nearest and linear have an integer form")
    moved = lw.value(node.inputs[0], replace(target, name=f"{node.inputs[0].name}_codes"))
    factors = _whole_factors(lw, node)
    if factors is not None:
        repeats = lw.out.int64(f"{target.name}_repeats", factors)
        codes = lw.out.op("Repeat", target.name, [moved.tensor, repeats], {}, target.grid.dtype, node.outputs[0].shape)
        return replace(moved, tensor=codes)
    return _gather_axes(lw, node, moved, target)


def _scales(lw: Lowering, node: Node) -> list[Any]:
    """The factor of every axis: floats, or for symbolic sizes expressions."""
    rank = rank_of(node.inputs[0])
    axes = [int(axis) % rank for axis in node.attrs.get("axes", range(rank))]
    result: list[Any] = [1.0] * rank
    scales = _given_scales(lw, node)
    if scales is not None:
        for axis, scale in zip(axes, scales, strict=True):
            result[axis] = float(scale)
        return result
    before, after = lw.shape_of(node.inputs[0]), lw.shape_of(node.outputs[0])
    return [_ratio(big, small) for big, small in zip(after, before, strict=True)]


def _given_scales(lw: Lowering, node: Node) -> NDArray[Any] | None:
    """The constant scales; None where sizes are given.

    Raises:
        UnsupportedError: the scales are not constant.
    """
    scales = lw.constants.value(node.inputs[2]) if len(node.inputs) > 2 else None
    if scales is None and len(node.inputs) > 2 and node.inputs[2].name:
        raise UnsupportedError("its scales are computed while the model runs")
    return scales if scales is not None and scales.size else None


def _ratio(big: Any, small: Any) -> Any:
    if isinstance(big, int) and isinstance(small, int):
        return big / small
    quotient = dims.as_dim(big / small) if not isinstance(big, int) else None
    return float(quotient) if isinstance(quotient, int) else None


def _whole_factors(lw: Lowering, node: Node) -> list[int] | None:
    """The factors of an upsampling that repeats every element; None for any other."""
    scales = _scales(lw, node)
    if any(scale is None or scale < 1.0 or scale != round(scale) for scale in scales):
        return None
    factors = [round(scale) for scale in scales]
    for factor in set(factors) - {1}:
        if not np.array_equal(_indices(node, _PROBE, factor, None), np.arange(_PROBE * factor) // factor):
            return None
    return factors


def _indices(node: Node, size: int, scale: float | None, result: int | None) -> NDArray[np.int64]:
    """Which of ``size`` elements each result of a nearest Resize takes, as onnxruntime says."""
    attrs = {
        key: node.attrs[key] for key in ("coordinate_transformation_mode", "mode", "nearest_mode") if key in node.attrs
    }
    x = gs.Variable("x", np.float32, [1, 1, 1, size])
    y = gs.Variable("y", np.float32)
    how = [gs.Constant("scales", np.array([1, 1, 1, scale], np.float32))] if result is None else [
        gs.Variable.empty(), gs.Constant("sizes", np.array([1, 1, 1, result], np.int64))]
    one = Node("Resize", "resize", attrs, [x, gs.Variable.empty(), *how], [y])
    values = Runner(Graph([one], [x], [y], opset=19), fusions=False).run(
        {"x": np.arange(size, dtype=np.float32).reshape(1, 1, 1, -1)}
    )["y"]
    return values.reshape(-1).astype(np.int64)


def _gather_axes(lw: Lowering, node: Node, moved: Coded, target: Target) -> Coded:
    before, after, scales = lw.shape_of(node.inputs[0]), lw.shape_of(node.outputs[0]), _scales(lw, node)
    given = _given_scales(lw, node) is not None
    tensor, shape = moved.tensor, list(node.inputs[0].shape)
    axes = [
        axis
        for axis, (a, b) in enumerate(zip(before, after, strict=True))
        if scales[axis] != 1.0 or not dims.same(a, b)
    ]
    for axis in axes:
        size, result = before[axis], after[axis]
        name = target.name if axis == axes[-1] else f"{target.name}_axis{axis}"
        if isinstance(size, int) and isinstance(result, int):
            known = _indices(node, size, scales[axis] if given else None, None if given else result)
            indices: Tensor = lw.out.int64(f"{name}_indices", known)
        else:
            how = str(node.attrs.get("nearest_mode", "round_prefer_floor"))
            indices = nearest_places(_axis(lw, node, moved.tensor, axis, f"{name}_places"), _transform(node), how)
        shape[axis] = node.outputs[0].shape[axis]
        tensor = lw.out.op("Gather", name, [tensor, indices], {"axis": axis}, target.grid.dtype, list(shape))
    return replace(moved, tensor=tensor)


def _transform(node: Node) -> str:
    return str(node.attrs.get("coordinate_transformation_mode", "half_pixel"))


def _axis(lw: Lowering, node: Node, codes: Tensor, axis: int, name: str) -> Axis:
    """An axis of symbolic size, with the numbers that say how it is resized."""
    shape = lw.out.op("Shape", f"{name}_shape", [codes], {}, np.int64, [rank_of(node.inputs[0])])
    before = lw.out.op("Gather", f"{name}_before", [shape, lw.out.int64("axis", axis)], {"axis": 0}, np.int64, [])
    place = [int(each) % rank_of(node.inputs[0]) for each in node.attrs.get("axes", range(rank_of(node.inputs[0])))]
    if axis not in place:
        return Axis(lw, name, before, 1.0, None)
    scales = _given_scales(lw, node)
    if scales is not None:
        return Axis(lw, name, before, float(scales[place.index(axis)]), None)
    sizes, index = lw.integer(node.inputs[3]), lw.out.int64("axis", place.index(axis))
    return Axis(
        lw, name, before, None, lw.out.op("Gather", f"{name}_after", [sizes, index], {"axis": 0}, np.int64, [])
    )


def _lower_linear(lw: Lowering, node: Node, target: Target) -> Coded:
    before, after, scales = lw.shape_of(node.inputs[0]), lw.shape_of(node.outputs[0]), _scales(lw, node)
    transform = _transform(node)
    if len(before) != 4 or transform not in _LINEAR_MODES or int(node.attrs.get("exclude_outside", 0)):
        raise UnsupportedError(
            f"linear resizing needs an image of rank 4 and one of the modes {', '.join(_LINEAR_MODES)}"
        )
    if any(not dims.same(before[axis], after[axis]) for axis in (0, 1)):
        raise UnsupportedError("linear resizing of the batch or the channels has no integer form")
    x = lw.natural(node.inputs[0])
    tables = []
    for axis, side in ((2, "h"), (3, "w")):
        names = [f"{target.name}_{side}_{part}" for part in ("low", "high", "weight")]
        if isinstance(before[axis], int) and isinstance(after[axis], int):
            known = _linear_tables(before[axis], after[axis], scales[axis], transform)
            tables += [lw.out.int64(name, table) for name, table in zip(names, known, strict=True)]
        else:
            places = _axis(lw, node, x.tensor, axis, f"{target.name}_{side}")
            tables += linear_places(places, transform)
    m, n = wide_fixed_point(
        x.grid.scale / target.grid.scale * 2.0 ** (-2 * WEIGHT_BITS), x.magnitude << (2 * WEIGHT_BITS)
    )
    return lw.emit(
        "ResizeLinear",
        [x.tensor, *tables],
        {"x_zp": x.grid.zero_point, "m": m, "n": n},
        target,
        node.outputs[0].shape,
    )


def _linear_tables(size: int, result: int, scale: float, transform: str) -> list[NDArray[np.int64]]:
    """For every result: the lower and the upper element, and the weight of the upper one in Q15."""
    place = np.arange(result, dtype=np.float64)
    if transform == "align_corners":
        where = place * ((size - 1) / (result - 1) if result > 1 else 0.0)
    elif transform == "asymmetric":
        where = place / scale
    else:
        where = (place + 0.5) / scale - 0.5
        if transform == "half_pixel_symmetric":
            where += (size - result / scale) / 2
        if transform == "pytorch_half_pixel" and result == 1:
            where = np.zeros(1)
    where = np.clip(where, 0.0, size - 1.0)
    low = np.floor(where).astype(np.int64)
    weight = np.rint((where - low) * 2.0**WEIGHT_BITS).astype(np.int64)
    return [low, np.minimum(low + 1, size - 1), weight]
