"""The logarithm of each operator's result from those of what it reads; see `qcompiler.rewriting.log_forms`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from qcompiler.graph.ir import Graph, Node, Tensor, constant_of
from qcompiler.graph.ranges import Range
from qcompiler.rewriting.log_forms import LEAST, MOVES, Array, LogForms, LogRule

__all__ = ["log_forms"]

_POSITIVE = frozenset({"Sigmoid", "Softplus"})
_SPAN = ("ReduceMax", "ReduceMin")


def _multiplied(forms: LogForms, node: Node) -> Tensor | None:
    if node.inputs[0] is node.inputs[1]:
        return forms.times(forms.magnitude(node.inputs[0]), 2.0)
    return forms.joined("Add", node)


def _powered(forms: LogForms, node: Node) -> Tensor | None:
    exponent = constant_of(node.inputs[1])
    if exponent is None or exponent.size != 1:
        return None
    power = float(exponent.reshape(()))
    form = forms.magnitude(node.inputs[0]) if power % 2 == 0 else forms.of(node.inputs[0])
    return None if form is None else forms.times(form, power)


def _of_one(factor: float) -> LogRule:
    def rule(forms: LogForms, node: Node) -> Tensor | None:
        form = forms.of(node.inputs[0])
        return None if form is None else forms.times(form, factor)

    return rule


def _added(forms: LogForms, node: Node) -> Tensor | None:
    first, second = (forms.of(tensor) for tensor in node.inputs[:2])
    return None if first is None or second is None else forms.sum_of(first, second)


def _exponential(forms: LogForms, node: Node) -> Tensor | None:
    forms.enter(node.inputs[0])
    return node.inputs[0]


def _positive(forms: LogForms, node: Node) -> Tensor | None:
    forms.enter(node.inputs[0])
    value = forms.op(node.op, node.inputs[0], **node.attrs)
    return forms.op("Log", forms.op("Max", value, forms.number(LEAST)))


def _clipped(forms: LogForms, node: Node) -> Tensor | None:
    bounds = [constant_of(tensor) if tensor.name else None for tensor in node.inputs[1:3]]
    form = forms.of(node.inputs[0])
    if form is None or any(bound is not None and float(bound) <= 0 for bound in bounds):
        return None
    for op, bound in zip(("Max", "Min"), bounds, strict=False):
        form = form if bound is None else forms.op(op, form, forms.number(np.log(float(bound))))
    return form


def _reduced(forms: LogForms, node: Node) -> Tensor | None:
    form = forms.of(node.inputs[0])
    axes, keep = [tensor for tensor in node.inputs[1:] if tensor.name], bool(node.attrs.get("keepdims", 1))
    if form is None or "axes" in node.attrs or (not axes and node.attrs.get("noop_with_empty_axes")):
        return None
    if node.op in _SPAN:
        return forms.op(node.op, form, *axes, **node.attrs)
    count = _count(node)
    if node.op == "ReduceSum" or count is None:
        return forms.sum_over(form, axes, keep=keep, count=count, op=node.op)
    return forms.op("Sub", forms.sum_over(form, axes, keep=keep, count=count), forms.number(np.log(count)))


def _count(node: Node) -> int | None:
    """How many values a sum is over; None where a size is not known."""
    shape, given = node.inputs[0].shape, constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if shape is None or (given is None and len(node.inputs) > 1):
        return None
    sizes = [shape[int(axis)] for axis in (range(len(shape)) if given is None else given.reshape(-1))]
    return math.prod(sizes) if all(isinstance(size, int | np.integer) and size > 0 for size in sizes) else None


def _moved(forms: LogForms, node: Node) -> Tensor | None:
    form = forms.of(node.inputs[0])
    return None if form is None else forms.moved(node, form)[0]


def _concatenated(forms: LogForms, node: Node) -> Tensor | None:
    found = [forms.of(tensor) for tensor in node.inputs]
    known = [form for form in found if form is not None]
    return forms.op("Concat", *known, **node.attrs) if len(known) == len(found) else None


def _gathered(forms: LogForms, node: Node) -> Tensor | None:
    return None if constant_of(node.inputs[0]) is not None else _moved(forms, node)


def _where(forms: LogForms, node: Node) -> Tensor | None:
    first, second = (forms.of(tensor) for tensor in node.inputs[1:])
    return None if first is None or second is None else forms.op("Where", node.inputs[0], first, second)


def _softmax(forms: LogForms, node: Node) -> Tensor | None:
    scores = node.inputs[0]
    forms.enter(scores)
    axes = forms.integers(np.array([node.attrs.get("axis", -1)]))
    return forms.op("Sub", scores, forms.sum_over(scores, [axes], keep=True, count=None))


def _matrix(forms: LogForms, node: Node) -> Tensor | None:
    """A product with a constant matrix without negative weights on either side."""
    for slot in (1, 0):
        weights = constant_of(node.inputs[slot])
        if weights is None or weights.ndim != 2 or weights.min() < 0:
            continue
        form = forms.of(node.inputs[1 - slot])
        if form is not None and (slot == 1 or len(node.inputs[1].shape or ()) > 1):
            return forms.product(form, weights if slot == 1 else weights.T, -1 if slot == 1 else -2, 1 - slot)
    return None


def _pointwise(forms: LogForms, node: Node) -> Tensor | None:
    """A convolution of one tap without negative weights or bias."""
    weights = constant_of(node.inputs[1])
    plain = weights is not None and weights.min() >= 0 and weights[0, 0].size == 1 and len(node.inputs) == 2
    unmoved = not any(node.attrs.get("pads", ())) and all(step == 1 for step in node.attrs.get("strides", ()))
    form = forms.of(node.inputs[0]) if plain and unmoved and node.attrs.get("group", 1) == 1 else None
    if form is None or weights is None:
        return None
    return forms.product(form, weights.reshape(weights.shape[:2]).T, 1, weights.ndim - 2)


_RULES: dict[str, LogRule] = {
    "Abs": lambda forms, node: forms.magnitude(node.inputs[0]),
    "Add": _added,
    "Clip": _clipped,
    "Concat": _concatenated,
    "Conv": _pointwise,
    "Div": lambda forms, node: forms.joined("Sub", node),
    "Exp": _exponential,
    "Gather": _gathered,
    "MatMul": _matrix,
    "Max": lambda forms, node: forms.joined("Max", node),
    "Min": lambda forms, node: forms.joined("Min", node),
    "Mul": _multiplied,
    "Pow": _powered,
    "Reciprocal": _of_one(-1.0),
    "Softmax": _softmax,
    "Sqrt": _of_one(0.5),
    "Where": _where,
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum"), _reduced),
    **dict.fromkeys(_POSITIVE, _positive),
    **dict.fromkeys(MOVES, _moved),
}


def log_forms(
    graph: Graph, taken: set[str], extents: Mapping[str, Range], sizes: Mapping[str, Array] | None = None
) -> LogForms:
    """Logarithms of the tensors of a graph, to be written beside them.

    Args:
        graph: float, in topological order.
        taken: names in it.
        extents: what calibration showed of float tensors, by name.
        sizes: by name of a layer's output, what each channel [C] is divided by before its logarithms are taken, as on
            a grid of its own.
    """
    return LogForms(graph, taken, extents, sizes or {}, _RULES)
