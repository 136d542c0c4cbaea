"""Quantizes small float graphs, runs them on the machine, onnxruntime and as integer ONNX, and compares all three."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from qcompiler.graph import verify
from qcompiler.graph.ir import (
    Constant,
    Graph,
    Node,
    QuantSpec,
    Stage,
    Tensor,
    dequantize_constant,
    insert_qdq,
    is_float,
    names_in,
    producer,
)
from qcompiler.graph.runner import Runner
from qcompiler.lowering import lower_graph, to_integer_onnx, to_program
from qcompiler.lowering.constants import Constants, evaluate
from qcompiler.lowering.prepare import prepared
from qcompiler.runtime import Session

Feed = Mapping[str, np.ndarray]
_SHIFT = {"uint8": 0, "int8": 128, "int16": 0, "uint16": -32768}


def grid_over(values: np.ndarray, dtype: Any) -> QuantSpec:
    """A grid that covers ``values`` and 0: asymmetric, int16 with zero point 0."""
    info = np.iinfo(dtype)
    low, high = min(float(values.min(initial=0.0)), 0.0), max(float(values.max(initial=0.0)), 0.0)
    if np.dtype(dtype) == np.int16:
        return QuantSpec.per_tensor(max(-low, high, 1e-6) / 32767, 0, dtype)
    scale = max(high - low, 1e-6) / (info.max - info.min)
    return QuantSpec.per_tensor(scale, int(np.clip(round(info.min - low / scale), info.min, info.max)), dtype)


def quantize(graph: Graph, feed: Feed, dtype: Any = np.uint8) -> Graph:
    """Q/DQ behind every float tensor but those whose name begins with ``_``; int8 weights where a constant's name
    begins with ``w``.

    A name ``w_0`` means scales along axis 0.
    """
    taken = names_in(graph)
    tensors = [t for t in _floats(graph) if not t.name.startswith("_")]
    values = {**feed, **Runner(graph, [t.name for t in tensors if producer(t) is not None]).run(feed)}
    for tensor in tensors:
        insert_qdq(graph, tensor, grid_over(values[tensor.name], dtype), taken)
    for node in list(graph.nodes):
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, Constant) and tensor.name.startswith("w"):
                node.inputs[index] = _weight(graph, tensor, taken)
    return graph.toposort()


def _floats(graph: Graph) -> Iterator[Tensor]:
    yield from (tensor for tensor in graph.inputs if is_float(tensor))
    yield from (tensor for node in graph.nodes for tensor in node.outputs if is_float(tensor) and tensor.name)


def _weight(graph: Graph, tensor: Constant, taken: set[str]) -> Tensor:
    axis = int(tensor.name.split("_")[1]) if "_" in tensor.name else None
    values = np.asarray(tensor.values)
    others = None if axis is None else tuple(i for i in range(values.ndim) if i != axis)
    scale = (np.abs(values).max(axis=others) / 127).astype(np.float32)
    spec = QuantSpec(scale, np.zeros_like(scale, np.int8), np.dtype(np.int8), axis)
    return dequantize_constant(graph, tensor.name, spec.quantize(values), spec, taken)


@dataclass
class Result:
    """What `check` found: the integer graph, the machine's outputs, onnxruntime's, and the least share of equal codes
    of a layer.
    """

    integer: Graph
    outputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    exact: float

    @property
    def ops(self) -> list[str]:
        return [node.op for node in self.integer.nodes if node.op not in ("Quantize", "Dequantize")]


def check(graph: Graph, feed: Feed, *, within: float = 0.999, steps: int = 1, integer_onnx: bool = True) -> Result:
    """Lower a quantized graph and hold the three against each other: ``within`` of a layer's codes at most ``steps``
    apart.
    """
    integer = lower_graph(graph)
    verify.check(integer, Stage.INTEGER)
    session = Session(to_program(integer))
    outputs, trace = session.run(feed), session.trace(feed)
    layers = list(layer_steps(graph, trace, feed))
    assert layers or not any(node.op == "QuantizeLinear" for node in graph.nodes)
    for name, apart in layers:
        assert np.mean(np.abs(apart) <= steps) >= within, f"{name}: {np.abs(apart).max()} steps apart"
    if integer_onnx:
        assert_same_in_onnxruntime(integer, feed, trace, outputs)
    exact = min((float(np.mean(apart == 0)) for _, apart in layers), default=1.0)
    return Result(integer, outputs, Runner(graph, fusions=False).run(feed), exact)


def assert_same_in_onnxruntime(integer: Graph, feed: Feed, trace: Feed, outputs: Feed) -> None:
    """Every tensor of the integer graph is the same in onnxruntime and in the machine."""
    standard = to_integer_onnx(integer)
    assert {node.domain for node in standard.nodes} <= {None, ""}
    names = [
        out.name for node in integer.nodes for out in node.outputs if out.name in trace and out.name not in outputs
    ]
    values = Runner(standard, [*names, *outputs]).run(feed)
    for name in names:
        assert np.array_equal(values[name], trace[name]), f"{name}: machine and integer ONNX differ"
    for name, value in outputs.items():
        assert np.array_equal(values[name], value), f"{name}: machine and integer ONNX differ"


def layer_steps(graph: Graph, trace: Feed, feed: Feed) -> Iterator[tuple[str, np.ndarray]]:
    """For every QuantizeLinear node: codes of the machine less onnxruntime's, both given the machine's inputs to that
    layer.
    """
    graph = prepared(graph)
    constants = Constants(graph)
    for node in graph.nodes:
        codes = node.outputs[0]
        if node.op != "QuantizeLinear" or codes.name not in trace or constants.value(codes) is not None:
            continue
        nodes, sources = _region(node, constants)
        inputs = {t.name: _given(t, trace, feed) for t in sources if t.name in trace or t.name in feed}
        if len(inputs) == len(sources):
            expected = (
                evaluate(graph, nodes, codes, inputs, constants.value).astype(np.int64)
                + _SHIFT[np.dtype(codes.dtype).name]
            )
            yield codes.name, trace[codes.name].astype(np.int64) - expected


def _given(tensor: Tensor, trace: Feed, feed: Feed) -> np.ndarray:
    if tensor.name in feed:
        return feed[tensor.name]
    dtype = np.dtype(tensor.dtype)
    return (trace[tensor.name].astype(np.int64) - _SHIFT[dtype.name]).astype(dtype)


def _region(last: Node, constants: Constants) -> tuple[list[Node], list[Tensor]]:
    """The nodes from the codes before ``last`` to ``last``, and the tensors they read."""
    nodes: dict[int, Node] = {}
    sources: dict[str, Tensor] = {}
    stack = [last]
    while stack:
        node = stack.pop()
        nodes[id(node)] = node
        for tensor in node.inputs:
            source = producer(tensor)
            if not tensor.name or constants.value(tensor) is not None:
                continue
            if source is None or source.op == "QuantizeLinear":
                sources[tensor.name] = tensor
            elif id(source) not in nodes:
                stack.append(source)
    return list(nodes.values()), list(sources.values())


def reimported(graph: Graph) -> Graph:
    """The graph as it comes back from a file."""
    return gs.import_onnx(gs.export_onnx(graph, do_type_check=False))
