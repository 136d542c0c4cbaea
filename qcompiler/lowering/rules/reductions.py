"""Pools, reductions, Softmax and the normalizations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node, Tensor
from qcompiler.lowering.code_grid import Coded, CodeGrid, Target
from qcompiler.lowering.engine import Bounds, Lowering
from qcompiler.lowering.factors import DYNAMIC_COUNT, NORM_LIMIT, fixed_points, wide_fixed_point
from qcompiler.lowering.ranks import count_along, rank_of
from qcompiler.lowering.rules.movers import window

_KINDS = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "GlobalAveragePool": "mean",
    "GlobalMaxPool": "max",
}


def reduced_axes(lw: Lowering, node: Node) -> list[int]:
    """The axes a reduction runs over, ascending."""
    rank = rank_of(node.inputs[0])
    if node.op.startswith("Global"):
        return list(range(2, rank))
    given: Any = node.attrs.get("axes")
    if len(node.inputs) > 1 and node.inputs[1].name:
        given = lw.constants.value(node.inputs[1])
        if given is None:
            raise UnsupportedError("its axes are computed while the model runs")
    if given is None or np.size(given) == 0:
        return [] if int(node.attrs.get("noop_with_empty_axes", 0)) else list(range(rank))
    return sorted(int(axis) % rank for axis in np.reshape(given, -1))


def lower_reduction(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Rule of ReduceSum, ReduceMean, ReduceMax, ReduceMin and the global pools."""
    kind, axes = _KINDS[node.op], reduced_axes(lw, node)
    keep = 1 if node.op.startswith("Global") else int(node.attrs.get("keepdims", 1))
    attrs: dict[str, Any] = {"kind": kind, "axes": axes, "keepdims": keep}
    if not axes:
        return lw.value(node.inputs[0], target)
    shape = node.outputs[0].shape
    if kind in ("max", "min"):
        x = lw.value(node.inputs[0], replace(target, name=f"{node.inputs[0].name}_codes"))
        return lw.emit(
            "Reduce",
            [x.tensor],
            {**attrs, "x_zp": 0, "m": 1, "n": 0, "divide": 0},
            replace(target, lo=x.lo, hi=x.hi),
            shape,
        )
    x, count = lw.natural(node.inputs[0]), count_along(node.inputs[0], axes)
    factor = x.grid.scale / target.grid.scale
    if count is None and kind == "mean":
        m, n, divide = *_divided_factor(factor, x.magnitude), 1
    else:
        largest = x.magnitude * (count or DYNAMIC_COUNT)
        m, n = wide_fixed_point(factor / (count or 1) if kind == "mean" else factor, largest)
        divide = 0
    return lw.emit(
        "Reduce", [x.tensor], {**attrs, "x_zp": x.grid.zero_point, "m": m, "n": n, "divide": divide}, target, shape
    )


def _divided_factor(factor: float, magnitude: int) -> tuple[int, int]:
    """(m, n) where the machine divides by the count too: ``2*s*m`` and ``count << n`` stay below 2^61."""
    bits = min(31, 60 - (magnitude * DYNAMIC_COUNT).bit_length())
    exponent = math.frexp(factor)[1]
    n = min(bits - exponent, 60 - DYNAMIC_COUNT.bit_length())
    if n < 1:
        raise UnsupportedError(f"a scale ratio of {factor:.3g} is too large for a mean over a symbolic dimension")
    m = round(factor * 2.0**n)
    return (m, n) if m < 2**31 else (m >> 1, n - 1)


def reduction_bounds(lw: Lowering, node: Node) -> Bounds:
    """Range of a reduction's output."""
    low, high = lw.bounds(node.inputs[0])
    if _KINDS.get(node.op) != "sum":
        return low, high
    count = count_along(node.inputs[0], reduced_axes(lw, node))
    if count is None:
        raise UnsupportedError(
            "the range of a sum over a symbolic dimension is unknown; put a "
            "QuantizeLinear/DequantizeLinear pair behind it"
        )
    return low * count, high * count


def reduction_grid(lw: Lowering, node: Node) -> CodeGrid:
    """Largest and smallest codes keep their grid."""
    if _KINDS[node.op] in ("max", "min"):
        return lw.natural_grid(node.inputs[0])
    return CodeGrid.covering(*reduction_bounds(lw, node))


