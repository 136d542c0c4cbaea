"""Graphs of one or two layers of any size, for tests that try every size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Graph
from tests.helpers.graphs import graph_of

DENSE = ("Gemm", "GemmT", "MatMul", "MatMulAdd")
CONVOLUTIONS = ("Conv", "Pointwise", "Grouped", "Depthwise", "DepthwiseTwice", "ConvTranspose")
RECURRENT = ("LSTM", "GRU")
KINDS = (*DENSE, *CONVOLUTIONS, *RECURRENT)


@dataclass(frozen=True)
class LayerGraph:
    """How to make a graph ``x -> y`` of one layer, and feeds for it.

    Attributes:
        kind: one of `KINDS`.
        inputs: channels that go in; of grouped convolutions those of each of two groups, of depthwise ones also the
            groups.
        outputs: channels that come out; hidden units of recurrent layers.
        pixels: height and width of pictures, steps of sequences.
        bias: give the layer one, where its kind may have one or not.
        relu: put a Relu behind it.
        seed: of the weights, which have a heavy tail.
    """

    kind: str
    inputs: int = 4
    outputs: int = 4
    pixels: int = 5
    bias: bool = True
    relu: bool = False
    seed: int = 0

    def graph(self) -> Graph:
        """The float graph; its batch has no fixed size, that of recurrent layers is 1."""
        text, weights = (
            self._recurrent()
            if self.kind in RECURRENT
            else self._dense()
            if self.kind in DENSE
            else self._convolution()
        )
        return graph_of(text, **weights)

    def feed(self, batch: int, seed: int = 1) -> dict[str, NDArray[Any]]:
        """Random inputs, some of them at both ends of their range."""
        rng = np.random.default_rng([self.seed, seed])
        channels = self.inputs * 2 if self.kind == "Grouped" else self.inputs
        shape: tuple[int, ...] = (batch, channels, self.pixels, self.pixels)
        if self.kind in DENSE:
            shape = (batch, self.inputs)
        if self.kind in RECURRENT:
            shape = (self.pixels, 1, self.inputs)
        values = rng.normal(size=shape)
        ends = rng.random(shape)
        return {"x": np.where(ends < 0.3, 3.0, np.where(ends > 0.9, -1.0, values)).clip(-1, 3).astype(np.float32)}

    def _random(self, *shape: int, tag: int = 0) -> NDArray[np.float32]:
        return np.random.default_rng([self.seed, tag]).standard_t(3, shape).astype(np.float32)

    def _ended(self, head: str, shape: str, body: str) -> str:
        ending = "positive = Relu(z) y = Identity(positive)" if self.relu else "y = Identity(z)"
        return f"g (float[{head}] x) => (float[{shape}] y) {{ {body} {ending} }}"

    def _dense(self) -> tuple[str, dict[str, Any]]:
        k, c = self.inputs, self.outputs
        weights = {"w": self._random(c, k) if self.kind == "GemmT" else self._random(k, c)}
        if self.kind == "MatMulAdd" or (self.bias and self.kind != "MatMul"):
            weights["b"] = self._random(c, tag=1)
        body = {
            "Gemm": f"z = Gemm(x, w{', b' if 'b' in weights else ''})",
            "GemmT": f"z = Gemm <transB = 1> (x, w{', b' if 'b' in weights else ''})",
            "MatMul": "z = MatMul(x, w)",
            "MatMulAdd": "m = MatMul(x, w) z = Add(m, b)",
        }[self.kind]
        return self._ended(f"N, {k}", f"N, {c}", body), weights

    def _convolution(self) -> tuple[str, dict[str, Any]]:
        i, o, p = self.inputs, self.outputs, self.pixels
        op, attrs, shape, out, size = {
            "Conv": ("Conv", "pads = [1, 1, 1, 1]", (o, i, 3, 3), o, p),
            "Pointwise": ("Conv", "group = 1", (o, i, 1, 1), o, p),
            "Grouped": ("Conv", "group = 2, pads = [1, 1, 1, 1]", (o * 2, i, 3, 3), o * 2, p),
            "Depthwise": ("Conv", f"group = {i}, pads = [1, 1, 1, 1]", (i, 1, 3, 3), i, p),
            "DepthwiseTwice": ("Conv", f"group = {i}, pads = [1, 1, 1, 1]", (i * 2, 1, 3, 3), i * 2, p),
            "ConvTranspose": ("ConvTranspose", "strides = [2, 2]", (i, o, 2, 2), o, p * 2),
        }[self.kind]
        weights = {"w": self._random(*shape)}
        if self.bias:
            weights["b"] = self._random(out, tag=1)
        body = f"z = {op} <{attrs}> (x, w{', b' if self.bias else ''})"
        channels = i * 2 if self.kind == "Grouped" else i
        return self._ended(f"N, {channels}, {p}, {p}", f"N, {out}, {size}, {size}", body), weights

    def _recurrent(self) -> tuple[str, dict[str, Any]]:
        gates, h = 4 if self.kind == "LSTM" else 3, self.outputs
        weights = {"w": self._random(1, gates * h, self.inputs) / 2, "r": self._random(1, gates * h, h, tag=1) / 2}
        if self.bias:
            weights["b"] = self._random(1, 2 * gates * h, tag=2) / 2
        body = f"z = {self.kind} <hidden_size = {h}> (x, w, r{', b' if self.bias else ''})"
        return self._ended(f"T, 1, {self.inputs}", f"T, 1, 1, {h}", body), weights
