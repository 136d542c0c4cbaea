"""Puts a Q/DQ pair behind every tensor between integer operators.

Where pairs go, and which tensors share a grid, is decided by `qcompiler.graph.placement`. What a grid covers is what
the calibration feeds show, with room for what few values have not shown yet (`calibration.observers.beyond`), within
what mathematics admits (`graph.intervals`), and with what an output of known range asks for (`activations.reach`). Two
ranges come from one look at the feeds: that of those that everything is fitted to, which the graph gets, and that of
all, which `settle-ranges` puts in its place when the graph has been measured on the others.

An 8-bit grid is uint8 with 0.0 on it; the output of a Softmax takes 1/255 and zero point 0. A sum over an axis whose
length only the feeds know takes int16 with headroom, since longer inputs give larger sums; so does an output when the
feeds are made up, since clipped logits tie. That few values were seen widens no grid inside a net whose feeds are made
up: these could as well be more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ...activations.int16 import GEMMS, is_state
from ...activations.pairs import is_older
from ...activations.relative_need import lost_operands
from ...activations.seen_ranges import (
    balanced,
    few_seen,
    group_range,
    hardly_seen,
    look,
    roomy,
    softmax_axes,
    some_seen,
    within,
)
from ...activations.whole_inputs import WHOLE, whole_inputs
from ...calibration.collect import Statistics, collect_ranges, input_values
from ...calibration.needed import holds_wide_input
from ...calibration.observers import ObserverName, affine_grid
from ...feeds.sources import Source, feeds_of
from ...graph.exactness import filled
from ...graph.intervals import Intervals, bounded_source
from ...graph.ir import (
    Constant,
    Feed,
    Graph,
    Node,
    QuantSpec,
    consumers,
    float_inputs,
    float_outputs,
    insert_qdq,
    names_in,
    producer,
)
from ...graph.layers import Layer, find_layers
from ...graph.mask_inputs import mask_candidates, mask_inputs
from ...graph.operators import MOVERS
from ...graph.placement import Group, Placement, Zones, place
from ...graph.ranges import Range
from ...graph.value_kinds import DATA, Value, value_kinds
from ...moments.propagate import likely_range
from ...pass_base import Context, Pass

QUANTIZED_OPERATORS = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "ConvInteger",
        "QLinearConv",
        "QLinearMatMul",
    }
)


DECIDING = frozenset({"ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "TopK"})

ROOM_FEW, ROOM_HARDLY, ROOM_OF_BYTES = 2.0, 4.0, 1.25
"""How far beyond the observed range a grid reaches: one of 16 bits where few values were seen, or those of a handful of
rows; one of 8 bits where some rows were seen.
"""

HEADROOM = 8.0
"""How far beyond the observed range the int16 grid of an open-ended sum reaches; 13 bits are left for what was
observed."""


DEVIATIONS = 6.0
"""Without data, ranges reach so far from the mean of a channel of which BatchNorm statistics are known."""

MEAN_HEADROOM = 2.0
"""The same of a mean, and of a state, which may be what earlier steps gave, many more than were seen."""

MOST_STORED = 1024
"""Elements of a stored constant that may have 16 bits because few values of its readers were seen."""

WideInputs = Literal["nothing", "between layers", "anything"]
"""Which tensors of which few values were seen get 16 bits."""


def grid_for(extent: Range, headroom: float = 0.0) -> QuantSpec:
    """uint8 over the range, or int16 with headroom (1: none)."""
    if headroom:
        largest = max(abs(extent.lo), abs(extent.hi)) or 1.0  # of nothing but zeros any grid holds what was seen
        largest = max(largest, 2.0**-100)
        return QuantSpec.per_tensor(headroom * largest / 32767, 0, np.int16)
    scale, zero_point = affine_grid(extent)
    return QuantSpec.per_tensor(scale, zero_point, np.uint8)


def _has_output(group: Group, graph: Graph, border: Collection[int]) -> bool:
    """True where a grid is that of an output, or of a part of one."""
    leaves = any(tensor is output for tensor in group.tensors for output in float_outputs(graph))
    return leaves or any(id(node) in border for tensor in group.tensors for node in consumers(tensor))


def _takes_wide(group: Group, layers: Mapping[int, Layer], border: Collection[int]) -> bool:
    """True where no reader of a grid multiplies it, but for layers that take 16 bits."""
    readers = [node for tensor in group.tensors for node in consumers(tensor) if id(node) not in border]
    multiplying = [node for node in readers if node.op in GEMMS and not _begins_with(node, group)]
    return all(id(node) in layers and holds_wide_input(layers[id(node)]) for node in multiplying)


def _begins_with(node: Node, group: Group) -> bool:
    """True for a recurrent node to which a grid's tensors are the state that it begins with, and nothing else."""
    members = {id(tensor) for tensor in group.tensors}
    slots = [slot for slot, tensor in enumerate(node.inputs) if id(tensor) in members]
    return all(is_state(node, slot) for slot in slots)


def _is_state(group: Group) -> bool:
    return any(_begins_with(node, group) for tensor in group.tensors for node in consumers(tensor))


