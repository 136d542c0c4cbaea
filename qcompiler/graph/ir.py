"""What onnx-graphsurgeon lacks: stages, quantization parameters, explicit Q/DQ annotation, a networkx view.

The graph is `onnx_graphsurgeon.Graph`. Quantization is explicit in it: a QuantizeLinear / DequantizeLinear pair *is*
the annotation of a tensor, and there is no other state that a pass could forget to update.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import networkx as nx
import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon import Constant, Graph, Node, Tensor, Variable
from onnx_graphsurgeon.logger import G_LOGGER

__all__ = [
    "INTEGER_DOMAIN",
    "ORIGIN",
    "STANDARD_DOMAINS",
    "Constant",
    "Feed",
    "Graph",
    "Node",
    "QuantSpec",
    "Stage",
    "Tensor",
    "Variable",
    "constant_of",
    "consumers",
    "copy_of",
    "dequantize_constant",
    "float_inputs",
    "float_outputs",
    "insert_qdq",
    "is_float",
    "is_float_cast",
    "names_in",
    "producer",
    "quantized_source",
    "read_spec",
    "replace_uses",
    "spec_of",
    "subgraphs",
    "to_networkx",
    "unique_name",
]

G_LOGGER.severity = G_LOGGER.ERROR
"""graphsurgeon's warnings are about files; `importer.py` says what a user needs to know of those."""

ORIGIN = "origin"
"""Key under which a graph carries its file's metadata (`qcompiler.graph.origin`); copies keep it."""

INTEGER_DOMAIN = "qcompiler.integer"
"""Domain of the operators of stage INTEGER; docs/integer-operators.md defines each one exactly."""

STANDARD_DOMAINS = (None, "", "ai.onnx")

Array = NDArray[Any]

Feed = Mapping[str, NDArray[Any]]
"""One set of inputs: graph input name -> array."""


class Stage(IntEnum):
    """How far a graph has come; `verify.py` says what each stage admits."""

    FLOAT = 0
    QUANTIZED = 1
    INTEGER = 2


@dataclass(frozen=True)
class QuantSpec:
    """One affine grid: ``real = scale * (code - zero_point)``.

    Attributes:
        scale: float32 scalar, or vector of shape [C] for a per-channel grid along ``axis``.
        zero_point: integer array of the shape of ``scale``; 0 for weights.
        dtype: type of the codes: uint8, int8, int16 or int32.
        axis: channel axis, None for a per-tensor grid.
    """

    scale: Array
    zero_point: Array
    dtype: np.dtype[Any]
    axis: int | None = None

    @staticmethod
    def per_tensor(scale: float, zero_point: int, dtype: Any) -> QuantSpec:
        """The usual grid of an activation."""
        kind = np.dtype(dtype)
        return QuantSpec(np.array(scale, np.float32), np.asarray(zero_point, kind), kind)

    @property
    def qmin(self) -> int:
        """Smallest code."""
        return int(np.iinfo(self.dtype).min)

    @property
    def qmax(self) -> int:
        """Largest code."""
        return int(np.iinfo(self.dtype).max)

    def _along(self, values: Array, rank: int) -> Array:
        if self.axis is None:
            return values
        shape = [1] * rank
        shape[self.axis] = -1
        return values.reshape(shape)

    def quantize(self, real: Array) -> Array:
        """Codes of ``real`` as ONNX QuantizeLinear gives them: half to even, saturating."""
        scale, zero = (self._along(v, real.ndim) for v in (self.scale, self.zero_point))
        with np.errstate(over="ignore"):  # what a mask puts far below the grid saturates
            codes = np.rint(real.astype(np.float32) / scale.astype(np.float32)) + zero.astype(np.float32)
        wide = np.float64 if self.dtype.itemsize > 2 else np.float32  # float32 holds every 16-bit code
        result: Array = np.clip(codes.astype(wide, copy=False), self.qmin, self.qmax).astype(self.dtype)
        return result

    def dequantize(self, codes: Array) -> Array:
        """float32 values of ``codes`` as ONNX DequantizeLinear gives them."""
        scale, zero = (self._along(v, codes.ndim) for v in (self.scale, self.zero_point))
        wide = np.int64 if self.dtype.itemsize > 2 else np.int32
        result: Array = np.subtract(codes, zero, dtype=wide, casting="unsafe").astype(np.float32)
        result *= scale.astype(np.float32)
        return result

    def widened(self) -> QuantSpec:
        """The int16 grid with zero point 0 over the range of an 8-bit one."""
        zero_point = int(self.zero_point)
        steps = max(zero_point - self.qmin, self.qmax - zero_point)
        return QuantSpec.per_tensor(float(self.scale) * steps / 32767, 0, np.int16)

    def same_as(self, other: QuantSpec) -> bool:
        """True when both grids have the same codes, bit for bit."""
        return (
            self.dtype == other.dtype and self.axis == other.axis
            and np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)
        )


