"""Where replacements fit: chains of dense layers with functions of one element between them, which nothing else reads.

A dense layer is a Gemm, a MatMul (with the Add of its bias) or a Conv of one tap, one group and no stride: the same
matrix for every row, token or pixel. Between two of them may stand any functions of single elements (Relu, Gelu, Tanh,
HardSwish, ``x * Sigmoid(x)``, …), or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.patches import as_matrix
from qcompiler.graph.ir import STANDARD_DOMAINS, Constant, Graph, Node, Tensor, constant_of, consumers
from qcompiler.graph.layers import Layer, find_layers
from qcompiler.graph.operators import UNARIES
from qcompiler.replacement.cost import Cost

__all__ = ["Link", "Region", "bias_of", "find_chains", "is_dense", "linear_output", "parts", "rows_of", "shape_of"]

Array = NDArray[Any]

_OF_TWO = ("Add", "Div", "Max", "Min", "Mul", "Sub")
"""Functions of two operands that are functions of one element where the other operand is a number or varies with the
same element.
"""


@dataclass(frozen=True, eq=False)
class Link:
    """What stands between a layer and the next: nodes in graph order, and the tensor that the next layer reads."""

    nodes: tuple[Node, ...]
    hidden: Tensor


@dataclass(frozen=True, eq=False)
class Region:
    """Consecutive dense layers and the links between them.

    Attributes:
        layers: two or more.
        links: one fewer.
    """

    layers: tuple[Layer, ...]
    links: tuple[Link, ...]

    @property
    def name(self) -> str:
        """Names of its first and last layer."""
        return f"{self.layers[0].node.name} … {self.layers[-1].node.name}"

    @property
    def inputs(self) -> Tensor:
        """What it reads."""
        tensor: Tensor = self.layers[0].node.inputs[0]
        return tensor

    @property
    def outputs(self) -> Tensor:
        """What it writes: the last layer's sum with its bias, before any function of it."""
        return linear_output(self.layers[-1])

    @property
    def cost(self) -> Cost:
        """Of all its layers."""
        return Cost.of((*shape_of(layer), layer.bias_node is not None) for layer in self.layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels: of the input, behind each layer."""
        return (shape_of(self.layers[0])[1], *(shape_of(layer)[0] for layer in self.layers))


def linear_output(layer: Layer) -> Tensor:
    """A layer's sum with its bias."""
    tensor: Tensor = (layer.bias_node or layer.node).outputs[0]
    return tensor


def shape_of(layer: Layer) -> tuple[int, int]:
    """(outputs, inputs) of a dense layer."""
    shape = layer.values.shape
    return int(shape[layer.axis]), int(shape[1 - layer.axis])


def matrix_of(layer: Layer) -> NDArray[np.float64]:
    """The weight of a layer of one group as [outputs, K]."""
    matrix = as_matrix(layer, layer.values)
    return np.zeros((0, 0)) if matrix is None else np.asarray(matrix[0], np.float64)


def bias_of(layer: Layer) -> NDArray[np.float64]:
    """The bias of a dense layer [outputs], 0 where it has none."""
    outputs = shape_of(layer)[0]
    stored = constant_of(layer.bias_node.inputs[layer.bias_slot]) if layer.bias_node is not None else None
    return np.zeros(outputs) if stored is None else np.array(np.broadcast_to(stored.reshape(-1), outputs), np.float64)


def is_dense(layer: Layer) -> bool:
    """True for a layer of float constants that multiplies every row by the same matrix."""
    node = layer.node
    if (
        not isinstance(layer.weight, Constant)
        or layer.weight.dtype != np.float32
        or node.domain not in STANDARD_DOMAINS
    ):
        return False
    if node.op in ("Gemm", "MatMul"):
        return True
    attrs = node.attrs
    plain = (
        attrs.get("group", 1) == 1
        and not any(attrs.get("pads") or ())
        and all(step == 1 for step in attrs.get("strides") or ())
    )
    return node.op == "Conv" and plain and all(size == 1 for size in layer.values.shape[2:])


def rows_of(layer: Layer, values: Array) -> Array:
    """Activations in front of or behind a dense layer as rows [N, channels]."""
    moved = np.moveaxis(values, 1, -1) if layer.node.op == "Conv" else values
    return moved.reshape(-1, moved.shape[-1])


def find_chains(graph: Graph) -> list[Region]:
    """The longest chains of the graph, in its order; no layer is in two of them."""
    layers = {id(layer.node): layer for layer in find_layers(graph) if is_dense(layer)}
    order = {id(node): index for index, node in enumerate(graph.nodes)}
    links: dict[int, tuple[Layer, Link]] = {}
    for key, layer in layers.items():
        found = _link(graph, layer, layers, order)
        if found is not None:
            links[key] = found
    followers = {id(following.node) for following, _ in links.values()}
    return [_chain(layer, links) for key, layer in layers.items() if key in links and key not in followers]


def _chain(first: Layer, links: dict[int, tuple[Layer, Link]]) -> Region:
    layers, between = [first], []
    while id(layers[-1].node) in links:
        following, link = links[id(layers[-1].node)]
        layers.append(following)
        between.append(link)
    return Region(tuple(layers), tuple(between))


def parts(chain: Region) -> Iterator[Region]:
    """The chain, then its pairs of layers in order."""
    yield chain
    if len(chain.layers) > 2:
        yield from (Region(chain.layers[index : index + 2], (chain.links[index],)) for index in range(len(chain.links)))


def _link(graph: Graph, layer: Layer, layers: dict[int, Layer], order: dict[int, int]) -> tuple[Layer, Link] | None:
    """The layer that alone reads what becomes of a layer's output, and how; None where another node reads any of it."""
    start = linear_output(layer)
    varying, inside, ends = {id(start): start}, dict[int, Node](), dict[int, Tensor]()
    pending = [start]
    while pending:
        tensor = pending.pop()
        if any(tensor is out for out in graph.outputs):
            return None
        for reader in consumers(tensor):
            if id(reader) in layers and reader.inputs[0] is tensor:
                ends[id(reader)] = tensor
            elif not _of_one_element(reader):
                return None
            elif id(reader) not in inside:
                inside[id(reader)] = reader
                varying[id(reader.outputs[0])] = reader.outputs[0]
                pending.append(reader.outputs[0])
    if len(ends) != 1 or any(
        id(t) not in varying and not _is_number(t) for node in inside.values() for t in node.inputs if t.name
    ):
        return None
    (key, hidden), = ends.items()
    nodes = sorted(inside.values(), key=lambda node: order[id(node)])
    return layers[key], Link(tuple(nodes), hidden)


def _of_one_element(node: Node) -> bool:
    return (
        (node.op in UNARIES or node.op in _OF_TWO or node.op == "Identity")
        and node.domain in STANDARD_DOMAINS
        and len(node.outputs) == 1
    )


def _is_number(tensor: Tensor) -> bool:
    value = constant_of(tensor)
    return value is not None and value.size == 1
