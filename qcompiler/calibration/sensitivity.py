"""How much output noise one grid alone causes: a model in which every Q/DQ pair can be switched off.

Each pair ``x -> Q -> DQ -> y`` becomes ``Where(switch, y, x)`` with the switch of its unit as a further input, so one
session answers for many units.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.feeds.selection import spread_feeds
from qcompiler.graph.ir import Constant, Feed, Graph, Node, Variable, consumers, copy_of, read_spec, replace_uses
from qcompiler.graph.operators import MOVERS
from qcompiler.graph.placement import UnionFind
from qcompiler.graph.runner import Runner
from qcompiler.losses.network_loss import float_outputs, relative_errors

__all__ = ["Noise", "Pair", "activation_units", "find_pairs", "measure_noise"]

BATCH = 24
"""Units with a switch in one session: switches cost time even when off."""

SESSIONS = 8
"""Most sessions for a graph; each takes more units if need be, as making a session costs time, too."""

Values = NDArray[Any]


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
        Pair(node, readers[0])
        for node in graph.nodes
        if node.op == "QuantizeLinear"
        and len(readers := consumers(node.outputs[0])) == 1
        and readers[0].op == "DequantizeLinear"
        and read_spec(node) is not None
    ]


def activation_units(graph: Graph, pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Q/DQ pairs of activations in groups that must share a grid: around movers, and at a Concat of equal grids."""
    pairs = [pair for pair in pairs if not pair.is_weight]
    behind = {id(pair.dequantize.outputs[0]): i for i, pair in enumerate(pairs)}
    front = {id(pair.quantize.inputs[0]): i for i, pair in enumerate(pairs)}
    specs = [read_spec(pair.quantize) for pair in pairs]
    joined = UnionFind()
    for node in graph.nodes:
        if node.op not in MOVERS and node.op not in ("Concat", "LSTM", "GRU"):
            continue
        outs = [front[id(tensor)] for tensor in node.outputs if id(tensor) in front]
        ins = (
            [] if node.op in ("LSTM", "GRU") else [behind[id(tensor)] for tensor in node.inputs if id(tensor) in behind]
        )
        for other in (ins + outs[1:]) if outs else ():
            if specs[outs[0]].same_as(specs[other]):  # type: ignore[union-attr, arg-type]
                joined.union(outs[0], other)
    units: dict[int, list[Pair]] = {}
    for index, pair in enumerate(pairs):
        units.setdefault(joined.find(index), []).append(pair)
    return list(units.values())


@dataclass(frozen=True)
class Noise:
    """Output noise power relative to signal power: of each unit alone, and of all weight grids together."""

    units: list[float]
    weights: float


def measure_noise(graph: Graph, units: Sequence[Sequence[Pair]], data: Iterable[Feed], feeds: int) -> Noise:
    """Switch each unit on alone, and then the weights.

    Args:
        graph: with Q/DQ pairs; it is not changed.
        units: as `activation_units` gives them.
        data: feeds; ``feeds`` of them, evenly spread, are held.
        feeds: how many to measure on.
    """
    chosen = spread_feeds(data, feeds)
    names = [{pair.name for pair in unit} for unit in units]
    weights = {pair.name for pair in find_pairs(graph) if pair.is_weight}
    first = _SwitchedModel(graph, [weights])
    reference = [first.outputs(feed, None) for feed in chosen]
    by_weights = first.noise(chosen, reference, 0)
    del first
    found: list[float] = []
    size = max(BATCH, -(-len(names) // SESSIONS))
    for start in range(0, len(names), size):
        batch = names[start:start + size]
        model = _SwitchedModel(graph, batch)
        found += [model.noise(chosen, reference, index) for index in range(len(batch))]
    return Noise(found, by_weights)


def _joined(answers: Sequence[list[Values]], like: Sequence[list[Values]]) -> list[Values]:
    """Each output of all feeds as one vector; zeros where its size, which is data, is not that of ``like``."""
    pairs = [list(zip(*both, strict=True)) for both in zip(answers, like, strict=True)]
    return [
        np.concatenate([np.ravel(a if a.shape == b.shape else np.zeros_like(b)) for a, b in each])
        for each in zip(*pairs, strict=True)
    ]


class _SwitchedModel:
    """The float model in which the pairs of some units can be switched on, one unit at a time."""

    def __init__(self, graph: Graph, units: Sequence[Collection[str]]) -> None:
        self._switches = [f"switch//{index}" for index in range(len(units))]
        self._runner = Runner(_switched(graph, units, self._switches))

    def noise(self, feeds: Sequence[Feed], reference: Sequence[list[Values]], active: int) -> float:
        """Noise over signal of all feeds together, as the report states it, averaged over float outputs."""
        answers = [self.outputs(feed, active) for feed in feeds]
        errors = relative_errors(_joined(answers, reference), _joined(reference, reference))
        return float(np.mean(errors)) if errors else 0.0

    def outputs(self, feed: Feed, active: int | None) -> list[Values]:
        """The float outputs, with unit ``active`` on its grid."""
        switches = {name: np.array(index == active) for index, name in enumerate(self._switches)}
        return float_outputs(self._runner.run({**feed, **switches}))


def _switched(graph: Graph, units: Sequence[Collection[str]], names: Sequence[str]) -> Graph:
    """A copy of ``graph`` with a switch behind every pair of ``units`` and without the other pairs."""
    copy = copy_of(graph)
    unit_of = {name: index for index, members in enumerate(units) for name in members}
    switches = [Variable(name, np.dtype(np.bool_), []) for name in names]
    copy.inputs = [*copy.inputs, *switches]
    for pair in find_pairs(copy):
        source, end = pair.quantize.inputs[0], pair.dequantize.outputs[0]
        index = unit_of.get(pair.name)
        if index is None:
            replace_uses(copy, end, source)
            continue
        chosen = Variable(f"{end.name}//chosen", np.dtype(np.float32), end.shape)
        replace_uses(copy, end, chosen)
        copy.nodes.append(Node("Where", chosen.name, {}, [switches[index], end, source], [chosen]))
    return copy.cleanup(remove_unused_graph_inputs=False).toposort()
