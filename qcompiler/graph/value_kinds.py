"""What the values of a tensor are: constants, truths, indices or data; and the bounds that hold of them for every feed.

A forward analysis over the graph. The kinds form a chain, and a result is of the largest kind among what it is computed
from:

    CONSTANT < TRUTH < INDEX < DATA

- TRUTH: one of a few known values: booleans, 0/1 masks,
and what is computed from these and constants (``(1 - mask) * -1e4``);
- INDEX: positions, sizes, counts and what is computed from these alone: exact,
and mostly unbounded (a sine of a position is bounded);
- DATA: everything that layers,
embeddings or float inputs have a part in; what calibration shows is all that is known of it.

Integer inputs are indices where something looks them up, compares them or takes a sine of them; else they are numbers
like any other (ages, pixels), so data. What makes an input a mask is said in `mask_inputs.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import STANDARD_DOMAINS, Graph, Node, Tensor, constant_of, consumers, is_float, to_networkx
from qcompiler.graph.operators import VALUE_PRESERVING

__all__ = ["DATA", "FILL_FROM", "Kind", "Value", "value_kinds"]

MOST_VALUES = 16
"""Most different values of a `TRUTH`."""

FILL_FROM = 32.0
"""Magnitude from which a constant selected by a mask counts as a fill, not as data."""

INFINITY = math.inf


class Kind(IntEnum):
    """See the module."""

    CONSTANT = 0
    TRUTH = 1
    INDEX = 2
    DATA = 3


@dataclass(frozen=True)
class Value:
    """What is known of every element of a tensor, for every feed.

    Attributes:
        kind: see `Kind`.
        lo, hi: bounds.
        values: all values that it can take, ascending; None: too many.
    """

    kind: Kind
    lo: float = -INFINITY
    hi: float = INFINITY
    values: tuple[float, ...] | None = None

    @property
    def exact(self) -> bool:
        """Not computed from data."""
        return self.kind != Kind.DATA

    @property
    def bounded(self) -> bool:
        """Both bounds are finite, and no stand-in for infinity."""
        return max(abs(self.lo), abs(self.hi)) < 1e30

    def join(self, other: Value) -> Value:
        """What holds of elements of either."""
        both = None if self.values is None or other.values is None else (*self.values, *other.values)
        kind = max(self.kind, other.kind)
        return (
            _of_values(kind, both) if both is not None else Value(kind, min(self.lo, other.lo), max(self.hi, other.hi))
        )


TRUTH = Value(Kind.TRUTH, 0.0, 1.0, (0.0, 1.0))
COUNT = Value(Kind.INDEX, 0.0)
INDEX = Value(Kind.INDEX)
DATA = Value(Kind.DATA)

_TRUTHS = frozenset({
    "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "And", "Or", "Xor", "Not", "IsNaN", "IsInf",
})
_COUNTS = frozenset({"Shape", "Size", "ArgMax", "ArgMin", "NonZero"})
MOVES = VALUE_PRESERVING | {"Dropout", "GatherElements", "GatherND"}
"""Operators whose results are elements of their first input."""
_MEANS = frozenset({"ReduceMean", "AveragePool", "GlobalAveragePool", "Resize"})
"""Operators whose results lie between the elements of their first input."""
_WAVES = ("Sin", "Cos")
_LOOKS = frozenset({"Range", "Floor", "Ceil", "Mod", "CumSum", "ScatterND", "OneHot", *_WAVES, *_TRUTHS})
"""Operators that mark an integer input as a position."""

Array = NDArray[Any]
_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Neg": np.negative,
    "Abs": np.abs,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Sin": np.sin,
    "Cos": np.cos,
    "Min": np.minimum,
    "Max": np.maximum,
    "Relu": lambda x: np.maximum(x, 0),
    "Sign": np.sign,
    "Reciprocal": np.reciprocal,
    "Tanh": np.tanh,
    "Pow": np.power,
    "Mod": np.fmod,
    "Sum": lambda *xs: np.sum(np.stack(np.broadcast_arrays(*xs)), axis=0),
}
"""Elementwise functions that are exact on exact values."""
_RISING = frozenset({"Floor", "Ceil", "Round", "Exp", "Relu", "Sign", "Tanh", "Sqrt", "Log"})


def _of_values(kind: Kind, values: Collection[float]) -> Value:
    """A value that is one of ``values``."""
    found = sorted({float(value) for value in values})
    if not found or any(math.isnan(value) for value in found):
        return Value(kind)
    few = tuple(found) if len(found) <= MOST_VALUES else None
    return Value(kind, found[0], found[-1], few)


def of_constant(array: Array) -> Value:
    """A constant."""
    if array.dtype.kind not in "fiub" or not array.size:
        return Value(Kind.CONSTANT)
    different = np.unique(array)
    return _of_values(Kind.CONSTANT, different.astype(np.float64)) if different.size <= 4096 else _hull(different)


def _hull(ascending: Array) -> Value:
    lo, hi = float(ascending[0]), float(ascending[-1])
    return Value(Kind.CONSTANT) if math.isnan(hi) else Value(Kind.CONSTANT, lo, hi)


def value_kinds(graph: Graph, masks: Mapping[str, Value] | None = None) -> dict[str, Value]:
    """Values by tensor name.

    Args:
        graph: float graph.
        masks: what inputs hold that are masks (`mask_inputs.mask_inputs`).
    """
    masks = masks or {}
    known: dict[str, Value] = {tensor.name: _of_input(tensor, masks) for tensor in graph.inputs}
    view = to_networkx(graph)
    for index in nx.lexicographical_topological_sort(view):
        node: Node = view.nodes[index]["node"]
        inputs = [_read(tensor, known) for tensor in node.inputs if tensor.name]
        for slot, tensor in enumerate(node.outputs):
            known[tensor.name] = _settled(_result(node, inputs, slot), tensor)
    return known


def _read(tensor: Tensor, known: Mapping[str, Value]) -> Value:
    constant = constant_of(tensor)
    return of_constant(constant) if constant is not None else known.get(tensor.name, DATA)


def _settled(value: Value, tensor: Tensor) -> Value:
    """Kind of a result of constants alone: a truth where its values are few, data where they are real numbers."""
    if value.kind == Kind.TRUTH and value.values is None:
        return replace(value, kind=Kind.INDEX)
    if value.kind != Kind.CONSTANT:
        return value
    if value.values is not None:
        return replace(value, kind=Kind.TRUTH)
    return replace(value, kind=Kind.DATA if is_float(tensor) else Kind.INDEX)


def _of_input(tensor: Tensor, masks: Mapping[str, Value]) -> Value:
    kind = None if tensor.dtype is None else np.dtype(tensor.dtype)
    if kind == np.bool_ or tensor.name in masks:
        return masks.get(tensor.name, TRUTH)
    if kind is None or kind.kind not in "iuf" or (kind.kind in "iu" and kind.itemsize == 1):
        return DATA
    if kind.kind == "f":
        return INDEX if _reaches_waves_alone(tensor) else DATA
    return INDEX if _is_looked_at(tensor) else DATA


def _is_looked_at(tensor: Tensor, depth: int = 12) -> bool:
    """True where a node looks an integer up, compares it or takes its sine, instead of computing with it."""
    return depth > 0 and any(_looks_at(node, tensor, depth) for node in consumers(tensor))


def _looks_at(node: Node, tensor: Tensor, depth: int) -> bool:
    if node.op in _LOOKS or (node.op.startswith("Gather") and node.inputs[0] is not tensor):
        return True
    if node.op in _FUNCTIONS or node.op in MOVES or node.op in ("Cast", "Concat", "Where", "MatMul"):
        return any(_is_looked_at(output, depth - 1) for output in node.outputs)
    return False


def is_added_to_scores(tensor: Tensor, depth: int = 8) -> bool:
    """True for a mask given as floats that all its readers add to what a Softmax reads: 0, or as low as they please."""
    users = consumers(tensor)
    return bool(users) and depth > 0 and all(_adds_to_scores(node, tensor, depth) for node in users)


def _adds_to_scores(node: Node, tensor: Tensor, depth: int) -> bool:
    if node.op == "Add":
        return bool(node.outputs[0].outputs) and all(
            user.op in ("Softmax", *MOVES) for user in consumers(node.outputs[0])
        )
    return (
        node.op in (*MOVES, "Cast")
        and node.inputs[0] is tensor
        and all(is_added_to_scores(output, depth - 1) for output in node.outputs)
    )


def _reaches_waves_alone(tensor: Tensor, depth: int = 8) -> bool:
    """True for a time or position given as a float: all that is made of it is a sine or a cosine of multiples."""
    users = consumers(tensor)
    passing = (*MOVES, "Cast", "Concat", "Mul", "Div")
    return bool(users) and depth > 0 and all(
        node.op in _WAVES or (node.op in passing and all(_reaches_waves_alone(output,
        depth - 1) for output in node.outputs)) for node in users
    )  # fmt: skip


def _result(node: Node, inputs: Sequence[Value], slot: int) -> Value:
    """What ``node`` gives at output ``slot``."""
    op = node.op
    if node.domain not in STANDARD_DOMAINS or (not inputs and op != "Constant"):
        return DATA
    if op in _TRUTHS:
        return TRUTH
    if op in _COUNTS or (op == "TopK" and slot == 1):
        return COUNT
    if op == "Cast":
        return _cast(node, inputs[0])
    if op in MOVES:
        return inputs[0]
    if op in _MEANS:
        return replace(inputs[0], kind=max(inputs[0].kind, Kind.INDEX), values=None)
    if op in ("Concat", "Trilu", "Where", "Pad", "ConstantOfShape", "EyeLike"):
        return _chosen(node, inputs)
    if not inputs or not all(value.exact for value in inputs):
        return DATA
    if op in _FUNCTIONS:
        return _function(op, inputs)
    return _exact_result(node, inputs)


def _chosen(node: Node, inputs: Sequence[Value]) -> Value:
    """Operators that put elements of several inputs beside each other."""
    if node.op == "ConstantOfShape":
        given = node.attrs.get("value")
        return of_constant(np.asarray(0.0 if given is None else given.values))
    if node.op == "EyeLike":
        return replace(TRUTH)
    zero = _of_values(Kind.CONSTANT, (0.0,))
    if node.op == "Trilu":
        return inputs[0].join(zero)
    if node.op == "Pad":
        value = inputs[2] if len(inputs) > 2 else zero
        return inputs[0] if node.attrs.get("mode", "constant") != "constant" else inputs[0].join(value)
    parts = inputs[1:] if node.op == "Where" else inputs
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.join(part)
    chosen_by = inputs[0].kind if node.op == "Where" and inputs[0].exact else Kind.CONSTANT
    return replace(joined, kind=max(joined.kind, chosen_by))


def _cast(node: Node, value: Value) -> Value:
    target = int(node.attrs["to"])
    if target == 9:
        return TRUTH
    if target in (1, 10, 11, 16) or value.values is None:
        return value
    return _of_values(value.kind, [float(np.trunc(item)) if math.isfinite(item) else item for item in value.values])


def _function(op: str, inputs: Sequence[Value]) -> Value:
    """A function of exact values: of each combination where these are few, else by its bounds."""
    kind, compute = max(value.kind for value in inputs), _FUNCTIONS[op]
    sets = [value.values for value in inputs]
    with np.errstate(all="ignore"):
        if (
            all(values is not None for values in sets)
            and math.prod(len(values or ()) for values in sets) <= MOST_VALUES**2
        ):
            grids = np.meshgrid(*[np.asarray(values, np.float64) for values in sets], indexing="ij")
            return _of_values(kind, np.unique(compute(*grids)))
        lo, hi = _bounds(op, inputs)
    return Value(max(kind, Kind.INDEX), lo, hi)


def _bounds(op: str, inputs: Sequence[Value]) -> tuple[float, float]:
    """Bounds of a function of bounded operands."""
    if op in _WAVES:
        return -1.0, 1.0
    if op in ("Add", "Sub", "Mul", "Min", "Max") and len(inputs) == 2:
        ends = [_FUNCTIONS[op](a, b) for a in (inputs[0].lo, inputs[0].hi) for b in (inputs[1].lo, inputs[1].hi)]
        corners = [
            0.0 if math.isnan(end) else float(end) for end in ends
        ]  # 0 · ∞: the 0 is a value, the ∞ only a bound
        return min(corners), max(corners)
    if op == "Neg":
        return -inputs[0].hi, -inputs[0].lo
    if op == "Abs":
        least = 0.0 if inputs[0].lo <= 0 <= inputs[0].hi else min(abs(inputs[0].lo), abs(inputs[0].hi))
        return least, max(abs(inputs[0].lo), abs(inputs[0].hi))
    if op in _RISING:
        lo, hi = (float(_FUNCTIONS[op](end)) for end in (inputs[0].lo, inputs[0].hi))
        return (-INFINITY if math.isnan(lo) else lo), (INFINITY if math.isnan(hi) else hi)
    return -INFINITY, INFINITY


def _exact_result(node: Node, inputs: Sequence[Value]) -> Value:
    """Sums, ranges and other operators on exact values."""
    op, first = node.op, inputs[0]
    if op in ("ReduceSum", "CumSum", "ReduceProd"):
        return COUNT if first.lo >= 0 else replace(INDEX, hi=0.0) if first.hi <= 0 and op != "ReduceProd" else INDEX
    if op == "Clip":
        lo, hi = (inputs[i] if len(inputs) > i else Value(Kind.CONSTANT) for i in (1, 2))
        return Value(max(value.kind for value in inputs), max(first.lo, lo.lo), min(first.hi, hi.hi))
    if op == "Range":
        return COUNT if first.lo >= 0 else INDEX
    if op == "OneHot":
        return inputs[2]
    if op == "MatMul" and _is_outer(node):
        return Value(Kind.INDEX, *_bounds("Mul", inputs))
    return INDEX if not is_float(node.outputs[0]) else DATA


def _is_outer(node: Node) -> bool:
    """A product of a column and a row: every result is one product."""
    left, right = (tensor.shape for tensor in node.inputs)
    return bool(left and left[-1] == 1) or bool(right and len(right) > 1 and right[-2] == 1)
