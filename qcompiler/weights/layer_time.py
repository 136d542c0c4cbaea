"""How long a layer's product takes on this machine, with weights of 8 bits and of fewer.

The machine reads codes of few bits as they are where memory limits it: products of at most a few rows. On CPUs without
a dot product of bytes it multiplies small levels faster than large ones. Everywhere else it decodes the weights when it
loads a program, so few bits take exactly the time of eight, and only that one is measured. A layer is measured alone,
compiled as ever, on one thread: bursts of runs with one kind of weight and another take turns, and what counts is the
median over all turns of their ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Constant, Graph, Node, Variable
from qcompiler.graph.layers import Layer

if TYPE_CHECKING:
    from qcompiler.runtime import Session

__all__ = ["KINDS", "LayerShape", "kind_of_weight", "layer_shape", "nanoseconds"]

KINDS = {
    "2": (4, 127), "int2": (3, 1), "4": (16, 127), "int4": (15, 7), "int5": (31, 15), "int6": (63, 31), "8": (255, 127),
}  # fmt: skip
"""What decides how the machine multiplies with a weight: at most so many values, at most so large. Those of up to 4 and
16 values are codes of 2 and 4 bits.
"""

_BY_VALUES = {4: ("int2", "2"), 16: ("int4", "4"), 256: ("int5", "int6", "8")}
"""By the most values, the kinds with the smallest levels first."""

PRODUCTS = ("gemm", "conv")
"""Instructions that multiply with constant weights."""

BURST, ROUNDS, LEAST_ROUNDS = 5, 15, 3
ENOUGH_SECONDS = 0.1
"""Seconds of one layer's measurement after which no round beyond `LEAST_ROUNDS` begins."""

SCALE = np.float32(0.03)
LARGEST_OF_INT16 = 12
"""Largest of the levels that multiply 16-bit inputs: those of 8 bits still are too many for a table, and sums stay
within an accumulator.
"""


@dataclass(frozen=True)
class LayerShape:
    """What decides about the time of a layer.

    Attributes:
        op: Conv, Gemm or MatMul.
        attrs: its attributes, lists as tuples.
        x, weight: shapes of its input and its weight.
        axis: output channels of the weight.
        activations: type of its input's codes: uint8, int8 or int16.
    """

    op: str
    attrs: tuple[tuple[str, Any], ...]
    x: tuple[int, ...]
    weight: tuple[int, ...]
    axis: int
    activations: str


def layer_shape(layer: Layer, x: tuple[int, ...], activations: str) -> LayerShape:
    """That of a layer whose input has the shape ``x``."""
    attrs = tuple(
        sorted((key, tuple(value) if isinstance(value, list) else value) for key, value in layer.node.attrs.items())
    )
    return LayerShape(layer.node.op, attrs, x, tuple(layer.values.shape), layer.axis, activations)


def kind_of_weight(distinct: int, largest: int, block: int | None) -> str:
    """Which of `KINDS` a weight of so many values is; one in blocks is decoded, with levels of any size."""
    if block is not None:
        return "8"
    kinds = next(kinds for values, kinds in _BY_VALUES.items() if distinct <= values)
    return next(kind for kind in kinds if largest <= KINDS[kind][1])


@cache
def nanoseconds(shape: LayerShape) -> Mapping[str, int]:
    """Time of the product by kind of its weight; nothing where the machine does not run such a layer."""
    try:
        whole = _session(shape, "8")
    except UnsupportedError:
        return {}
    sessions = {"8": whole}
    for kind in KINDS:
        if kind != "8" and _packed(session := _session(shape, kind)) != _packed(whole):
            sessions[kind] = session
    x = np.random.default_rng(0).normal(size=shape.x).astype(np.float32)
    turns: dict[str, list[float]] = {kind: [] for kind in sessions}
    start = perf_counter()
    for done in range(ROUNDS):
        if done >= LEAST_ROUNDS and perf_counter() - start > ENOUGH_SECONDS * len(sessions):
            break
        for kind, session in sessions.items():
            turns[kind].append(_product_time(session, x))
    full = statistics.median(turns["8"])
    ratios = {
        kind: statistics.median(few / eight for few, eight in zip(turns[kind], turns["8"], strict=True))
        for kind in sessions
    }
    return {kind: round(full * ratios.get(kind, 1.0)) for kind in KINDS}


def _product_time(session: Session, x: NDArray[Any]) -> float:
    """Nanoseconds of the instructions that multiply, the fastest run of a burst."""
    return float(sum(time for opcode, _, time in session.profile({"x": x}, BURST) if opcode in PRODUCTS))


def _packed(session: Session) -> list[tuple[int, int]]:
    """What decides how the products are computed."""
    from qcompiler.runtime.binding.bind import bind
    from qcompiler.runtime.binding.packed_weights import pack_program

    packed = pack_program(session.program, bind(session.program), session.isa)
    return [(weights.form, weights.fitting) for weights in packed.values()]


def _session(shape: LayerShape, kind: str) -> Session:
    """The layer alone, its weight of random levels."""
    from qcompiler.lowering import lower_graph, to_program
    from qcompiler.runtime import Session

    return Session(to_program(lower_graph(_alone(shape, kind))), num_threads=1)


def _alone(shape: LayerShape, kind: str) -> Graph:
    """A quantized graph of one layer."""
    values, largest = KINDS[kind]
    largest = min(largest, LARGEST_OF_INT16) if shape.activations == "int16" else largest
    levels = np.linspace(-largest, largest, min(values, 2 * largest + 1)).round().astype(np.int8)
    codes, dtype = np.random.default_rng(0).choice(levels, shape.weight), np.dtype(shape.activations)
    grid = [Constant("scale", np.array(SCALE)), Constant("zero", np.array(128 if dtype == np.uint8 else 0, dtype))]
    channels = shape.weight[shape.axis]
    weight_grid = [
        Constant("weight_scale", np.full(channels, SCALE)),
        Constant("weight_zero", np.zeros(channels, np.int8)),
    ]
    x, y = Variable("x", np.dtype(np.float32), shape.x), Variable("y", np.dtype(np.float32))
    names = ("x_codes", "x_dq", "w_dq", "a", "y_codes")
    x_codes, x_dq, w_dq, a, y_codes = (
        Variable(name, dtype if name.endswith("codes") else np.dtype(np.float32)) for name in names
    )
    nodes = [
        Node("QuantizeLinear", "qx", {}, [x, *grid], [x_codes]),
        Node("DequantizeLinear", "dx", {}, [x_codes, *grid], [x_dq]),
        Node("DequantizeLinear", "dw", {"axis": shape.axis}, [Constant("codes", codes), *weight_grid], [w_dq]),
        Node(
            shape.op,
            "layer",
            {key: list(value) if isinstance(value, tuple) else value for key, value in shape.attrs},
            [x_dq, w_dq],
            [a],
        ),
        Node("QuantizeLinear", "qy", {}, [a, *grid], [y_codes]),
        Node("DequantizeLinear", "dy", {}, [y_codes, *grid], [y]),
    ]
    return Graph(nodes=nodes, inputs=[x], outputs=[y], opset=21)
