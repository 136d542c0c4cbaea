"""What must not be put on a grid that calibration measured: positions, counts, and tensors in which a mask put a fill.

`value_kinds` says what the values of a tensor are; this module says what follows for nodes:

- a node that computes with positions or counts alone stays as it is: its arithmetic is cheap,
and any size must be right;
- a node that combines data with a position or count of any size (``sum / count``,
``box + anchor``) has no grid for that operand;
- a fill (-1e9, -inf,
finfo.min where a mask says) must not stretch the grid of the data beside it. A Softmax does not look below a floor
  (`calibration.softmax_floor`), so where all readers are of that sort the fill saturates; elsewhere the nodes that put
  it there, and those that pick or move what may be a fill, stay float: they compute nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qcompiler.graph.ir import STANDARD_DOMAINS, Graph, Node, Tensor, constant_of, consumers, is_float, producer
from qcompiler.graph.operators import VALUE_PRESERVING
from qcompiler.graph.value_kinds import FILL_FROM, Kind, Value

__all__ = [
    "exact_nodes",
    "filled",
    "is_fill",
    "is_share",
    "passes_to_softmax",
    "puts_fill",
    "reaches_only_softmax",
    "selections",
]

POSITIONS = "computes with positions or counts, which are exact for any size"
UNBOUNDED = "an operand is a position or count of any size"
FILLS = "puts a fill beside data where a mask says, or picks among such values"
TRUTHS = "chooses between numbers too far apart for one grid"

_PICKS = frozenset({"ReduceMax", "ReduceMin", "Max", "Min", "Concat", "Where"})
_POOLS = frozenset({"MaxPool", "GlobalMaxPool"})
"""Pools that take the largest of windows with at least one datum each, so that a Pad's fill never comes out."""
_MOVES = VALUE_PRESERVING - _POOLS - {"ReduceMax", "ReduceMin"}
_BINARY = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Min",
        "Max",
        "Where",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
        "Equal",
    }
)
_DEPTH = 12


def reaches_only_softmax(graph: Graph, tensor: Tensor, depth: int = _DEPTH) -> bool:
    """True when all that ``tensor`` reaches is a Softmax, over its elements as they are or with others added."""
    users = consumers(tensor)
    if not users or depth == 0 or any(tensor is out for out in graph.outputs) or not is_float(tensor):
        return False
    return all(passes_to_softmax(graph, user, tensor, depth) for user in users)


def passes_to_softmax(graph: Graph, node: Node, tensor: Tensor, depth: int = _DEPTH) -> bool:
    """True for a Softmax, and for nodes that add to, choose or move the elements of ``tensor`` on the way to one."""
    if node.domain not in STANDARD_DOMAINS or not any(node is other for other in graph.nodes):
        return False
    if node.op == "Softmax":
        return True
    allowed = node.op in ("Add", "Sum", "Concat") or (node.op == "Where" and node.inputs[0] is not tensor)
    if node.op in _MOVES or node.op in ("Cast", "Trilu"):
        allowed = node.inputs[0] is tensor
    return allowed and all(reaches_only_softmax(graph, output, depth - 1) for output in node.outputs)


def _value(tensor: Tensor, kinds: Mapping[str, Value]) -> Value | None:
    """What is known of an operand; None for a constant and for data."""
    value = kinds.get(tensor.name)
    return value if value is not None and constant_of(tensor) is None and value.exact else None


def is_fill(tensor: Tensor, kinds: Mapping[str, Value]) -> bool:
    """A constant, or a choice among constants, whose numbers are all of the size of a fill."""
    constant, value = constant_of(tensor), _value(tensor, kinds)
    if constant is not None:
        return constant.dtype.kind == "f" and bool(constant.size) and bool(np.all(np.abs(constant) >= FILL_FROM))
    return value is not None and bool(value.values) and all(abs(item) >= FILL_FROM for item in value.values or ())


def puts_fill(node: Node, kinds: Mapping[str, Value]) -> bool:
    """True for a node whose result holds data, and a fill where a mask says or beside them."""
    if node.op == "Where":
        choices = node.inputs[1:]
        return constant_of(node.inputs[0]) is None and any(is_fill(choice, kinds) for choice in choices)
    if node.op == "Pad":
        return len(node.inputs) > 2 and is_float(node.inputs[2]) and is_fill(node.inputs[2], kinds)
    if node.op == "Concat":
        return any(is_fill(part, kinds) for part in node.inputs) and not all(
            is_fill(part, kinds) for part in node.inputs
        )
    if node.op not in ("Add", "Sub"):
        return False
    masks = [
        value for tensor in node.inputs if (value := _value(tensor, kinds)) is not None and value.kind == Kind.TRUTH
    ]
    return any(
        max(abs(value.lo), abs(value.hi)) >= FILL_FROM and value.values is not None and 0.0 in value.values
        for value in masks
    )


