"""Between operator-set versions, 13 and up: what changed in an operator besides the types it accepts.

From opset 13 on nearly every new version of an operator only admits more types. `CHANGES` lists the others. The tests
compare the list with the schemas that the onnx package ships.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from qcompiler.graph.ir import STANDARD_DOMAINS, Constant, Graph, Node, Variable, constant_of, names_in, unique_name

INTERNAL_OPSET = 21
OLDEST = 13
"""From here on this module converts; older models go through onnx's own converter first."""

REDUCE = tuple(
    f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
"""Their axes became an input in opset 18 (those of ReduceSum in 13)."""


class NotConvertibleError(Exception):
    """A node whose meaning cannot be kept in the other opset."""


Edit = Callable[[set[str]], None]
"""Changes a node; gets the names that are taken."""
Plan = Callable[[Node], Edit]
"""Reads a node and gives its edit, or raises NotConvertibleError."""


def _edit(node: Node, drop: tuple[str, ...] = (), **attrs: Any) -> Edit:
    def edit(taken: set[str]) -> None:
        del taken
        for name in drop:
            node.attrs.pop(name, None)
        node.attrs.update(attrs)

    return edit


def _axes_to_input(node: Node) -> Edit:
    def edit(taken: set[str]) -> None:
        axes = node.attrs.pop("axes", None)
        if axes is not None:
            node.inputs.append(Constant(unique_name(taken, f"{node.name}_axes"), np.asarray(axes, np.int64)))

    return edit


def _axes_to_attribute(node: Node) -> Edit:
    given = len(node.inputs) > 1 and bool(node.inputs[1].name)
    axes = constant_of(node.inputs[1]) if given else np.zeros(0, np.int64)
    if axes is None:
        raise NotConvertibleError("its axes are computed")
    if not axes.size and node.attrs.get("noop_with_empty_axes", 0):
        raise NotConvertibleError("it reduces nothing")

    def edit(taken: set[str]) -> None:
        del taken
        while len(node.inputs) > 1:
            del node.inputs[-1]
        node.attrs.pop("noop_with_empty_axes", None)
        if axes.size:
            node.attrs["axes"] = [int(axis) for axis in axes.reshape(-1)]

    return edit


def _split_count(node: Node) -> Edit:
    return _edit(node) if len(node.inputs) > 1 and node.inputs[1].name else _edit(node, num_outputs=len(node.outputs))


def _split_even(node: Node) -> Edit:
    if "num_outputs" in node.attrs:
        shape = node.inputs[0].shape
        size = shape[node.attrs.get("axis", 0)] if shape is not None else None
        if not isinstance(size, int) or size % len(node.outputs):
            raise NotConvertibleError("its parts may differ in size")
    return _edit(node, ("num_outputs",))


def _grid_mode(names: dict[str, str], default: str) -> Plan:
    def plan(node: Node) -> Edit:
        mode = node.attrs.get("mode", default)
        return _edit(node, mode=names.get(mode, mode))

    return plan


def _roi_mode_up(node: Node) -> Edit:
    return _edit(
        node, coordinate_transformation_mode=node.attrs.get("coordinate_transformation_mode", "output_half_pixel")
    )


def _roi_mode_down(node: Node) -> Edit:
    if node.attrs.get("coordinate_transformation_mode", "half_pixel") != "output_half_pixel":
        raise NotConvertibleError("it aligns to half pixels")
    return _edit(node, ("coordinate_transformation_mode",))


def _group_norm_up(node: Node) -> Edit:
    """Scale and bias per group became scale and bias per channel."""
    shape, groups = node.inputs[0].shape, int(node.attrs["num_groups"])
    values = [constant_of(tensor) for tensor in node.inputs[1:3]]
    if shape is None or not isinstance(shape[1], int) or any(value is None for value in values):
        raise NotConvertibleError("its scale or its number of channels is not constant")
    repeat = shape[1] // groups

    def edit(taken: set[str]) -> None:
        for index, value in enumerate(values, 1):
            name = unique_name(taken, f"{node.inputs[index].name}_per_channel")
            node.inputs[index] = Constant(name, np.repeat(np.asarray(value), repeat))

    return edit


def _axis_to_input(node: Node) -> Edit:
    def edit(taken: set[str]) -> None:
        axis = np.asarray(node.attrs.pop("axis", 1), np.int64)
        if len(node.inputs) < 2:
            node.inputs.append(Variable.empty())
        node.inputs.append(Constant(unique_name(taken, f"{node.name}_axis"), axis))

    return edit


def _axis_to_attribute(node: Node) -> Edit:
    given = len(node.inputs) > 2 and bool(node.inputs[2].name)
    value, shape = constant_of(node.inputs[2]) if given else np.array(-2), node.inputs[0].shape
    if value is None or shape is None:
        raise NotConvertibleError("its axis is computed, or its rank is unknown")

    def edit(taken: set[str]) -> None:
        del taken
        del node.inputs[2:]
        node.attrs["axis"] = int(value.reshape(-1)[0]) % len(shape)

    return edit


def _refuse(node: Node) -> Edit:
    raise NotConvertibleError(f"{node.op} means something else there")


_MODES = {"bilinear": "linear", "bicubic": "cubic"}

CHANGES: dict[tuple[str, int], tuple[Plan, Plan]] = {
    **{(op, 18): (_axes_to_input, _axes_to_attribute) for op in REDUCE},
    ("Split", 18): (_split_count, _split_even),
    ("GridSample", 20): (
        _grid_mode(_MODES, "bilinear"),
        _grid_mode({new: old for old, new in _MODES.items()}, "linear"),
    ),
    ("RoiAlign", 16): (_roi_mode_up, _roi_mode_down),
    ("GroupNormalization", 21): (_group_norm_up, _refuse),
    ("DFT", 20): (_axis_to_input, _axis_to_attribute),
}
"""(operator, version that changed it) -> how to rewrite a node upwards and downwards across that version."""


def plan_node(node: Node, source: int, target: int) -> list[Edit]:
    """The edits that move one standard node between two opsets.

    Raises:
        NotConvertibleError: names the node and the reason.
    """
    low, high = sorted((source, target))
    crossed = sorted(version for op, version in CHANGES if op == node.op and low < version <= high)
    up = target > source
    try:
        return [CHANGES[node.op, version][0 if up else 1](node) for version in (crossed if up else reversed(crossed))]
    except NotConvertibleError as error:
        raise NotConvertibleError(f"node '{node.name}' ({node.op}): {error}") from error


def convert(graph: Graph, target: int) -> None:
    """Move ``graph`` and its subgraphs to opset ``target``, both versions at least 13, in place.

    Going down, the caller makes sure that every node exists there (`qcompiler.onnx_io.schema`).

    Raises:
        NotConvertibleError: a node's meaning cannot be kept; nothing was changed.
    """
    bodies = [graph, *graph.subgraphs(recursive=True)]
    standard = [node for body in bodies for node in body.nodes if node.domain in STANDARD_DOMAINS]
    edits = [edit for node in standard for edit in plan_node(node, graph.opset, target)]
    taken = set[str]().union(*(names_in(body) for body in bodies))
    for edit in edits:
        edit(taken)
    set_opset(graph, target)


def set_opset(graph: Graph, version: int) -> None:
    """Write the version of the standard domain into ``graph`` and its subgraphs."""
    domains: list[Any] = [entry for entry in graph.import_domains or [] if entry.domain not in STANDARD_DOMAINS]
    for body in (graph, *graph.subgraphs(recursive=True)):
        body.opset = version
        body.import_domains = [onnx.helper.make_opsetid("", version), *domains]
