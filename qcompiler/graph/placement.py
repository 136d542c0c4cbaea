"""Which tensors of a float graph get a grid, and which of them must share one.

Three kinds of quantized operators:

- *layers* multiply and accumulate (`products.py` knows their weights and biases);
- *movers* rearrange codes: the grid before and behind them is one and the same;
- the rest reads codes of any grid and writes codes of another.

A tensor inside a fused chain (layer, bias, Relu or Clip) has no grid: the integer kernel never writes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from qcompiler.graph.counts import is_count
from qcompiler.graph.exactness import exact_nodes, is_share
from qcompiler.graph.fill_tails import border_fills
from qcompiler.graph.float_zones import AT_DECADES, AT_OUTPUT, border_zones, float_zones
from qcompiler.graph.ir import (
    STANDARD_DOMAINS,
    Graph,
    Node,
    Tensor,
    constant_of,
    consumers,
    is_float,
    producer,
    subgraphs,
)
from qcompiler.graph.layers import fused_activation, fused_bias, weight_slots
from qcompiler.graph.operators import MAY_BE_INFINITE, MOVERS, OPERATORS
from qcompiler.graph.value_kinds import Value

__all__ = ["TURN", "Group", "Placement", "UnionFind", "operand_slots", "place"]

TURN = np.float32(2 * np.pi / 2**32)
"""Radians of a step of an integer phase: its 32 bits are one turn."""

_PAIRED = MOVERS | {"Conv", "ConvTranspose", "Concat", "LSTM", "GRU"}
"""Operators that onnxruntime computes on integers only between Q/DQ pairs."""
_JOINT = ("Add", "Sub", "Mul", "Div", "Min", "Max")

_NEITHER = frozenset({"Shape", "Size", "Constant"})
"""Operators that do not look at their input's values."""

_COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")


Zones = Literal["none", "float", "border"]


@dataclass
class Group:
    """Tensors on one grid.

    Attributes:
        tensors: in graph order.
        unit_range: probabilities: the grid covers 0 to 1, whatever was observed.
        open_ended: sums over an axis of unknown length: longer inputs than those of the calibration give larger values.
        counts: whole numbers of any size (`counts.is_count`).
        wide: the parts of a quotient of means over a mask, of which small numbers count as much as large ones.
        step: the one step that their int16 grid can have: the upper half of an integer phase, or the angle that it is;
            0: measured.
    """

    tensors: list[Tensor]
    unit_range: bool = False
    open_ended: bool = False
    counts: bool = False
    wide: bool = False
    step: float = 0.0

    @property
    def name(self) -> str:
        """Name of its first tensor."""
        return str(self.tensors[0].name)


@dataclass
class Placement:
    """Where grids go.

    Attributes:
        groups: in graph order.
        readers: by id of a tensor, the nodes that read it through its pair; None: everything does.
        quantized: nodes that are integer, in graph order.
        left_float: nodes that stay float, with the reason.
        border: nodes that the machine's border does by itself, by id.
    """

    groups: list[Group] = field(default_factory=list)
    readers: dict[int, list[Node] | None] = field(default_factory=dict)
    quantized: list[Node] = field(default_factory=list)
    left_float: list[tuple[Node, str]] = field(default_factory=list)
    border: set[int] = field(default_factory=set)


