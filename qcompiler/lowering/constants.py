"""Values that are known when a graph is lowered: constant subgraphs, and weights as integer codes with scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from qcompiler.errors import ModelError, UnsupportedError
from qcompiler.graph.ir import Constant, Graph, Node, Tensor, constant_of, producer, read_spec, subgraphs
from qcompiler.graph.runner import Runner
from qcompiler.lowering.ranks import rank_of

Array = NDArray[Any]


class Constants:
    """Evaluates tensors that depend on constants alone; every answer is remembered.

    Args:
        graph: in topological order.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[int, Array] = {}
        self._computed: set[int] = set()
        for node in graph.nodes:
            if _repeatable(node) and all(self.is_constant(tensor) for tensor in node.inputs if tensor.name):
                self._computed.update(id(tensor) for tensor in node.outputs)

    def is_constant(self, tensor: Tensor) -> bool:
        """True when no graph input decides the value of ``tensor``."""
        return isinstance(tensor, Constant) or id(tensor) in self._computed

    def value(self, tensor: Tensor | None) -> Array | None:
        """The value of ``tensor``; None when it is absent or depends on a graph input."""
        if tensor is None or not tensor.name or not self.is_constant(tensor):
            return None
        if id(tensor) not in self._known:
            self._known[id(tensor)] = self._evaluate(tensor)
        return self._known[id(tensor)]

    def scalar(self, tensor: Tensor | None) -> float | None:
        """The one element of a constant of size 1; None for anything else."""
        value = self.value(tensor)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def _evaluate(self, tensor: Tensor) -> Array:
        direct = constant_of(tensor)
        if direct is not None:
            return direct
        node = producer(tensor)
        if node is not None and node.op == "DequantizeLinear" and not node.attrs.get("block_size"):
            codes, spec = self.value(node.inputs[0]), read_spec(node)
            if codes is not None and spec is not None:
                return np.asarray(spec.dequantize(codes))
        return evaluate(self._graph, list(_ancestors(tensor)), tensor, {})


def _repeatable(node: Node) -> bool:
    return not node.op.startswith(("Random", "Multinomial", "Bernoulli")) and not subgraphs(node)


def _ancestors(tensor: Tensor) -> Iterator[Node]:
    """Nodes that ``tensor`` depends on, each once."""
    seen: set[int] = set()
    stack = [producer(tensor)]
    while stack:
        node = stack.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        stack.extend(producer(source) for source in node.inputs)


def evaluate(
    graph: Graph,
    nodes: list[Node],
    result: Tensor,
    feed: dict[str, Array],
    known: Callable[[Tensor], Array | None] = constant_of,
) -> Array:
    """Value of ``result`` computed by ``nodes`` of ``graph`` in onnxruntime, given the tensors of ``feed``.

    Args:
        graph: gives the opset.
        nodes: in any order.
        result: the wanted tensor.
        feed: values of the tensors that ``nodes`` read and do not write, by name.
        known: the value of a tensor that is constant, None for any other.

    Raises:
        UnsupportedError: onnxruntime cannot run these nodes.
    """
    wanted = {id(node) for node in nodes}
    ordered = [node for node in graph.nodes if id(node) in wanted]
    inputs = [gs.Variable(name, dtype=value.dtype, shape=list(value.shape)) for name, value in feed.items()]
    tensors: dict[int, Tensor] = {}
    part = Graph(opset=graph.opset, ir_version=graph.ir_version, inputs=inputs)
    part.import_domains = graph.import_domains
    written = {id(tensor) for node in ordered for tensor in node.outputs}
    by_name = {tensor.name: tensor for tensor in inputs}

    def copy(tensor: Tensor) -> Tensor:
        if tensor.name in by_name:
            return by_name[tensor.name]
        if id(tensor) not in tensors:
            value = known(tensor) if tensor.name and id(tensor) not in written else None
            tensors[id(tensor)] = (
                gs.Variable(tensor.name, dtype=tensor.dtype) if value is None else gs.Constant(tensor.name, value)
            )
        return tensors[id(tensor)]

    for node in ordered:
        sources, results = [copy(t) for t in node.inputs], [copy(t) for t in node.outputs]
        part.nodes.append(Node(node.op, node.name, dict(node.attrs), sources, results, domain=node.domain))
    target = copy(result)
    part.outputs = [target]
    try:
        return Runner(part, fusions=False).run(feed)[target.name]
    except ModelError as error:
        names = ", ".join(f"'{node.name}' ({node.op})" for node in ordered[:3])
        raise UnsupportedError(
            f"onnxruntime cannot evaluate {names} at lowering: {str(error).splitlines()[0]}"
        ) from error


