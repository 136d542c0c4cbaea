"""How close the kernels come to this core's limits.

    python -m benchmarks.kernels [--repeat 20]

Products are compared with the *peak*: the same instruction on registers alone, as fast as the core issues it. An opaque
operand keeps the compiler from folding that loop, and a peak above what the core's ports can issue in the measured
cycles is refused. Products with a single row (and a few) are compared with the *bandwidth*: reading as many bytes of
memory once. Convolutions that are transformed (`runtime/instructions/winograd.py`) need fewer multiplications than are
counted, and may pass the peak. One thread; the fastest of many runs.

Where uint8 is multiplied with small weights in int16 (`runtime/vector/byte_tiles.py`), products of many rows with
weights of few bits are compared with the same product with int8 weights, run in turns: medians of the ratios. The limit
is that of pairs of int16 by `byte_speed` of the steps that fit.

Products with weights of few bits and few rows are compared with the same product with int8 weights,
and with onnxruntime's ``MatMulNBits`` (blocks of 32; as
it is, and with its int8 arithmetic, ``accuracy_level`` 4). All are whole runs, float activations in and out,
in turns of `TURN` runs: so the
weights of each may stay in the last cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.core_limits import ImpossibleError, bandwidth, fastest, gigahertz, peak
from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.binding.packed_weights import pack_program
from qcompiler.runtime.cpu.features import cpu_name
from qcompiler.runtime.cpu.isa import best_isa
from qcompiler.runtime.instructions.winograd import byte_speed
from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.session import Session
from qcompiler.runtime.vector.sum_tiles import (
    PAIR_256,
    PAIR_512,
    PAIR_ANY,
    QUAD_256,
    QUAD_512,
    Flavour,
)

Array = NDArray[Any]


# --- kernels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A kernel with its work, and what limits it."""

    name: str
    session: Session
    feeds: dict[str, Array]
    macs: int
    weights: int
    limit: str  # the type of x, or "memory"


def one(
    name: str, opcode: str, x: Array, y: tuple[int, ...], k: int, outputs: int, macs: int, limit: str, /, **fields: Any
) -> Case:
    """A program of one instruction with random int8 weights [k, outputs] and 8-bit codes out."""
    rng = np.random.default_rng(0)
    b = ProgramBuilder()
    source, target = b.buffer(x.shape, x.dtype, "x"), b.buffer(y, np.uint8, "y")
    b.input("x", source, x.dtype, x.shape)
    layer: dict[str, Any] = {
        "w": rng.integers(-127, 128, k * outputs).astype(np.int8), "bias": np.zeros(outputs, np.int32),
        "m": np.full(outputs, 1 << 30, np.int32), "n": np.full(outputs, 42, np.int32),
    }
    b.emit(opcode, node=name, x=source, y=target, y_zp=128, lo=0, hi=255, **layer | fields)
    b.output("y", target, np.uint8, y)
    return Case(name, Session(b.program(), num_threads=1), {"x": x}, macs, k * outputs, limit)


def codes(dtype: type, *shape: int) -> Array:
    """Random codes."""
    info = np.iinfo(dtype)
    return np.random.default_rng(1).integers(info.min, info.max + 1, shape).astype(dtype)


def gemm(name: str, dtype: type, rows: int, k: int, cols: int, limit: str = "") -> Case:
    """A product with constant weights."""
    x = codes(dtype, rows, k)
    return one(
        name, "gemm", x, (rows, cols), k, cols, rows * k * cols, limit or x.dtype.name, rows=rows, k=k, cols=cols
    )


def conv(name: str, dtype: type, size: int, in_c: int, out_c: int, kernel: int, groups: int = 1) -> Case:
    """A convolution with padding and stride 1."""
    x, k = codes(dtype, 1, size, size, in_c), kernel * kernel * in_c // groups
    return one(
        name,
        "conv",
        x,
        (1, size, size, out_c),
        k,
        out_c,
        size * size * k * out_c,
        x.dtype.name,
        batch=1,
        in_h=size,
        in_w=size,
        in_c=in_c,
        out_h=size,
        out_w=size,
        out_c=out_c,
        kernel_h=kernel,
        kernel_w=kernel,
        pad_top=kernel // 2,
        pad_left=kernel // 2,
        groups=groups,
    )