class UnionFind:
    """Disjoint sets over the integers it has been asked about."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, item: int) -> int:
        """The representative of the set that holds ``item``."""
        root = item
        while self._parent.setdefault(root, root) != root:
            root = self._parent[root]
        self._parent[item] = root
        return root

    def union(self, first: int, second: int) -> None:
        """Join two sets."""
        self._parent[self.find(second)] = self.find(first)


def place(
    graph: Graph,
    kinds: Mapping[str, Value] | None = None,
    *,
    leave_exact: bool = True,
    empty: Collection[str] = (),
    inner: Collection[str] = (),
    lost: Collection[int] = (),
    zones: Zones = "none",
) -> Placement:
    """Decide which nodes of a float graph become integer and which tensors share a grid.

    Args:
        graph: in topological order.
        kinds: what the values of its tensors are, where that is known.
        leave_exact: whatever computes with positions or puts fills stays float.
        empty: names of tensors that may have no element: onnxruntime's integer kernels of two operands crash on those.
        inner: names of tensors within a function of one element, which have no grid.
        lost: see `float_zones.float_zones`.
        zones: ``float``: leave float what `float_zones.float_zones` names. What integer operators leave to an output,
        or to nodes on the way
            there, has no grid,
            but for those that onnxruntime computes on integers only between pairs. ``border``: leave to the machine's
            border what `float_zones.border_zones` and `fill_tails.border_fills` name.
    """
    result = Placement()
    candidates = []
    kinds = kinds or {}
    examined, exact = _examined_for_infinity(graph), exact_nodes(graph, kinds) if kinds and leave_exact else {}
    floats = float_zones(graph, lost) if zones == "float" else {}
    result.border = border_zones(graph) | border_fills(graph, kinds) if zones == "border" else set()
    for node in (node for node in graph.nodes if id(node) not in result.border):
        reason = _refusal(node)
        if reason == "":
            reason = exact.get(id(node), "") or floats.get(id(node), "")
        if reason == "" and id(node) in examined:
            reason = "the model looks for infinity or NaN in what it computes, and codes hold neither"
        if reason == "" and node.op in _JOINT and any(tensor.name in empty for tensor in (*node.inputs, *node.outputs)):
            reason = "it has no element on some calibration feed, and onnxruntime's integer kernel crashes there"
        if reason == "":
            candidates.append(node)
        elif reason is not None:
            result.left_float.append((node, reason))
    idle = _idle_movers(graph, candidates, [node for node, _ in result.left_float])
    result.left_float += [
        (node, "moves values that no integer operator reads or writes") for node in candidates if id(node) in idle
    ]
    result.quantized = [node for node in candidates if id(node) not in idle]
    _group(graph, result, kinds, exact, floats if zones == "float" else None, inner)
    return result


def _codes(op: str) -> tuple[int, ...] | None:
    return OPERATORS[op].codes if op in OPERATORS else None


def operand_slots(node: Node) -> tuple[int, ...]:
    """Positions of the float inputs of a quantized node that are codes, weights excluded."""
    slots = tuple(range(len(node.inputs))) if node.op == "Concat" else _codes(node.op) or ()
    weights = weight_slots(node)
    return tuple(
        i
        for i in slots
        if i < len(node.inputs) and i not in weights and is_float(node.inputs[i]) and node.inputs[i].name
    )


def _refusal(node: Node) -> str | None:
    """'' for a node with an integer form, a reason for a float one without, None for one without float values."""
    if subgraphs(node):
        return "control flow"
    floats = [tensor for tensor in (*node.inputs, *node.outputs) if is_float(tensor) and tensor.name]
    if not floats or node.op in _NEITHER:
        return None
    if node.op == "Cast" and is_float(node.inputs[0]) and is_float(node.outputs[0]):
        return None  # at the border of a model whose inputs or outputs are of another float type
    if node.domain not in STANDARD_DOMAINS:
        return f"domain '{node.domain}' is unknown"
    if _codes(node.op) is None:
        return "no integer form of this operator"
    other = next((tensor for tensor in floats if tensor.dtype != np.float32), None)
    if other is not None:
        return f"element type of '{other.name}' is {np.dtype(other.dtype)}, not float32"
    return _special_refusal(node) or ""


def _special_refusal(node: Node) -> str | None:
    """Why one particular use of a known operator has no integer form."""
    op, inputs = node.op, node.inputs
    later = [tensor for tensor in inputs[1:] if tensor.name]
    if op in ("Conv", "ConvTranspose", "Gemm", "LSTM", "GRU") and not weight_slots(node):
        return "its weights are not constant, or an attribute has no integer form"
    if op in ("Clip", "Pow", "LayerNormalization", "InstanceNormalization", "Pad") and any(
        constant_of(t) is None for t in later if is_float(t)
    ):
        return f"parameter '{next(t.name for t in later if is_float(t) and constant_of(t) is None)}' is not constant"
    if op == "Pow" and np.prod(inputs[1].shape) != 1:
        return "its exponent is not one number"
    if op in ("Min", "Max") and len(inputs) != 2:
        return f"{len(inputs)} inputs; only two have an integer form"
    if op == "Cast" and is_float(inputs[0]):
        return "converts a float tensor"
    if op in ("LayerNormalization", "MaxPool") and any(out.name and (out.outputs) for out in node.outputs[1:]):
        return f"its second output '{node.outputs[1].name}' is used"
    if op == "AveragePool" and any(step != 1 for step in node.attrs.get("dilations", ())):
        return "dilations, which onnxruntime's integer pooling cannot load"
    if op == "Resize" and node.attrs.get("mode", "nearest") not in ("nearest", "linear"):
        return f"mode '{node.attrs['mode']}'"
    if op == "Pad" and node.attrs.get("mode", "constant") == "wrap":
        return "mode 'wrap'"
    return None


def _examined_for_infinity(graph: Graph) -> set[int]:
    """Nodes that test for infinity or NaN (as for fully masked rows of attention), and those that feed them."""
    found: set[int] = set()
    pending = [node for node in graph.nodes if _looks_for_infinity(node)]
    while pending:
        node = pending.pop()
        if id(node) not in found:
            found.add(id(node))
            sources = [producer(tensor) for tensor in node.inputs if is_float(tensor)]
            pending += [source for source in sources if source is not None and source.op in MAY_BE_INFINITE]
    return found


def _looks_for_infinity(node: Node) -> bool:
    values = [constant_of(tensor) for tensor in node.inputs]
    infinite = any(value is not None and value.dtype.kind == "f" and bool(np.isinf(value).any()) for value in values)
    return node.op in ("IsNaN", "IsInf") or (infinite and node.op in _COMPARISONS)


def _idle_movers(graph: Graph, candidates: Iterable[Node], floats: Iterable[Node]) -> set[int]:
    """Movers that only pass values from one float node to another."""
    joined = UnionFind()
    movers = [node for node in candidates if node.op in MOVERS or node.op == "Concat"]
    for node in movers:
        tensors = [*(node.inputs[i] for i in operand_slots(node)), *node.outputs]
        for tensor in tensors[1:]:
            joined.union(id(tensors[0]), id(tensor))
    moved = {id(node) for node in movers}
    busy = {joined.find(id(t)) for node in candidates if id(node) not in moved for t in (*node.inputs, *node.outputs)}
    touched = {joined.find(id(t)) for node in floats for t in (*node.inputs, *node.outputs)}
    return {id(node) for node in movers if joined.find(id(node.outputs[0])) in touched - busy}


def _leaves(node: Node, tensor: Tensor, floats: Mapping[int, str]) -> bool:
    """True for what an integer operator hands on in float: to the outputs, or to what reads decades."""
    reasons = [floats.get(id(reader)) for reader in consumers(tensor)]
    if reasons and all(reason == AT_DECADES for reason in reasons):
        return True
    return node.op not in _PAIRED and all(reason in (AT_OUTPUT, AT_DECADES) for reason in reasons)


def _group(
    graph: Graph,
    result: Placement,
    kinds: Mapping[str, Value],
    exact: Mapping[int, str],
    floats: Mapping[int, str] | None,
    names: Collection[str],
) -> None:
    """Fill ``groups`` and ``readers``; with ``floats``, what integer operators hand on in float has no grid, nor have
    those of these ``names``.
    """
    quantized = {id(node) for node in result.quantized}
    inner = {
        id(node.outputs[0]) for node in result.quantized
        if fused_activation(graph, node) or fused_bias(graph, node) or node.outputs[0].name in names
    }  # fmt: skip
    biases = {id(add) for node in result.quantized if (add := fused_bias(graph, node))}
    tensors: dict[int, Tensor] = {}
    operands: dict[int, list[Node]] = {}
    for node in result.quantized:
        for tensor in [] if id(node) in biases else [node.inputs[i] for i in operand_slots(node)]:
            if id(tensor) not in inner:
                tensors[id(tensor)] = tensor
                operands.setdefault(id(tensor), []).append(node)
        for tensor in node.outputs:
            leaves = floats is not None and _leaves(node, tensor, floats)
            if id(tensor) not in inner and is_float(tensor) and tensor.name and not leaves:
                tensors[id(tensor)] = tensor
    sharing = _share(graph, result.quantized, tensors)
    raw = {key for key, tensor in tensors.items() if _is_read_exactly(graph, tensor, exact)}
    groups: dict[int, Group] = {}
    for key, tensor in tensors.items():
        if key in raw:
            continue
        groups.setdefault(sharing.find(key), Group([])).tensors.append(tensor)
        source = producer(tensor)
        shared = any((floats or {}).get(id(reader)) == AT_DECADES for reader in consumers(tensor))
        result.readers[key] = (
            None if source is not None and id(source) in quantized and not shared else operands.get(key, [])
        )
    for group in groups.values():
        sources = [node for tensor in group.tensors if (node := producer(tensor)) is not None and node.op not in MOVERS]
        whole = all(producer(tensor) is not None for tensor in group.tensors)
        group.unit_range = whole and bool(sources) and all(node.op == "Softmax" for node in sources)
        group.open_ended = any(_sums_unknown_length(node) for node in sources)
        group.counts = all(is_count(tensor, kinds) for tensor in group.tensors)
        group.step = max(_phase_step(tensor) for tensor in group.tensors)
        group.wide = any(_is_in_masked_mean(tensor, kinds) for tensor in group.tensors)
    result.groups = list(groups.values())


def _is_read_exactly(graph: Graph, tensor: Tensor, exact: Mapping[int, str]) -> bool:
    """True where only nodes that stay float, to be exact, read an integer operator's result."""
    users = consumers(tensor)
    return bool(users) and all(id(user) in exact for user in users) and not any(tensor is out for out in graph.outputs)