@dataclass(frozen=True)
class Weight:
    """An integer weight: ``real = scale * codes`` with zero point 0.

    Attributes:
        codes: int8 array of the ONNX weight's shape; int32 where codes less their zero point do not fit.
        scale: float64 vector along ``axis``, or of length 1.
        axis: the axis of ``scale``; None when it has length 1.
    """

    codes: Array
    scale: NDArray[np.float64]
    axis: int | None

    def transposed(self, perm: list[int]) -> Weight:
        """The weight of the transposed tensor."""
        axis = None if self.axis is None else perm.index(self.axis)
        return Weight(self.codes.transpose(perm), self.scale, axis)


def read_weight(constants: Constants, tensor: Tensor, channel_axis: int) -> Weight | None:
    """The weight behind a constant float tensor; None when the tensor is not constant.

    Codes behind a DequantizeLinear (whatever computes them from constants) are taken as they are; a float constant is
    rounded to int8 per channel of ``channel_axis``.

    Raises:
        UnsupportedError: the scales are per block, or not constant.
    """
    if not constants.is_constant(tensor):
        return None
    node = producer(tensor)
    if node is not None and node.op == "Transpose":
        perm = [int(axis) for axis in node.attrs.get("perm", range(rank_of(tensor))[::-1])]
        inner = read_weight(constants, node.inputs[0], perm[channel_axis])
        return None if inner is None else inner.transposed(perm)
    if node is not None and node.op == "DequantizeLinear":
        return _stored_weight(constants, node)
    value = constants.value(tensor)
    return None if value is None else _rounded_weight(value.astype(np.float64), channel_axis)


def _stored_weight(constants: Constants, node: Node) -> Weight:
    if int(node.attrs.get("block_size", 0)):
        raise UnsupportedError("its weight has one scale per block; integer programs take one per output channel")
    codes, spec = constants.value(node.inputs[0]), read_spec(node)
    if codes is None or spec is None:
        raise UnsupportedError("its weight's scale or zero point is not constant")
    axis = None if spec.axis is None or spec.scale.size == 1 else spec.axis % codes.ndim
    shape = [1] * codes.ndim
    if axis is not None:
        shape[axis] = -1
    if codes.dtype == np.dtype(np.int8) and not np.any(spec.zero_point):
        return Weight(codes, spec.scale.astype(np.float64).reshape(-1), axis)
    wide = codes.astype(np.int32) - spec.zero_point.astype(np.int32).reshape(shape)
    narrow = not wide.size or (wide.min() >= -128 and wide.max() <= 127)
    return Weight(wide.astype(np.int8 if narrow else np.int32), spec.scale.astype(np.float64).reshape(-1), axis)


def _rounded_weight(value: NDArray[np.float64], channel_axis: int) -> Weight:
    others = tuple(i for i in range(value.ndim) if i != channel_axis)
    largest = np.abs(value).max(axis=others, initial=0.0)
    scale = np.where(largest > 0.0, largest / 127.0, 1.0)
    shape = [1] * value.ndim
    shape[channel_axis] = -1
    codes = np.rint(value / scale.reshape(shape)).astype(np.int8)
    return Weight(codes, scale, channel_axis)
