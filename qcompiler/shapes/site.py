"""What a shape rule is given and what it answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from qcompiler.graph.ir import Node
from qcompiler.shapes.dims import Dim, as_dim

Shape = tuple[Dim, ...] | None
Answer = list[Shape] | None


@dataclass(frozen=True)
class Value:
    """Elements of a tensor.

    Attributes:
        items: object array of the tensor's shape.
        kind: "i" integer, "f" float, "b" bool.
    """

    items: NDArray[Any]
    kind: str

    @property
    def is_known(self) -> bool:
        """True when no element depends on a symbol."""
        return all(isinstance(item, int | bool) or item.is_number for item in self.items.flat)

    def ints(self) -> list[Any]:
        """The elements in order."""
        return list(self.items.flat)


@dataclass(frozen=True)
class Site:
    """A node with what is known of its inputs; missing optional inputs are None in both lists."""

    node: Node
    shapes: list[Shape]
    values: list[Value | None]
    opset: int

    def has(self, index: int) -> bool:
        """True when the optional input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index].name)

    def shape(self, index: int) -> Shape:
        """Shape of an input, None when missing or unknown."""
        return self.shapes[index] if index < len(self.shapes) else None

    def ints(self, index: int) -> list[Any] | None:
        """Elements of an integer input, None when missing or unknown."""
        value = self.values[index] if index < len(self.values) else None
        return value.ints() if value is not None and value.kind == "i" else None

    def axes(self, rank: int, index: int = 1) -> list[int] | None:
        """The normalised axes of an attribute or an input; None when unknown, [] when absent."""
        given = self.node.attrs.get("axes", self.ints(index) if self.has(index) else [])
        if given is None or not all(isinstance(axis, int) for axis in given):
            return None
        return [axis % rank if rank else 0 for axis in given]

    def slice_arguments(self) -> list[list[Any]] | None:
        """Starts, ends, axes (normalised), steps of a Slice node."""
        starts, ends, shape = self.ints(1), self.ints(2), self.shape(0)
        if starts is None or ends is None or shape is None:
            return None
        axes = self.ints(3) if self.has(3) else list(range(len(starts)))
        steps = self.ints(4) if self.has(4) else [1] * len(starts)
        if axes is None or steps is None:
            return None
        return [starts, ends, [axis % len(shape) for axis in axes], steps]


def product(dims: Iterable[Dim]) -> Dim:
    """Product of sizes."""
    result: Dim = 1
    for size in dims:
        result = as_dim(result * size)
    return result