def _phase_step(tensor: Tensor) -> float:
    """The step of the upper 16 bits of a phase, or of its angle; 0 for any other tensor."""
    readers, writer = consumers(tensor), producer(tensor)
    if readers and all(node.op == "Mul" and _is_turn(node) and node.inputs[0] is tensor for node in readers):
        return 2.0**16
    return 2.0**16 * float(TURN) if writer is not None and writer.op == "Mul" and _is_turn(writer) else 0.0


def _is_turn(node: Node) -> bool:
    value = constant_of(node.inputs[1])
    return value is not None and value.size == 1 and value.reshape(-1)[0] == TURN


def _is_in_masked_mean(tensor: Tensor, kinds: Mapping[str, Value]) -> bool:
    return is_share(tensor, kinds) or any(
        node.op == "Div" and is_share(node.inputs[1], kinds) for node in consumers(tensor)
    )


def _sums_unknown_length(node: Node) -> bool:
    """True for a ReduceSum over an axis whose length is not a constant of the graph."""
    if node.op != "ReduceSum":
        return False
    shape = node.inputs[0].shape
    if shape is None:
        return True
    given = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = range(len(shape)) if given is None else [int(axis) for axis in given.reshape(-1)]
    return any(not isinstance(shape[axis], int | np.integer) for axis in axes)


