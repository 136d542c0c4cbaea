"""A small network with every kind of node that the page shows."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, 8, 8] image) => (float[N, 5] scores) {
  c = Conv<pads = [1, 1, 1, 1]>(image, w, b)
  r = Relu(c)
  d = Conv<pads = [1, 1, 1, 1], group = 4>(r, v)
  e = Add(d, r)
  m = GlobalAveragePool(e)
  f = Flatten(m)
  scores = Gemm(f, u, t)
}"""


def small_model() -> onnx.ModelProto:
    """Two convolutions with a way around one of them, and a Gemm."""
    rng, shapes = np.random.default_rng(5), {"w": (4, 3, 3, 3), "b": (4,), "v": (4, 1, 3, 3), "u": (4, 5), "t": (5,)}
    model = onnx.parser.parse_model(TEXT)
    for name, shape in shapes.items():
        value = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


FEEDS = [
    {"image": np.random.default_rng(seed).normal(size=(1, 3, 8, 8)).astype(np.float32)} for seed in range(12)
]  # fmt: skip