def producer(tensor: Tensor) -> Node | None:
    """The node that writes ``tensor``; None for graph inputs and constants."""
    return tensor.inputs[0] if tensor.inputs else None


def consumers(tensor: Tensor) -> list[Node]:
    """The nodes that read ``tensor``, each once, in the order of their first use."""
    return list({id(node): node for node in tensor.outputs}.values())


def constant_of(tensor: Tensor | None) -> Array | None:
    """The value of a constant tensor (initializer, or output of a Constant node); None for anything else."""
    if isinstance(tensor, Constant):
        return np.asarray(tensor.values)
    if tensor is not None and tensor.inputs and tensor.inputs[0].op == "Constant":
        value = tensor.inputs[0].attrs.get("value")
        return None if value is None else np.asarray(value.values)
    return None


def is_float(tensor: Tensor) -> bool:
    """True for tensors of a float type."""
    return isinstance(tensor.dtype, np.dtype | type) and np.issubdtype(np.dtype(tensor.dtype), np.floating)


def float_inputs(graph: Graph) -> list[Tensor]:
    """The float inputs as the network reads them: those of another type than float32 behind their Cast."""
    given = [tensor for tensor in graph.inputs if is_float(tensor)]
    casts = [node.outputs[0] for tensor in given for node in consumers(tensor) if is_float_cast(node)]
    return [*given, *casts]


def float_outputs(graph: Graph) -> list[Tensor]:
    """The float outputs as the network writes them: those of another type than float32 in front of their Cast."""
    given = [tensor for tensor in graph.outputs if is_float(tensor)]
    writers = [producer(tensor) for tensor in given]
    return [
        tensor if node is None or not is_float_cast(node) else node.inputs[0]
        for tensor, node in zip(given, writers, strict=True)
    ]


def is_float_cast(node: Node) -> bool:
    """True for a Cast from one float type to another."""
    return node.op == "Cast" and is_float(node.inputs[0]) and is_float(node.outputs[0])


def copy_of(graph: Graph) -> Graph:
    """A copy that shares constants' values and keeps sequences and the file's metadata, unlike graphsurgeon's own."""
    kinds = {tensor.name: tensor.type for tensor in _variables(graph)}
    copy = graph.copy()
    for tensor in _variables(copy):
        tensor.type = kinds[tensor.name]
    if ORIGIN in graph.__dict__:
        copy.__dict__[ORIGIN] = graph.__dict__[ORIGIN]
    return copy


def _variables(graph: Graph) -> Iterator[Variable]:
    for body in (graph, *graph.subgraphs(recursive=True)):
        inside = [tensor for node in body.nodes for tensor in (*node.inputs, *node.outputs)]
        yield from (tensor for tensor in (*body.inputs, *body.outputs, *inside) if isinstance(tensor, Variable))


def names_in(graph: Graph) -> set[str]:
    """Names of all tensors and nodes of ``graph``."""
    names = {t.name for node in graph.nodes for t in (*node.inputs, *node.outputs)}
    return names | {node.name for node in graph.nodes} | {t.name for t in (*graph.inputs, *graph.outputs)}


def unique_name(taken: set[str], base: str) -> str:
    """``base``, or ``base_2`` and so on, whichever is free; the name is added to ``taken``."""
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    return name


def subgraphs(node: Node) -> list[Graph]:
    """Bodies of a control-flow node (If, Loop, Scan)."""
    return [value for value in node.attrs.values() if isinstance(value, gs.Graph)]


def replace_uses(graph: Graph, old: Tensor, new: Tensor, readers: Iterable[Node] | None = None) -> None:
    """Make ``readers`` (default: every consumer, and the graph's outputs) read ``new`` instead of ``old``."""
    for node in list(readers) if readers is not None else consumers(old):
        for index, tensor in enumerate(node.inputs):
            if tensor is old:
                node.inputs[index] = new
    if readers is None:
        graph.outputs = [new if tensor is old else tensor for tensor in graph.outputs]