def _share(graph: Graph, nodes: Iterable[Node], tensors: dict[int, Tensor]) -> UnionFind:
    """Sets of tensors that share a grid: movers, Equal, recurrent states, and a Concat that alone reads them."""
    sharing = UnionFind()
    for node in nodes:
        if node.op in MOVERS:
            for out in node.outputs:
                sharing.union(id(node.inputs[0]), id(out))
        elif node.op == "Equal" and is_float(node.inputs[0]):
            sharing.union(id(node.inputs[0]), id(node.inputs[1]))
        elif node.op in ("LSTM", "GRU") and len(node.outputs) > 1:
            sharing.union(id(node.outputs[0]), id(node.outputs[1]))
    outputs = {id(tensor) for tensor in graph.outputs}
    for concat in (node for node in nodes if node.op == "Concat"):
        for tensor in concat.inputs:
            members = [t for key, t in tensors.items() if sharing.find(key) == sharing.find(id(tensor))]
            if not any(id(t) in outputs for t in members) and all(
                _is_inside(reader, concat) for t in members for reader in consumers(t)
            ):
                sharing.union(id(concat.outputs[0]), id(tensor))
    return sharing


def _is_inside(reader: Node, concat: Node) -> bool:
    return reader is concat or reader.op in MOVERS or reader.op in _NEITHER


