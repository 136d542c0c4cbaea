"""How long a layer's product takes on this machine, with weights of 8 bits and of fewer.

The machine reads codes of few bits as they are where memory limits it: products of at most a few rows. Everywhere else
it decodes the weights when it loads a program, so few bits take exactly the time of eight, and only that one is
measured. A layer is measured alone, compiled as ever, on one thread: bursts of runs with one storage and another take
turns, and what counts is the median over all turns of their ratio.
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

__all__ = ["CODE_BITS", "LayerShape", "code_bits", "layer_shape", "nanoseconds"]

CODE_BITS = (2, 4)
"""Bits below 8 that codes have in the machine's memory (those of 3 bits have 4 there)."""

PRODUCTS = ("gemm", "conv")
"""Instructions that multiply with constant weights."""

BURST, ROUNDS, LEAST_ROUNDS = 5, 15, 3
ENOUGH_SECONDS = 0.1
"""Seconds of one layer's measurement after which no round beyond `LEAST_ROUNDS` begins."""

SCALE = np.float32(0.03)
UNCODED = 12
"""Largest of the codes that stand for those of 8 bits: too many for a table, and so small that 16-bit inputs stay
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


def code_bits(distinct: int, block: int | None) -> int:
    """Bits per weight code in the machine's memory; weights in blocks are decoded to 8."""
    return 8 if block is not None else next((bits for bits in CODE_BITS if distinct <= 1 << bits), 8)


@cache
def nanoseconds(shape: LayerShape) -> Mapping[int, int]:
    """Time of the product by weight code bits (2, 4, 8); empty where the machine does not run such a layer."""
    try:
        whole = _session(shape, 8)
    except UnsupportedError:
        return {}
    sessions = {8: whole} | {bits: coded for bits in CODE_BITS if _keeps_codes(coded := _session(shape, bits))}
    x = np.random.default_rng(0).normal(size=shape.x).astype(np.float32)
    turns: dict[int, list[float]] = {bits: [] for bits in sessions}
    start = perf_counter()
    for done in range(ROUNDS):
        if done >= LEAST_ROUNDS and perf_counter() - start > ENOUGH_SECONDS * len(sessions):
            break
        for bits, session in sessions.items():
            turns[bits].append(_product_time(session, x))
    full = statistics.median(turns[8])
    ratios = {
        bits: statistics.median(few / eight for few, eight in zip(turns[bits], turns[8], strict=True))
        for bits in sessions
    }
    return {bits: round(full * ratios.get(bits, 1.0)) for bits in (*CODE_BITS, 8)}


def _product_time(session: Session, x: NDArray[Any]) -> float:
    """Nanoseconds of the instructions that multiply, the fastest run of a burst."""
    return float(sum(time for opcode, _, time in session.profile({"x": x}, BURST) if opcode in PRODUCTS))


def _keeps_codes(session: Session) -> bool:
    from qcompiler.runtime.binding.bind import bind
    from qcompiler.runtime.binding.packed_weights import pack_program
    from qcompiler.runtime.instructions.instruction import Form

    packed = pack_program(session.program, bind(session.program), session.isa)
    return any(weights.form in (Form.CODES_2, Form.CODES_4) for weights in packed.values())


def _session(shape: LayerShape, bits: int) -> Session:
    """The layer alone, its weight of random codes."""
    from qcompiler.lowering import lower_graph, to_program
    from qcompiler.runtime import Session

    return Session(to_program(lower_graph(_alone(shape, bits))), num_threads=1)


def _alone(shape: LayerShape, bits: int) -> Graph:
    """A quantized graph of one layer."""
    largest = UNCODED if bits == 8 else (1 << bits - 1) - 1
    codes = np.random.default_rng(0).integers(-largest, largest + 1, shape.weight).astype(np.int8)
    kind = np.dtype(shape.activations)
    grid = [Constant("scale", np.array(SCALE)), Constant("zero", np.array(128 if kind == np.uint8 else 0, kind))]
    channels = shape.weight[shape.axis]
    weight_grid = [
        Constant("weight_scale", np.full(channels, SCALE)),
        Constant("weight_zero", np.zeros(channels, np.int8)),
    ]
    x, y = Variable("x", np.dtype(np.float32), shape.x), Variable("y", np.dtype(np.float32))
    names = ("x_codes", "x_dq", "w_dq", "a", "y_codes")
    x_codes, x_dq, w_dq, a, y_codes = (
        Variable(name, kind if name.endswith("codes") else np.dtype(np.float32)) for name in names
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
