"""The network as people look at it: its nodes without Q/DQ pairs, with all that is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcompiler.graph.ir import Feed, Graph, Node, QuantSpec, Tensor, constant_of, consumers, producer, read_spec
from qcompiler.graph.layers import Layer, find_layers
from qcompiler.graph.macs import all_macs
from qcompiler.page.grid_history import GridHistory
from qcompiler.page.histograms import Histogram, histograms
from qcompiler.page.layering import positions
from qcompiler.page.reasons import grid_of_weight, why_activation, why_weight
from qcompiler.records import Report

__all__ = ["CodeCounts", "GridView", "NetworkView", "NodeView", "look_at"]

PAIR = ("QuantizeLinear", "DequantizeLinear")
FEW_LEVELS = 256


@dataclass(frozen=True)
class GridView:
    """The grid of an activation: ``real = scale * (code - zero)`` for codes from ``low`` to ``high``."""

    kind: str
    scale: float
    zero: int
    low: int
    high: int


@dataclass(frozen=True)
class CodeCounts:
    """How often each level of a layer's weight occurs."""

    levels: list[int]
    counts: list[int]


@dataclass
class NodeView:
    """A node.

    Attributes:
        name, op: of the node, or of a graph input or output.
        tensor: name of its first output.
        shape: of that.
        x, y: where it is drawn.
        sqnr_db: of its output against the float model; None where that was not compared.
        bits: of its output's codes, where they are stored; 32 for float, 0 where no grid follows.
        weight_grid, weight_bits, weight_bytes: of a layer; empty and 0 for other nodes.
        macs: multiply-accumulates of one run.
        nanoseconds: on the integer machine, with what is fused behind it; None where that was not measured.
        left_float: why it stays float; empty where it does not.
        why: why its output and its weight have these bits.
        grid, histogram, codes: of its output and of its weight.
        end: place of the node behind which its output is stored, where that is another one.
    """

    name: str
    op: str
    tensor: str
    shape: str
    x: float = 0.0
    y: float = 0.0
    sqnr_db: float | None = None
    bits: int = 0
    weight_grid: str = ""
    weight_bits: int = 0
    weight_bytes: int = 0
    macs: int = 0
    nanoseconds: int | None = None
    left_float: str = ""
    why: list[str] = field(default_factory=list)
    grid: GridView | None = None
    histogram: Histogram | None = None
    codes: CodeCounts | None = None
    end: int | None = None

    @property
    def is_layer(self) -> bool:
        """True for what multiplies with stored weights."""
        return bool(self.weight_grid)


@dataclass(frozen=True)
class NetworkView:
    """Nodes, and edges as pairs of places in them."""

    nodes: list[NodeView]
    edges: list[tuple[int, int]]


def look_at(
    graph: Graph, feeds: Sequence[Feed], report: Report, history: GridHistory, times: Mapping[str, int] | None = None
) -> NetworkView:
    """The view of a quantized graph.

    Args:
        graph: of stage QUANTIZED.
        feeds: on which values are counted.
        report: what is known of its nodes.
        history: which pass chose which grid.
        times: nanoseconds on the machine, by the name of the code tensor that is written; None: not measured.
    """
    shown = [node for node in graph.nodes if node.op not in (*PAIR, "Constant")]
    ends = [(tensor, "input") for tensor in graph.inputs] + [(tensor, "output") for tensor in graph.outputs]
    nodes = [NodeView(node.name, node.op, _name(node), _shape(_out(node))) for node in shown]
    nodes += [NodeView(str(tensor.name), kind, str(tensor.name), _shape(tensor)) for tensor, kind in ends]
    edges = sorted(set(_edges(graph, shown)))
    for view, (x, y) in zip(nodes, positions(len(nodes), edges), strict=True):
        view.x, view.y = x, y
    tensors = [_out(node) for node in shown] + [tensor if kind == "input" else None for tensor, kind in ends]
    _add_grids(nodes, tensors, graph, feeds, report, history)
    _add_weights(nodes, graph, report, history)
    _add_figures(nodes, shown, graph, feeds, report)
    _add_ends(nodes, shown, graph)
    if times is not None:
        _add_times(nodes, shown, graph, times)
    return NetworkView(nodes, edges)


def _out(node: Node) -> Tensor | None:
    return next((tensor for tensor in node.outputs if tensor.name), None)


def _name(node: Node) -> str:
    tensor = _out(node)
    return "" if tensor is None else str(tensor.name)


def _shape(tensor: Tensor | None) -> str:
    if tensor is None or tensor.shape is None:
        return "?"
    return " x ".join("?" if dim is None else str(dim) for dim in tensor.shape)


def _source(tensor: Tensor) -> Tensor:
    """The tensor in front of the Q/DQ nodes that ``tensor`` comes out of."""
    node = producer(tensor)
    while node is not None and node.op in PAIR:
        tensor, node = node.inputs[0], producer(node.inputs[0])
    return tensor


