"""Where the elements of a resized axis come from, in integer arithmetic that the program does when its sizes are known.

Element i of an axis lies at ``(a i + b) / d`` of the input, n and m being the sizes before and after, and p / q the
scale (m / n where sizes are given):

    align_corners         a = n - 1,  b = 0,                d = max(m - 1, 1)
    asymmetric            a = q,      b = 0,                d = p
    half_pixel            a = 2q,     b = q - p,            d = 2p
    pytorch_half_pixel    the same; b = 0 where m = 1
    half_pixel_symmetric  a = 2q,     b = q - p + np - mq,  d = 2p

Source: Operators.md of ONNX, Resize. The arithmetic is exact; onnxruntime's, in float32, may take the neighbour of an
element that lies half way between two.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Tensor
from qcompiler.lowering.engine import Lowering

__all__ = ["WEIGHT_BITS", "Axis", "linear_places", "nearest_places"]

WEIGHT_BITS = 15

_FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.floordiv, "Min": min, "Max": max,
}  # fmt: skip
_NOTHING = (("Add", 0), ("Sub", 0), ("Mul", 1), ("Div", 1))


class Axis:
    """One axis that is resized: its sizes and its scale as fractions of integers.

    Attributes:
        lw: where the arithmetic is written.
        name: of the tensors that it makes.
        before: int64 scalar, size before.
        scale: None where sizes are given.
        after: int64 scalar, size after.
    """

    def __init__(self, lw: Lowering, name: str, before: Tensor, scale: float | None, after: Tensor | None) -> None:
        self.lw, self.name, self.before = lw, name, before
        self._count = 0
        self.scale = None if scale is None else Fraction(float(scale))
        whole = self.of("Mul", before, self.scale.numerator) if self.scale is not None else None
        self.after = after if whole is None or self.scale is None else self.of("Div", whole, self.scale.denominator)

    def of(self, op: str, a: Any, b: Any) -> Any:
        """``a op b`` of integers."""
        return self._apply(op, a, b, ())

    def along(self, op: str, a: Any, b: Any) -> Any:
        """``a op b`` of numbers for every result [after] and a number."""
        return self._apply(op, a, b, None)

    def _apply(self, op: str, a: Any, b: Any, shape: tuple[int, ...] | None) -> Any:
        if isinstance(a, int) and isinstance(b, int):
            return _FUNCTIONS[op](a, b)
        if isinstance(b, int) and (op, b) in _NOTHING:
            return a
        self._count += 1
        name = f"{self.name}_{op.lower()}{self._count}"
        inputs = [self.lw.out.int64(f"{name}_number", each) if isinstance(each, int) else each for each in (a, b)]
        return self.lw.out.op(f"Integer{op}", name, inputs, {}, np.int64, shape)

    def line(self, transform: str) -> tuple[Any, Any, Any]:
        """The numbers a, b and d of the docstring."""
        before, after = self.before, self.after
        if transform == "align_corners":
            return self.of("Sub", before, 1), 0, self.of("Max", self.of("Sub", after, 1), 1)
        p, q = (after, before) if self.scale is None else (self.scale.numerator, self.scale.denominator)
        if transform == "asymmetric":
            return q, 0, p
        shift = self.of("Sub", q, p)
        if transform == "half_pixel_symmetric" and self.scale is not None:
            shift = self.of("Add", shift, self.of("Sub", self.of("Mul", before, p), self.of("Mul", after, q)))
        if transform == "pytorch_half_pixel":
            shift = self.of("Mul", shift, self.of("Min", self.of("Sub", after, 1), 1))
        return self.of("Mul", q, 2), shift, self.of("Mul", p, 2)

    def places(self, transform: str) -> tuple[Tensor, Any]:
        """Numerators [after] within the axis, and their denominator."""
        a, b, d = self.line(transform)
        first, step = self.lw.out.int64("zero", 0), self.lw.out.int64("one", 1)
        counts = self.lw.out.op("IntegerRange", f"{self.name}_counts", [first, self.after, step], {}, np.int64, None)
        place = self.along("Max", self.along("Add", self.along("Mul", counts, a), b), 0)
        return self.along("Min", place, self.of("Mul", self.of("Sub", self.before, 1), d)), d


def linear_places(axis: Axis, transform: str) -> list[Tensor]:
    """For every result: the lower and the upper element, and the weight of the upper one in Q15; int32."""
    place, d = axis.places(transform)
    low = axis.along("Div", place, d)
    rest = axis.along("Sub", place, axis.along("Mul", low, d))
    half = axis.of("Div", d, 2)
    scaled = axis.along("Add", axis.along("Mul", rest, 1 << WEIGHT_BITS), half)
    weight = axis.along("Div", scaled, d)
    high = axis.along("Min", axis.along("Add", low, 1), axis.of("Sub", axis.before, 1))
    to = {"to": 6}
    return [
        axis.lw.out.op("Cast", f"{axis.name}_{name}", [tensor], to, np.int32, None)
        for name, tensor in (("low", low), ("high", high), ("weight", weight))
    ]


def nearest_places(axis: Axis, transform: str, mode: str) -> Tensor:
    """For every result the element that it takes; int64."""
    place, d = axis.places(transform)
    if mode == "floor":
        return axis.along("Div", place, d)
    if mode == "ceil":
        return axis.along("Div", axis.along("Add", place, axis.of("Sub", d, 1)), d)
    if mode not in ("round_prefer_floor", "round_prefer_ceil"):
        raise UnsupportedError(f"its nearest_mode '{mode}' has no integer form of symbolic size")
    added = axis.of("Sub", d, 1) if mode == "round_prefer_floor" else d
    twice = axis.along("Add", axis.along("Mul", place, 2), added)
    return axis.along("Div", twice, axis.of("Mul", d, 2))
