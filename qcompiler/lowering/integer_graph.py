"""Writes the nodes of an integer graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import INTEGER_DOMAIN, Constant, Graph, Node, Tensor, Variable, unique_name

Array = NDArray[Any]
Shape = Sequence[int | str] | None


class IntegerBuilder:
    """An integer graph under construction. Names are unique; nodes are appended in topological order.

    Attributes:
        graph: what there is of it.
        sources: name of the source's node that an operator was written for, by the operator's name.
    """

    def __init__(self, source: Graph) -> None:
        self.graph = Graph(name=source.name, opset=source.opset, ir_version=source.ir_version)
        self.graph.import_domains = source.import_domains
        self._taken: set[str] = {tensor.name for tensor in (*source.inputs, *source.outputs)}
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], Constant] = {}
        self.sources: dict[str, str] = {}
        self._source = ""

    @contextmanager
    def written_for(self, node: str) -> Iterator[None]:
        """What is appended inside is written for this node of the source."""
        outer, self._source = self._source, node
        try:
            yield
        finally:
            self._source = outer

    def op(
        self, kind: str, name: str, inputs: Sequence[Tensor], attrs: Mapping[str, Any], dtype: Any, shape: Shape
    ) -> Variable:
        """Append one operator with one output and return that output."""
        output = Variable(
            unique_name(self._taken, name), dtype=np.dtype(dtype), shape=None if shape is None else list(shape)
        )
        self.append(kind, list(inputs), attrs, [output])
        return output

    def append(self, kind: str, inputs: list[Tensor], attrs: Mapping[str, Any], outputs: list[Variable]) -> None:
        """Append one operator that writes the given tensors."""
        label = outputs[0].name
        self.sources[label] = self._source
        self.graph.nodes.append(Node(kind, label, dict(attrs), inputs, outputs, domain=INTEGER_DOMAIN))

    def variable(self, name: str, dtype: Any, shape: Shape) -> Variable:
        """A new tensor with a free name."""
        return Variable(
            unique_name(self._taken, name), dtype=np.dtype(dtype), shape=None if shape is None else list(shape)
        )

    def constant(self, name: str, values: Array) -> Constant:
        """A constant; equal arrays are stored once."""
        array = np.asarray(values, order="C")  # ascontiguousarray would make a vector of a scalar
        key = (array.dtype.str, blake2b(array.tobytes()).digest(), array.shape)
        if key not in self._constants:
            self._constants[key] = Constant(unique_name(self._taken, name), array)
        return self._constants[key]

    def int64(self, name: str, values: Sequence[int] | int | Array) -> Constant:
        """An int64 constant."""
        return self.constant(name, np.asarray(values, np.int64))
