"""The question that a rule answers, and its answer: a node, one of its tensors with the layout of its channels, and
what scaling those leads to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from qcompiler.equivalence.axes import Index, Layout, sizes_of
from qcompiler.graph.ir import Node, Tensor, constant_of
from qcompiler.shapes.infer import Shape

__all__ = ["Effect", "End", "Link", "Role", "Visit"]

Role = Literal["weight", "norm", "table", "operand", "factor", "bounds"]


@dataclass(frozen=True)
class Link:
    """Another tensor that is scaled along.

    Attributes:
        tensor, layout: which, and where its channels are.
        source: for each channel there, the channel here; None for the same order.
        here: the channels here that take part; None for all.
        inverse: there, the channels take the inverse.
    """

    tensor: Tensor
    layout: Layout
    source: Index | None = None
    here: Index | None = None
    inverse: bool = False


@dataclass(frozen=True)
class End:
    """A constant that takes the scale.

    Attributes:
        node, slot: who reads it, and where.
        role: what it is.
        writes: the scaled tensor is an output of the node, not an input.
    """

    node: Node
    role: Role
    slot: int
    writes: bool


@dataclass(frozen=True)
class Effect:
    """Answer of a rule.

    Attributes:
        links: tensors scaled along.
        ends: constants that take the scale.
        frozen: why the channels must stay; None where they may change.
        block: number of neighbouring channels that a matrix may mix; 1: none; None: any.
        shifts: the channels may be shifted, too.
    """

    links: tuple[Link, ...] = ()
    ends: tuple[End, ...] = ()
    frozen: str | None = None
    block: int | None = None
    shifts: bool = False


@dataclass(frozen=True)
class Visit:
    """The question: a node, one of its tensors, and the layout of that one's channels."""

    node: Node
    tensor: Tensor
    layout: Layout
    shapes: Mapping[str, Shape] = field(repr=False)

    @property
    def is_output(self) -> bool:
        """True when the node writes the tensor."""
        return self.tensor is self.node.outputs[0]

    @property
    def slots(self) -> list[int]:
        """Positions at which the node reads the tensor."""
        return [slot for slot, tensor in enumerate(self.node.inputs) if tensor is self.tensor]

    def shape(self, tensor: Tensor) -> Shape:
        """What is known of a tensor's shape."""
        return self.shapes.get(tensor.name)

    def sizes(self, tensor: Tensor, layout: Layout) -> tuple[int, ...] | None:
        """Numbers of channels along a layout."""
        return sizes_of(self.shape(tensor), layout)

    @property
    def own_sizes(self) -> tuple[int, ...] | None:
        """Sizes of the layout."""
        return self.sizes(self.tensor, self.layout)

    @property
    def other_variable(self) -> Tensor:
        """The output of a node with one constant operand seen from its other operand, and the other way round."""
        variables = [tensor for tensor in self.node.inputs if constant_of(tensor) is None]
        return variables[0] if self.is_output else self.node.outputs[0]

    @property
    def other_side(self) -> Tensor:
        """The output seen from the first input, and the other way round."""
        return self.node.inputs[0] if self.is_output else self.node.outputs[0]


def no_effect(reason: str) -> Effect:
    """The transformation ends here, for ``reason``."""
    return Effect(frozen=reason)


def stays(visit: Visit) -> Effect:
    """The operator does not commute with the transformation."""
    return no_effect(f"{visit.node.op} does not commute with a scaling of channels")


def same_layout(visit: Visit, *, block: int | None, shifts: bool = False) -> Effect:
    """Input 0 and output 0, channel by channel."""
    node = visit.node
    if not visit.is_output and visit.slots != [0]:
        return stays(visit)
    if visit.sizes(visit.other_side, visit.layout) != visit.own_sizes:
        return no_effect(f"the {node.op} changes the number of channels")
    return Effect((Link(visit.other_side, visit.layout),), block=block, shifts=shifts)
