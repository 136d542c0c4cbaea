"""Measures the costs by which instructions are divided among threads (`runtime/binding/instruction_cost.py`).

    python -m benchmarks.instruction_cost [--repeat 30]

A small model for each cost is compiled at -O0 and run on one thread; the time of its instruction, the fastest of many,
over what it is counted by, is the cost *found* on this core, beside the one *used*. Products have two costs, of an
output and of a multiply-accumulate, which two reduction lengths K tell apart. The costs used are those of a core with
AVX-512 VNNI: other cores differ by a common factor, which does not matter, and by operator, which is what to look at.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcompiler
from benchmarks.profile import random_feed
from qcompiler.options import Options
from qcompiler.runtime.binding import instruction_cost as used
from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.cpu.features import cpu_name
from qcompiler.runtime.cpu.isa import best_isa
from qcompiler.runtime.instructions.instruction import Values
from qcompiler.runtime.instructions.opcodes import BY_NUMBER
from qcompiler.runtime.session import Session

Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A model that has one instruction of a kind.

    Attributes:
        opcode: that kind.
        text: the graph, as ONNX text without its head.
        weights: constants by name.
        activations: option of the compiler.
    """

    opcode: str
    text: str
    weights: Weights | None = None
    activations: str = "uint8"


def random(*shape: int) -> NDArray[np.float32]:
    """A weight."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def instruction(case: Case, repeat: int) -> tuple[Values, int]:
    """The fields of the longest instruction of the case's kind, and its nanoseconds on one thread.

    Raises:
        ValueError: the compiled program has none.
    """
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {case.text}')
    for name, value in (case.weights or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    options = Options(0, activations=case.activations)
    session = Session(qcompiler.compile(model, options=options, for_onnx=False).program, num_threads=1)
    found = []
    rows = bind(session.program).code.tolist()
    for row, (name, _, time) in zip(rows, session.profile(random_feed(session), repeat), strict=True):
        if name == case.opcode:
            found.append((time, BY_NUMBER[row[0]].row(row)))
    if not found:
        raise ValueError(f"{case.text}: compiles to no '{case.opcode}'")
    time, fields = max(found, key=lambda each: each[0])
    return fields, time


def one_operand(operator: str, shape: str, result: str = "", attributes: str = "") -> str:
    """A graph of one operator with one input."""
    return f"g (float[{shape}] x) => (float[{result or shape}] y) {{ y = {operator} {attributes} (x) }}"


def simple_cases() -> dict[str, Case]:
    """Cases of costs that stand alone, by the name of the cost."""
    image, scales = "1, 64, 56, 56", {"s": np.array([1, 1, 2, 2], np.float32)}
    two = "g (float[512, 512] a, float[512, 512] b)"
    norm = "g (float[512, 512] x) => (float[512, 512] y) { y = LayerNormalization (x, w, z) }"
    where = f"{two} => (float[512, 512] y) {{ c = Greater (a, b) y = Where (c, a, b) }}"
    resize = f"g (float[{image}] x) => (float[1, 64, 112, 112] y) {{ y = Resize <mode = \"linear\"> (x, , s) }}"
    transposed = f"g (float[{image}] x) => (float[1, 64, 58, 58] y) {{ y = ConvTranspose (x, w) }}"
    window = "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
    flat, rows = "512, 512", "512, 1"
    turned, layer = "t = Transpose <perm = [1, 0]> (x)", "y = MatMul (t, w)"  # what a layer reads has bytes
    swapped = "t = Transpose <perm = [1, 0, 2]> (x)"
    return {
        'ELEMENT_COST["softmax"]': Case("softmax", one_operand("Softmax", flat)),
        'ELEMENT_COST["layernorm"]': Case("layernorm", norm, {"w": random(512), "z": random(512)}),
        'ELEMENT_COST["reduce"]': Case("reduce", one_operand("ReduceMean", flat, rows, "<axes = [1]>")),
        'ELEMENT_COST["reduce"] (over rows)': Case("reduce", one_operand("ReduceMean", flat, "1, 512", "<axes = [0]>")),
        'ELEMENT_COST["argmax"]': Case(
            "argmax", f"g (float[{flat}] x) => (int64[{rows}] y) {{ y = ArgMax <axis = 1> (x) }}"
        ),
        'ELEMENT_COST["topk"]': Case(
            "topk", f"g (float[{flat}] x) => (float[512, 16] y, int64[512, 16] i) {{ y, i = TopK (x, k) }}",
            {"k": np.array([16])},
        ),
        'ELEMENT_COST["binary"]': Case("binary", f"{two} => (float[{flat}] y) {{ y = Add (a, b) }}"),
        'ELEMENT_COST["where"]': Case("where", where),
        'ELEMENT_COST["compare"]': Case("compare", f"{two} => (bool[{flat}] y) {{ y = Greater (a, b) }}"),
        'ELEMENT_COST["table"]': Case("table", one_operand("Sign", flat), activations="int16"),
        'ELEMENT_COST["piecewise"]': Case("piecewise", one_operand("Sigmoid", flat), activations="int16"),
        'ELEMENT_COST["resize_linear"]': Case("resize_linear", resize, scales),
        'TAP_COST["max_pool"]': Case("max_pool", one_operand("MaxPool", image, "", window)),
        'TAP_COST["average_pool"]': Case("average_pool", one_operand("AveragePool", image, "", window)),
        'TAP_COST["conv_transpose"]': Case("conv_transpose", transposed, {"w": random(64, 64, 3, 3)}),
        "OTHER_COST": Case(
            "move", f"g (float[{flat}] x) => (float[512, 8] y) {{ {turned} {layer} }}", {"w": random(512, 8)}
        ),
        "OTHER_COST (int16)": Case("move", one_operand("Transpose", flat, "", "<perm = [1, 0]>"), activations="int16"),
        "OTHER_COST (runs of 64)": Case(
            "move", f"g (float[64, 64, 64] x) => (float[64, 64, 8] y) {{ {swapped} {layer} }}", {"w": random(64, 8)}
        ),
        "BYTE_TABLE_COST": Case("table", one_operand("Sin", "1024, 1024")),
        "WEIGHT_COST": product(1, 4096, 8192),
    }


def product(rows: int, k: int, columns: int) -> Case:
    """A product with constant weights."""
    text = f"g (float[{rows}, {k}] x) => (float[{rows}, {columns}] y) {{ y = MatMul (x, w) }}"
    return Case("gemm", text, {"w": random(k, columns)})


def product_of_activations(k: int) -> Case:
    """A product of two activations."""
    return Case("matmul", f"g (float[256, {k}] a, float[{k}, 256] b) => (float[256, 256] y) {{ y = MatMul (a, b) }}")


def depthwise(side: int) -> Case:
    """A depthwise convolution."""
    text = (
        f"g (float[1, 128, 28, 28] x) => (float[1, 128, 28, 28] y) "
        f"{{ y = Conv <group = 128, pads = [{', '.join(4 * [str(side // 2)])}]> (x, w) }}"
    )
    return Case("conv", text, {"w": random(128, 1, side, side)})


PAIRS = (
    ("RESULT_COST", "MULTIPLY_COST", (product(256, 64, 256), product(256, 1024, 256)), (64, 1024), 256 * 256),
    ("MATMUL_RESULT_COST", "MATMUL_MULTIPLY_COST", (product_of_activations(64), product_of_activations(1024)),
     (64, 1024), 256 * 256),
    ("RESULT_COST (depthwise)", "DEPTHWISE_TAP_COST", (depthwise(3), depthwise(7)), (9, 49), 128 * 28 * 28),
)  # fmt: skip
"""Costs of an output and of a multiply-accumulate: their names, two cases, the K of each, and the outputs of either."""


def value_of(name: str) -> float:
    """The cost that is used, by its name here: ``TABLE["key"]`` or ``NAME``, with a remark behind it."""
    table, _, key = name.partition(" ")[0].removesuffix('"]').partition('["')
    value = getattr(used, table)
    return float(value[key] if key else value)


def measure(repeat: int) -> list[tuple[str, float]]:
    """Each cost by name as it is found on this core, in nanoseconds."""
    found = []
    for name, case in simple_cases().items():
        fields, time = instruction(case, repeat)
        found.append((name, time * value_of(name) / used.nanoseconds_of(case.opcode, fields)))
    for output, multiply, cases, lengths, outputs in PAIRS:
        short, long = (instruction(case, repeat)[1] / outputs for case in cases)
        slope = (long - short) / (lengths[1] - lengths[0])
        found += [(output, short - lengths[0] * slope), (multiply, slope)]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instruction_cost", description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=30, help="runs of which the fastest counts (default: 30)")
    repeat = parser.parse_args(arguments).repeat
    table = Table("cost", "used", "found", "found / used", title=f"nanoseconds on {cpu_name()}, {best_isa().name}")
    for name, found in measure(repeat):
        table.add_row(name.replace("[", r"\["), f"{value_of(name):g}", f"{found:.4f}", f"{found / value_of(name):.2f}")
    Console(width=110).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