def cases() -> list[Case]:
    """What is measured."""
    return [
        gemm("GEMM 512³, u8", np.uint8, 512, 512, 512),
        gemm("GEMM 512³, i16", np.int16, 512, 512, 512),
        conv("3x3, 56² x 64, u8", np.uint8, 56, 64, 64, 3),
        conv("3x3, 14² x 256, u8", np.uint8, 14, 256, 256, 3),
        conv("3x3, 28² x 128, i16", np.int16, 28, 128, 128, 3),
        conv("depthwise 3x3, 56² x 144, u8", np.uint8, 56, 144, 144, 3, 144),
        conv("depthwise 5x5, 14² x 672, i16", np.int16, 14, 672, 672, 5, 672),
        *(gemm(f"{rows} x 8192 x 16384, u8", np.uint8, rows, 8192, 16384, "memory") for rows in (1, 4)),
    ]


# --- small weights ---------------------------------------------------------------------------------------------------


BITS = (8, 6, 5, 4, 3)
SIZES = ((512, 512, 512), (12544, 16, 96), (196, 384, 64))
"""Rows, K and columns."""


def small_weights(rows: int, k: int, cols: int, bits: int) -> Case:
    """A product with normal weights, each column scaled to the largest level of so many bits."""
    normal, largest = np.random.default_rng(0).normal(size=(k, cols)), (1 << bits - 1) - 1
    w = (normal / np.abs(normal).max(axis=0) * largest).round().astype(np.int8)
    x, macs = codes(np.uint8, rows, k), rows * k * cols
    return one("", "gemm", x, (rows, cols), k, cols, macs, "uint8", rows=rows, k=k, cols=cols, w=w)


def steps_that_fit(case: Case) -> int:
    """How many steps are added in int16; 0: none are."""
    packed = pack_program(case.session.program, bind(case.session.program), case.session.isa)
    return next(iter(packed.values())).fitting


def few_bits_many_rows(repeat: int, pairs: float) -> Table:
    """Products with weights of few bits beside int8; ``pairs``: GMAC/s that pairs of int16 allow."""
    table = Table(
        "rows x K x columns", "bits", "steps in int16", "GMAC/s", "speed, int8 = 1", "share of the limit",
        title="uint8 activations, many rows, one thread",
    )  # fmt: skip
    for size in SIZES:
        cases = {bits: small_weights(*size, bits) for bits in BITS}
        times: dict[int, list[int]] = {bits: [] for bits in BITS}
        for _ in range(repeat):
            for bits, case in cases.items():
                times[bits].append(min(case.session.profile(case.feeds, 1)[0][2] for _ in range(3)))
        for bits, case in cases.items():
            rate, steps = case.macs / min(times[bits]), steps_that_fit(case)
            speed = np.median(np.divide(times[BITS[0]], times[bits]))
            share = rate / (pairs * byte_speed(steps))
            name = " x ".join(map(str, size))
            table.add_row(name, str(bits), str(steps or "-"), f"{rate:.0f}", f"{speed:.2f}", f"{share:.0%}")
    return table


# --- weights of few bits, few rows ------------------------------------------------------------------------------------


SIDE, TURN = 4096, 10
"""Rows and columns of the weight; runs in a turn."""


