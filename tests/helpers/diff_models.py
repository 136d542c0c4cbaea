"""Pairs of models that part at a place that is known, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser


def chain(layers: int, broken: int | None = None, harm: float = 1.0, seed: int = 0) -> onnx.ModelProto:
    """``layers`` products with a Tanh behind each, tensors ``m0``, ``t0``, ``m1``, …; the weight of layer ``broken`` is
    not that of the other model but moved by ``harm`` of its size.
    """
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for at in range(layers):
        weight, noise = rng.normal(size=(2, 8, 8)).astype(np.float32) / 3
        weights.append(onnx.numpy_helper.from_array(weight + harm * noise * (at == broken), f"w{at}"))
        nodes += [
            onnx.helper.make_node("MatMul", [last, f"w{at}"], [f"m{at}"], f"product_{at}"),
            onnx.helper.make_node("Tanh", [f"m{at}"], [f"t{at}"], f"tanh_{at}"),
        ]
        last = f"t{at}"
    ends = [[onnx.helper.make_tensor_value_info(name, 1, ["N", 8])] for name in ("x", last)]
    graph = onnx.helper.make_graph(nodes, "g", *ends, weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def saved(folder: Path, **models: onnx.ModelProto) -> list[Path]:
    """Each model as ``<name>.onnx``."""
    paths = [folder / f"{name}.onnx" for name in models]
    for path, model in zip(paths, models.values(), strict=True):
        onnx.save(model, path)
    return paths


def model_of(text: str, opset: int = 17) -> onnx.ModelProto:
    """A model from text such as ``g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }``."""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
