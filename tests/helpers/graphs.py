"""Small graphs for tests, from ONNX's own text form."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs

from qcompiler.graph.ir import Graph


def graph_of(text: str, opset: int = 21, **initializers: np.ndarray) -> Graph:
    """A graph from text such as ``g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }``."""
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>\n'
    model = onnx.parser.parse_model(header + text)
    for name, value in initializers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(model))
    for index, node in enumerate(graph.nodes):
        node.name = node.name or f"{node.op}_{index}"
    return graph


def ops(graph: Graph) -> list[str]:
    """Operator names in order."""
    return [node.op for node in graph.nodes]