def few_values(rows: int, values: int, largest: int = 127) -> Callable[[], object]:
    """A run of a product of [rows, SIDE] with a weight [SIDE, SIDE] of so many values up to ``largest``."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, SIDE)).astype(np.float32)
    b = ProgramBuilder()
    source, target = (b.buffer((rows, SIDE), np.uint8, name) for name in "xy")
    b.input("x", source, np.float32, x.shape, scale=0.03, zero_point=128)
    w, bias, m, n = (
        rng.choice(np.linspace(-largest, largest, values).astype(np.int8), (SIDE, SIDE)),
        *(np.full(SIDE, v) for v in (0, 1 << 30, 44)),
    )
    b.emit("gemm", x=source, y=target, w=w, bias=bias, m=m, n=n, rows=rows, k=SIDE, cols=SIDE, y_zp=128)
    b.output("y", target, np.float32, x.shape, scale=0.1, zero_point=128)
    session = Session(b.program(), num_threads=1)
    return lambda: session.run({"x": x})


def matmul_nbits(rows: int, accuracy_level: int) -> Callable[[], object]:
    """A run of onnxruntime's product with a weight of 4 bits, a scale for every 32."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, SIDE)).astype(np.float32)
    packed, scales = (
        rng.integers(0, 256, (SIDE, SIDE // 32, 16)).astype(np.uint8),
        np.full((SIDE, SIDE // 32), 0.01, np.float32),
    )
    weights: dict[str, Array] = {"B": packed, "scales": scales}
    attributes: dict[str, Any] = {"K": SIDE, "N": SIDE, "bits": 4, "block_size": 32, "accuracy_level": accuracy_level}
    node = onnx.helper.make_node("MatMulNBits", ["x", *weights], ["y"], domain="com.microsoft", **attributes)
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = onnx.helper.make_graph(
        [node], "product", ports[:1], ports[1:], [onnx.numpy_helper.from_array(w, name) for name, w in weights.items()]
    )
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString(), options
    )
    return lambda: session.run(None, {"x": x})


def in_turns(runs: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Nanoseconds of the fastest run of each."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeat):
        for name, run in runs.items():
            best[name] = min(best[name], fastest(run, TURN))
    return best


def few_bits(repeat: int) -> Table:
    """Products with weights of few bits beside int8 and MatMulNBits."""
    table = Table(
        "rows",
        "weights",
        "µs",
        "GB/s of stored weights",
        "speed, int8 = 1",
        title=f"{SIDE} x {SIDE} weights, one thread",
    )
    for rows in (1, 2, 4, 64):
        runs = {"int8": few_values(rows, 255), "4 bits": few_values(rows, 16), "2 bits": few_values(rows, 4)}
        runs |= {"int4": few_values(rows, 15, 7)}
        runs |= {f"MatMulNBits, accuracy level {level}": matmul_nbits(rows, level) for level in (0, 4)}
        times = in_turns(runs, repeat)
        for name, time_ in times.items():
            stored = SIDE * SIDE * {"int8": 1, "2 bits": 0.25}.get(name, 0.5)
            table.add_row(
                str(rows), name, f"{time_ / 1e3:.0f}", f"{stored / time_:.0f}", f"{times['int8'] / time_:.2f}"
            )
    return table


def flavours() -> dict[str, Flavour]:
    """The dot product of this CPU for each type of activations."""
    if best_isa().name == "AVX512_VNNI":
        return {"uint8": QUAD_512, "int16": PAIR_512}
    if best_isa().name == "AVX_VNNI":
        return {"uint8": QUAD_256, "int16": PAIR_256}
    narrow = PAIR_256 if best_isa().name == "AVX2" else PAIR_ANY
    return {"uint8": narrow, "int16": narrow}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description="Compare kernels with the limits of this core."
    )
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    clock = gigahertz(repeat)
    try:
        limits = {name: peak(flavour, clock, repeat) for name, flavour in flavours().items()}
    except ImpossibleError as error:
        sys.exit(f"error: {error}")
    memory = bandwidth(repeat)
    title = f"{cpu_name()}, {best_isa().name.lower()}, {clock:.2f} GHz measured, one thread"
    table = Table("kernel", "GMAC/s", "GB/s of weights", "limit", "share of it", title=title)
    for case in cases():
        times = [case.session.profile(case.feeds, 1)[0][2] for _ in range(repeat)]
        rate, streamed = case.macs / min(times), case.weights / min(times)
        limit = memory if case.limit == "memory" else limits[case.limit]
        unit = "GB/s of memory" if case.limit == "memory" else f"GMAC/s, {case.limit}"
        share = (streamed if case.limit == "memory" else rate) / limit
        table.add_row(case.name, f"{rate:.0f}", f"{streamed:.1f}", f"{limit:.0f} {unit}", f"{share:.0%}")
    console = Console(width=130)
    console.print(table)
    if best_isa().has_byte_pairs:
        console.print(few_bits_many_rows(repeat, limits["uint8"]))
    console.print(few_bits(max(repeat // 4, 1)))


if __name__ == "__main__":
    main()
