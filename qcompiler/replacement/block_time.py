"""How long a block of layers takes on the machine: the block alone, at 8 bits, beside another one in the same run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Graph, Variable, copy_of, names_in, unique_name
from qcompiler.lowering import lower_graph, to_program
from qcompiler.pass_base import Context, Pass
from qcompiler.runtime import Session

_ROUNDS = 25
"""Runs of each block, taken in turn; the fastest one counts."""


def block_of(graph: Graph, inputs: str, outputs: str) -> Graph:
    """What ``graph`` computes between two tensors, as a graph of its own."""
    block = copy_of(graph)
    tensors = block.tensors()
    x = Variable(unique_name(names_in(block), "x"), np.dtype(np.float32), tensors[inputs].shape)
    for node in list(tensors[inputs].outputs):
        node.inputs = [x if tensor is tensors[inputs] else tensor for tensor in node.inputs]
    block.inputs, block.outputs = [x], [tensors[outputs]]
    return block.cleanup(remove_unused_graph_inputs=False).toposort()


def block_milliseconds(blocks: Sequence[Graph], values: NDArray[Any], quantize: Sequence[Pass]) -> list[float] | None:
    """Fastest run of each block on ``values``, quantized by the passes ``quantize``; None without an integer form."""
    sessions = []
    try:
        for block in blocks:
            ctx = Context(data=[{block.inputs[0].name: values}])
            for step in quantize:
                step.run(block, ctx)
            sessions.append(
                Session(
                    to_program(lower_graph(block.cleanup(remove_unused_graph_inputs=False).toposort())), num_threads=1
                )
            )
    except UnsupportedError:
        return None
    feeds = [{block.inputs[0].name: values} for block in blocks]
    fastest = [float("inf")] * len(blocks)
    for _ in range(_ROUNDS):
        for index, (session, feed) in enumerate(zip(sessions, feeds, strict=True)):
            start = time.perf_counter()
            session.run(feed)
            fastest[index] = min(fastest[index], time.perf_counter() - start)
    return [1e3 * seconds for seconds in fastest]