def _is_only_state(group: Group) -> bool:
    """True where nothing but recurrent nodes reads a state, perhaps behind movers."""
    readers = [node for tensor in group.tensors for node in consumers(tensor)]
    return _is_state(group) and all(node.op in MOVERS or _begins_with(node, group) for node in readers)


def _feeds_layer(group: Group, layers: Mapping[int, Layer]) -> bool:
    return any(id(node) in layers for tensor in group.tensors for node in consumers(tensor))


def _is_stored(group: Group) -> bool:
    """True where 16 bits would double a table of the file."""
    return any(isinstance(tensor, Constant) and tensor.values.size > MOST_STORED for tensor in group.tensors)


def _has_input(group: Group, graph: Graph, border: Collection[int]) -> bool:
    """True where a grid is that of an input, as it is or scaled at the border."""
    scaled = any(id(node) in border for tensor in group.tensors if (node := producer(tensor)) is not None)
    return scaled or any(tensor is given for tensor in group.tensors for given in float_inputs(graph))


def _decides(group: Group) -> bool:
    """True where an operator chooses by the size of values that may differ by less than a step of 8 bits."""
    return any(node.op in DECIDING for tensor in group.tensors for node in consumers(tensor))


def _fits_counts(ranges: Iterable[Range]) -> bool:
    """True where 16-bit codes of step 1 reach beyond the counts that were seen."""
    return all(HEADROOM * max(-extent.lo, extent.hi) <= np.iinfo(np.int16).max for extent in ranges)


def _as_likely(group: Group, extent: Range, ctx: Context, intervals: Intervals) -> Range:
    """A range with what BatchNorm statistics make likely, within what mathematics admits."""
    for tensor in group.tensors:
        likely = likely_range(tensor, ctx.batchnorm, DEVIATIONS)
        if likely is not None and not group.unit_range:
            extent = extent.join(within(likely, intervals.of(tensor), None))
    return extent


def _kinds(graph: Graph, data: Iterable[Feed]) -> dict[str, Value]:
    """What the values of tensors are, inputs that calibration shows to be masks included."""
    candidates = mask_candidates(graph)
    return value_kinds(graph, mask_inputs(graph, input_values(data, candidates)) if candidates else {})


def _placed(
    graph: Graph, kinds: Mapping[str, Value], data: Iterable[Feed], inner: Collection[str], *, leave_exact: bool,
    zones: Zones,
) -> tuple[Placement, Statistics | None]:  # fmt: skip
    """Where grids go, and what was seen there; tensors that are empty on some feed are left out."""
    empty: list[str] = []
    lost = lost_operands(graph, data).bytes if zones == "float" else set()
    while True:
        placement = place(graph, kinds, leave_exact=leave_exact, empty=empty, inner=inner, lost=lost, zones=zones)
        names = [
            tensor.name for group in placement.groups for tensor in group.tensors if not isinstance(tensor, Constant)
        ]
        if not placement.groups:
            return placement, None
        ends = [bounded_source(tensor) for tensor in float_outputs(graph)]
        asked = [node.outputs[0].name for node in ends if node is not None]
        statistics = collect_ranges(graph, list(dict.fromkeys([*names, *asked])), data, softmax_axes(graph.nodes))
        if set(statistics.empty) <= set(empty):
            return placement, statistics
        empty += statistics.empty


def _warn_of_exact(graph: Graph, kinds: Mapping[str, Value], border: Collection[int], ctx: Context) -> None:
    """Say what grids make of fills at outputs, and of positions."""
    for tensor in graph.outputs:
        if tensor.name in filled(graph, kinds) and id(producer(tensor)) not in border:
            ctx.warn(
                f"output '{tensor.name}': where a mask puts a fill, the machine gives the end of its grid; an "
                ".onnx file keeps the fill"
            )
    waves = [
        node for node in graph.nodes if node.op in ("Sin", "Cos") and not kinds.get(node.inputs[0].name, DATA).bounded
    ]
    for node in [node for node in waves if kinds.get(node.inputs[0].name, DATA).exact][:1]:
        ctx.warn(
            f"node '{node.name}' ({node.op}): positions beyond those of the calibration feeds end at its grid; an "
            ".onnx file has no such limit"
        )


def _warn_of_nan(statistics: Statistics, ctx: Context) -> None:
    for name in statistics.nan[:1]:
        ctx.warn(f"the calibration feeds make the tensor '{name}' NaN; its grid covers the other values")


def _put_whole(graph: Graph, whole: Mapping[str, Sequence[Node]], taken: set[str]) -> None:
    """Let the casts of inputs of whole numbers read codes that are the numbers, where no pair is in between yet."""
    for tensor in [tensor for tensor in graph.inputs if tensor.name in whole]:
        readers = [node for node in whole[tensor.name] if node.inputs[0] is tensor]
        if readers:
            insert_qdq(graph, tensor, WHOLE, taken, readers)


