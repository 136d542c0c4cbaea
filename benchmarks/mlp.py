"""Networks of dense layers, trained here in seconds with numpy alone, and written as ONNX.

Two shapes: ``blocks`` (an embedding, residual blocks of ``dense → ReLU → dense``, a head) and ``chain`` (dense layers
with ReLU between, nothing else). Their hidden layers are wider than the task needs: that is what replacements live on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.data import Split

Array = NDArray[Any]
Parameters = dict[str, NDArray[np.float32]]

BATCH = 64


@dataclass(frozen=True)
class Shape:
    """What a network looks like.

    Attributes:
        inputs, classes: sizes of its ends.
        width: channels of the residual stream, or of nothing in a chain.
        hidden: neurons of each hidden layer.
        blocks: residual blocks; 0: a chain of two hidden layers.
    """

    inputs: int
    classes: int
    width: int
    hidden: int
    blocks: int

    @property
    def layers(self) -> list[tuple[str, int, int]]:
        """Names and sizes (in, out) of the dense layers, in order."""
        if self.blocks == 0:
            sizes = [self.inputs, self.hidden, self.hidden, self.classes]
            return [(f"dense{index}", sizes[index], sizes[index + 1]) for index in range(3)]
        inner: list[tuple[str, int, int]] = []
        for index in range(self.blocks):
            inner += [(f"block{index}_in", self.width, self.hidden), (f"block{index}_out", self.hidden, self.width)]
        return [("embed", self.inputs, self.width), *inner, ("head", self.width, self.classes)]


def forward(shape: Shape, parameters: Parameters, x: Array) -> tuple[Array, dict[str, Array]]:
    """Logits, and the input of every dense layer (behind its ReLU)."""
    seen: dict[str, Array] = {}

    def dense(name: str, value: Array) -> Array:
        seen[name] = value
        return np.asarray(value @ parameters[f"{name}_w"] + parameters[f"{name}_b"])

    if shape.blocks == 0:
        for index in range(2):
            x = np.maximum(dense(f"dense{index}", x), 0)
        return dense("dense2", x), seen
    x = dense("embed", x)
    for index in range(shape.blocks):
        x = x + dense(f"block{index}_out", np.maximum(dense(f"block{index}_in", x), 0))
    return dense("head", x), seen


def gradients(shape: Shape, parameters: Parameters, seen: dict[str, Array], slope: Array) -> Parameters:
    """Of the loss whose slope at the logits is given."""
    found: Parameters = {}

    def dense(name: str, slope: Array) -> Array:
        found[f"{name}_w"], found[f"{name}_b"] = seen[name].T @ slope, slope.sum(axis=0)
        return np.asarray(slope @ parameters[f"{name}_w"].T)

    if shape.blocks == 0:
        for index in (2, 1):
            slope = dense(f"dense{index}", slope) * (seen[f"dense{index}"] > 0)
        dense("dense0", slope)
        return found
    slope = dense("head", slope)
    for index in reversed(range(shape.blocks)):
        name = f"block{index}"
        slope = slope + dense(f"{name}_in", dense(f"{name}_out", slope) * (seen[f"{name}_out"] > 0))
    dense("embed", slope)
    return found


def train(
    shape: Shape, split: Split, *, epochs: int, rate: float = 2e-3, decay: float = 0.02, seed: int = 0
) -> Parameters:
    """Parameters after AdamW with a linear schedule on the cross entropy."""
    rng = np.random.default_rng(seed)
    parameters: Parameters = {}
    for name, inputs, outputs in shape.layers:
        gain = 0.5 if name.endswith("_out") else 1.0
        parameters[f"{name}_w"] = (gain * np.sqrt(2 / inputs) * rng.standard_normal((inputs, outputs))).astype(
            np.float32
        )
        parameters[f"{name}_b"] = np.zeros(outputs, np.float32)
    first, second = ({key: np.zeros_like(value) for key, value in parameters.items()} for _ in range(2))
    steps, step = epochs * (len(split.labels) // BATCH), 0
    for _ in range(epochs):
        order = rng.permutation(len(split.labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen, step = order[start : start + BATCH], step + 1
            logits, seen = forward(shape, parameters, split.inputs[chosen])
            slope = np.exp(logits - logits.max(axis=1, keepdims=True))
            slope /= slope.sum(axis=1, keepdims=True)
            slope[np.arange(BATCH), split.labels[chosen]] -= 1
            now = rate * min(1.0, 10 * step / steps) * (1 - step / steps)
            for key, gradient in gradients(shape, parameters, seen, slope / BATCH).items():
                first[key] += np.float32(0.1) * (gradient - first[key])
                second[key] += np.float32(0.001) * (np.square(gradient) - second[key])
                move = first[key] / (1 - 0.9**step) / (np.sqrt(second[key] / (1 - 0.999**step)) + 1e-8)
                parameters[key] -= (now * (move + decay * parameters[key] * key.endswith("_w"))).astype(np.float32)
    return parameters


def to_onnx(shape: Shape, parameters: Parameters) -> onnx.ModelProto:
    """The network, input ``x`` [N, inputs], output ``logits``."""
    nodes: list[onnx.NodeProto] = []

    def dense(name: str, source: str, target: str) -> str:
        nodes.append(helper.make_node("Gemm", [source, f"{name}_w", f"{name}_b"], [target], name=name))
        return target

    def relu(source: str) -> str:
        nodes.append(helper.make_node("Relu", [source], [f"{source}_relu"], name=f"{source}_relu"))
        return f"{source}_relu"

    value = stream = "x"
    for name, _, _ in shape.layers:
        if name.endswith("_out"):
            nodes.append(
                helper.make_node("Add", [stream, dense(name, value, f"{name}_y")], [f"{name}_sum"], name=f"{name}_sum")
            )
            value = f"{name}_sum"
            continue
        stream = value
        value = dense(name, value, "logits" if name in ("head", "dense2") else f"{name}_y")
        value = relu(value) if name.endswith("_in") or name in ("dense0", "dense1") else value
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
        for name, size in (("x", shape.inputs), ("logits", shape.classes))
    ]
    graph = helper.make_graph(
        nodes, "mlp", ends[:1], ends[1:], [numpy_helper.from_array(value, key) for key, value in parameters.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
