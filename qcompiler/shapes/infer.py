"""Symbolic inference of shapes, and of the values of small integer tensors, for a whole graph.

Dimensions are ints or expressions over positive integer symbols, named as in the shapes of the graph's inputs
(`qcompiler.shapes.dims`). What an operator's rule cannot tell is None, never a guess: then a static shape that the
tensor itself carries is used, if there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qcompiler.graph.ir import STANDARD_DOMAINS, Constant, Graph, Node, Tensor
from qcompiler.shapes import rules
from qcompiler.shapes import values as shape_values
from qcompiler.shapes.dims import Dim, evaluate, symbol, to_nested
from qcompiler.shapes.site import Shape, Site, Value

__all__ = [
    "Dim",
    "Inferred",
    "Shape",
    "Value",
    "annotate",
    "dim_name",
    "evaluate",
    "infer",
    "infer_shapes",
    "symbol",
    "to_nested",
]


@dataclass(frozen=True)
class Inferred:
    """What is known of a graph's tensors, by name.

    Attributes:
        shapes: tuple of sizes, None where not even the rank is known.
        values: elements of small tensors (object arrays of ints, expressions, rationals and bools).
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)


def dim_name(tensor: str, axis: int) -> str:
    """The symbol of an unnamed dimension of a graph input."""
    return f"{tensor}_dim{axis}"


def _input_shape(tensor: Tensor) -> Shape:
    if tensor.shape is None:
        return None
    dims: list[Dim] = []
    for axis, size in enumerate(tensor.shape):
        known = isinstance(size, int | np.integer) and size >= 0
        dims.append(
            int(size) if known else symbol(size if isinstance(size, str) and size else dim_name(tensor.name, axis))
        )
    return tuple(dims)


def _declared(tensor: Tensor, symbols: set[str]) -> Shape:
    """The shape that a tensor carries, if it is made of ints and of the graph's own symbols."""
    if tensor.shape is None or getattr(tensor, "type", "tensor_type") != "tensor_type":
        return None
    if not all(
        size in symbols if isinstance(size, str) else isinstance(size, int) and size >= 0 for size in tensor.shape
    ):
        return None
    return tuple(symbol(size) if isinstance(size, str) else size for size in tensor.shape)


def _enter_constant(known: Inferred, tensor: Constant) -> None:
    known.shapes[tensor.name] = tuple(int(size) for size in tensor.shape)
    value = shape_values.of_constant(tensor)
    if value is not None:
        known.values[tensor.name] = value


def _apply(rule: Callable[[Site], Any] | None, site: Site) -> list[Any]:
    """A rule's answer, one per output; Nones where the rule meets what it does not know."""
    answer = rule(site) if rule is not None else None
    count = len(site.node.outputs)
    return [None] * count if answer is None else (list(answer) + [None] * count)[:count]


def _visit(known: Inferred, node: Node, opset: int, symbols: set[str]) -> None:
    for tensor in node.inputs:
        if isinstance(tensor, Constant) and tensor.name not in known.shapes:
            _enter_constant(known, tensor)
    site = Site(
        node, [known.shapes.get(t.name) for t in node.inputs], [known.values.get(t.name) for t in node.inputs], opset
    )
    standard = node.domain in STANDARD_DOMAINS
    shapes = _apply(rules.RULES.get(node.op) if standard else None, site)
    values = _apply(shape_values.RULES.get(node.op) if standard else None, site)
    for tensor, shape, value in zip(node.outputs, shapes, values, strict=True):
        if not tensor.name:
            continue
        if value is not None:
            known.values[tensor.name] = value
            shape = tuple(value.items.shape)
        known.shapes[tensor.name] = shape if shape is not None else _declared(tensor, symbols)


def infer(graph: Graph) -> Inferred:
    """Shapes and small values of every tensor of ``graph``, whose nodes are in topological order."""
    known = Inferred()
    for tensor in graph.inputs:
        known.shapes[tensor.name] = _input_shape(tensor)
    for tensor in graph.outputs:
        if isinstance(tensor, Constant):
            _enter_constant(known, tensor)
    symbols = {
        s.name for shape in known.shapes.values() for d in shape or () if not isinstance(d, int) for s in d.free_symbols
    }
    for node in graph.nodes:
        _visit(known, node, graph.opset, symbols)
    return known


def infer_shapes(graph: Graph) -> dict[str, Shape]:
    """The shape of every tensor: a tuple of ints and sympy expressions, None where the rank is unknown."""
    return infer(graph).shapes


def _plain(dim: Dim) -> int | str | None:
    if isinstance(dim, int):
        return dim
    return str(dim.name) if dim.is_Symbol else None


def annotate(graph: Graph) -> None:
    """Write inferred shapes into the graph's variables; a size that is neither number nor symbol becomes None."""
    known = infer_shapes(graph)
    symbols = {size for tensor in graph.inputs for size in tensor.shape or () if isinstance(size, str)}
    written = [tensor for node in graph.nodes for tensor in node.outputs]
    for tensor in written:
        shape = known.get(tensor.name)
        if shape is not None:
            tensor.shape = [_plain(size) for size in shape]
        elif tensor.shape is not None:
            tensor.shape = [size if isinstance(size, int) or size in symbols else None for size in tensor.shape]
