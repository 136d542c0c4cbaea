"""The figures of a report, all measured: SQNR of outputs and layers, multiply-accumulates, sizes."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed, Graph, Node, constant_of, consumers, quantized_source
from qcompiler.graph.macs import all_macs
from qcompiler.graph.operators import LAYERS, RECURRENT
from qcompiler.graph.runner import Runner
from qcompiler.records import LayerError
from qcompiler.report.decibels import SAME_DB, decibels

__all__ = [
    "SAME_DB",
    "Sqnr",
    "decibels",
    "in_groups",
    "layer_errors",
    "macs",
    "output_sqnr",
    "peak_memory_bytes",
    "shared_tensors",
    "weight_bytes",
]

Values = Mapping[str, NDArray[Any]]
COMPARED = frozenset({*LAYERS, *RECURRENT, "Add", "Mul", "LayerNormalization", "InstanceNormalization", "Softmax"})
"""Operators whose outputs `layer_errors` compares."""
_TRACE_BYTES = 256 << 20
"""How much of one feed's activations `layer_errors` holds at a time."""


@dataclass
class Sqnr:
    """Signal-to-quantization-noise ratio of named tensors, accumulated over feeds."""

    signal: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    def add(self, reference: Values, got: Values) -> None:
        """Account for one feed: tensors that both sides have in the same shape."""
        for name, real in reference.items():
            if name not in got or got[name].shape != real.shape or real.dtype.kind not in "fiu":
                continue
            exact = np.asarray(real, np.float64)
            finite = np.isfinite(exact)
            exact = np.where(finite, exact, 0.0)
            difference = exact - np.where(finite, np.asarray(got[name], np.float64), 0.0)
            self.signal[name] = self.signal.get(name, 0.0) + float(np.sum(exact**2))
            self.noise[name] = self.noise.get(name, 0.0) + float(np.sum(difference**2))

    def db(self) -> dict[str, float]:
        """Decibels by tensor; `SAME_DB` where both agree."""
        return {name: decibels(signal, self.noise[name]) for name, signal in self.signal.items()}


def output_sqnr(references: Iterable[Values], run: Callable[[Feed], Values], feeds: Iterable[Feed]) -> dict[str, float]:
    """SQNR of each output of ``run`` against stored reference outputs of the same feeds."""
    total = Sqnr()
    for reference, feed in zip(references, feeds, strict=True):
        total.add(reference, run(feed))
    return total.db()


def shared_tensors(first: Graph, second: Graph) -> dict[str, Node]:
    """First named outputs of `COMPARED` operators that both graphs have under one name, with the first graph's node.

    What feeds a Softmax is left out: a masked score of -10000 may become -50 without harm, and Softmax's own output
    shows any harm.
    """
    there = {tensor.name for node in second.nodes for tensor in node.outputs if tensor.name}
    outputs = (
        (node, next(tensor for tensor in node.outputs if tensor.name)) for node in first.nodes if node.op in COMPARED
    )
    return {
        output.name: node for node, output in outputs
        if output.name in there and all(reader.op != "Softmax" for reader in consumers(output))
    }  # fmt: skip


def layer_errors(first: Graph, second: Graph, feed: Feed) -> list[LayerError]:
    """SQNR of every tensor that both graphs compute, worst first; ``first`` is the reference.

    Behind a quantized tensor both its Q/DQ pair and all the error from before it count.
    """
    nodes = shared_tensors(first, second)
    found = Sqnr()
    for names in in_groups(list(nodes), first, feed):
        found.add(Runner(first, names).run(feed), Runner(second, names).run(feed))
    errors = [LayerError(nodes[name].name, nodes[name].op, value) for name, value in found.db().items()]
    return sorted(errors, key=lambda error: (error.sqnr_db, error.node))


def in_groups(names: Sequence[str], graph: Graph, feed: Feed, copies: int = 1) -> list[list[str]]:
    """Names in groups of which ``copies`` values together stay below `_TRACE_BYTES` (judged by the static part of their
    shapes).
    """
    batch = max((array.shape[0] if array.ndim else 1 for array in feed.values()), default=1)
    tensors = (*graph.inputs, *(tensor for node in graph.nodes for tensor in node.outputs))
    size = {tensor.name: copies * _bytes(tensor.shape, batch) for tensor in tensors}
    groups: list[list[str]] = [[]]
    room = _TRACE_BYTES
    for name in names:
        if groups[-1] and room < size[name]:
            groups.append([])
            room = _TRACE_BYTES
        groups[-1].append(name)
        room -= size[name]
    return groups if groups[-1] else []


def _bytes(shape: Sequence[Any] | None, batch: int) -> int:
    if shape is None:
        return 1 << 20
    return 4 * math.prod(dim if isinstance(dim, int) and dim > 0 else max(batch, 64) for dim in shape)


def macs(graph: Graph, feed: Feed, left_float: Collection[str] = ()) -> tuple[int, int, dict[str, int]]:
    """Multiply-accumulates for ``feed``: of all layers, of those on codes, and of each other node by name.

    The nodes ``left_float`` count as others even where what they read are codes.
    """
    counted = all_macs(graph, feed)
    coded = {id(node) for node, _ in counted if all(quantized_source(tensor) is not None for tensor in node.inputs[:2])}
    others = {node.name: count for node, count in counted if id(node) not in coded or node.name in left_float}
    total = sum(count for _, count in counted)
    return total, total - sum(others.values()), others


def weight_bytes(graph: Graph) -> int:
    """Bytes of all initializers, each once."""
    seen: dict[int, int] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            value = constant_of(tensor)
            if value is not None:
                seen[id(tensor)] = value.nbytes
    return sum(seen.values())


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