@dataclass(frozen=True)
class QuantizeActivations(Pass):
    """8-bit grids for the tensors between integer operators, calibrated on the feeds.

    Declines on a model that is quantized already. Nodes without an integer form are reported and stay float.

    Attributes:
        zones: see `placement.place`; ``float`` for files that onnxruntime runs, ``border`` for the machine.
        wide: what has 16 bits and room beyond the range that was seen, where few values were: what no layer multiplies,
            and where a handful of rows were seen what layers do, too (``between layers``); or whatever layers take
            within 32 bits, and what an operator compares (``anything``, for the machine, which it costs next to
            nothing).
        observer: what a grid covers: everything seen (``minmax``), all but 0.01 % at each end (``percentile``), or the
            range of least squared error (``mse``).
        leave_exact: leave float what computes with positions and counts or puts fills; False puts it on grids, for the
            machine.
    """

    name: ClassVar[str] = "quantize-activations"
    observer: ObserverName = "minmax"
    zones: Zones = "none"
    wide: WideInputs = "nothing"
    leave_exact: bool = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Insert the pairs; True unless the graph has no integer operator or is quantized already."""
        known = next((node for node in graph.nodes if node.op in QUANTIZED_OPERATORS), None)
        if known is not None:
            ctx.declined(known, "the model is quantized already; it goes through as it is")
            return False
        data = feeds_of(graph, ctx)
        kinds = _kinds(graph, data)
        placement, statistics = _placed(graph, kinds, data, ctx.inner, leave_exact=self.leave_exact, zones=self.zones)
        for node, reason in placement.left_float:
            ctx.left_float(node, reason)
        if statistics is None:
            return False
        # what has no element reaches no further than was seen, but for a few known values
        kinds |= {name: DATA for name in statistics.empty if kinds[name].values is None}
        if not self.leave_exact:
            _warn_of_exact(graph, kinds, placement.border, ctx)
        made_up = isinstance(data, Source) and data.made_up
        taken, intervals, folds = names_in(graph), Intervals(graph), ctx.folds if self.observer == "minmax" else 0
        seen = look(graph, placement, statistics, kinds, data, ctx.held, self.observer, folds)
        _warn_of_nan(seen[1].statistics, ctx)
        layers = {id(layer.node): layer for layer in find_layers(graph)}
        whole = whole_inputs(graph, data) if self.zones == "border" else {}
        for group in self._gridded(placement):
            at_output = _has_output(group, graph, placement.border)
            open_ended = group.open_ended or (made_up and not group.unit_range and at_output)
            at_border = at_output or _has_input(group, graph, placement.border)
            few = self.wide != "nothing" and (at_border or not made_up) and few_seen(group, seen[1])
            asked = few or any(tensor.name in seen[0].needed for tensor in group.tensors)
            asked |= self.wide == "anything" and _decides(group)
            state = self.zones == "border" and _is_state(group)
            marked = any(tensor.name in ctx.wide for tensor in group.tensors)
            held = layers if marked or self.wide == "anything" else {}
            wide = (asked or state or marked) and _takes_wide(group, held, placement.border)
            hardly = few and hardly_seen(group, seen[1])
            if self.wide == "between layers":
                older = is_older(graph)
                wide |= hardly and not (older and _feeds_layer(group, layers))
                wide &= not _is_stored(group)
                if wide and older and _takes_wide(group, {}, placement.border):
                    continue  # float, which is exact: the file keeps its opset
            room = (ROOM_HARDLY if hardly else ROOM_FEW) if few and wide else 1.0
            some = few and not wide and some_seen(group, seen[1])
            headroom = HEADROOM if open_ended else MEAN_HEADROOM if group.wide or (state and wide) else float(wide)
            ranges = [group_range(group, each, intervals, at_output=at_output) for each in seen]
            if made_up:
                ranges = [_as_likely(group, extent, ctx, intervals) for extent in ranges]
            ranges = [balanced(extent) if hardly and not wide else extent for extent in ranges]
            ranges = [roomy(group, extent, ROOM_OF_BYTES if some else room, intervals) for extent in ranges]
            grids = [grid_for(extent, headroom) for extent in ranges]
            step = max(group.step, *(max(ctx.steps.get(t.name, 0.0), float(t.name in whole)) for t in group.tensors))
            if step or (group.counts and _takes_wide(group, layers, placement.border) and _fits_counts(ranges)):
                grids = [QuantSpec.per_tensor(step or 1.0, 0, np.int16)] * len(grids)
            for tensor in group.tensors:
                insert_qdq(graph, tensor, grids[0], taken, placement.readers[id(tensor)])
                ctx.final_grids[tensor.name] = (grids[0], grids[1])
                ctx.fold_grids[tensor.name] = grids[2:]
        _put_whole(graph, whole, taken)
        graph.toposort()
        return True

    def _gridded(self, placement: Placement) -> list[Group]:
        """All groups, but for the states that recurrent nodes of an ``.onnx`` file begin with: no runtime of such files
        has recurrent kernels that read codes.
        """
        return [group for group in placement.groups if self.zones != "float" or not _is_only_state(group)]
