"""What the tutorials share: models called in one way, whatever runs them, and training without a framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime

from qcompiler.runtime import Session

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], dict[str, np.ndarray]]
"""From the inputs to the outputs of a model, by name."""


def open_model(path: str | Path) -> Run:
    """A ``.qprog`` on the integer machine, an ``.onnx`` on onnxruntime."""
    if str(path).endswith(".qprog"):
        return Session(path).run
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def model_of(signature: str, body: str, constants: Arrays) -> onnx.ModelProto:
    """A model from ONNX's text form."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {signature} {{ {body} }}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    return model


def train_layers(
    inputs: np.ndarray, slopes: Callable[[np.ndarray, np.ndarray], np.ndarray], hidden: int, outputs: int, steps: int
) -> tuple[np.ndarray, ...]:
    """Train two dense layers with a ReLU between them (Adam, 256 random rows a step).

    Args:
        inputs: float32 [N, K].
        slopes: from row numbers [B] and what the layers answer to these rows [B, outputs] to the gradient of the loss.
        hidden: units between the layers.
        outputs: of the second layer.
        steps: how many.

    Returns:
        Weights [K, hidden], bias, weights [hidden, outputs], bias.
    """
    rng = np.random.default_rng(0)
    shapes = [(inputs.shape[1], hidden), (hidden,), (hidden, outputs), (outputs,)]
    layers = [np.float32(rng.standard_normal(s) * np.sqrt(2 / s[0]) * (len(s) > 1)) for s in shapes]
    means, squares = [np.zeros_like(w) for w in layers], [np.zeros_like(w) for w in layers]
    for step in range(steps):
        rows = rng.integers(0, len(inputs), 256)
        seen = inputs[rows]
        middle = np.maximum(seen @ layers[0] + layers[1], 0)
        back = slopes(rows, middle @ layers[2] + layers[3]).astype(np.float32) / len(rows)
        behind = (back @ layers[2].T) * (middle > 0)
        gradients = [seen.T @ behind, behind.sum(0), middle.T @ back, back.sum(0)]
        rate = np.float32(0.003 * (1 - step / steps))
        for weight, gradient, mean, square in zip(layers, gradients, means, squares, strict=True):
            gradient += 1e-15  # units that are always 0 would leave denormal numbers, which are slow
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            weight -= rate / (1 - 0.9 ** (step + 1)) * mean / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8)
    return tuple(layers)
