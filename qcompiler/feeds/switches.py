"""Integer inputs of one number that choose the branches of an If: a sample rate, a flag.

The machine runs one sequence of instructions. Where all calibration feeds have the same number there, its program is
made for that number, and refuses feeds with another.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qcompiler.graph.ir import Constant, Feed, Graph, Tensor, constant_of, names_in, producer, replace_uses, unique_name

__all__ = ["find_switches", "fix_switches"]


def find_switches(graph: Graph) -> list[Tensor]:
    """The inputs of one integer or truth value from which alone, with constants, the condition of an If is computed."""
    single = {
        id(tensor): tensor for tensor in graph.inputs
        if np.dtype(tensor.dtype).kind in "iub" and all(size == 1 for size in tensor.shape or ())
        and tensor.shape is not None
    }  # fmt: skip
    found: dict[int, Tensor] = {}
    for node in (node for node in graph.nodes if node.op == "If"):
        sources = _sources(node.inputs[0])
        if len(sources) == 1 and id(sources[0]) in single:
            found[id(sources[0])] = sources[0]
    return list(found.values())


def _sources(tensor: Tensor) -> list[Tensor]:
    """The tensors without a producer behind ``tensor`` that are no constants."""
    found: dict[int, Tensor] = {}
    pending = [tensor]
    while pending:
        current = pending.pop()
        node = producer(current)
        if constant_of(current) is None and current.name and node is None:
            found[id(current)] = current
        elif constant_of(current) is None and node is not None:
            pending += node.inputs
    return list(found.values())


def fix_switches(graph: Graph, feeds: Iterable[Feed]) -> dict[str, int]:
    """Put the number that all feeds agree on in the place of each switch, which stays an input that nobody reads.

    Returns:
        The numbers, by name of the input.
    """
    switches = find_switches(graph)
    values: dict[str, set[int]] = {tensor.name: set() for tensor in switches}
    for feed in feeds if switches else ():
        for name, seen in values.items():
            seen.add(int(feed[name].reshape(-1)[0]))
    fixed = {name: seen.pop() for name, seen in values.items() if len(seen) == 1}
    taken = names_in(graph)
    for tensor in (tensor for tensor in switches if tensor.name in fixed):
        number = np.full(tuple(tensor.shape), fixed[tensor.name], tensor.dtype)
        outputs = list(graph.outputs)
        replace_uses(graph, tensor, Constant(unique_name(taken, f"{tensor.name}_fixed"), number))
        graph.outputs = outputs
    return fixed
