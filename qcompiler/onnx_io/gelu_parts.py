"""Gelu as the operators it was before opset 20, so that one function does not ask for a newer runtime.

    erf form:   0.5 x (1 + erf(x / sqrt(2)))
    tanh form:  0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³)))

onnxruntime fuses both again when it loads the file.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from qcompiler.graph.ir import STANDARD_DOMAINS, Constant, Graph, Node, Tensor, Variable, copy_of, names_in, unique_name
from qcompiler.onnx_io import schema

__all__ = ["without_gelu"]


def without_gelu(graph: Graph) -> Graph:
    """A copy whose Gelu nodes are taken apart where these alone ask for the graph's opset; else ``graph`` itself."""
    gelus = [node for node in graph.nodes if _is_gelu(node)]
    if not gelus or schema.needed_opset(graph) > max(schema.needed_version(node, graph.opset) for node in gelus):
        return graph
    copy = copy_of(graph)
    copy.__dict__["metadata_props"] = graph.__dict__.get("metadata_props", {})
    writer = _Writer(copy)
    for node in [node for node in copy.nodes if _is_gelu(node)]:
        writer.take_apart(node)
    copy.cleanup(remove_unused_graph_inputs=False).toposort()
    return copy


def _is_gelu(node: Node) -> bool:
    return node.op == "Gelu" and node.domain in STANDARD_DOMAINS and node.inputs[0].dtype == np.float32


class _Writer:
    """Adds float nodes to a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._taken = graph, names_in(graph)

    def take_apart(self, node: Node) -> None:
        """Let the parts write the output of a Gelu."""
        x, result = node.inputs[0], node.outputs[0]
        tanh = node.attrs.get("approximate", "none") == "tanh"
        node.outputs.clear()
        bent = (
            self._apply("Tanh", self._cubic(x))
            if tanh
            else self._apply("Erf", self._apply("Div", x, self._number(x, sqrt(2))))
        )
        product = self._apply("Mul", x, self._apply("Add", bent, self._number(x, 1.0)))
        self._write("Mul", [product, self._number(x, 0.5)], result)

    def _cubic(self, x: Tensor) -> Tensor:
        """sqrt(2 / pi) (x + 0.044715 x³)."""
        cube = self._apply("Pow", x, self._number(x, 3.0))
        inner = self._apply("Add", x, self._apply("Mul", cube, self._number(x, 0.044715)))
        return self._apply("Mul", inner, self._number(x, sqrt(2 / pi)))

    def _number(self, x: Tensor, value: float) -> Constant:
        return Constant(unique_name(self._taken, f"{x.name}_gelu_number"), np.array(value, np.float32))

    def _apply(self, op: str, *inputs: Tensor) -> Tensor:
        output = Variable(unique_name(self._taken, f"{inputs[0].name}_{op}"), dtype=np.float32, shape=inputs[0].shape)
        self._write(op, list(inputs), output)
        return output

    def _write(self, op: str, inputs: list[Tensor], output: Tensor) -> None:
        self._graph.nodes.append(Node(op, unique_name(self._taken, f"{output.name}_node"), {}, inputs, [output]))