def read_spec(node: Node) -> QuantSpec | None:
    """The grid of a QuantizeLinear or DequantizeLinear node; None when its parameters are not constant.

    A vector of one scale keeps its axis over a constant of one channel. Over anything else it is a grid per tensor,
    as a scalar is.
    """
    scale = constant_of(node.inputs[1])
    if scale is None:
        return None
    if len(node.inputs) > 2 and node.inputs[2].name:
        zero = constant_of(node.inputs[2])
        if zero is None:
            return None
    elif node.op == "DequantizeLinear":
        zero = np.zeros(scale.shape, node.inputs[0].dtype)
    else:
        zero = np.zeros(scale.shape, np.uint8)
    axis = int(node.attrs.get("axis", 1))
    per_channel = scale.size > 1 or (scale.ndim == 1 and _has_one_channel(node.inputs[0], axis))
    shape = scale.shape if per_channel else ()
    return QuantSpec(
        scale.astype(np.float32).reshape(shape), zero.reshape(shape), zero.dtype, axis if per_channel else None
    )


def _has_one_channel(tensor: Tensor, axis: int) -> bool:
    """True for a constant, or the codes of one, whose size along ``axis`` is 1."""
    node = producer(tensor)
    stored = node.inputs[0] if node is not None and node.op == "QuantizeLinear" else tensor
    return isinstance(stored, Constant) and -len(stored.shape) <= axis < len(stored.shape) and stored.shape[axis] == 1


def spec_of(tensor: Tensor) -> QuantSpec | None:
    """The grid of a tensor that comes out of a DequantizeLinear node; None for any other tensor."""
    node = producer(tensor)
    return read_spec(node) if node is not None and node.op == "DequantizeLinear" else None


def quantized_source(tensor: Tensor) -> Tensor | None:
    """The code tensor (or constant) behind a DequantizeLinear output; None for any other tensor."""
    node = producer(tensor)
    return node.inputs[0] if node is not None and node.op == "DequantizeLinear" else None


def _parameters(base: str, spec: QuantSpec, taken: set[str]) -> list[Constant]:
    return [
        Constant(unique_name(taken, f"{base}_scale"), np.asarray(spec.scale, np.float32)),
        Constant(unique_name(taken, f"{base}_zero_point"), np.asarray(spec.zero_point, spec.dtype)),
    ]


def insert_qdq(
    graph: Graph, tensor: Tensor, spec: QuantSpec, taken: set[str], readers: Sequence[Node] | None = None
) -> Variable:
    """Put a Q/DQ pair behind ``tensor`` and let ``readers`` (default: all, and the graph's outputs) read its end.

    A graph output keeps its name: the tensor before the pair is renamed instead. Returns the float tensor behind the
    pair.
    """
    parameters = _parameters(tensor.name, spec, taken)
    attrs = {} if spec.axis is None else {"axis": spec.axis}
    codes = Variable(unique_name(taken, f"{tensor.name}_codes"), dtype=spec.dtype, shape=tensor.shape)
    result = Variable(unique_name(taken, f"{tensor.name}_dq"), dtype=np.float32, shape=tensor.shape)
    nodes = (codes.name, result.name)  # an output's name may be that of a node already
    takes_output = readers is None and any(tensor is out for out in graph.outputs)
    replace_uses(graph, tensor, result, readers)
    if takes_output:
        inner = unique_name(taken, f"{tensor.name}_float")
        result.name, tensor.name = tensor.name, inner
    for op, name, source, target in zip(
        ("QuantizeLinear", "DequantizeLinear"), nodes, (tensor, codes), (codes, result), strict=True
    ):
        graph.nodes.append(Node(op, name, dict(attrs), [source, *parameters], [target]))
    return result


def dequantize_constant(graph: Graph, name: str, codes: Array, spec: QuantSpec, taken: set[str]) -> Variable:
    """An integer initializer with its DequantizeLinear node; returns the float tensor behind it."""
    stored = Constant(unique_name(taken, f"{name}_codes"), codes.astype(spec.dtype, order="C"))
    result = Variable(unique_name(taken, f"{name}_dq"), dtype=np.float32, shape=list(codes.shape))
    attrs = {} if spec.axis is None else {"axis": spec.axis}
    graph.nodes.append(
        Node("DequantizeLinear", result.name, attrs, [stored, *_parameters(name, spec, taken)], [result])
    )
    return result


def to_networkx(graph: Graph) -> nx.DiGraph[int]:
    """Nodes by index in ``graph.nodes``, an edge for each tensor between two nodes (attribute ``tensor``)."""
    index = {id(node): i for i, node in enumerate(graph.nodes)}
    view: nx.DiGraph[int] = nx.DiGraph()
    view.add_nodes_from((i, {"node": node}) for i, node in enumerate(graph.nodes))
    view.add_edges_from(_edges(graph, index))
    return view


def _edges(graph: Graph, index: dict[int, int]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    for target, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            source = producer(tensor)
            if source is not None and id(source) in index:
                yield index[id(source)], target, {"tensor": tensor.name}
