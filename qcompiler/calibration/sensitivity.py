"""How much output noise one grid alone causes: a model in which every Q/DQ pair can be switched off.

Each pair ``x -> Q -> DQ -> y`` becomes ``Where(switch, y, x)`` with the switch of its unit as a further input, so one session answers for
every set of active grids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from onnx_graphsurgeon import Node, Variable

from qcompiler.ir import Constant, Graph, consumers, producer, read_spec, replace_uses
from qcompiler.pass_base import Feed
from qcompiler.placement import MOVERS, UnionFind
from qcompiler.runner import Runner

__all__ = ["Pair", "SwitchedModel", "activation_units", "find_pairs"]


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear and the DequantizeLinear that reads it."""

    quantize: Node
    dequantize: Node

    @property
    def is_weight(self) -> bool:
        """True for the int8 grid of a constant weight."""
        return isinstance(self.quantize.inputs[0], Constant) and self.quantize.outputs[0].dtype == np.int8

    @property
    def name(self) -> str:
        """Name of the float tensor in front of it."""
        return str(self.quantize.inputs[0].name)


def find_pairs(graph: Graph) -> list[Pair]:
    """The Q/DQ pairs with constant grids, in graph order."""
    return [
        Pair(node, readers[0]) for node in graph.nodes
        if node.op == "QuantizeLinear" and len(readers := consumers(node.outputs[0])) == 1 and readers[0].op == "DequantizeLinear"
        and read_spec(node) is not None
    ]


def activation_units(graph: Graph, pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs of activations, those that must keep one grid together: in front of and behind a mover, or a Concat of equal grids."""
    pairs = [pair for pair in pairs if not pair.is_weight]
    behind = {id(pair.dequantize.outputs[0]): i for i, pair in enumerate(pairs)}
    front = {id(pair.quantize.inputs[0]): i for i, pair in enumerate(pairs)}
    specs = [read_spec(pair.quantize) for pair in pairs]
    joined = UnionFind()
    for node in graph.nodes:
        if node.op not in MOVERS and node.op not in ("Concat", "LSTM", "GRU"):
            continue
        outs = [front[id(tensor)] for tensor in node.outputs if id(tensor) in front]
        ins = [] if node.op in ("LSTM", "GRU") else [behind[id(tensor)] for tensor in node.inputs if id(tensor) in behind]
        for other in (ins + outs[1:]) if outs else ():
            if specs[outs[0]].same_as(specs[other]):  # type: ignore[union-attr, arg-type]
                joined.union(outs[0], other)
    units: dict[int, list[Pair]] = {}
    for index, pair in enumerate(pairs):
        units.setdefault(joined.find(index), []).append(pair)
    return list(units.values())


class SwitchedModel:
    """Output noise of any set of active units, against the same model with all of them off.

    Args:
        graph: with Q/DQ pairs; it is not changed.
        units: names of the quantized float tensors, unit by unit.
        data: feeds; the first ``feeds`` of them are held.
    """

    def __init__(self, graph: Graph, units: Sequence[Collection[str]], data: Iterable[Feed], feeds: int) -> None:
        self._units = len(units)
        self._runner = Runner(_switched(graph, units), threads=2)
        self._feeds = list(islice(data, feeds))
        self._reference = [self._outputs(feed, ()) for feed in self._feeds]

    def noise(self, active: Collection[int]) -> float:
        """Noise power relative to signal power, averaged over feeds and float outputs, with the units ``active`` on their grids."""
        return float(np.mean([_relative(self._outputs(feed, active), ref) for feed, ref in zip(self._feeds, self._reference, strict=True)]))

    def _outputs(self, feed: Feed, active: Collection[int]) -> list[np.ndarray]:
        switches = {_switch(index): np.array(index in active) for index in range(self._units)}
        values = self._runner.run({**feed, **switches}).values()
        return [value.astype(np.float64) for value in values if np.issubdtype(value.dtype, np.floating)]


def _relative(values: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    ratios = [np.square(v - r).sum() / max(np.square(r).sum(), 1e-30) for v, r in zip(values, reference, strict=True)]
    return float(np.mean(ratios)) if ratios else 0.0


def _switch(index: int) -> str:
    return f"switch//{index}"


def _switched(graph: Graph, units: Sequence[Collection[str]]) -> Graph:
    """A copy of ``graph`` with a switch behind every pair of ``units``."""
    copy = graph.copy()
    unit_of = {name: index for index, names in enumerate(units) for name in names}
    switches = [Variable(_switch(index), np.dtype(np.bool_), []) for index in range(len(units))]
    copy.inputs = [*copy.inputs, *switches]
    for pair in find_pairs(copy):
        index = unit_of.get(pair.name)
        if index is None:
            continue
        source, end = pair.quantize.inputs[0], pair.dequantize.outputs[0]
        chosen = Variable(f"{end.name}//chosen", np.dtype(np.float32), end.shape)
        replace_uses(copy, end, chosen)
        copy.nodes.append(Node("Where", chosen.name, {}, [switches[index], end, source], [chosen]))
    return copy.toposort()


assert producer
