"""What the rewriting passes share: asking for a shape of subgraph, and putting a tensor in another one's place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import (
    STANDARD_DOMAINS,
    Constant,
    Graph,
    Node,
    Tensor,
    Variable,
    constant_of,
    names_in,
    producer,
    replace_uses,
    unique_name,
)

Array = NDArray[Any]


def standard(graph: Graph, *ops: str) -> Iterator[Node]:
    """Nodes of the standard operators ``ops``, from a snapshot: replaced nodes are skipped if the graph changes."""
    for node in list(graph.nodes):
        if node.op in ops and node.domain in STANDARD_DOMAINS and node.outputs:
            yield node


def made_by(tensor: Tensor, *ops: str) -> Node | None:
    """The node that writes ``tensor``, if it is one of the standard operators ``ops``."""
    node = producer(tensor)
    return node if node is not None and node.op in ops and node.domain in STANDARD_DOMAINS else None


def is_output(graph: Graph, tensor: Tensor) -> bool:
    """True for outputs of the graph."""
    return any(tensor is out for out in graph.outputs)


def sole_user(graph: Graph, tensor: Tensor) -> Node | None:
    """The node that alone reads ``tensor``, once; None when the graph returns it, too."""
    return tensor.outputs[0] if len(tensor.outputs) == 1 and not is_output(graph, tensor) else None


def scalar_of(tensor: Tensor | None) -> float | None:
    """The number in a constant of one element."""
    value = constant_of(tensor)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 and value.dtype.kind in "fiu" else None


def constant_operand(node: Node) -> tuple[Tensor, Array] | None:
    """The variable and the constant operand of a binary node; None unless exactly one is constant."""
    left, right = (constant_of(tensor) for tensor in node.inputs[:2])
    if left is not None:
        return (node.inputs[1], left) if right is None else None
    return (node.inputs[0], right) if right is not None else None


def new_constant(graph: Graph, base: str, values: Array) -> Constant:
    """A constant with a name of its own."""
    return Constant(unique_name(names_in(graph), base), np.asarray(values, order="C"))


def new_variable(graph: Graph, base: str, like: Tensor) -> Variable:
    """A variable of the type and shape of ``like``."""
    return Variable(unique_name(names_in(graph), base), dtype=like.dtype, shape=like.shape)


def rename(graph: Graph, tensor: Tensor, suffix: str) -> None:
    """Give an inner tensor a new name, as it holds other values from now on: reports compare tensors by name."""
    tensor.name = unique_name(names_in(graph), f"{tensor.name}_{suffix}")


def insert_before(graph: Graph, node: Node, new: Node) -> None:
    """Add ``new`` to the graph, in front of ``node``."""
    graph.nodes.insert(next(index for index, other in enumerate(graph.nodes) if other is node), new)


def take_over(graph: Graph, node: Node, new: Node, output: Tensor) -> None:
    """Let ``new`` write ``output`` (and its name) from now on, in the place of ``node``, which is cut off."""
    insert_before(graph, node, new)
    output.inputs.clear()
    new.outputs = [output]
    node.inputs.clear()


def bypass(graph: Graph, node: Node, source: Tensor) -> bool:
    """Let everybody who reads the first output of ``node`` read ``source``; graph outputs keep their names.

    False (and nothing changed) when an output of the graph would have to be an input, a constant or another output.
    """
    output = node.outputs[0]
    if not is_output(graph, output):
        replace_uses(graph, output, source)
        node.outputs.clear()
        node.inputs.clear()
        return True
    writer = producer(source)
    if writer is None or is_output(graph, source) or not any(writer is other for other in graph.nodes):
        return False
    node.outputs.clear()
    node.inputs.clear()
    replace_uses(graph, source, output)
    writer.outputs[next(index for index, tensor in enumerate(writer.outputs) if tensor is source)] = output
    return True
