"""Runs feeds through a graph whose front no longer changes, layer by layer, without starting anew for each layer.

Asked for the input of one layer after the other, in graph order (else it starts anew), it keeps what is alive between
two layers for every feed, as long as that fits a stated limit, and runs only the nodes behind it. Where too much is
alive (the first layers of a convolutional net) it starts from the last place that did fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed, Graph, Node, Tensor, Variable, producer, subgraphs
from qcompiler.graph.runner import Runner

__all__ = ["ALIVE_BYTES", "Prefix"]

ALIVE_BYTES = 1 << 28
"""Bytes of tensors kept between layers, over all feeds."""

Array = NDArray[Any]


class Prefix:
    """The values that layers of a graph read.

    Args:
        graph: sorted; nodes in front of a layer that was asked for must not change any more, those behind it may.
        data: feeds, read again as long as nothing is kept.
        feeds: their number.
        limit: bytes to keep between layers.
    """

    def __init__(self, graph: Graph, data: Iterable[Feed], feeds: int, limit: int = ALIVE_BYTES) -> None:
        self._graph, self._data, self._feeds, self._limit = graph, data, feeds, limit
        self._states: Iterable[Feed] = data
        self._variable, self._nodes, self._first = {id(tensor) for tensor in graph.inputs}, list[Node](), 0
        self._has_bodies = any(subgraphs(node) for node in graph.nodes)  # they read tensors that no node lists
        for node in graph.nodes:
            if any(id(tensor) in self._variable for tensor in node.inputs):
                self._nodes.append(node)
                self._variable |= {id(tensor) for tensor in node.outputs}

    def inputs_of(self, node: Node) -> Iterator[Array]:
        """The first input of ``node`` for each feed."""
        if self._has_bodies:
            runner = Runner(self._graph, [node.inputs[0].name])
            yield from (runner.run(feed)[node.inputs[0].name] for feed in self._states)
            return
        place = next(index for index, other in enumerate(self._nodes) if other is node)
        if place < self._first:
            self._states, self._first = self._data, 0
        wanted, segment = node.inputs[0], self._nodes[self._first : place]
        made = {id(tensor) for other in segment for tensor in other.outputs}
        alive = {id(tensor): tensor for tensor in (wanted, *self._alive(place))}
        computed = [tensor for key, tensor in alive.items() if key in made]
        passed = [tensor.name for key, tensor in alive.items() if key not in made]
        run, keeps, states = self._runner(segment, computed), True, list[Feed]()
        for number, state in enumerate(self._states):
            values = {name: state[name] for name in passed} | run(
                state, computed if keeps else [tensor for tensor in computed if tensor is wanted]
            )
            if number == 0 and self._feeds * sum(value.nbytes for value in values.values()) > self._limit:
                keeps = False
            if keeps:
                states.append(values)
            yield values[wanted.name]
        if keeps:
            self._states, self._first = states, place

    def _alive(self, place: int) -> list[Tensor]:
        """Tensors known in front of the node at ``place`` that it or one behind it reads."""
        behind = self._nodes[place:]
        made = {id(tensor) for node in behind for tensor in node.outputs}
        return [
            tensor
            for node in behind
            for tensor in node.inputs
            if id(tensor) in self._variable and id(tensor) not in made
        ]

    def _runner(
        self, nodes: Sequence[Node], outputs: Sequence[Tensor]
    ) -> Callable[[Feed, Sequence[Tensor]], dict[str, Array]]:
        """Runs nodes, and those that compute constants for them, on what is kept."""
        if not outputs:
            return lambda state, wanted: {}
        made = {id(tensor) for node in nodes for tensor in node.outputs}
        read = {id(tensor): tensor for node in nodes for tensor in node.inputs if tensor.name}
        given = [tensor for key, tensor in read.items() if key in self._variable and key not in made]
        constant = _producers(tensor for key, tensor in read.items() if key not in self._variable)
        runner: list[Runner] = []

        def run(state: Feed, wanted: Sequence[Tensor]) -> dict[str, Array]:
            if not runner:  # the values tell the types, which the graph may not know
                inputs = [Variable(tensor.name, np.asarray(state[tensor.name]).dtype) for tensor in given]
                graph = self._graph
                segment = Graph(
                    [*constant, *nodes], inputs, list(outputs), name="segment", opset=graph.opset,
                    import_domains=graph.import_domains,
                    ir_version=graph.ir_version, functions=graph.functions,
                )  # fmt: skip
                runner.append(Runner(segment))
            return runner[0].run(
                {tensor.name: state[tensor.name] for tensor in given}, [tensor.name for tensor in wanted]
            )

        return run


def _producers(tensors: Iterable[Tensor]) -> list[Node]:
    """The nodes that ``tensors`` come from, sorted."""
    found: dict[int, Node] = {}
    pending = [node for tensor in tensors if (node := producer(tensor)) is not None]
    while pending:
        node = pending.pop()
        found.pop(id(node), None)  # once more, behind what reads it
        found[id(node)] = node
        pending += [source for tensor in node.inputs if (source := producer(tensor)) is not None]
    return list(found.values())[::-1]
