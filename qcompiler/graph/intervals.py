"""What mathematics says about the values of a tensor, before any data are seen: interval arithmetic over a float graph.

A Sigmoid gives values between 0 and 1, a Relu none below 0, an 8-bit picture none above 255; sums, products and maxima
of such values have the bounds that interval arithmetic gives them (Moore, *Interval Analysis*, 1966). A bound that
nothing implies is infinite.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np

from qcompiler.graph.ir import Graph, Node, Tensor, constant_of, producer
from qcompiler.graph.operators import VALUE_PRESERVING
from qcompiler.graph.ranges import Range

__all__ = ["BOUNDED", "Intervals", "bounded_source"]

_ALL = Range(-math.inf, math.inf)
_UNIT, _SIGNED_UNIT, _POSITIVE = Range(0.0, 1.0), Range(-1.0, 1.0), Range(0.0, math.inf)

BOUNDED: dict[str, Range] = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax"), _UNIT),
    **dict.fromkeys(("Tanh", "Softsign", "Erf", "Sin", "Cos", "Sign"), _SIGNED_UNIT),
}
"""Operators whose values have bounds of their own, whatever they read."""

_HALF = {
    "Abs": _POSITIVE, "Exp": _POSITIVE, "Sqrt": _POSITIVE, "Softplus": _POSITIVE, "ReduceL2": _POSITIVE,
    "ReduceL1": _POSITIVE,
    "ReduceSumSquare": _POSITIVE, "LogSoftmax": Range(-math.inf, 0.0), "Gelu": Range(-0.17, math.inf),
    "HardSwish": Range(-0.375, math.inf),
    "Swish": Range(-0.2785, math.inf), "Mish": Range(-0.3089, math.inf), "Elu": Range(-math.inf, math.inf),
    "Acos": Range(0.0, math.pi),
}  # fmt: skip

_MOVING = VALUE_PRESERVING | {"Dropout"}
_KEEPING = _MOVING | {"AveragePool", "GlobalAveragePool", "ReduceMean"}
"""Operators whose values lie between the least and the greatest of their first input."""


def bounded_source(tensor: Tensor, depth: int = 16) -> Node | None:
    """The operator of `BOUNDED` (or Clip) whose values ``tensor`` holds, as they are or moved; None without one."""
    node = producer(tensor)
    while node is not None and node.op in _MOVING and depth:
        node, depth = producer(node.inputs[0]), depth - 1
    return node if node is not None and (node.op in BOUNDED or node.op == "Clip") else None


class Intervals:
    """Bounds of the tensors of a float graph in topological order; unchanged while this object is in use."""

    def __init__(self, graph: Graph) -> None:
        self._known: dict[int, Range] = {}
        for node in graph.nodes:
            for index, tensor in enumerate(node.outputs):
                self._known[id(tensor)] = self._of_output(node, index)

    def of(self, tensor: Tensor) -> Range:
        """Smallest and largest value that ``tensor`` can hold; infinite where nothing is known."""
        value = constant_of(tensor)
        if value is not None:
            return Range(float(value.min()), float(value.max())) if value.size and value.dtype.kind in "fiub" else _ALL
        known = self._known.get(id(tensor))
        return known if known is not None else _of_type(tensor)

    def _of_output(self, node: Node, index: int) -> Range:
        if index and node.op != "Split":
            return _of_type(node.outputs[index])
        if node.op in BOUNDED:
            return BOUNDED[node.op]
        inputs = [self.of(tensor) for tensor in node.inputs if tensor.name]
        if not inputs:
            return _ALL
        if node.op in _KEEPING:
            return (
                inputs[0].with_zero()
                if node.op in ("MaxPool", "AveragePool") and any(node.attrs.get("pads", ()))
                else inputs[0]
            )
        rule = _RULES.get(node.op)
        return _meet(_HALF.get(node.op, _ALL), _ALL if rule is None else _sound(rule(node, inputs)))


def _of_type(tensor: Tensor) -> Range:
    kind = None if tensor.dtype is None or isinstance(tensor.dtype, int) else np.dtype(tensor.dtype)
    if kind == np.bool_:
        return _UNIT
    if kind is None or kind.kind not in "iu" or kind.itemsize > 1:
        return _ALL
    return Range(float(np.iinfo(kind).min), float(np.iinfo(kind).max))


def _sound(found: Range) -> Range:
    return _ALL if math.isnan(found.lo) or math.isnan(found.hi) else found


def _meet(first: Range, second: Range) -> Range:
    lo, hi = max(first.lo, second.lo), min(first.hi, second.hi)
    return Range(lo, hi) if lo <= hi else first


def _join(ranges: Iterable[Range]) -> Range:
    found = list(ranges)
    return Range(min(each.lo for each in found), max(each.hi for each in found))


def _corners(function: Callable[[float, float], float], first: Range, second: Range) -> Range:
    """Range of a function that is monotone in each operand."""
    values = [function(a, b) for a, b in itertools.product((first.lo, first.hi), (second.lo, second.hi))]
    return _ALL if any(math.isnan(value) for value in values) else Range(min(values), max(values))


def _product(a: float, b: float) -> float:
    return 0.0 if 0.0 in (a, b) else a * b


def _quotient(a: float, b: float) -> float:
    if math.isinf(b):
        return math.nan if math.isinf(a) else 0.0
    return a / b


def _multiplied(node: Node, inputs: list[Range]) -> Range:
    if node.inputs[0] is node.inputs[1]:
        return _squared(inputs[0])
    return _corners(_product, inputs[0], inputs[1])


def _squared(extent: Range) -> Range:
    ends = (_product(extent.lo, extent.lo), _product(extent.hi, extent.hi))
    return Range(0.0 if extent.lo <= 0 <= extent.hi else min(ends), max(ends))


def _divided(_node: Node, inputs: list[Range]) -> Range:
    return _ALL if inputs[1].lo <= 0 <= inputs[1].hi else _corners(_quotient, inputs[0], inputs[1])


def _clipped(node: Node, inputs: list[Range]) -> Range:
    bounds = [constant_of(tensor) if tensor.name else None for tensor in node.inputs[1:3]]
    lo, hi = (
        float(value.reshape(-1)[0]) if value is not None and value.size else None for value in (*bounds, None, None)[:2]
    )
    lo, hi = -math.inf if lo is None else lo, math.inf if hi is None else hi
    return Range(min(max(inputs[0].lo, lo), hi), max(min(inputs[0].hi, hi), lo))


def _powered(node: Node, inputs: list[Range]) -> Range:
    exponent = constant_of(node.inputs[1])
    if exponent is None or exponent.size != 1 or float(exponent.reshape(())) != 2.0:
        return _ALL
    return _squared(inputs[0])


def _monotone(function: Callable[[float], float], least: float) -> Callable[[Node, list[Range]], Range]:
    """A function that rises, defined above ``least``."""
    return lambda _node, x: Range(function(max(x[0].lo, least)), function(max(x[0].hi, least)))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _exp(value: float) -> float:
    return math.exp(value) if value < 80 else math.inf


_RULES: dict[str, Callable[[Node, list[Range]], Range]] = {
    "Add": lambda _node, x: _corners(lambda a, b: a + b, x[0], x[1]),
    "Sub": lambda _node, x: _corners(lambda a, b: a - b, x[0], x[1]),
    "Mul": _multiplied,
    "Div": _divided,
    "Pow": _powered,
    "Min": lambda _node, x: Range(min(each.lo for each in x), min(each.hi for each in x)),
    "Max": lambda _node, x: Range(max(each.lo for each in x), max(each.hi for each in x)),
    "Relu": lambda _node, x: Range(max(x[0].lo, 0.0), max(x[0].hi, 0.0)),
    "LeakyRelu": lambda node, x: _join((Range(max(x[0].lo, 0.0), max(x[0].hi, 0.0)), Range(min(x[0].lo, 0.0), 0.0))),
    "Neg": lambda _node, x: Range(-x[0].hi, -x[0].lo),
    "Clip": _clipped,
    "Concat": lambda _node, x: _join(x),
    "Where": lambda _node, x: _join(x[1:3]),
    "Pad": lambda _node, x: _join((x[0], x[2] if len(x) > 2 else Range(0.0, 0.0))),
    "Cast": lambda _node, x: x[0],
    "Log": _monotone(_log, 0.0), "Exp": _monotone(_exp, -math.inf), "Sqrt": _monotone(math.sqrt, 0.0),
}
