"""Everything computes in float32 from here on: float16, bfloat16 and float64 become float32 everywhere.

The graph's inputs and outputs keep their types, with a Cast at the border. What float64 holds beyond float32's range
saturates.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from qcompiler.errors import ModelError
from qcompiler.graph.ir import (
    STANDARD_DOMAINS,
    Constant,
    Graph,
    Node,
    Tensor,
    Variable,
    names_in,
    replace_uses,
    unique_name,
)

_NUMPY = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float64))
_ONNX = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
_POLYMORPHIC = (*STANDARD_DOMAINS, "com.microsoft", "ai.onnx.ml")
"""Domains whose operators have the same meaning for every float type."""


def is_other_float(dtype: Any) -> bool:
    """True for float16, bfloat16 and float64, as a numpy type or as an ONNX number."""
    if dtype is None:
        return False
    return dtype in _ONNX if isinstance(dtype, int) else np.dtype(dtype) in _NUMPY


def _onnx_type(dtype: Any) -> int:
    return dtype if isinstance(dtype, int) else int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _tensors(graph: Graph) -> list[Tensor]:
    found = {id(t): t for node in graph.nodes for t in (*node.inputs, *node.outputs)}
    found.update((id(t), t) for t in (*graph.inputs, *graph.outputs))
    return list(found.values())


def _as_single(values: NDArray[Any]) -> NDArray[np.float32]:
    if values.dtype != np.float64:
        return values.astype(np.float32)
    limit = np.finfo(np.float32).max
    return np.where(np.isfinite(values), np.clip(values, -limit, limit), values).astype(np.float32)


def _convert_tensor(tensor: Tensor) -> None:
    if not is_other_float(tensor.dtype):
        return
    if isinstance(tensor, Constant):
        tensor.values = _as_single(np.asarray(tensor.values))
        return
    tensor.dtype = np.dtype(np.float32)


def _convert_attributes(node: Node) -> None:
    for name, value in node.attrs.items():
        if isinstance(value, Constant):
            _convert_tensor(value)
        elif name in ("to", "dtype", "output_dtype") and is_other_float(value):
            node.attrs[name] = int(onnx.TensorProto.FLOAT)


def _cast(graph: Graph, source: Tensor, target: Tensor, to: int, taken: set[str], *, first: bool) -> None:
    node = Node("Cast", unique_name(taken, f"{target.name}_Cast"), {"to": to}, [source], [target])
    graph.nodes.insert(0 if first else len(graph.nodes), node)


def _keep_border(graph: Graph) -> None:
    """Casts between the inputs and outputs of other float types and the float32 inside."""
    taken = names_in(graph)
    for tensor in graph.inputs:
        if is_other_float(tensor.dtype):
            inner = Variable(unique_name(taken, f"{tensor.name}_float32"), dtype=np.float32, shape=tensor.shape)
            replace_uses(graph, tensor, inner)
            _cast(graph, tensor, inner, int(onnx.TensorProto.FLOAT), taken, first=True)
    for index, tensor in enumerate(graph.outputs):
        if isinstance(tensor, Variable) and is_other_float(tensor.dtype):
            border = Variable(tensor.name, dtype=tensor.dtype, shape=tensor.shape)
            tensor.name = unique_name(taken, f"{tensor.name}_float32")
            _cast(graph, tensor, border, _onnx_type(border.dtype), taken, first=False)
            graph.outputs[index] = border


def to_single(graph: Graph) -> bool:
    """Let ``graph`` compute in float32; True when it computed in another float type.

    Raises:
        ModelError: an operator of an unknown domain, or one that looks at bits, has tensors of another float type.
    """
    bodies = [graph, *graph.subgraphs(recursive=True)]
    if not any(is_other_float(tensor.dtype) for body in bodies for tensor in _tensors(body)):
        return False
    for body in bodies:
        for node in body.nodes:
            foreign = node.domain not in _POLYMORPHIC or node.op == "BitCast"  # whose meaning is that of the bits
            if foreign and any(is_other_float(tensor.dtype) for tensor in (*node.inputs, *node.outputs)):
                operator = ".".join(filter(None, (node.domain, node.op)))
                raise ModelError(
                    f"node '{node.name}' ({operator}) computes in another type than float32, which cannot be changed; "
                    "export a float32 model"
                )
    _keep_border(graph)
    border = {id(t) for t in (*graph.inputs, *graph.outputs) if is_other_float(t.dtype)}
    casts = {
        id(node) for node in graph.nodes if node.op == "Cast" and any(id(tensor) in border for tensor in node.outputs)
    }
    for body in bodies:
        for node in body.nodes:
            if id(node) not in casts:
                _convert_attributes(node)
        for tensor in _tensors(body):
            if id(tensor) not in border:
                _convert_tensor(tensor)
    return True
