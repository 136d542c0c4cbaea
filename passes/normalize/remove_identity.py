"""Removes nodes that compute nothing.

Identity; Dropout in inference; Cast to the type that is there; Reshape, Expand, Tile, Slice, Pad, Squeeze, Unsqueeze
and Flatten whose output has the shape of the input (and, for those that may move elements, trivially so); Transpose by
the identity; Concat, Sum, Mean, Max and Min of one tensor; x + 0, x - 0, x * 1, x / 1, x ** 1 where broadcasting
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from ...graph.ir import STANDARD_DOMAINS, Graph, Node, constant_of, is_float
from ...pass_base import Context, Pass
from ...rewriting.match import bypass, constant_operand, is_output
from ...shapes.dims import same
from ...shapes.infer import Shape, infer_shapes

_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0, "Pow": 1.0}
_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Pad")
_OF_ONE = ("Concat", "Sum", "Mean", "Max", "Min")


def _same_shape(a: Shape, b: Shape) -> bool:
    return a is not None and b is not None and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _is_inference(node: Node, graph: Graph) -> bool:
    """A Dropout that passes its input on, and whose mask nobody reads."""
    if len(node.inputs) > 2 and node.inputs[2].name:
        training = constant_of(node.inputs[2])
        if training is None or training.any():
            return False
    return all(not mask.outputs and not is_output(graph, mask) for mask in node.outputs[1:])


def _is_same_type(node: Node) -> bool:
    source = node.inputs[0].dtype
    if source is None or isinstance(source, int):
        return source is not None and source == node.attrs["to"]
    return bool(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(source)) == node.attrs["to"])


def _is_neutral(node: Node) -> bool:
    """Whether it is x + 0 or its like, x of a float type."""
    found = constant_operand(node)
    if found is None or not is_float(node.inputs[0]) or not np.all(found[1] == _NEUTRAL[node.op]):
        return False
    return node.op in ("Add", "Mul") or constant_of(node.inputs[0]) is None


def _is_identity(node: Node, graph: Graph, shapes: dict[str, Shape]) -> bool:
    if node.op == "Identity":
        return True
    if node.op == "Dropout":
        return _is_inference(node, graph)
    if node.op == "Cast":
        return _is_same_type(node)
    if node.op in _OF_ONE:
        return len(node.inputs) == 1
    if node.op == "Transpose":
        return list(node.attrs.get("perm", ())) == list(range(len(node.attrs.get("perm", (0,)))))
    if node.op == "Slice":
        steps = constant_of(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
        return steps is not None and bool(np.all(steps == 1)) and _keeps_shape(node, shapes)
    if node.op in _RESHAPING:
        return _keeps_shape(node, shapes) and not (node.op == "Pad" and _moves(node))
    return node.op in _NEUTRAL and _is_neutral(node) and _keeps_shape(node, shapes)


def _moves(node: Node) -> bool:
    """A Pad that adds on one side what it cuts on the other."""
    pads = constant_of(node.inputs[1])
    return pads is None or bool(pads.any())


def _keeps_shape(node: Node, shapes: dict[str, Shape]) -> bool:
    source = next(tensor for tensor in node.inputs if constant_of(tensor) is None or len(node.inputs) == 1)
    return _same_shape(shapes.get(source.name), shapes.get(node.outputs[0].name))


@dataclass(frozen=True)
class RemoveIdentity(Pass):
    """Remove nodes that compute nothing. Declines where an output of the graph would become one of its inputs."""

    name: ClassVar[str] = "remove-identity"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a node was removed."""
        shapes = infer_shapes(graph)
        changed = False
        for node in list(graph.nodes):
            if node.domain not in STANDARD_DOMAINS or all(constant_of(tensor) is not None for tensor in node.inputs):
                continue
            if not _is_identity(node, graph, shapes):
                continue
            source = next(tensor for tensor in node.inputs if constant_of(tensor) is None)
            if bypass(graph, node, source):
                changed = True
            else:
                ctx.declined(node, "the graph returns its input unchanged, under another name")
        return changed
