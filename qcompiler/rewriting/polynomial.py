"""Activation functions written out in elementary operators, recognised as polynomials.

``0.5 * x * (1 + erf(x / sqrt(2)))`` has a dozen spellings. As a polynomial in x and e = erf(...) all of them are
``0.5 x + 0.5 x e``: the order of operands and of multiplications does not matter any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isclose
from typing import Any

from qcompiler.graph.ir import Graph, Tensor
from qcompiler.rewriting.match import made_by, scalar_of, sole_user

Polynomial = dict[tuple[int, ...], float]
"""Exponents of the atoms -> coefficient."""

TOLERANCE = 1e-4
"""Relative deviation of a constant from its mathematical value: exporters round."""

_DEPTH = 8
_ELEMENTARY = ("Add", "Sub", "Mul", "Div", "Pow", "Neg")


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for left, x in a.items():
        for right, y in b.items():
            powers = tuple(p + q for p, q in zip(left, right, strict=True))
            result[powers] = result.get(powers, 0.0) + x * y
    return result


def _sum(a: Polynomial, b: Polynomial, sign: float) -> Polynomial:
    return {powers: a.get(powers, 0.0) + sign * b.get(powers, 0.0) for powers in {**a, **b}}


def _constant(value: float, count: int) -> Polynomial:
    return {(0,) * count: value}


def _divided(a: Polynomial, b: Polynomial, count: int) -> Polynomial | None:
    number = b.get((0,) * count)
    return _product(a, _constant(1 / number, count)) if number and len(b) == 1 else None


def _raised(a: Polynomial, exponent: float | None, count: int) -> Polynomial | None:
    if exponent is None or exponent not in (1.0, 2.0, 3.0):
        return None
    result = _constant(1.0, count)
    for _ in range(int(exponent)):
        result = _product(result, a)
    return result


def polynomial(tensor: Tensor, atoms: Sequence[Tensor], depth: int = _DEPTH) -> Polynomial | None:
    """``tensor`` as a polynomial in ``atoms``; None when it depends on anything else."""
    count = len(atoms)
    for index, atom in enumerate(atoms):
        if tensor is atom:
            return {tuple(int(position == index) for position in range(count)): 1.0}
    number = scalar_of(tensor)
    if number is not None:
        return _constant(number, count)
    node = made_by(tensor, *_ELEMENTARY)
    if node is None or depth == 0:
        return None
    left = polynomial(node.inputs[0], atoms, depth - 1)
    if left is None or node.op == "Neg":
        return None if left is None else _product(left, _constant(-1.0, count))
    if node.op == "Pow":
        return _raised(left, scalar_of(node.inputs[1]), count)
    right = polynomial(node.inputs[1], atoms, depth - 1)
    if right is None:
        return None
    if node.op == "Mul":
        return _product(left, right)
    return _divided(left, right, count) if node.op == "Div" else _sum(left, right, 1.0 if node.op == "Add" else -1.0)


def matches(found: Polynomial | None, wanted: Mapping[Any, float]) -> bool:
    """True when both have the same terms and coefficients, up to `TOLERANCE`."""
    if found is None:
        return False
    terms = {powers for powers, value in found.items() if value != 0.0}
    return terms == set(wanted) and all(
        isclose(found[powers], value, rel_tol=TOLERANCE) for powers, value in wanted.items()
    )


def ancestors(tensor: Tensor, depth: int = _DEPTH) -> Iterator[Tensor]:
    """``tensor`` and what it is computed from by elementary operators, nearest first: the candidates for x."""
    layer, seen = [tensor], set[int]()
    for _ in range(depth):
        above: list[Tensor] = []
        for candidate in layer:
            if id(candidate) in seen or scalar_of(candidate) is not None:
                continue
            seen.add(id(candidate))
            yield candidate
            node = made_by(candidate, *_ELEMENTARY)
            above += node.inputs if node is not None else []
        layer = above


def descendants(graph: Graph, tensor: Tensor, depth: int = 4) -> Iterator[Tensor]:
    """What is computed from ``tensor`` alone by elementary operators, nearest first: the candidates for the result."""
    for _ in range(depth):
        user = sole_user(graph, tensor)
        if user is None or user.op not in _ELEMENTARY:
            return
        tensor = user.outputs[0]
        yield tensor