def _edges(graph: Graph, shown: Sequence[Node]) -> Iterator[tuple[int, int]]:
    place = {id(tensor): index for index, node in enumerate(shown) for tensor in node.outputs}
    first = len(shown)
    place |= {id(tensor): first + index for index, tensor in enumerate(graph.inputs)}
    for index, node in enumerate(shown):
        for tensor in node.inputs:
            source = place.get(id(_source(tensor)))
            if source is not None:
                yield source, index
    for index, tensor in enumerate(graph.outputs, first + len(graph.inputs)):
        source = place.get(id(_source(tensor)))
        if source is not None:
            yield source, index


def _spec(tensor: Tensor) -> QuantSpec | None:
    """The grid that follows a tensor."""
    specs = (read_spec(reader) for reader in consumers(tensor) if reader.op == "QuantizeLinear")
    return next((spec for spec in specs if spec is not None and spec.axis is None), None)


def _add_grids(
    nodes: Sequence[NodeView], tensors: Sequence[Tensor | None], graph: Graph, feeds: Sequence[Feed], report: Report,
    history: GridHistory,
) -> None:  # fmt: skip
    kinds = {tensor.name: tensor.dtype for tensor in tensors if tensor is not None}
    names = [name for name, kind in kinds.items() if kind == np.float32 and name]
    counted = histograms(graph, names, feeds)
    floats = {each.node: each.reason for each in report.left_float}
    for view, tensor in zip(nodes, tensors, strict=True):
        view.left_float = floats.get(view.name, "")
        if tensor is None:
            continue
        view.histogram = counted.get(tensor.name)
        spec = _spec(tensor)
        if spec is not None:
            view.grid = GridView(spec.dtype.name, float(spec.scale), int(spec.zero_point), spec.qmin, spec.qmax)
            view.bits = next((w.bits for w in report.widths if w.tensor == tensor.name), 8 * spec.dtype.itemsize)
            view.why += why_activation(str(tensor.name), view.bits, report, history)
        elif view.left_float:
            view.bits = 32


def _add_ends(nodes: Sequence[NodeView], shown: Sequence[Node], graph: Graph) -> None:
    """Where the output of a node is stored that has no grid of its own: behind what is fused into it, or moves it."""
    place = {id(node): index for index, node in enumerate(shown)}
    for index in reversed(range(len(shown))):
        view, tensor = nodes[index], _out(shown[index])
        readers = [] if tensor is None else consumers(tensor)
        next_one = place.get(id(readers[0])) if len(readers) == 1 and view.grid is None else None
        if next_one is None or view.left_float or any(tensor is out for out in graph.outputs):
            continue
        end = next_one if nodes[next_one].end is None else nodes[next_one].end
        if end is not None and nodes[end].grid is not None:
            view.end, view.bits = end, nodes[end].bits


def _add_weights(nodes: Sequence[NodeView], graph: Graph, report: Report, history: GridHistory) -> None:
    layers = {layer.node.name: layer for layer in find_layers(graph)}
    for view in nodes:
        layer = layers.get(view.name)
        if layer is None:
            continue
        values = layer.values
        view.weight_grid, view.weight_bits = grid_of_weight(view.name, values.dtype, report)
        view.weight_bytes = values.size * view.weight_bits // 8
        view.codes = _counts(layer)
        view.why += why_weight(view.name, view.weight_grid, report, history)


def _counts(layer: Layer) -> CodeCounts | None:
    if layer.values.dtype != np.int8:
        return None
    counts = np.bincount(layer.values.reshape(-1).astype(np.int64) + 128, minlength=FEW_LEVELS)
    used = np.flatnonzero(counts)
    return CodeCounts((used - 128).tolist(), counts[used].tolist())


def _add_figures(
    nodes: Sequence[NodeView], shown: Sequence[Node], graph: Graph, feeds: Sequence[Feed], report: Report
) -> None:
    errors = {each.node: each.sqnr_db for each in report.layers}
    macs = {id(node): count for node, count in all_macs(graph, feeds[0])} if feeds else {}
    for view, node in zip(nodes, shown, strict=False):
        view.sqnr_db, view.macs = errors.get(view.name), macs.get(id(node), 0)
    ends = {each.output: each.sqnr_db for each in report.outputs if not each.columns}
    for view in nodes[len(shown):]:
        view.sqnr_db = ends.get(view.name) if view.op == "output" else None


def _add_times(nodes: Sequence[NodeView], shown: Sequence[Node], graph: Graph, times: Mapping[str, int]) -> None:
    """The time of an instruction goes to the head of the chain that is fused into it. The machine's border turns the
    codes of an output into its values.
    """
    place = {id(node): index for index, node in enumerate(shown)}
    ends = {id(tensor) for tensor in graph.outputs}
    for node in graph.nodes:
        name = str(node.outputs[0].name)
        spent = times.get(f"{name}_codes" if id(node.outputs[0]) in ends else name)
        head = _head(node) if spent else None
        if head is not None and id(head) in place:
            view = nodes[place[id(head)]]
            view.nanoseconds = (view.nanoseconds or 0) + (spent or 0)


def _head(node: Node) -> Node | None:
    """The first node of the fused chain that ends in ``node``; None where it reads a graph input."""
    while True:
        before = producer(node.inputs[0]) if node.inputs else None
        if node.op == "QuantizeLinear":
            if before is None or before.op == "DequantizeLinear":
                return None
        elif before is None or before.op == "DequantizeLinear" or constant_of(node.inputs[0]) is not None:
            return node
        node = before