def lower_average_pool(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Rule of AveragePool: one factor for every number of positions a window may hold."""
    attrs = window(node)
    x = lw.natural(node.inputs[0])
    positions = np.arange(1, math.prod(attrs["kernel_shape"]) + 1)
    m, n = fixed_points(x.grid.scale / target.grid.scale / positions)
    attrs |= {"count_include_pad": int(node.attrs.get("count_include_pad", 0)), "x_zp": x.grid.zero_point}
    inputs: list[Tensor] = [x.tensor, lw.out.int64(f"{target.name}_m", m), lw.out.int64(f"{target.name}_n", n)]
    return lw.emit("AveragePool", inputs, attrs, target, node.outputs[0].shape)


def average_bounds(lw: Lowering, node: Node) -> Bounds:
    """Padding may add zeros."""
    low, high = lw.bounds(node.inputs[0])
    return min(low, 0.0), max(high, 0.0)


def lower_norm(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Rule of LayerNormalization and InstanceNormalization."""
    x, rank = lw.natural(node.inputs[0]), rank_of(node.inputs[0])
    axis = int(node.attrs.get("axis", -1)) % rank if node.op == "LayerNormalization" else 2
    axes = list(range(axis, rank))
    count = count_along(node.inputs[0], axes)
    if count is not None and count > NORM_LIMIT:
        raise UnsupportedError(f"it normalizes {count} elements at once; at most {NORM_LIMIT} are supported")
    gamma, beta = (_affine(lw, node, index, fill) for index, fill in ((1, 1.0), (2, 0.0)))
    gamma, beta = np.broadcast_arrays(gamma, beta)
    if node.op == "LayerNormalization" and gamma.size > 1 and gamma.size != count:
        raise UnsupportedError("its scale does not cover the normalized axes; write it as Mul behind the normalization")
    if gamma.size == 1 and node.op == "LayerNormalization":
        if count is None:
            raise UnsupportedError("it normalizes a symbolic number of elements; fix it: --dim NAME=SIZE")
        gamma, beta = np.broadcast_to(gamma, (count,)), np.broadcast_to(beta, (count,))
    step = target.grid.scale
    n = _norm_shift(gamma / step, beta / step, count or NORM_LIMIT)
    whole = [np.rint(gamma / step * 2.0 ** (n - 20)).astype(np.int64), np.rint(beta / step * 2.0**n).astype(np.int64)]
    attrs = {"axis": axis, "n": n, **_epsilon(float(node.attrs.get("epsilon", 1e-5)), x, count)}
    tensors = [x.tensor, lw.out.int64(f"{target.name}_gamma", whole[0]), lw.out.int64(f"{target.name}_beta", whole[1])]
    kind = "LayerNorm" if node.op == "LayerNormalization" else "InstanceNorm"
    return lw.emit(kind, tensors, attrs, target, node.outputs[0].shape)


def _affine(lw: Lowering, node: Node, index: int, fill: float) -> NDArray[np.float64]:
    if len(node.inputs) <= index or not node.inputs[index].name:
        return np.full(1, fill)
    value = lw.constants.value(node.inputs[index])
    if value is None:
        raise UnsupportedError(f"its parameter '{node.inputs[index].name}' is not constant")
    return value.astype(np.float64).reshape(-1)


def _norm_shift(gamma: NDArray[np.float64], beta: NDArray[np.float64], count: int) -> int:
    """The largest n <= 40 for which ``z*gamma + beta`` stays below 2^61; |z| <= sqrt(count) in Q20."""
    worst = float((np.abs(gamma) * math.sqrt(count) + np.abs(beta)).max(initial=1e-9))
    n = min(40, 60 - math.frexp(worst)[1])
    if n < 1:
        raise UnsupportedError("its scale is too large for its output grid")
    return n


def _epsilon(epsilon: float, x: Coded, count: int | None) -> dict[str, int]:
    """The integer term beside the variance: in units of ``s_x^2 * N^2``, or for a symbolic N as ``epsilon_q``."""
    relative = epsilon / x.grid.scale**2
    term = relative * (2.0**16 if count is None else count * count)
    if term >= (2.0**32 if count is None else 2.0**60):
        raise UnsupportedError(
            "its epsilon is far beyond the variance of its input's codes; the normalization does nothing there"
        )
    return (
        {"epsilon": 0, "epsilon_q": round(term)} if count is None else {"epsilon": max(1, round(term)), "epsilon_q": 0}
    )


def norm_bounds(lw: Lowering, node: Node) -> Bounds:
    """A normalized value is at most ``sqrt(N)`` away from 0."""
    rank = rank_of(node.inputs[0])
    axis = int(node.attrs.get("axis", -1)) % rank if node.op == "LayerNormalization" else 2
    count = count_along(node.inputs[0], list(range(axis, rank))) or NORM_LIMIT
    gamma, beta = (_affine(lw, node, index, fill) for index, fill in ((1, 1.0), (2, 0.0)))
    largest = float((np.abs(gamma) * math.sqrt(count) + np.abs(beta)).max())
    return -largest, largest
