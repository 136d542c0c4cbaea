"""Constants of few bits back to one element a value."""

from __future__ import annotations

import numpy as np
import onnx

from qcompiler.graph.ir import STANDARD_DOMAINS, Constant, Graph, Node, Tensor
from qcompiler.onnx_io.packed_constants import SMALL_TYPES, Array, StoredConstant


def unpack(graph: Graph) -> None:
    """Undo `packed`, in place: codes become the constants they stand for."""
    ours: set[int] = set()
    for node in graph.nodes:
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, StoredConstant) and all(reader.op == "Cast" for reader in tensor.outputs):
                kind = SMALL_TYPES.get(tensor._values.tensor.data_type)
                if kind is not None:
                    node.inputs[index] = Constant(tensor.name, np.asarray(tensor.values).astype(kind))
                    ours.add(id(node.inputs[index]))
    for node in list(graph.nodes):
        from_codes = any(id(tensor) in ours for tensor in node.inputs) or (
            node.op == "BitShift" and node.inputs[0].dtype == np.uint64
        )
        if from_codes and node.domain in STANDARD_DOMAINS and all(_is_integer(tensor) for tensor in node.inputs):
            value = _value(node)
            if value is not None:
                output = node.outputs[0]
                node.outputs.clear()
                output.to_constant(value)
                ours.add(id(output))
    graph.cleanup(remove_unused_graph_inputs=False)


def _is_integer(tensor: Tensor) -> bool:
    return isinstance(tensor, Constant) and isinstance(tensor.dtype, np.dtype) and tensor.dtype.kind in "iu"


def _value(node: Node) -> Array | None:
    """What an operator of `packed` makes of its constants; None for any other, and for other uses of these."""
    values, attrs = [np.asarray(tensor.values) for tensor in node.inputs], node.attrs
    match node.op:
        case "Cast":
            kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(attrs["to"])))
            return values[0].astype(kind) if kind.kind in "iu" else None
        case "Gather":
            return np.take(values[0], values[1], axis=int(attrs.get("axis", 0)))
        case "GatherElements" if values[0].ndim == values[1].ndim == 2:
            return np.take_along_axis(values[0], values[1], axis=int(attrs.get("axis", 0)))
        case "BitShift" if attrs["direction"] == "RIGHT":
            return np.asarray(np.right_shift(values[0], values[1]))
        case "Mul":
            return np.asarray(np.multiply(values[0], values[1]))
        case "Add":
            return np.asarray(np.add(values[0], values[1]))
        case "Transpose" if "perm" in attrs:
            return np.ascontiguousarray(values[0].transpose([int(axis) for axis in attrs["perm"]]))
        case "BitwiseAnd":
            return np.asarray(np.bitwise_and(values[0], values[1]))
        case "Reshape" if not (values[1] == 0).any():
            return values[0].reshape([int(size) for size in values[1]])
        case "Slice" if len(values) == 3 and values[0].ndim == 1:
            return values[0][int(values[1][0]) : int(values[2][0])]
    return None
