"""Operators that move codes without changing them. The wanted grid travels through them to their inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node, Tensor
from qcompiler.lowering.code_grid import Coded, CodeGrid, Target
from qcompiler.lowering.engine import Bounds, Lowering
from qcompiler.lowering.ranks import rank_of, size_along
from qcompiler.lowering.rules.products import padding

Operands = tuple[str, list[Tensor], dict[str, Any]]
"""What a mover needs beside its data: the integer operator's name, its other inputs, its attributes."""


def lower_mover(lw: Lowering, node: Node, index: int, target: Target) -> Coded:
    """Rule of the operators with one data input."""
    data = node.inputs[0]
    moved = lw.value(data, replace(target, name=f"{data.name}_codes"))
    kind, others, attrs = mover_operands(lw, node, index, target)
    codes = lw.out.op(kind, target.name, [moved.tensor, *others], attrs, target.grid.dtype, node.outputs[index].shape)
    if kind != "Pad" or attrs["mode"] != "constant":
        return replace(moved, tensor=codes)
    fill = int(others[1].values.reshape(()))
    return Coded(codes, target.grid, min(moved.lo, fill), max(moved.hi, fill))


def mover_operands(lw: Lowering, node: Node, index: int, target: Target | None) -> Operands:
    """The integer operator of a mover. ``target`` gives the grid of a pad value; None for integer data."""
    if node.op == "Pad":
        return _pad(lw, node, target)
    return _OPERANDS[node.op](lw, node, index)