def selections(node: Node, kinds: Mapping[str, Value]) -> list[Tensor]:
    """The float operands whose elements, or those with a 0 added to them, come out of ``node`` where it puts no fill;
    [] for other nodes.
    """
    if node.op in _MOVES or node.op in _POOLS or node.op in ("Pad", "ReduceMax", "ReduceMin"):
        return [node.inputs[0]]
    if node.op in ("Add", "Sub") and puts_fill(node, kinds):
        return [tensor for tensor in node.inputs if (_value(tensor, kinds) or Value(Kind.DATA)).kind != Kind.TRUTH]
    if node.op not in _PICKS:
        return []
    return [tensor for tensor in node.inputs[1 if node.op == "Where" else 0:] if not is_fill(tensor, kinds)]


def filled(graph: Graph, kinds: Mapping[str, Value]) -> set[str]:
    """Names of the tensors of data in which a fill may stand."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.domain not in STANDARD_DOMAINS or not node.outputs or kinds[node.outputs[0].name].exact:
            continue
        sources = [] if node.op in _POOLS else selections(node, kinds)
        if puts_fill(node, kinds) or any(tensor.name in found for tensor in sources):
            found.update(output.name for output in node.outputs if is_float(output))
    return found


def exact_nodes(graph: Graph, kinds: Mapping[str, Value]) -> dict[int, str]:
    """Nodes that stay as they are, by id, with the reason; ``graph`` is in topological order."""
    fills = filled(graph, kinds)
    found = {}
    for node in graph.nodes:
        reason = _exact_reason(graph, node, kinds, fills) if node.domain in STANDARD_DOMAINS else None
        if reason is not None:
            found[id(node)] = reason
    return found


def _exact_reason(graph: Graph, node: Node, kinds: Mapping[str, Value], fills: set[str]) -> str | None:
    outputs = [tensor for tensor in node.outputs if tensor.name]
    values = [kinds[tensor.name] for tensor in outputs if is_float(tensor)]
    if values and all(value.kind == Kind.INDEX for value in values):
        return None if is_share(node.outputs[0], kinds) else POSITIONS
    to_softmax = bool(outputs) and all(reaches_only_softmax(graph, tensor) for tensor in outputs)
    if values and all(value.kind == Kind.TRUTH for value in values):
        return None if to_softmax or all(_on_one_grid(value) for value in values) else TRUTHS
    if node.op in _BINARY and any(_is_unbounded(tensor, kinds, below_matters=not to_softmax) for tensor in node.inputs):
        return UNBOUNDED
    if to_softmax or _is_pooled(graph, node):
        return None
    picks = node.op in ("ArgMax", "TopK") or bool(selections(node, kinds))
    if puts_fill(node, kinds) or (
        picks and node.op not in _POOLS and any(tensor.name in fills for tensor in node.inputs)
    ):
        return FILLS if values or node.op in ("ArgMax", "TopK") else None
    return None


def is_share(tensor: Tensor, kinds: Mapping[str, Value]) -> bool:
    """True for the mean of a mask, clipped from below or not: a number in 0 … 1 whose small values matter."""
    node, value = producer(tensor), kinds.get(tensor.name)
    if node is None or value is None or value.kind != Kind.INDEX or not value.bounded:
        return False
    if node.op in ("Clip", "Max", "Squeeze", "Unsqueeze"):
        return is_share(node.inputs[0], kinds)
    return node.op == "ReduceMean" and kinds.get(node.inputs[0].name, value).kind == Kind.TRUTH


def _is_pooled(graph: Graph, node: Node) -> bool:
    """True for a Pad that only MaxPool reads, so that its fill may be any number below the data."""
    users = consumers(node.outputs[0]) if node.op == "Pad" else []
    return (
        bool(users)
        and all(user.op in _POOLS for user in users)
        and not any(node.outputs[0] is out for out in graph.outputs)
    )


def _on_one_grid(value: Value) -> bool:
    """True where 8 bits hold all values of a truth exactly."""
    if value.values is None or not value.bounded:
        return False
    lo, hi = min(value.lo, 0.0), max(value.hi, 0.0)
    steps = np.asarray(value.values) / ((hi - lo) / 255 or 1.0)
    return bool(np.all(np.abs(steps - np.rint(steps)) < 1e-3))


def _is_unbounded(tensor: Tensor, kinds: Mapping[str, Value], *, below_matters: bool) -> bool:
    value = _value(tensor, kinds) if is_float(tensor) else None
    if value is None or (value.kind == Kind.TRUTH and not below_matters):
        return False
    return value.hi >= 1e30 or (below_matters and value.lo <= -1e30)
