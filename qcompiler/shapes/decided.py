"""Sizes of symbolic dimensions that the weights of a model decide.

A product with a weight [K, N] takes K features, a recurrent layer as many as its weights have columns, a convolution
its channels. Where the size that meets them is a symbol s, or a s + b, the symbol is known, whatever the model says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy

from qcompiler.graph.ir import STANDARD_DOMAINS, Graph, Node, constant_of
from qcompiler.shapes.infer import infer_shapes
from qcompiler.shapes.site import Shape

__all__ = ["decided_sizes"]


def decided_sizes(graph: Graph) -> dict[str, int]:
    """Symbols that one size alone fits, by name; those over which layers disagree are left out."""
    shapes, found = infer_shapes(graph), dict[str, set[int]]()
    for node in graph.nodes:
        if node.domain in STANDARD_DOMAINS:
            for size, wanted in _met(node, shapes.get(node.inputs[0].name) if node.inputs else None):
                solved = _solved(size, wanted)
                if solved is not None:
                    found.setdefault(solved[0], set()).add(solved[1])
    return {name: sizes.pop() for name, sizes in found.items() if len(sizes) == 1}


def _met(node: Node, x: Shape) -> Iterator[tuple[Any, int]]:
    """Sizes of a layer's input, each with the number that its weight asks for."""
    weight = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or weight is None:
        return
    if node.op == "MatMul" and weight.ndim > 1 and x:
        yield x[-1], weight.shape[-2]
    elif node.op == "Gemm" and len(x) > 1:
        yield x[0 if node.attrs.get("transA") else 1], weight.shape[1 if node.attrs.get("transB") else 0]
    elif node.op in ("LSTM", "GRU", "RNN") and x:
        yield x[-1], weight.shape[-1]
    elif node.op == "Conv" and len(x) > 1:
        yield x[1], weight.shape[1] * int(node.attrs.get("group", 1))


def _solved(size: Any, wanted: int) -> tuple[str, int] | None:
    """The one symbol of a linear ``size`` that is ``wanted``, and what it is."""
    if isinstance(size, int) or len(size.free_symbols) != 1:
        return None
    symbol = next(iter(size.free_symbols))
    if not size.is_polynomial(symbol) or sympy.degree(size, symbol) != 1:
        return None
    value = sympy.Rational(wanted - size.subs(symbol, 0)) / size.coeff(symbol)
    return (symbol.name, int(value)) if value.is_integer and value > 0 else None
