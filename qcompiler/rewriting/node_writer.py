"""Writes standard operators in the place of another one: what the rules of `expand-operators` share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import (
    Constant,
    Graph,
    Node,
    Tensor,
    Variable,
    consumers,
    is_float,
    replace_uses,
    unique_name,
)

__all__ = ["Results", "Rule", "Writer", "given", "rank_of"]


def given(node: Node, index: int) -> Tensor | None:
    """The input at a position; None where the node has none."""
    tensor = node.inputs[index] if index < len(node.inputs) else None
    return tensor if tensor is not None and tensor.name else None


def rank_of(tensor: Tensor) -> int | None:
    """Number of dimensions, None where it is unknown."""
    return None if tensor.shape is None else len(tensor.shape)


Known: TypeAlias = "Callable[[Tensor], list[int | None] | None]"
Results = Sequence[Tensor | None] | str | None
"""What a rule answers: a tensor for each output (None: nobody reads it), a reason to decline, or None for a node that
it leaves alone silently."""


class Writer:
    """Collects the nodes that take the place of ``node``.

    Attributes:
        node: the node that is replaced.
        dtype: element type of what it computes.
        shared: what nodes before it have computed and this one may read, by a key of its rule.
        leaving: ids of the graph's outputs.
        known: the elements of an integer tensor, None for those that depend on sizes; None where nothing is known.
    """

    def __init__(
        self, node: Node, taken: set[str], shared: dict[tuple[Any, ...], Tensor], leaving: Collection[int] = (),
        known: Known = lambda _tensor: None,
    ) -> None:  # fmt: skip
        self.node, self.shared, self.leaving, self.known, self._taken = node, shared, leaving, known, taken
        self.nodes: list[Node] = []
        self._base = next((tensor.name for tensor in node.outputs if tensor.name), node.name)
        floats = [tensor for tensor in (*node.outputs, *node.inputs) if is_float(tensor)]
        self.dtype = np.dtype(floats[0].dtype) if floats else np.dtype(np.float32)

    def is_read(self, tensor: Tensor) -> bool:
        """Whether a node or the user reads an output of the node."""
        return bool(consumers(tensor)) or id(tensor) in self.leaving

    def op(self, op: str, *inputs: Tensor | None, dtype: Any = None, **attrs: Any) -> Variable:
        """The output of a new node; missing trailing inputs are left out, others are empty."""
        output = Variable(
            unique_name(self._taken, f"{self._base}_{op}"), dtype=self.dtype if dtype is None else np.dtype(dtype)
        )
        self._append(op, inputs, [output], attrs)
        return output

    def ops(
        self, op: str, inputs: Sequence[Tensor | None], wanted: Sequence[bool], **attrs: Any
    ) -> list[Tensor | None]:
        """The outputs of a new node with several; None for those that are not wanted."""
        names = [
            unique_name(self._taken, f"{self._base}_{op}_{index}") if want else "" for index, want in enumerate(wanted)
        ]
        outputs = [Variable(name, dtype=self.dtype) if name else Variable.empty() for name in names]
        self._append(op, inputs, outputs, attrs)
        return [output if output.name else None for output in outputs]

    def _append(self, op: str, inputs: Sequence[Tensor | None], outputs: list[Variable], attrs: dict[str, Any]) -> None:
        operands = [Variable.empty() if tensor is None else tensor for tensor in inputs]
        while operands and not operands[-1].name:
            operands.pop()
        label = next(output.name for output in outputs if output.name)
        self.nodes.append(Node(op, unique_name(self._taken, f"{op}_{label}"), attrs, operands, outputs))

    def ints(self, op: str, *inputs: Tensor | None, **attrs: Any) -> Variable:
        """The int64 output of a new node."""
        return self.op(op, *inputs, dtype=np.int64, **attrs)

    def constant(self, name: str, values: NDArray[Any] | float) -> Constant:
        """A constant; numbers and float arrays take the node's element type."""
        array = np.asarray(values)
        array = array if array.dtype.kind in "iub" else array.astype(self.dtype)
        return Constant(
            unique_name(self._taken, f"{self._base}_{name}"), np.ascontiguousarray(array) if array.ndim else array
        )

    def int64(self, name: str, values: Any) -> Constant:
        """A constant of sizes, axes or positions."""
        return self.constant(name, np.asarray(values, np.int64))

    def along(self, x: Tensor, matrix: Tensor, axis: int, rank: int) -> Variable:
        """``x`` of this rank times a matrix [n, m] along an axis of n elements."""
        if axis == rank - 1:
            return self.op("MatMul", x, matrix)
        turn = [place for place in range(rank) if place != axis] + [axis]
        y = self.op("MatMul", self.op("Transpose", x, perm=turn), matrix)
        return self.op("Transpose", y, perm=[turn.index(place) for place in range(rank)])

    def replace(self, graph: Graph, results: Sequence[Tensor | None]) -> None:
        """Put the collected nodes into ``graph``; ``results`` take the names and readers of the node's outputs."""
        position = next(index for index, other in enumerate(graph.nodes) if other is self.node)
        for output, result in zip(self.node.outputs, results, strict=False):
            if output.name and result is not None:
                self._take(graph, output, result)
        graph.nodes[position:position + 1] = self.nodes
        self.node.inputs.clear()
        self.node.outputs.clear()

    def _take(self, graph: Graph, output: Tensor, result: Tensor) -> None:
        own = {id(tensor) for node in self.nodes for tensor in node.outputs}
        if id(result) not in own:
            result = self.op("Identity", result, dtype=result.dtype)
        replace_uses(graph, output, result)
        result.name, output.name = output.name, unique_name(self._taken, f"{output.name}_replaced")
        result.dtype = result.dtype if output.dtype is None else output.dtype
        result.shape = output.shape


Rule = Callable[[Writer, Node], Results]
"""Writes the nodes that take a node's place and gives the tensors that take its outputs'."""
