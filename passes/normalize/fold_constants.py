"""Computes now what depends on constants alone, with onnxruntime.

A DequantizeLinear of a stored weight is not folded: it *is* the annotation of that weight. Random operators, control
flow and foreign operators stay. What would blow a small constant up (an Expand of a mask) stays, too; a tensor filled
by ConstantOfShape is kept as a view of one number, whatever its size. Of the second input of a CastLike only the type
counts: it becomes a Cast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...graph.ir import STANDARD_DOMAINS, Constant, Graph, Node, Tensor, Variable, constant_of, subgraphs
from ...graph.runner import Runner
from ...pass_base import Context, Pass
from ...rewriting.match import is_output
from ...shapes.infer import Shape, infer_shapes

_KEPT = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial", "Bernoulli", "Constant",
}  # fmt: skip


def _elements(shape: Shape) -> int | None:
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    return int(np.prod([int(size) for size in shape], dtype=np.int64))


def _is_foldable(node: Node, ready: set[int]) -> bool:
    if (
        node.op in _KEPT
        or node.domain not in STANDARD_DOMAINS
        or subgraphs(node)
        or not node.inputs
        or not node.outputs
    ):
        return False
    return all(isinstance(tensor, Constant) or not tensor.name or id(tensor) in ready for tensor in node.inputs)


def _is_plain(tensor: Tensor) -> bool:
    return isinstance(tensor, Constant) or (isinstance(tensor, Variable) and tensor.type == "tensor_type")


def _fill(node: Node) -> bool:
    """ConstantOfShape of a constant shape becomes a view of its number; False for any other node."""
    shape = constant_of(node.inputs[0]) if node.op == "ConstantOfShape" else None
    if shape is None:
        return False
    value = node.attrs.get("value")
    number = np.asarray(value.values).reshape(-1)[0] if value is not None else np.float32(0)
    _become_constant(node.outputs[0], np.broadcast_to(number, tuple(int(size) for size in shape)))
    return True


def _plain_cast(node: Node) -> bool:
    """CastLike becomes a Cast to the type of its second input, where that is known; False for any other node."""
    if node.op != "CastLike" or node.inputs[1].dtype is None:
        return False
    kind = node.inputs[1].dtype
    node.op, node.attrs = (
        "Cast",
        {"to": kind if isinstance(kind, int) else int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))},
    )
    node.inputs = node.inputs[:1]
    return True


def _become_constant(tensor: Tensor, values: np.ndarray) -> None:
    tensor.inputs.clear()
    tensor.to_constant(values)


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute constant subgraphs.

    Attributes:
        limit: elements up to which a result may be larger than what it is computed from.
    """

    name: ClassVar[str] = "fold-constants"
    exact: ClassVar[bool] = True
    limit: int = 1 << 20

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a node was folded or made simpler."""
        changed = False
        for node in [node for node in graph.nodes if node.domain in STANDARD_DOMAINS]:
            changed |= _plain_cast(node)
            if node.op == "ConstantOfShape" and not is_output(graph, node.outputs[0]):
                changed |= _fill(node)
        nodes = self._chosen(graph, ctx)
        wanted = self._frontier(graph, nodes)
        if not wanted:
            return changed
        part = gs.Graph(nodes=nodes, outputs=wanted, opset=graph.opset, import_domains=graph.import_domains)
        values = Runner(part, fusions=False).run({})
        for tensor in wanted:
            _become_constant(tensor, values[tensor.name])
        return True

    def _chosen(self, graph: Graph, ctx: Context) -> list[Node]:
        shapes = infer_shapes(graph)
        chosen: list[Node] = []
        ready: set[int] = set()
        for node in graph.nodes:
            if not _is_foldable(node, ready) or not all(_is_plain(tensor) for tensor in node.outputs):
                continue
            if self._is_blown_up(node, shapes):
                ctx.declined(node, f"its constant result has more than {self.limit} elements, far more than its inputs")
                continue
            chosen.append(node)
            ready |= {id(tensor) for tensor in node.outputs}
        return chosen

    def _is_blown_up(self, node: Node, shapes: dict[str, Shape]) -> bool:
        sizes = [_elements(shapes.get(tensor.name)) for tensor in node.outputs if tensor.name]
        if any(size is None for size in sizes):
            return False  # as many as the data says (NonZero, …): no more than a few times the input
        before = sum(_elements(shapes.get(tensor.name)) or 0 for tensor in node.inputs)
        return sum(size or 0 for size in sizes) > max(self.limit, 2 * before)

    def _frontier(self, graph: Graph, nodes: list[Node]) -> list[Tensor]:
        """Results that a node outside reads. An output of the graph stays with the node that writes it."""
        inside = {id(node) for node in nodes}
        results = [tensor for node in nodes for tensor in node.outputs if tensor.name and not is_output(graph, tensor)]
        return [
            tensor
            for tensor in results
            if any(id(user) not in inside or self._writes_output(graph, user) for user in tensor.outputs)
        ]

    @staticmethod
    def _writes_output(graph: Graph, node: Node) -> bool:
        return any(is_output(graph, tensor) for tensor in node.outputs)
