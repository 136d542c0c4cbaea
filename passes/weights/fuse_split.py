"""Fuses the three branches of `split-layers` back into one layer: their weights do not overlap, so the sum is exact.

    (W_low x + W_middle x) + W_high x = W x,      W = W_low + W_middle + W_high

Where every branch has its weights on levels ``scale * level`` of one scale, W takes no other values than the branches:
three quantized layers are one layer on the union of their grids, with one multiplication, and integer accumulators of
the one are the sums of those of the three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Constant, Graph, Node, constant_of, names_in, unique_name
from ...grids import GridFamily, grid_named
from ...pass_base import Context, Pass
from ...rewriting.match import Array, take_over
from ...weights.observed import observed_layers
from ...weights.split_matrices import Split, disjoint, find_splits


@dataclass(frozen=True)
class FuseSplit(Pass):
    """One layer for three.

    Attributes:
        bits: gives the layer the grid of three clusters of 2^bits levels (``ctx.grids``); 0: leaves that to others.
    """

    name: ClassVar[str] = "fuse-split"
    exact: ClassVar[bool] = True
    bits: int = 0

    def __post_init__(self) -> None:
        if self.bits:
            self._family()

    def _family(self) -> GridFamily:
        return grid_named(f"split{self.bits}")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Fuse the branches; True when there were some."""
        fused = set()
        for split in list(find_splits(graph)):
            biases = [np.asarray(constant_of(node.inputs[2])) for node in split.branches if len(node.inputs) > 2]
            if not disjoint(biases):
                ctx.declined(split.total, "the biases of its branches overlap")
                continue
            fused.add(_fuse(graph, split, biases, ctx).name)
        if self.bits:
            for observed in observed_layers(graph, ctx, weighted=False):
                if observed.layer.node.name in fused:
                    ctx.grids[observed.layer.node.name] = self._family().fit(observed.weight)
        return bool(fused)


def _fuse(graph: Graph, split: Split, biases: list[Array], ctx: Context) -> Node:
    taken, first = names_in(graph), split.branches[0]
    weight = _sum([np.asarray(constant_of(node.inputs[1])) for node in split.branches])
    inputs = [first.inputs[0], Constant(unique_name(taken, first.inputs[1].name.removesuffix("_low")), weight)]
    if biases:
        inputs.append(Constant(unique_name(taken, first.inputs[2].name.removesuffix("_low")), _sum(biases)))
    node = Node(first.op, unique_name(taken, first.name.removesuffix("_low")), dict(first.attrs), inputs)
    take_over(graph, split.total, node, split.total.outputs[0])
    for branch in split.branches:
        ctx.grids.pop(branch.name, None)
    return node


def _sum(parts: list[Array]) -> Array:
    """Exact, as the parts do not overlap."""
    return np.asarray((parts[0] + parts[1]) + parts[2])
