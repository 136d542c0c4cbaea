"""What the lowering expects of a graph: topological order, and the types and shapes of all tensors."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from qcompiler.graph.ir import Constant, Graph, Node, consumers, copy_of, is_float_cast, producer, replace_uses
from qcompiler.lowering.constants import Constants
from qcompiler.shapes import infer


def prepared(graph: Graph) -> Graph:
    """A copy of ``graph`` in topological order, every tensor with its type and as much of its shape as is known."""
    result = copy_of(graph)
    if any(tensor.dtype is None for node in result.nodes for tensor in node.outputs if tensor.name):
        proto = gs.export_onnx(result, do_type_check=False)
        result = gs.import_onnx(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    for node in result.nodes:
        if node.op == "CastLike":
            _plain_cast(node)
    _take_casts_off(result)
    result.toposort()
    _fold_parameters(result)
    infer.annotate(result)
    return result


def _take_casts_off(graph: Graph) -> None:
    """Inputs and outputs of other float types are converted at the border: their Casts have no work of their own."""
    inputs = {id(tensor) for tensor in graph.inputs}
    outputs = {id(tensor) for tensor in graph.outputs}
    for node in [node for node in graph.nodes if is_float_cast(node)]:
        source, result = node.inputs[0], node.outputs[0]
        if id(source) in inputs and result.dtype == np.float32:
            replace_uses(graph, result, source)
        elif not consumers(result) and producer(source) is not None and id(source) not in outputs:
            source.name, source.dtype = result.name, result.dtype
            graph.outputs = [source if tensor is result else tensor for tensor in graph.outputs]
        else:
            continue
        node.inputs.clear()
        node.outputs.clear()
        graph.nodes.remove(node)


def _plain_cast(node: Node) -> None:
    """CastLike as a Cast to the type of its second input."""
    node.op = "Cast"
    node.attrs = {"to": int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(node.inputs[1].dtype)))}
    node.inputs = [node.inputs[0]]


def _fold_parameters(graph: Graph) -> None:
    """Scales and zero points that nodes compute from constants become constants."""
    constants = Constants(graph)
    known: dict[str, Constant] = {}
    for node in [node for node in graph.nodes if node.op in ("QuantizeLinear", "DequantizeLinear")]:
        for index, tensor in enumerate(node.inputs[1:], start=1):
            value = None if isinstance(tensor, Constant) else constants.value(tensor)
            if value is not None:
                node.inputs[index] = known.setdefault(tensor.name, Constant(f"{tensor.name}_value", value))
