"""Exact clean-ups of an integer graph: a table of a table is one table; what nothing reads is dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Constant, Graph, Node, Tensor, consumers, producer

_TABULAR = ("Table", "Requantize")
_CODES = ("uint8", "int16")


def simplify(graph: Graph) -> Graph:
    """Rewrite ``graph`` in place and return it; every tensor that is left holds the same codes as before."""
    graph.cleanup(remove_unused_graph_inputs=False)
    for node in reversed(graph.nodes):
        if node.op in _TABULAR and node.outputs[0].outputs and np.dtype(node.outputs[0].dtype).name in _CODES:
            _compose(graph, node)
    return graph.cleanup(remove_unused_graph_inputs=False).toposort()


def _compose(graph: Graph, node: Node) -> None:
    """One Table for a chain of Table and Requantize nodes, at least one a Table, with inner results of one reader."""
    chain = [node]
    while True:
        inner = producer(chain[-1].inputs[0])
        if inner is None or inner.op not in _TABULAR or not _is_private(graph, inner.outputs[0]):
            break
        chain.append(inner)
    if len(chain) < 2 or all(member.op == "Requantize" for member in chain):
        return
    tables = [_as_table(member) for member in chain[::-1]]
    entries = tables[0]
    for table in tables[1:]:
        entries = table[entries.astype(np.int64) - int(np.iinfo(entries.dtype).min)]
    node.op = "Table"
    node.inputs = [chain[-1].inputs[0], Constant(f"{node.name}_composed_table", entries)]
    node.attrs = {"dtype": entries.dtype.name}


def _is_private(graph: Graph, tensor: Tensor) -> bool:
    return len(consumers(tensor)) == 1 and not any(tensor is output for output in graph.outputs)


def _as_table(node: Node) -> NDArray[Any]:
    """The codes a Table or Requantize node gives for every code of its input, in ascending order."""
    if node.op == "Table":
        return np.asarray(node.inputs[1].values)
    kind = np.iinfo(np.dtype(node.inputs[0].dtype))
    m, n, zero, y_zp = (int(node.attrs[key]) for key in ("m", "n", "x_zp", "y_zp"))
    scaled = ((np.arange(int(kind.min), int(kind.max) + 1) - zero) * m + (1 << (n - 1))) >> n
    codes: NDArray[Any] = np.clip(scaled + y_zp, int(node.attrs["lo"]), int(node.attrs["hi"])).astype(
        str(node.attrs["dtype"])
    )
    return codes
