"""Random small networks for the tests of equivalences: convolutional ones and Transformers, as text for `graph_of`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Graph
from tests.helpers.graphs import graph_of

CHANNELS, SIZE = 4, 6
WIDTH, HEADS, LENGTH = 8, 2, 5


@dataclass
class Network:
    """A network as it is drawn.

    Attributes:
        rng: what decides.
        lines: statements so far.
        constants: initializers by name.
        tensors: names of tensors of the usual shape.
    """

    rng: np.random.Generator
    lines: list[str] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    tensors: list[str] = field(default_factory=lambda: ["x"])

    def constant(self, *shape: int, low: float = -0.6, high: float = 0.6) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = self.rng.uniform(low, high, shape).astype(np.float32)
        return name

    def integers(self, *values: int) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(values, np.int64)
        return name

    def pick(self) -> str:
        """Mostly the latest tensor."""
        return self.tensors[-1] if self.rng.random() < 0.75 else str(self.rng.choice(self.tensors))

    def say(self, text: str, *, usual: bool = True) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        if usual:
            self.tensors.append(name)
        return name


def _conv(net: Network, source: str, *, usual: bool = True) -> str:
    kind, bias = net.rng.integers(5), f", {net.constant(CHANNELS)}" if net.rng.random() < 0.7 else ""
    if kind == 0:
        return net.say(f"Conv ({source}, {net.constant(CHANNELS, CHANNELS, 1, 1)}{bias})", usual=usual)
    if kind == 1:
        return net.say(
            f"Conv <pads = [1, 1, 1, 1]> ({source}, {net.constant(CHANNELS, CHANNELS, 3, 3)}{bias})", usual=usual
        )
    if kind == 2:
        return net.say(
            f"Conv <group = {CHANNELS}, pads = [1, 1, 1, 1]> ({source}, {net.constant(CHANNELS, 1, 3, 3)}{bias})",
            usual=usual,
        )
    if kind == 3:
        return net.say(f"Conv <group = 2> ({source}, {net.constant(CHANNELS, CHANNELS // 2, 1, 1)}{bias})", usual=usual)
    group = int(net.rng.choice([1, 2]))
    weight = net.constant(CHANNELS, CHANNELS // group, 3, 3)
    return net.say(f"ConvTranspose <group = {group}, pads = [1, 1, 1, 1]> ({source}, {weight}{bias})", usual=usual)


def _pixelwise(net: Network, source: str) -> str:
    choices = (
        "Relu ({x})", ("LeakyRelu <alpha = 0.1> "
                      "({x})"), "PRelu ({x}, {slope})", "Clip ({x}, {zero}, {six})", "Clip ({x}, {low}, {six})",
        "Sigmoid ({x})", "HardSwish ({x})", "Neg ({x})", "Identity ({x})", "Mul ({x}, {vector})", "Div ({x}, {vector})",
        "Add ({x}, {vector})",
        "Sub ({vector}, {x})",
        "Mul ({x}, {scalar})", "Add ({scalar}, {x})", "Add ({x}, {x})",
        "MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({x})",
        "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({x})", "Transpose <perm = [0, 1, 3, 2]> ({x})",
        "Transpose <perm = [0, 2, 1, 3]> ({x})",
    )  # fmt: skip
    text = str(net.rng.choice(choices[:-1] if net.rng.random() < 0.97 else choices))
    if "perm = [0, 2, 1, 3]" in text:
        inner = net.say(text.format(x=source), usual=False)
        return net.say(f"Transpose <perm = [0, 2, 1, 3]> ({inner})")
    names = {
        "slope": net.constant(CHANNELS, 1, 1, low=0.05), "zero": net.constant(low=0, high=1e-30),
        "six": net.constant(low=0.3, high=2),
        "low": net.constant(low=-1, high=-0.1), "vector": net.constant(1, CHANNELS, 1, 1, low=0.4, high=2),
        "scalar": net.constant(low=0.5, high=2),
    }  # fmt: skip
    return net.say(text.format(x=source, **names))


def _joined(net: Network, source: str) -> str:
    kind, other = net.rng.integers(6), str(net.rng.choice(net.tensors))
    if kind <= 1:
        return net.say(f"Add ({source}, {other})")
    if kind == 2:
        return net.say(f"Mul ({source}, {other})")
    if kind == 3:
        both = net.say(f"Concat <axis = 1> ({source}, {other})", usual=False)
        return net.say(f"Conv ({both}, {net.constant(CHANNELS, 2 * CHANNELS, 1, 1)})")
    if kind == 4:
        wide = net.say(
            f"Conv ({source}, {net.constant(2 * CHANNELS, CHANNELS, 1, 1)}, {net.constant(2 * CHANNELS)})", usual=False
        )
        first, second = f"t{len(net.lines)}", f"t{len(net.lines)}b"
        net.lines.append(f"{first}, {second} = Split <axis = 1, num_outputs = 2> ({wide})")
        return net.say(f"Add ({first}, {second})")
    pooled = net.say(f"GlobalAveragePool ({source})", usual=False)
    gate = net.say(
        f"HardSigmoid ({_conv_1x1(net, net.say(f'Relu ({_conv_1x1(net, pooled)})', usual=False))})", usual=False
    )
    return net.say(f"Mul ({source}, {gate})")


def _conv_1x1(net: Network, source: str) -> str:
    return net.say(f"Conv ({source}, {net.constant(CHANNELS, CHANNELS, 1, 1)}, {net.constant(CHANNELS)})", usual=False)


def _network_text(net: Network, shape: str, outputs: list[str]) -> str:
    return f"g ({shape} x) => ({', '.join(f'float[] {name}' for name in outputs)}) {{ {'  '.join(net.lines)} }}"


def convolutional(seed: int) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """A random convolutional network and a feed."""
    net = Network(np.random.default_rng(seed))
    for _ in range(int(net.rng.integers(4, 12))):
        draw = net.rng.random()
        step = _conv if draw < 0.5 else _pixelwise if draw < 0.75 else _joined
        step(net, net.pick())
    last = net.tensors[-1]
    if net.rng.random() < 0.5:
        flat = net.say(f"Flatten ({last})", usual=False)
        weight = net.constant(3, CHANNELS * SIZE * SIZE)
        last = net.say(f"Gemm <transB = 1, alpha = 0.5, beta = 2.0> ({flat}, {weight}, {net.constant(3)})", usual=False)
    outputs = sorted({last, *([str(net.rng.choice(net.tensors[1:]))] if net.rng.random() < 0.3 else [])})
    graph = graph_of(_network_text(net, f"float[N, {CHANNELS}, {SIZE}, {SIZE}]", outputs), **net.constants)
    return graph, {"x": net.rng.uniform(-2, 2, (2, CHANNELS, SIZE, SIZE)).astype(np.float32)}


def _linear(net: Network, source: str, inputs: int = WIDTH, outputs: int = WIDTH) -> str:
    product = net.say(f"MatMul ({source}, {net.constant(inputs, outputs)})", usual=False)
    return net.say(f"Add ({product}, {net.constant(outputs)})", usual=False) if net.rng.random() < 0.8 else product


def _norm(net: Network, source: str) -> str:
    return net.say(
        f"LayerNormalization <axis = -1> ({source}, {net.constant(WIDTH, low=0.4, high=2)}, {net.constant(WIDTH)})",
        usual=False,
    )


def _attention(net: Network, source: str) -> str:
    heads, merged = net.integers(0, 0, HEADS, WIDTH // HEADS), net.integers(0, 0, WIDTH)
    parts = [net.say(f"Reshape ({_linear(net, source)}, {heads})", usual=False) for _ in range(3)]
    perms = ("0, 2, 1, 3", "0, 2, 3, 1", "0, 2, 1, 3")
    q, k, v = (
        net.say(f"Transpose <perm = [{perm}]> ({part})", usual=False) for part, perm in zip(parts, perms, strict=True)
    )
    scores = net.say(f"Softmax <axis = -1> ({net.say(f'MatMul ({q}, {k})', usual=False)})", usual=False)
    mixed = net.say(f"Transpose <perm = [0, 2, 1, 3]> ({net.say(f'MatMul ({scores}, {v})', usual=False)})", usual=False)
    return _linear(net, net.say(f"Reshape ({mixed}, {merged})", usual=False))


def _feed_forward(net: Network, source: str) -> str:
    inner = _linear(net, source, WIDTH, 2 * WIDTH)
    activation = str(net.rng.choice(["Relu", "Gelu", "Sigmoid", "glu"]))
    if activation == "glu":
        gate = net.say(f"Sigmoid ({_linear(net, source, WIDTH, 2 * WIDTH)})", usual=False)
        return _linear(net, net.say(f"Mul ({inner}, {gate})", usual=False), 2 * WIDTH)
    return _linear(net, net.say(f"{activation} ({inner})", usual=False), 2 * WIDTH)


def transformer(seed: int) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """A random Transformer, norms before or behind its sums, and a feed."""
    net = Network(np.random.default_rng(seed))
    stream, before = net.say(_linear_text(net, "x")), bool(net.rng.random() < 0.5)
    for _ in range(int(net.rng.integers(1, 4))):
        block = _attention if net.rng.random() < 0.5 else _feed_forward
        branch = block(net, _norm(net, stream) if before else stream)
        stream = net.say(f"Add ({stream}, {branch})") if net.rng.random() < 0.9 else branch
        stream = stream if before else _norm(net, stream)
    last = _linear(net, _norm(net, stream)) if net.rng.random() < 0.5 else stream
    outputs = sorted({last, *([str(net.rng.choice(net.tensors[1:]))] if net.rng.random() < 0.2 else [])})
    graph = graph_of(_network_text(net, f"float[B, L, {WIDTH}]", outputs), **net.constants)
    return graph, {"x": net.rng.uniform(-2, 2, (2, LENGTH, WIDTH)).astype(np.float32)}


def _linear_text(net: Network, source: str) -> str:
    return f"MatMul ({source}, {net.constant(WIDTH, WIDTH)})"
