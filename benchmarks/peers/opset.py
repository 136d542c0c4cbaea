"""Models in an operator set that the peers can work with; needs onnx alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

LEAST, WANTED, FOUR_BITS = 13, 17, 21
"""Scales per channel came with operator set 13, weights of 4 bits with 21; older models are converted."""


def recent(model: str, least: int = LEAST) -> onnx.ModelProto:
    """The model, converted where its operator set is older than the least that will do."""
    network = onnx.load(model)
    default = next(entry.version for entry in network.opset_import if entry.domain in ("", "ai.onnx"))
    return network if default >= least else version_converter.convert_version(network, max(least, WANTED))


def shaped(network: onnx.ModelProto, feed: dict[str, Any]) -> onnx.ModelProto:
    """The model with inputs as large as those of a feed, for peers that make up inputs of their own."""
    for value in network.graph.input:
        del value.type.tensor_type.shape.dim[:]
        for size in feed[value.name].shape:
            value.type.tensor_type.shape.dim.add().dim_value = size
    return network


def with_initializers(network: onnx.ModelProto) -> onnx.ModelProto:
    """The model with initializers in the place of Constant nodes, for peers that look for weights among those alone."""
    constants = [
        node for node in network.graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"
    ]
    for node in constants:
        network.graph.initializer.add().CopyFrom(node.attribute[0].t)
        network.graph.initializer[-1].name = node.output[0]
        network.graph.node.remove(node)
    return network


def recent_path(model: str, folder: Path) -> str:
    """The same as a file."""
    path = str(folder / "model.onnx")
    onnx.save(recent(model), path)
    return path
