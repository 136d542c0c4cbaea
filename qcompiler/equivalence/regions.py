"""Equivalence regions: tensors whose channels must be transformed together, and the constants that can take it.

From every output of a layer, of a normalization or of a table the finder follows the channels forward and backward
(`rules`) until each path ends in a constant that can take a transform, or in something that cannot. What is connected
is one region. Within it, channels that are tied (by a Concat, a Flatten, a product of Q and K) form *classes*: a
diagonal transform has one number a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
import scipy  # loads its parts at their first use
from numpy.typing import NDArray

from qcompiler.equivalence.axes import Index, Layout, sizes_of
from qcompiler.equivalence.effects import apply_rule
from qcompiler.equivalence.visit import Effect, End, Link, Visit
from qcompiler.graph.ir import Graph, Node, Tensor, constant_of, consumers, producer
from qcompiler.shapes.infer import Shape, infer_shapes

__all__ = ["Place", "Region", "find_regions"]

FROZEN = -1

Array = NDArray[Any]
SEEDS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LayerNormalization", "Mul", "Div")


@dataclass(frozen=True)
class Place:
    """The channels of one tensor of a region.

    Attributes:
        tensor, layout: which, and where its channels are.
        rank, sizes: of the tensor, and of the axes of the layout.
        classes: int64 [C], the class of each channel; -1: stays as it is.
        inverse: bool [C], the channel takes the inverse of its class's number.
        ends: constants of nodes at this tensor that take the transform.
    """

    tensor: Tensor
    layout: Layout
    rank: int
    sizes: tuple[int, ...]
    classes: Index
    inverse: Array
    ends: tuple[End, ...]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.classes)

    def spread(self, values: Array) -> Array:
        """float64 [C]: the factor of each channel, from positive ones a class."""
        factor = np.append(values, 1.0)[self.classes]  # the last one is for FROZEN
        return np.where(self.inverse, 1 / factor, factor)

    def gather(self, values: Array, classes: int) -> Array:
        """float64 [classes]: the largest of the values [C] in each class; 0 for a class that is not here."""
        result = np.zeros(classes)
        live = self.classes != FROZEN
        np.maximum.at(result, self.classes[live], values[live])
        return result


@dataclass(frozen=True)
class Region:
    """Tensors that are transformed together.

    Attributes:
        places: its tensors.
        classes: number of independent factors; 0 where all channels are frozen.
        block: size of the blocks of neighbouring channels that a matrix may mix; 1: a diagonal only.
        shifts: the channels may be shifted.
        reasons: why channels are frozen, each with the node that does it.
    """

    places: tuple[Place, ...]
    classes: int
    block: int
    shifts: bool
    reasons: tuple[tuple[Node, str], ...] = ()

    @property
    def name(self) -> str:
        """Name of its first tensor."""
        return str(self.places[0].tensor.name)

    @property
    def node(self) -> Node:
        """The node that writes its first tensor."""
        return self.places[0].tensor.inputs[0]

    def ends(self, *, writes: bool, role: str | None = None) -> list[tuple[Place, End]]:
        """The constants on the output (``writes``) or input sides of nodes, of a role if one is named."""
        return [
            (place, end)
            for place in self.places
            for end in place.ends
            if end.writes == writes and role in (None, end.role)
        ]

    @property
    def has_inverse(self) -> bool:
        """Some channels take the inverse."""
        return any(bool(place.inverse.any()) for place in self.places)


@dataclass
class _Growing:
    """A region while it grows.

    Attributes:
        links: (vertex, vertex, link) triples; a vertex is a (tensor name, layout) pair.
    """

    view: nx.Graph[tuple[str, Layout]] = field(default_factory=nx.Graph)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    links: list[tuple[tuple[str, Layout], tuple[str, Layout], Link]] = field(default_factory=list)
    ends: dict[tuple[str, Layout], list[End]] = field(default_factory=dict)
    frozen: dict[tuple[str, Layout], list[tuple[Node, str]]] = field(default_factory=dict)
    blocks: list[int] = field(default_factory=list)
    shifts: bool = True


@dataclass
class _Finder:
    graph: Graph
    shapes: Mapping[str, Shape]
    seen: set[tuple[str, Layout]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.inside = {id(node) for node in self.graph.nodes}
        self.outputs = {id(tensor) for tensor in self.graph.outputs}

    def grow(self, seed: Tensor, layout: Layout) -> _Growing:
        """Everything connected with the channels of ``seed``."""
        region, waiting, reshaped = _Growing(), [(seed, layout)], set[tuple[int, tuple[str, Layout]]]()
        while waiting:
            tensor, where = waiting.pop()
            vertex = (tensor.name, where)
            if vertex in self.seen:
                continue
            self.seen.add(vertex)
            region.view.add_node(vertex)
            self._enter(region, vertex, tensor)
            for node in self._neighbours(tensor):
                if (id(node), vertex) in reshaped:
                    continue
                effect = self._ask(node, tensor, where)
                self._note(region, vertex, node, effect)
                for link in effect.links:
                    there = (link.tensor.name, link.layout)
                    if node.op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
                        reshaped.add((id(node), there))
                    region.links.append((vertex, there, link))
                    waiting.append((link.tensor, link.layout))
        return region

    def _enter(self, region: _Growing, vertex: tuple[str, Layout], tensor: Tensor) -> None:
        other = region.tensors.get(tensor.name)
        region.tensors[tensor.name] = tensor
        node = producer(tensor) or next(iter(consumers(tensor)), None)
        reason = None
        if other is not None:
            reason = f"'{tensor.name}' is read along two different axes"
        elif constant_of(tensor) is not None:
            reason = f"'{tensor.name}' is a constant"
        elif producer(tensor) is None:
            reason = f"'{tensor.name}' is an input of the graph"
        elif id(tensor) in self.outputs:
            reason = f"'{tensor.name}' is an output of the graph"
        elif sizes_of(self.shapes.get(tensor.name), vertex[1]) is None:
            reason = f"the number of channels of '{tensor.name}' is unknown"
        if reason is not None and node is not None:
            region.frozen.setdefault(vertex, []).append((node, reason))

    def _neighbours(self, tensor: Tensor) -> list[Node]:
        source = producer(tensor)
        return [*([source] if source is not None else []), *consumers(tensor)]

    def _ask(self, node: Node, tensor: Tensor, layout: Layout) -> Effect:
        if id(node) not in self.inside:
            return Effect(frozen="the body of a control-flow node reads it")
        effect = apply_rule(Visit(node, tensor, layout, self.shapes))
        shared = [
            end
            for end in effect.ends
            if end.role in ("weight", "table") and len(consumers(end.node.inputs[end.slot])) > 1
        ]
        return (
            Effect(frozen=f"its weights '{shared[0].node.inputs[shared[0].slot].name}' are shared")
            if shared
            else effect
        )

    def _note(self, region: _Growing, vertex: tuple[str, Layout], node: Node, effect: Effect) -> None:
        if effect.frozen is not None:
            region.frozen.setdefault(vertex, []).append((node, effect.frozen))
        region.ends.setdefault(vertex, []).extend(effect.ends)
        region.shifts &= effect.shifts
        if effect.block is not None:
            region.blocks.append(effect.block)


def _seeds(graph: Graph, shapes: Mapping[str, Shape]) -> Iterator[tuple[Tensor, Layout]]:
    """Outputs of layers and normalizations, with the layout that these give them."""
    for node in graph.nodes:
        if node.op not in SEEDS or not node.outputs:
            continue
        rank = len(shapes.get(node.outputs[0].name) or ())
        if node.op in ("Conv", "ConvTranspose"):
            yield node.outputs[0], (1,)
        elif rank and (
            node.op in ("Gemm", "LayerNormalization")
            or any(constant_of(tensor) is not None for tensor in node.inputs[:2])
        ):
            yield node.outputs[0], (rank - 1,)


def find_regions(graph: Graph, shapes: Mapping[str, Shape] | None = None) -> list[Region]:
    """The regions of a float graph, in graph order, frozen ones as well; ``shapes`` are those of its tensors, if they
    are known.
    """
    shapes = infer_shapes(graph) if shapes is None else shapes
    finder = _Finder(graph, shapes)
    grown = [
        finder.grow(tensor, layout)
        for tensor, layout in _seeds(graph, shapes)
        if (tensor.name, layout) not in finder.seen
    ]
    return [_finish(region, shapes) for region in grown]


def _finish(grown: _Growing, shapes: Mapping[str, Shape]) -> Region:
    vertices: Sequence[tuple[str, Layout]] = list(grown.view.nodes)
    counts = [int(np.prod(sizes_of(shapes.get(name), layout) or (0,))) for name, layout in vertices]
    offsets = dict(zip(vertices, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
    count = dict(zip(vertices, counts, strict=True))
    frozen = np.zeros(sum(counts), bool)
    for vertex in grown.frozen:
        frozen[offsets[vertex]:offsets[vertex] + count[vertex]] = True
    labels, inverse, classes = _classes(grown, offsets, count, frozen)
    places = tuple(
        Place(grown.tensors[name], layout, len(shapes.get(name) or ()), sizes_of(shapes.get(name), layout) or (),
              labels[start:start + count[name, layout]], inverse[start:start + count[name, layout]],
              tuple(grown.ends.get((name, layout), ())))
        for (name, layout), start in offsets.items()
    )  # fmt: skip
    plain = all(link.source is None and link.here is None for _, _, link in grown.links)
    block = int(np.gcd.reduce(grown.blocks)) if grown.blocks else max(counts, default=1)
    reasons = {(id(node), reason): (node, reason) for found in grown.frozen.values() for node, reason in found}
    return Region(
        places, classes, block if plain and not grown.frozen else 1, grown.shifts and plain, tuple(reasons.values())
    )


def _classes(
    grown: _Growing, offsets: Mapping[tuple[str, Layout], int], count: Mapping[tuple[str, Layout], int], frozen: Array
) -> tuple[Index, Array, int]:
    """Class and sign of every channel of all places, and the number of classes.

    Every channel is two vertices, its factor and the inverse; a channel connected with its own inverse can only have
    the factor 1.
    """
    total = len(frozen)
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for here, there, link in grown.links:
        if there not in count:
            frozen[offsets[here]:offsets[here] + count[here]] = True
            continue
        target = np.arange(count[there]) if link.source is None else np.arange(len(link.source))
        source = target if link.source is None else link.source
        if link.here is not None:
            source, target = link.here, np.arange(len(link.here))
        live = source >= 0
        if len(target) > count[there] or (live.any() and source[live].max() >= count[here]):
            frozen[offsets[here]:offsets[here] + count[here]] = True
            frozen[offsets[there]:offsets[there] + count[there]] = True
            continue
        a, b = offsets[here] + source[live], offsets[there] + target[live]
        rows += [a, a + total]
        columns += [b + total, b] if link.inverse else [b, b + total]
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = scipy.sparse.coo_array((np.ones(len(row), bool), (row, column)), shape=(2 * total, 2 * total))
    _, label = scipy.sparse.csgraph.connected_components(matrix, directed=False)
    plus, minus = label[:total], label[total:]
    dead = np.zeros(label.max(initial=-1) + 1, bool)
    dead[plus[plus == minus]] = True
    dead[plus[frozen]] = dead[minus[frozen]] = True
    _, first, dense = np.unique(np.minimum(plus, minus), return_index=True, return_inverse=True)
    del first
    alive = ~dead[plus]
    numbers = np.full(dense.max(initial=-1) + 1, FROZEN, np.int64)
    kept = np.unique(dense[alive])
    numbers[kept] = np.arange(len(kept))
    return np.where(alive, numbers[dense], FROZEN), plus > minus, len(kept)
