"""Puts a Q/DQ pair behind every tensor between integer operators.

Where pairs go, and which tensors share a grid, is decided by `qcompiler.graph.placement`; what a grid covers is measured on the
calibration feeds. An 8-bit grid is uint8 with 0.0 on it; the output of a Softmax takes 1/255 and zero point 0. A sum over an axis whose
length only the feeds know takes int16 with headroom, since longer inputs give larger sums; so does an output when the feeds are made up,
since clipped logits tie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from ...activations.reach import reached
from ...calibration.collect import HUGE, Statistics, collect_ranges, input_values, observe
from ...calibration.observers import ObserverName, Range, affine_grid
from ...calibration.softmax_floor import softmax_floors
from ...feeds.sources import Source, feeds_of
from ...graph.exactness import filled
from ...graph.ir import Constant, Feed, Graph, Node, QuantSpec, insert_qdq, names_in
from ...graph.placement import Group, Placement, place
from ...graph.value_kinds import DATA, Value, mask_candidates, mask_inputs, value_kinds
from ...pass_base import Context, Pass

QUANTIZED_OPERATORS = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul",
})


HEADROOM = 8.0
"""How far beyond the observed range the int16 grid of an open-ended sum reaches; 13 bits are left for what was observed."""


MEAN_HEADROOM = 2.0
"""The same of a mean."""


def grid_for(extent: Range, headroom: float = 0.0) -> QuantSpec:
    """uint8 over the range, or int16 with headroom."""
    if headroom:
        largest = max(abs(extent.lo), abs(extent.hi), 2.0**-100)
        return QuantSpec.per_tensor(headroom * largest / 32767, 0, np.int16)
    scale, zero_point = affine_grid(extent)
    return QuantSpec.per_tensor(scale, zero_point, np.uint8)


def softmax_axes(nodes: Iterable[Node]) -> dict[str, int]:
    """Axis of each Softmax among ``nodes``, by the name of its input."""
    return {node.inputs[0].name: int(node.attrs.get("axis", -1)) for node in nodes if node.op == "Softmax"}


def _constant_range(tensor: Constant, floors: Mapping[str, float]) -> Range:
    values = np.maximum(np.asarray(tensor.values), floors.get(tensor.name, -np.inf))
    finite = values[np.abs(values) < HUGE]
    shown = finite if finite.size else np.clip(values, -HUGE, HUGE)
    return Range(float(shown.min()), float(shown.max()))


def _group_range(group: Group, seen: Mapping[str, Range], floors: Mapping[str, float]) -> Range:
    ranges = [_constant_range(t, floors) if isinstance(t, Constant) else seen[t.name] for t in group.tensors]
    return reduce(Range.join, ranges)


def _has_output(group: Group, graph: Graph) -> bool:
    return any(tensor is output for tensor in group.tensors for output in graph.outputs)


def _kinds(graph: Graph, data: Iterable[Feed]) -> dict[str, Value]:
    """What the values of tensors are, inputs that calibration shows to be masks included."""
    candidates = mask_candidates(graph)
    return value_kinds(graph, mask_inputs(graph, input_values(data, candidates)) if candidates else {})


def _placed(graph: Graph, kinds: Mapping[str, Value], data: Iterable[Feed], *, leave_exact: bool) -> tuple[Placement, Statistics | None]:
    """Where grids go, and what was seen there; tensors that are empty on some feed are left out."""
    empty: list[str] = []
    while True:
        placement = place(graph, kinds, leave_exact=leave_exact, empty=empty)
        names = [tensor.name for group in placement.groups for tensor in group.tensors if not isinstance(tensor, Constant)]
        if not placement.groups:
            return placement, None
        statistics = collect_ranges(graph, names, data, softmax_axes(graph.nodes))
        if set(statistics.empty) <= set(empty):
            return placement, statistics
        empty += statistics.empty


def _ranges(
    graph: Graph, placement: Placement, statistics: Statistics, kinds: Mapping[str, Value], data: Iterable[Feed], observer: ObserverName,
    ctx: Context,
) -> list[Range]:
    """What each group's grid should cover."""
    if statistics.nan:
        ctx.warn(f"the calibration feeds make the tensor '{statistics.nan[0]}' NaN; its grid covers the other values")
    left_float = {id(node) for node, _ in placement.left_float}
    floors = softmax_floors(graph, statistics.ranges, statistics.row_maxima, left_float)
    seen, floors = reached(graph, kinds, observe(graph, statistics, data, observer, floors), floors, left_float)
    return [Range(0.0, 1.0) if group.unit_range else _group_range(group, seen, floors) for group in placement.groups]


def _warn_of_exact(graph: Graph, kinds: Mapping[str, Value], ctx: Context) -> None:
    """Say what grids make of fills at outputs, and of positions."""
    for tensor in graph.outputs:
        if tensor.name in filled(graph, kinds):
            ctx.warn(f"output '{tensor.name}': where a mask puts a fill, the machine gives the end of its grid; an .onnx file keeps the fill")
    waves = [node for node in graph.nodes if node.op in ("Sin", "Cos") and not kinds.get(node.inputs[0].name, DATA).bounded]
    for node in [node for node in waves if kinds.get(node.inputs[0].name, DATA).exact][:1]:
        ctx.warn(f"node '{node.name}' ({node.op}): positions beyond those of the calibration feeds end at its grid; an .onnx file has no such limit")


@dataclass(frozen=True)
class QuantizeActivations(Pass):
    """8-bit grids for the tensors between integer operators, calibrated on the feeds.

    Declines on a model that is quantized already. Nodes without an integer form are reported and stay float.

    Attributes:
        observer: what a grid covers: everything seen (``minmax``), all but 0.01 % at each end (``percentile``), or the range of least
            squared error (``mse``).
        leave_exact: leave float what computes with positions and counts or puts fills; False puts it on grids, for the machine.
    """

    name: ClassVar[str] = "quantize-activations"
    observer: ObserverName = "minmax"
    leave_exact: bool = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Insert the pairs; True unless the graph has no integer operator or is quantized already."""
        known = next((node for node in graph.nodes if node.op in QUANTIZED_OPERATORS), None)
        if known is not None:
            ctx.declined(known, "the model is quantized already; it goes through as it is")
            return False
        data = feeds_of(graph, ctx)
        kinds = _kinds(graph, data)
        placement, statistics = _placed(graph, kinds, data, leave_exact=self.leave_exact)
        for node, reason in placement.left_float:
            ctx.left_float(node, reason)
        if statistics is None:
            return False
        kinds |= dict.fromkeys(statistics.empty, DATA)  # what has no element reaches no further than was seen
        if not self.leave_exact:
            _warn_of_exact(graph, kinds, ctx)
        made_up = isinstance(data, Source) and data.made_up
        taken = names_in(graph)
        for group, extent in zip(placement.groups, _ranges(graph, placement, statistics, kinds, data, self.observer, ctx), strict=True):
            open_ended = group.open_ended or (made_up and not group.unit_range and _has_output(group, graph))
            measured = grid_for(extent, HEADROOM if open_ended else MEAN_HEADROOM if group.wide else 0.0)
            spec = QuantSpec.per_tensor(group.step, 0, np.int16) if group.step else measured
            for tensor in group.tensors:
                insert_qdq(graph, tensor, spec, taken, placement.readers[id(tensor)])
        graph.toposort()
        return True