def lower_concat(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Concat: every input on the target's grid."""
    parts = [lw.value(tensor, replace(target, name=f"{tensor.name}_codes")) for tensor in node.inputs]
    axis = int(node.attrs["axis"]) % rank_of(node.outputs[0])
    codes = lw.out.op(
        "Concat", target.name, [part.tensor for part in parts], {"axis": axis}, target.grid.dtype, node.outputs[0].shape
    )
    return Coded(codes, target.grid, min(part.lo for part in parts), max(part.hi for part in parts))


def _optional(lw: Lowering, node: Node, index: int) -> Any:
    """The constant at a position; None where there is no input."""
    if len(node.inputs) <= index or not node.inputs[index].name:
        return None
    value = lw.constants.value(node.inputs[index])
    if value is None:
        raise UnsupportedError(f"'{node.inputs[index].name}' is computed while the model runs; it must be constant")
    return value


def _transpose(_lw: Lowering, node: Node, _index: int) -> Operands:
    rank = rank_of(node.inputs[0])
    return "Transpose", [], {"perm": list(node.attrs.get("perm", range(rank)[::-1]))}


def _reshape(lw: Lowering, node: Node, _index: int) -> Operands:
    return "Reshape", [lw.integer(node.inputs[1])], {"allowzero": int(node.attrs.get("allowzero", 0))}


def _flatten(_lw: Lowering, node: Node, _index: int) -> Operands:
    axis = int(node.attrs.get("axis", 1))
    return "Flatten", [], {"axis": axis + rank_of(node.inputs[0]) if axis < 0 else axis}


def _squeeze(lw: Lowering, node: Node, _index: int) -> Operands:
    rank = rank_of(node.inputs[0])
    axes = _optional(lw, node, 1)
    if axes is None:
        sizes = node.inputs[0].shape
        symbol = next((size for size in sizes if not isinstance(size, int | np.integer)), None)
        if symbol is not None:
            raise UnsupportedError(
                f"whether it removes an axis depends on the size '{symbol}'; fix that dimension: --dim NAME=SIZE"
            )
        axes = [axis for axis in range(rank) if sizes[axis] == 1]
    return "Squeeze", [lw.out.int64("axes", sorted(int(axis) % rank for axis in np.reshape(axes, -1)))], {}


def _unsqueeze(lw: Lowering, node: Node, _index: int) -> Operands:
    axes = _optional(lw, node, 1)
    if axes is None:
        raise UnsupportedError("it has no axes")
    rank = rank_of(node.inputs[0]) + axes.size
    return "Unsqueeze", [lw.out.int64("axes", sorted(int(axis) % rank for axis in axes.reshape(-1)))], {}


def _slice(lw: Lowering, node: Node, _index: int) -> Operands:
    rank = rank_of(node.inputs[0])
    starts, ends = lw.integer(node.inputs[1]), lw.integer(node.inputs[2])
    axes = _optional(lw, node, 3)
    if axes is None:
        axes = np.arange(size_along(node.inputs[1], 0) or rank)
    steps = _optional(lw, node, 4)
    steps = np.ones(axes.size, np.int64) if steps is None else steps
    return "Slice", [starts, ends, lw.out.int64("axes", axes.reshape(-1) % rank), lw.out.int64("steps", steps)], {}


def _split(lw: Lowering, node: Node, index: int) -> Operands:
    """One output of a Split is a Slice."""
    axis = int(node.attrs.get("axis", 0)) % rank_of(node.inputs[0])
    sizes = _optional(lw, node, 1)
    if sizes is None:
        size, parts = size_along(node.inputs[0], axis), len(node.outputs)
        if size is None:
            raise UnsupportedError(
                "it splits a symbolic dimension; give it constant sizes, or fix that dimension: --dim NAME=SIZE"
            )
        step = -(-size // parts)
        sizes = np.array([min(step, size - i * step) for i in range(parts)])
    start = int(sizes[:index].sum())
    bounds = [
        lw.out.int64(name, [value])
        for name, value in (("starts", start), ("ends", start + int(sizes[index])), ("axes", axis), ("steps", 1))
    ]
    return "Slice", list(bounds), {}


def _pad(lw: Lowering, node: Node, target: Target | None) -> Operands:
    rank, mode = rank_of(node.inputs[0]), node.attrs.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        raise UnsupportedError(f"pad mode '{mode}' has no integer form")
    pads, axes, fill = _optional(lw, node, 1), _optional(lw, node, 3), _optional(lw, node, 2)
    if pads is None:
        raise UnsupportedError("it has no pads")
    whole = np.zeros(2 * rank, np.int64)
    places = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    for i, axis in enumerate(places):
        whole[axis], whole[axis + rank] = pads[i], pads[i + len(places)]
    real = 0 if fill is None else fill.reshape(())
    code = int(real) if target is None else min(max(target.grid.code(float(real)), target.lo), target.hi)
    dtype = node.inputs[0].dtype if target is None else target.grid.dtype
    return "Pad", [lw.out.int64("pads", whole), lw.out.constant("pad_value", np.asarray(code, dtype))], {"mode": mode}


def _gather(lw: Lowering, node: Node, _index: int) -> Operands:
    return "Gather", [lw.integer(node.inputs[1])], {"axis": int(node.attrs.get("axis", 0)) % rank_of(node.inputs[0])}


def _expand(lw: Lowering, node: Node, _index: int) -> Operands:
    return "Expand", [lw.integer(node.inputs[1])], {}


def _tile(lw: Lowering, node: Node, _index: int) -> Operands:
    return "Tile", [lw.integer(node.inputs[1])], {}


def _depth_to_space(_lw: Lowering, node: Node, _index: int) -> Operands:
    attrs = {"blocksize": int(node.attrs["blocksize"])}
    return node.op, [], attrs | ({"mode": node.attrs.get("mode", "DCR")} if node.op == "DepthToSpace" else {})


def _max_pool(_lw: Lowering, node: Node, _index: int) -> Operands:
    return "MaxPool", [], window(node)


def window(node: Node) -> dict[str, Any]:
    """The attributes of a pool, complete and explicit."""
    kernel = list(node.attrs["kernel_shape"])
    if len(kernel) not in (1, 2):
        raise UnsupportedError(f"it pools {len(kernel)} spatial axes; 1 and 2 are supported")
    ones = [1] * len(kernel)
    strides, dilations = list(node.attrs.get("strides", ones)), list(node.attrs.get("dilations", ones))
    pads = padding(node.attrs, node.inputs[0], kernel, strides, dilations)
    return {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "ceil_mode": int(node.attrs.get("ceil_mode", 0)),
    }


_OPERANDS: dict[str, Callable[[Lowering, Node, int], Operands]] = {
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _depth_to_space,
    "MaxPool": _max_pool,
}


def mover_grid(lw: Lowering, node: Node) -> CodeGrid:
    """The natural grid of a mover is the one of its data."""
    return lw.natural_grid(node.inputs[0])


def concat_grid(lw: Lowering, node: Node) -> CodeGrid:
    """The grid all inputs share, else one that holds them all."""
    grids = {lw.natural_grid(tensor) for tensor in node.inputs}
    return grids.pop() if len(grids) == 1 else CodeGrid.covering(*hull(lw, node))


def hull(lw: Lowering, node: Node) -> Bounds:
    """Smallest and largest value of all data inputs, and 0, which padding may add."""
    data = node.inputs if node.op == "Concat" else node.inputs[:1]
    parts = [lw.bounds(tensor) for tensor in data]
    return min(0.0, *(low for low, _ in parts)), max(0.0, *(high for _, high in parts))
