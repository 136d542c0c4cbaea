"""Rough time of an instruction on one core: decides whether, and into how many parts, it is divided among threads.

A wrong cost makes a run slower, never different. The costs are nanoseconds on one core with AVX-512 VNNI (Emerald
Rapids; older ones that were within a factor of two stay), in the order of memory that suits the kernel best;
``python -m benchmarks.instruction_cost`` measures each and prints it beside the one used here. A core with AVX2 only
takes several times longer, so that there an instruction is divided later than would pay. The ``LEAST_`` thresholds were
set where sharing began to pay on two such cores; no experiment repeats that.
"""

from __future__ import annotations

from math import prod

from ..instructions.instruction import MAX_RANK, Element, Values

ELEMENT_COST = {
    "softmax": 1.0, "layernorm": 1.3, "reduce": 0.1, "argmax": 0.4, "topk": 7.5, "binary": 0.3, "where": 0.75,
    "compare": 0.4, "table": 0.35, "piecewise": 0.16, "requant": 0.015, "resize_linear": 1.0,
}  # fmt: skip
"""Nanoseconds per element: of the input for reductions, of the output for the others."""

TAP_COST = {"max_pool": 0.02, "average_pool": 0.08, "conv_transpose": 0.008}
"""Nanoseconds per tap of a window: for pools of each output; for transposed convolutions of each output and input
channel, as if the stride were 1.
"""

OTHER_COST = 0.1
"""Nanoseconds per element of the opcodes that are not listed: copies, casts, logic. Dense runs take half of it, a
transposition of bytes a half more, one of int16 twice as much.
"""

BYTE_TABLE_COST = 0.01
"""Nanoseconds per element of a table of bytes for bytes."""

RESULT_COST, MULTIPLY_COST = 0.16, 0.0022
"""Nanoseconds per output of a product with constant weights (requantization, storing), and per multiply-accumulate."""

DEPTHWISE_TAP_COST = 0.012
"""Nanoseconds per multiply-accumulate of a depthwise convolution; each output costs `RESULT_COST` besides."""

WEIGHT_COST = 0.02
"""Nanoseconds to read a weight (a byte) from memory: the time of a product of few rows, which reuses none."""

MATMUL_RESULT_COST, MATMUL_MULTIPLY_COST = 0.2, 0.005
"""As `RESULT_COST` and `MULTIPLY_COST` for products of two activations, which are packed first."""

LEAST_SHARED = 2_500
"""Nanoseconds of work below which an instruction is left whole: threads that meet cost about as much."""

LEAST_PART = 4_000
"""Nanoseconds of work that a part has at least, where a thread gets more than one."""

LEAST_PROGRAM = 60_000
"""Nanoseconds of work that can be shared in a whole program, below which no other thread is woken."""


def nanoseconds_of(name: str, f: Values) -> float:
    """Rough nanoseconds of an instruction ``name`` with fields ``f`` on one core."""
    if name == "gemm":
        return max(_product(f["rows"] * f["cols"], f["k"]), f["k"] * f["cols"] * WEIGHT_COST)
    if name == "matmul":
        results = prod(f[f"b{i}"] for i in range(4)) * f["rows"] * f["cols"]
        return results * (MATMUL_RESULT_COST + f["k"] * MATMUL_MULTIPLY_COST)
    if "kernel_h" in f:
        return _window(name, f)
    cost = ELEMENT_COST.get(name, OTHER_COST)
    if name == "table" and f["x_type"] == f["y_type"] == Element.U8:
        cost = BYTE_TABLE_COST
    return elements(f) * cost


def elements(f: Values) -> int:
    """Elements that an instruction without a window goes through."""
    if "d0" in f:
        return prod(f[f"d{i}"] for i in range(MAX_RANK))
    if "outer" in f:
        return f["outer"] * f["k"] * f["inner"]
    if "out_h" in f:
        return f["batch"] * f["out_h"] * f["out_w"] * f["in_c"]
    return f.get("count", 0) * max(f.get("lines", 1), 1)


def _window(name: str, f: Values) -> float:
    """Of pools and convolutions."""
    pixels, taps = f["batch"] * f["out_h"] * f["out_w"], f["kernel_h"] * f["kernel_w"]
    if name != "conv":
        outputs = f["out_c"] // f["groups"] if name == "conv_transpose" else 1
        return pixels * f["in_c"] * outputs * taps * TAP_COST[name]
    inputs = f["in_c"] // f["groups"]
    if inputs == 1:
        return pixels * f["out_c"] * (RESULT_COST + taps * DEPTHWISE_TAP_COST)
    return _product(pixels * f["out_c"], taps * inputs)


def _product(results: int, k: int) -> float:
    return results * (RESULT_COST + k * MULTIPLY_COST)
