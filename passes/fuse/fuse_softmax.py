"""One Softmax for the Flatten, Softmax and Reshape that stand for the Softmax of before opset 13.

That one normalised over all axes from ``axis`` on. Where but one of them is longer than 1 (nearly always: ``axis`` was
the last),

    Reshape(Softmax(Flatten(x, axis), -1), shape of x) = Softmax(x, that one)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph.ir import Graph, Node
from ...pass_base import Context, Pass
from ...rewriting.match import made_by, sole_user, standard, take_over
from ...shapes.dims import same
from ...shapes.infer import Shape, infer_shapes

_NORMALISING = ("Softmax", "LogSoftmax", "Hardmax")


def _axis(flatten: Node, shape: tuple[object, ...]) -> int | None:
    """The only axis longer than 1 among those that are normalised."""
    first = int(flatten.attrs.get("axis", 1))
    first += len(shape) if first < 0 else 0
    longer = [axis for axis in range(first, len(shape)) if shape[axis] != 1]
    return longer[0] if len(longer) == 1 else None


@dataclass(frozen=True)
class FuseSoftmax(Pass):
    """Undo the conversion of a Softmax over flattened axes."""

    name: ClassVar[str] = "fuse-softmax"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a Softmax was simplified."""
        shapes = infer_shapes(graph)
        changes = [_fuse(graph, node, shapes, ctx) for node in standard(graph, *_NORMALISING)]
        return any(changes)


def _fuse(graph: Graph, node: Node, shapes: dict[str, Shape], ctx: Context) -> bool:
    flatten, reshape = made_by(node.inputs[0], "Flatten"), sole_user(graph, node.outputs[0])
    if flatten is None or reshape is None or reshape.op != "Reshape" or node.attrs.get("axis", -1) not in (-1, 1):
        return False
    x = flatten.inputs[0]
    before, after = shapes.get(x.name), shapes.get(reshape.outputs[0].name)
    if (
        before is None
        or after is None
        or len(before) != len(after)
        or not all(same(a, b) for a, b in zip(before, after, strict=True))
    ):
        return False
    axis = _axis(flatten, before)
    if axis is None:
        ctx.declined(node, f"it normalises several axes of '{x.name}' together")
        return False
    take_over(graph, reshape, Node(node.op, node.name, {"axis": axis}, [x]), reshape.outputs[0])
    return True
