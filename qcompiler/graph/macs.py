"""Multiply-accumulates of a graph: of its layers, and of everything else that multiplies by weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from qcompiler.graph.ir import STANDARD_DOMAINS, Feed, Graph, Node, Tensor, constant_of, quantized_source, subgraphs
from qcompiler.graph.operators import LAYERS
from qcompiler.graph.runner import Runner

__all__ = ["all_macs", "layer_macs"]

Shapes = Mapping[str, tuple[int, ...]]
_LOOKED_UP = ("Gather", "GatherElements", "GatherND", "EmbedLayerNormalization")
_RECURRENT = ("LSTM", "GRU", "RNN")
_MATRIX = 2
"""Fewest axes of a constant that counts as a matrix of weights."""


def layer_macs(graph: Graph, feed: Feed) -> list[tuple[Node, int]]:
    """The layers of ``graph`` (products of activations too) with their multiply-accumulates for ``feed``."""
    layers = [node for node in graph.nodes if _is_layer(node)]
    shapes = _shapes_of(graph, layers, feed)
    return [(node, _macs(node, shapes)) for node in layers]


def all_macs(graph: Graph, feed: Feed) -> list[tuple[Node, int]]:
    """As `layer_macs`, with recurrent nodes, other operators with weight matrices, and control flow around layers.

    An operator that is not known is taken to multiply every row of its first input by every weight. What a body of
    control flow computes cannot be seen from outside: each of its weights counts once, in a Loop once for each step
    that leaves an output behind.
    """
    nodes = [node for node in graph.nodes if _is_layer(node) or _weights(node)]
    shapes = _shapes_of(graph, [*nodes, *(node for node in graph.nodes if node.op == "Loop")], feed)
    counted = [
        (node, _macs(node, shapes) if _is_layer(node) else _rows(node, shapes) * _weights(node)) for node in nodes
    ]
    bodies = [
        (node, _steps(node, shapes) * sum(_weights_inside(body, _entering(node, body)) for body in subgraphs(node)))
        for node in graph.nodes if subgraphs(node)
    ]  # fmt: skip
    return counted + [(node, count) for node, count in bodies if count]


def _entering(node: Node, body: Graph) -> dict[int, Tensor]:
    """What the inputs of a body are outside, by their ids."""
    pairs = zip(body.inputs[2:], node.inputs[2:], strict=False) if node.op == "Loop" else ()
    return {id(inner): outer for inner, outer in pairs}


def _steps(node: Node, shapes: Shapes) -> int:
    """Steps of a Loop, as the first axis of what it collects says; 1 for other control flow."""
    collected = [tensor.name for tensor in node.outputs[len(node.inputs) - 2:]] if node.op == "Loop" else []
    return max([shapes[name][0] for name in collected if shapes.get(name)], default=1)


def _is_layer(node: Node) -> bool:
    return node.op in LAYERS and node.domain in STANDARD_DOMAINS


def _weights(node: Node) -> int:
    """Elements of the weights of a node that is no layer; 0 for an operator that does not multiply by them."""
    if _is_layer(node) or subgraphs(node) or node.op in (*_LOOKED_UP, "QuantizeLinear", "DequantizeLinear"):
        return 0
    foreign = node.domain not in STANDARD_DOMAINS
    if not (
        foreign or node.op in (*_RECURRENT, "Einsum", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul")
    ):
        return 0
    values = [constant_of(quantized_source(tensor) or tensor) for tensor in node.inputs[1:]]
    return sum(
        value.size for value in values if value is not None and value.ndim >= _MATRIX and value.size > value.shape[-1]
    )


def _weights_inside(body: Graph, entering: Mapping[int, Tensor]) -> int:
    layers = [node for node in body.nodes if _is_layer(node)]
    own = [constant_of(entering.get(id(node.inputs[1]), node.inputs[1])) for node in layers]
    return sum(value.size for value in own if value is not None) + sum(
        _weights(node) + sum(_weights_inside(inner, entering) for inner in subgraphs(node)) for node in body.nodes
    )


def _shapes_of(graph: Graph, nodes: Iterable[Node], feed: Feed) -> Shapes:
    read = [
        t
        for node in nodes
        for t in (*node.inputs[:1], *node.outputs, *(node.inputs[1:2] if _has_computed_weights(node) else ()))
    ]
    names = dict.fromkeys(t.name for t in read if t.name and constant_of(t) is None)
    graph_inputs = {tensor.name for tensor in graph.inputs}
    wanted = [name for name in names if name not in graph_inputs]
    shapes = {name: array.shape for name, array in feed.items()}
    if wanted:
        shapes |= {name: array.shape for name, array in Runner(graph, wanted).run(feed).items()}
    return shapes


def _has_computed_weights(node: Node) -> bool:
    weight = node.inputs[1] if node.op == "Conv" else None
    return weight is not None and constant_of(quantized_source(weight) or weight) is None


def _rows(node: Node, shapes: Shapes) -> int:
    """Rows of a node's first input; of a convolution, positions of its output."""
    if node.op in ("ConvInteger", "QLinearConv", "FusedConv"):
        output = shapes[node.outputs[0].name]
        return math.prod(output) // max(output[1], 1) if len(output) > 1 else 1
    source = shapes.get(node.inputs[0].name, (1,))
    return math.prod(source[:-1])


def _macs(node: Node, shapes: Shapes) -> int:
    weight = node.inputs[1]
    stored = constant_of(quantized_source(weight) or weight)
    output = math.prod(shapes[node.outputs[0].name])
    if node.op == "Conv" and stored is not None:
        return output * math.prod(stored.shape[1:])
    if node.op == "ConvTranspose" and stored is not None:
        return math.prod(shapes[node.inputs[0].name]) * math.prod(stored.shape[1:])
    if node.op == "Conv":
        return output * math.prod(shapes.get(weight.name, (1,))[1:])
    source = shapes.get(node.inputs[0].name, (1,))
    return output * (source[0] if node.attrs.get("transA") else source[-1])
