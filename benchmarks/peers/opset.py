"""Models in an operator set that the peers can work with; needs onnx alone."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import version_converter

LEAST, WANTED = 13, 17
"""Scales per channel came with operator set 13; older models are converted."""


def recent(model: str) -> onnx.ModelProto:
    """The model, converted where its operator set knows no scales per channel."""
    network = onnx.load(model)
    default = next(entry.version for entry in network.opset_import if entry.domain in ("", "ai.onnx"))
    return network if default >= LEAST else version_converter.convert_version(network, WANTED)


def recent_path(model: str, folder: Path) -> str:
    """The same as a file."""
    path = str(folder / "model.onnx")
    onnx.save(recent(model), path)
    return path
