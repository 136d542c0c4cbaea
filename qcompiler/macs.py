"""How much arithmetic a graph does: multiply-accumulates of its layers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from qcompiler.ir import Graph, Node, constant_of, quantized_source
from qcompiler.layers import LAYERS
from qcompiler.pass_base import Feed
from qcompiler.runner import Runner

__all__ = ["layer_macs"]


def layer_macs(graph: Graph, feed: Feed) -> list[tuple[Node, int]]:
    """The layers of ``graph``, products of activations among them, with their multiply-accumulates in one run on ``feed``."""
    layers = [node for node in graph.nodes if node.op in LAYERS and node.domain in (None, "", "ai.onnx")]
    names = list(dict.fromkeys(t.name for node in layers for t in (*node.inputs[:1], *node.outputs) if constant_of(t) is None))
    graph_inputs = {tensor.name for tensor in graph.inputs}
    wanted = [name for name in names if name not in graph_inputs]
    shapes = {name: array.shape for name, array in feed.items()}
    if wanted:
        shapes |= {name: array.shape for name, array in Runner(graph, wanted).run(feed).items()}
    return [(node, _macs(node, shapes)) for node in layers]


def _macs(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    weight = node.inputs[1]
    stored = constant_of(quantized_source(weight) or weight)
    output = math.prod(shapes[node.outputs[0].name])
    if node.op == "Conv" and stored is not None:
        return output * math.prod(stored.shape[1:])
    if node.op == "ConvTranspose" and stored is not None:
        return math.prod(shapes[node.inputs[0].name]) * math.prod(stored.shape[1:])
    source = shapes.get(node.inputs[0].name, (1,))
    return output * (source[0] if node.attrs.get("transA") else source[-1])
