"""Gives the inputs of layers a grid of few bits: 4-bit activations, as the W4A4 papers mean them.

Only what a layer multiplies is narrow; what normalizations, Softmax and residual sums read keeps the grid it has. A
narrow grid is a uint8 one whose codes a Clip keeps within ``0 .. 2^bits - 1``; behind the requantization of the
operator before it that is a clamp, which costs nothing. Where others read the tensor, too, the narrow grid stands
behind the wide one, for the layers alone.

16 codes cannot hold everything that was seen, so ranges are chosen by the layer problem: over rows that the layers
multiply, the range of least ``sum over layers of |W (Q(x) - x)|^2 / |W x|^2``. Both ends are drawn in together, then
each by itself.

With ``curve="power"`` the codes lie on a power curve (NUPES; `power_curve.py`): a pair of 8 bits, between its two nodes
a table (Cast, Gather) that takes each code to the nearest of the few levels. Exponent and range are searched together.
The machine looks the table up after requantizing.

The input of a layer that is itself a graph input stays: papers keep the first layer at 8 bits. So does that of a layer
of signs (a rotation, `rotate-inputs`): the rotated values are what is narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from ...activations.pairs import set_grid
from ...activations.power_curve import least_power
from ...activations.range_search import Rows, is_rotation, least_range, sample_rows
from ...calibration.observers import Range, affine_grid
from ...calibration.patches import as_matrix
from ...calibration.sensitivity import Pair, activation_units, find_pairs
from ...feeds.selection import spread_feeds
from ...feeds.sources import feeds_of
from ...graph.ir import (
    Constant,
    Graph,
    Node,
    QuantSpec,
    Tensor,
    Variable,
    consumers,
    insert_qdq,
    names_in,
    producer,
    unique_name,
)
from ...graph.layers import Layer, find_layers
from ...graph.operators import MOVERS
from ...pass_base import Context, Pass
from ...records import WidthChoice


@dataclass(frozen=True, eq=False)
class Target:
    """Layers that read one grid.

    Attributes:
        unit: the pairs on it.
        layers: the layers that read one of them.
        alone: nothing else reads them.
    """

    unit: Sequence[Pair]
    layers: Sequence[Layer]
    alone: bool


def find_targets(graph: Graph, ctx: Context) -> Iterator[Target]:
    """The grids that layers read."""
    layers = {
        id(layer.node): layer
        for layer in find_layers(graph)
        if as_matrix(layer, layer.values) is not None and not is_rotation(layer.values)
    }
    border = {id(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    for unit in activation_units(graph, find_pairs(graph)):
        ends = [pair.dequantize.outputs[0] for pair in unit]
        readers = list({id(node): node for end in ends for node in consumers(end)}.values())
        found = [layers[id(node)] for node in readers if id(node) in layers]
        if not found:
            continue
        fronts = [pair.quantize.inputs[0] for pair in unit]
        if any(id(front) in border for front in fronts):
            ctx.declined(found[0].node, "its input comes from outside and stays at 8 bits")
            continue
        others = [node for node in readers if id(node) not in layers and not _moves_within(node, unit)]
        outside = any(id(tensor) in border for tensor in ends) or any(isinstance(front, Constant) for front in fronts)
        yield Target(unit, found, not others and not outside)


def _moves_within(node: Node, unit: Sequence[Pair]) -> bool:
    """True for a mover from one pair of the unit to others."""
    fronts = {id(pair.quantize.inputs[0]) for pair in unit}
    return node.op in MOVERS and all(id(tensor) in fronts for tensor in node.outputs if tensor.name)


def clip(graph: Graph, tensor: Tensor, spec: QuantSpec, levels: int, taken: set[str]) -> Variable:
    """``tensor`` within what the first ``levels`` codes of a grid stand for."""
    ends = spec.dequantize(np.array([0, levels - 1]))
    limits = [
        Constant(unique_name(taken, f"{tensor.name}_{side}"), np.array(end, np.float32))
        for side, end in zip(("lo", "hi"), ends, strict=True)
    ]
    result = Variable(unique_name(taken, f"{tensor.name}_clipped"), dtype=np.float32, shape=tensor.shape)
    graph.nodes.append(Node("Clip", unique_name(taken, f"{result.name}_Clip"), {}, [tensor, *limits], [result]))
    return result


@dataclass(frozen=True, eq=False)
class Chosen:
    """A grid of few codes: ``levels`` from 0 on, or those that ``table`` gives for 256 codes."""

    spec: QuantSpec
    levels: int
    table: NDArray[np.uint8] | None = None

    def narrow(self, graph: Graph, pair: Pair, taken: set[str]) -> None:
        """Let a pair on the grid give no other codes."""
        if self.table is None:
            pair.quantize.inputs[0] = clip(graph, pair.quantize.inputs[0], self.spec, self.levels, taken)
        else:
            look_up(graph, pair, self.table, taken)


def look_up(graph: Graph, pair: Pair, table: NDArray[np.uint8], taken: set[str]) -> None:
    """Put a table between the nodes of a pair: each code becomes the entry of its number."""
    codes = pair.quantize.outputs[0]
    index = Variable(unique_name(taken, f"{codes.name}_index"), dtype=np.int32, shape=codes.shape)
    levels = Variable(unique_name(taken, f"{codes.name}_levels"), dtype=np.uint8, shape=codes.shape)
    entries = Constant(unique_name(taken, f"{codes.name}_table"), table)
    graph.nodes.append(
        Node("Cast", unique_name(taken, f"{index.name}_Cast"), {"to": int(onnx.TensorProto.INT32)}, [codes], [index])
    )
    graph.nodes.append(
        Node("Gather", unique_name(taken, f"{levels.name}_Gather"), {"axis": 0}, [entries, index], [levels])
    )
    pair.dequantize.inputs[0] = levels


def _replace(graph: Graph, target: Target, chosen: Chosen, taken: set[str]) -> None:
    """Give all pairs of a target another grid, narrow where values come onto it."""
    ends = {id(pair.dequantize.outputs[0]) for pair in target.unit}
    for pair in target.unit:
        source = producer(pair.quantize.inputs[0])
        set_grid(pair, chosen.spec, taken)
        if source is None or source.op not in MOVERS or id(source.inputs[0]) not in ends:
            chosen.narrow(graph, pair, taken)


def _put_behind(graph: Graph, target: Target, chosen: Chosen, taken: set[str]) -> None:
    """Put a pair with the grid behind those of the target, for the layers alone."""
    by_tensor: dict[int, list[Layer]] = {}
    for layer in target.layers:
        by_tensor.setdefault(id(layer.node.inputs[0]), []).append(layer)
    for layers in by_tensor.values():
        end = insert_qdq(graph, layers[0].node.inputs[0], chosen.spec, taken, [])
        dequantize = producer(end)
        quantize = None if dequantize is None else producer(dequantize.inputs[0])
        if quantize is not None and dequantize is not None:
            chosen.narrow(graph, Pair(quantize, dequantize), taken)
        for layer in layers:
            layer.node.inputs[0] = end


@dataclass(frozen=True)
class NarrowActivations(Pass):
    """A grid of few bits for what layers multiply.

    Attributes:
        bits: of a code, 2 to 7.
        feeds: calibration feeds to choose ranges on.
        curve: what codes stand for: ``uniform`` steps, or a ``power`` curve whose exponent is searched with the range.
    """

    name: ClassVar[str] = "narrow-activations"
    bits: int = 4
    feeds: int = 16
    curve: Literal["uniform", "power"] = "uniform"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 7 or self.feeds < 1:
            raise ValueError(f"bits must lie between 2 and 7 and feeds be at least 1, not {self.bits} and {self.feeds}")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Narrow the grids; True when there was one that a layer reads."""
        targets = list(find_targets(graph, ctx))
        if not targets:
            return False
        samples, taken = self._samples(graph, targets, ctx), names_in(graph)
        for done, target in enumerate(targets, 1):
            rows = [samples[layer.node.name] for layer in target.layers]
            extent = Range(min(float(each.x.min()) for each in rows), max(float(each.x.max()) for each in rows))
            chosen, loss = self._chosen(rows, extent)
            self._record(target, loss / len(rows), ctx)
            change = _replace if target.alone else _put_behind
            change(graph, target, chosen, taken)
            ctx.on_step(done, len(targets))
        graph.toposort()
        return True

    def _chosen(self, rows: Sequence[Rows], extent: Range) -> tuple[Chosen, float]:
        """The grid under which the products of the layers err least, and their error."""
        if self.curve == "power":
            levels, loss = least_power(rows, extent, 2**self.bits)
            scale, zero_point = levels.grid
            return Chosen(QuantSpec.per_tensor(scale, zero_point, np.uint8), 2**self.bits, levels.table()), loss
        best = least_range(lambda tried: self._loss(tried, rows), extent)
        scale, zero_point = affine_grid(best, 2**self.bits)
        return Chosen(QuantSpec.per_tensor(scale, zero_point, np.uint8), 2**self.bits), self._loss(best, rows)

    def _loss(self, extent: Range, rows: Sequence[Rows]) -> float:
        return sum(each.loss(extent, 2**self.bits) for each in rows)

    def _samples(self, graph: Graph, targets: Sequence[Target], ctx: Context) -> Mapping[str, Rows]:
        """What the layers multiply in the float graph, where it is known."""
        names = {layer.node.name for target in targets for layer in target.layers}
        source = ctx.reference if ctx.reference is not None else graph
        layers = [layer for layer in find_layers(source) if layer.node.name in names]
        data = feeds_of(graph, ctx)
        return sample_rows(source, layers, spread_feeds(data, self.feeds), ctx.seed)

    def _record(self, target: Target, loss: float, ctx: Context) -> None:
        """The report's line of a grid, in the place of the one it had."""
        names = (
            {pair.name for pair in target.unit}
            if target.alone
            else {f"{target.layers[0].node.inputs[0].name} (for layers)"}
        )
        level = float(-10 * np.log10(max(loss, 1e-30)))
        ctx.report.widths = [known for known in ctx.report.widths if known.tensor not in names]
        ctx.report.widths += [WidthChoice(name, self.bits, level, True) for name in sorted(names)]
