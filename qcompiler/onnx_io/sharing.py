"""Constants that are equal are stored once, in a file of one graph as in one with bodies of control flow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import onnx
from onnx_graphsurgeon.ir.tensor import LazyValues

from qcompiler.graph.ir import Constant, Graph, unique_name

__all__ = ["hoist_initializers", "share_constants"]

Key = tuple[Any, ...]


def share_constants(graph: Graph) -> None:
    """Let readers of equal constants (type, shape, bytes) in all bodies of ``graph`` share one, uniquely named."""
    bodies = [graph, *graph.subgraphs(recursive=True)]
    tensors = {id(t): t for body in bodies for node in body.nodes for t in (*node.inputs, *node.outputs)}
    tensors |= {id(t): t for body in bodies for t in (*body.inputs, *body.outputs)}
    keys = {identity: _key(tensor) for identity, tensor in tensors.items()}
    uses = Counter(
        name for name, _ in {(tensor.name, keys[identity] or identity) for identity, tensor in tensors.items()}
    )
    taken = set(uses)
    kept: dict[Key, Constant] = {}
    for body in bodies:
        for node in body.nodes:
            for index, tensor in enumerate(node.inputs):
                key = keys[id(tensor)]
                if key is None:
                    continue
                first = kept.setdefault(key, tensor)
                if first is not tensor:
                    node.inputs[index] = first
    for constant in kept.values():
        if uses[constant.name] > 1:
            constant.name = unique_name(taken, constant.name)


def _key(tensor: Any) -> Key | None:
    if not isinstance(tensor, Constant) or isinstance(tensor._values, LazyValues):
        return None
    values = np.asarray(tensor.values)
    # a view of one number, whatever its size
    base = values if values.ndim == 0 or any(values.strides) else values.reshape(-1)[:1]
    return (values.dtype.str, values.shape, blake2b(np.ascontiguousarray(base).tobytes()).digest())


def hoist_initializers(proto: onnx.GraphProto) -> None:
    """Move initializers of bodies into the graph, each once; names must be unique (`share_constants`)."""
    known = {tensor.name for tensor in proto.initializer}
    for body in _bodies(proto):
        own = {output.name for output in body.output}
        kept = [tensor for tensor in body.initializer if tensor.name in own]
        for tensor in body.initializer:
            if tensor.name not in known and tensor.name not in own:
                known.add(tensor.name)
                proto.initializer.append(tensor)
        del body.initializer[:]
        body.initializer.extend(kept)


def _bodies(proto: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in proto.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield body
                yield from _bodies(body)
