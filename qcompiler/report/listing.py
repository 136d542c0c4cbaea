"""A graph as text, one line a node: what `--print-after` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from qcompiler.graph.ir import Graph, Node, Tensor, constant_of, subgraphs


def listing(graph: Graph, indent: str = "") -> Iterator[str]:
    """Lines such as ``%y: float32[1, 8] = Relu(%x)``; constants by type and shape, small ones by value."""
    if not indent:
        yield f"inputs  {', '.join(_typed(tensor) for tensor in graph.inputs)}"
    for node in graph.nodes:
        targets = ", ".join(_typed(tensor) for tensor in node.outputs)
        operands = ", ".join(_operand(tensor) for tensor in node.inputs)
        yield f"{indent}{targets} = {node.domain + '::' if node.domain else ''}{node.op}({operands}){_attributes(node)}"
        for body in subgraphs(node):
            yield from listing(body, indent + "    ")
    if not indent:
        yield f"outputs {', '.join(_typed(tensor) for tensor in graph.outputs)}"


def _typed(tensor: Tensor) -> str:
    shape = "?" if tensor.shape is None else f"[{', '.join(str(dim) for dim in tensor.shape)}]"
    return f"%{tensor.name}: {_type(tensor)}{shape}"


def _type(tensor: Tensor) -> str:
    kind = tensor.dtype
    if kind is None:
        return "?"
    name: str = onnx.TensorProto.DataType.Name(kind).lower() if isinstance(kind, int) else np.dtype(kind).name
    return name


def _operand(tensor: Tensor) -> str:
    value = constant_of(tensor)
    if value is None:
        return f"%{tensor.name}" if tensor.name else "-"
    return f"{value.tolist()}: {value.dtype}" if value.size <= 4 else f"{tensor.name}: {value.dtype}{list(value.shape)}"


def _attributes(node: Node) -> str:
    shown = {key: value for key, value in sorted(node.attrs.items()) if not isinstance(value, Graph)}
    return " {" + ", ".join(f"{key}={_short(value)}" for key, value in shown.items()) + "}" if shown else ""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
