"""Divides an instruction into parts that threads can run at the same time.

A part is itself an instruction of the same opcode, on some rows of the output: its numbers are smaller and its
operands begin later. So it touches nothing that the whole does not touch, the kernels know nothing of threads, and the
parts together write every element once, with the same bits. Products on packed weights can also be divided by columns:
such a part is the whole instruction, but for the panels of columns that its row in the linked table names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..cpu.isa import LANES
from ..instructions.instruction import (
    ELEMENT_SIZE,
    FIRST_PANEL_COLUMN,
    FORM_COLUMN,
    MAX_RANK,
    PACKED_COLUMN,
    PANELS_COLUMN,
    PART_COLUMN,
    Element,
    Form,
    Kind,
    Opcode,
    Values,
)
from ..instructions.opcodes import BY_NAME, BY_NUMBER
from ..instructions.winograd import PLANES, SIDE
from .instruction_cost import LEAST_PART, LEAST_PROGRAM, LEAST_SHARED, nanoseconds_of

_WALKS = ("binary", "where", "compare", "logic")
"""Opcodes that walk strided operands and write a dense result."""
_BATCHES = ("b0", "b1", "b2", "b3")
_PARTS_PER_THREAD = 3
"""The most parts for each thread: with more than one, a thread that starts late or is interrupted delays the others
less.
"""

_WEIGHTS_TO_ROWS = 2
"""Threads share out the weights, not the rows, where the weights have more than this many times the bytes of the
activations.
"""

_CACHE_LINE = 64
"""Bytes of a cache line: two cores should not write to the same one."""

_LEAST_LINES = 4
"""Lines of an image in a part, below which a thread gets one part only: lines that two parts need are read twice."""

_PANELS = 4
"""Panels that tiles compute together: parts by columns are multiples of them."""

_LINK_COLUMNS = {"first_panel": FIRST_PANEL_COLUMN, "panels": PANELS_COLUMN}
"""What a part by columns has besides fields."""

Part = dict[str, int]
"""Fields of a part that differ from the whole, and `_LINK_COLUMNS`."""


def form_of(numbers: Sequence[int] | NDArray[np.int64]) -> Form | None:
    """The form of the packed weights of a row of the linked table; None: it has none."""
    return Form(int(numbers[FORM_COLUMN])) if numbers[PACKED_COLUMN] else None


def divide(
    opcode: Opcode,
    f: Values,
    threads: int,
    form: Form | None = None,
    least: float = LEAST_SHARED,
    most: int | None = None,
) -> list[Part]:
    """Parts of an instruction for ``threads`` threads; empty where dividing is impossible or does not pay.

    Args:
        opcode: the opcode of the instruction.
        f: its fields; operands are addresses.
        threads: how many will share the parts.
        form: of its packed weights, if it has any.
        least: nanoseconds of work, below which an instruction is left whole.
        most: parts to aim at; default: as many as pay, a multiple of the threads.
    """
    if opcode.name not in DIVIDERS:
        return []
    how, operands = DIVIDERS[opcode.name]
    nanoseconds = nanoseconds_of(opcode.name, f)
    if nanoseconds < least or operands != activations(opcode) or _overlaps(opcode, f):
        return []
    each = min(max(int(nanoseconds / (threads * LEAST_PART)), 1), _PARTS_PER_THREAD)
    most = threads * each if most is None else most
    if form is not None and streams_weights(opcode.name, f, threads, form):
        parts = list(_columns(f, most if opcode.name == "gemm" else threads))
    elif form is Form.TRANSFORMED:
        parts = list(_image(opcode.name, f, min(most, threads), threads, SIDE))
    else:
        parts = list(how(opcode.name, f, most, threads))
    return parts if len(parts) > 1 else []


def useful_threads(code: NDArray[np.int64], threads: int) -> int:
    """How many of ``threads`` threads a program of these instructions is worth: all, or one."""
    shared = 0.0
    for numbers in code.tolist() if threads > 1 else ():
        opcode = BY_NUMBER[numbers[0]]
        nanoseconds = nanoseconds_of(opcode.name, opcode.row(numbers)) if opcode.name in DIVIDERS else 0
        shared += nanoseconds if nanoseconds >= LEAST_SHARED else 0
    return threads if shared >= LEAST_PROGRAM else 1


def part_rows(opcode: Opcode, numbers: NDArray[np.int64], parts: Sequence[Part]) -> NDArray[np.int64]:
    """The table rows of an instruction's parts."""
    columns = _LINK_COLUMNS | {field.name: column for column, field in enumerate(opcode.fields, start=1)}
    rows = np.repeat(numbers[None], len(parts), axis=0)
    rows[:, PART_COLUMN] = 1
    for row, part in zip(rows, parts, strict=True):
        for name, value in part.items():
            row[columns[name]] = value
    return rows


def activations(opcode: Opcode) -> str:
    """Names of the operands that are not constants."""
    return "".join(field.name for field in opcode.fields if field.kind in (Kind.READ, Kind.WRITE))


def _overlaps(opcode: Opcode, f: Values) -> bool:
    """Whether the instruction writes where it reads: then the order of its elements could matter."""
    ranges = [
        (f[access.field] + access.first, f[access.field] + access.end, access.write) for access in opcode.accesses(f)
    ]
    written = [(first, end) for first, end, write in ranges if write]
    return any(first < end2 and first2 < end for first, end, write in ranges if not write for first2, end2 in written)


def _ranges(total: int, parts: int, unit: int = 1) -> Iterator[tuple[int, int]]:
    """At most ``parts`` ranges of ``total`` rows, near-equal multiples of ``unit``: first row, number of rows."""
    units = -(-total // unit)
    parts = min(parts, units)
    for i in range(parts):
        first, end = (min(units * j // parts * unit, total) for j in (i, i + 1))
        yield first, end - first


def _bytes(f: Values, operand: str) -> int:
    return ELEMENT_SIZE[Element(f[f"{operand}_type"])]


def _gemm(_: str, f: Values, most: int, threads: int) -> Iterator[Part]:
    for first, count in _ranges(f["rows"], most, 6):
        yield {
            "x_offset": f["x_offset"] + first * f["x_row"],
            "y_offset": f["y_offset"] + first * f["y_row"],
            "rows": count,
        }


def _matmul(_: str, f: Values, most: int, threads: int) -> Iterator[Part]:
    batch = max(range(4), key=lambda i: f[_BATCHES[i]])
    if f[_BATCHES[batch]] >= threads:
        for first, count in _ranges(f[_BATCHES[batch]], most):
            yield {
                _BATCHES[batch]: count,
                **{f"{s}_offset": f[f"{s}_offset"] + first * f[f"{s}_s{batch}"] for s in "aby"},
            }
        return
    for first, count in _ranges(f["rows"], min(most, threads), 6):
        yield {
            "a_offset": f["a_offset"] + first * f["a_row"],
            "y_offset": f["y_offset"] + first * f["y_row"],
            "rows": count,
        }


def _dense(_: str, f: Values, most: int, threads: int) -> Iterator[Part]:
    for first, count in _ranges(f["count"], most, 512):
        yield {"x": f["x"] + first * _bytes(f, "x"), "y": f["y"] + first * _bytes(f, "y"), "count": count}


def _requant(name: str, f: Values, most: int, threads: int) -> Iterator[Part]:
    """By lines where there are several."""
    if f["lines"] < 2:
        yield from _dense(name, f, most, threads)
        return
    for first, count in _ranges(f["lines"], most):
        offset = f["y_offset"] + first * (f["y_pitch"] or f["count"])
        yield {"x": f["x"] + first * f["count"] * _bytes(f, "x"), "y_offset": offset, "lines": count}


def _walk(name: str, f: Values, most: int, threads: int) -> Iterator[Part]:
    """Along the outermost dimension that is not 1; y is dense."""
    axis = next((i for i in range(MAX_RANK) if f[f"d{i}"] != 1), MAX_RANK - 1)
    inner = prod(f[f"d{i}"] for i in range(axis + 1, MAX_RANK))
    unit = 512 if axis == MAX_RANK - 1 else 1
    for first, count in _ranges(f[f"d{axis}"], most, unit):
        operands = {s: f[s] + first * f[f"{s}_s{axis}"] * _bytes(f, s) for s in BY_NAME[name].walked}
        yield {f"d{axis}": count, "y": f["y"] + first * inner * _bytes(f, "y"), **operands}


def _move(_: str, f: Values, most: int, threads: int) -> Iterator[Part]:
    """Along the dimension of longest steps in y that divides evenly: threads should not share cache lines."""
    last, size = MAX_RANK - 1, _bytes(f, "y")
    apart = [
        i
        for i in range(last)
        if abs(f[f"y_s{i}"]) * size >= _CACHE_LINE and (f[f"d{i}"] >= 8 * most or f[f"d{i}"] == most)
    ]
    if f[f"d{last}"] >= 4 * most * _CACHE_LINE and f[f"y_s{last}"] != 0:
        apart.append(last)
    axis = max(apart, key=lambda i: abs(f[f"y_s{i}"]), default=None)
    if axis is None:
        return
    for first, count in _ranges(f[f"d{axis}"], most, _CACHE_LINE if axis == last else 1):
        yield {f"d{axis}": count, **{f"{s}_offset": f[f"{s}_offset"] + first * f[f"{s}_s{axis}"] for s in "xy"}}


def _rows(name: str, f: Values, most: int, threads: int) -> Iterator[Part]:
    """[outer, k, inner] along outer; a reduction leaves out k."""
    if f.get("per_row"):
        return
    written = {"reduce": 1, "argmax": 1, "topk": f.get("count", 0)}.get(name, f["k"]) * f["inner"]
    for first, count in _ranges(f["outer"], most):
        yield {
            "outer": count,
            "x": f["x"] + first * f["k"] * f["inner"] * _bytes(f, "x"),
            "y": f["y"] + first * written * _bytes(f, "y"),
        }


def streams_weights(name: str, f: Values, threads: int, form: Form) -> bool:
    """Whether threads had better share the weights than the rows: there are more of them, and enough columns."""
    if name == "gemm":
        rows, weights, cols = f["rows"] * f["k"], f["k"] * f["cols"], f["cols"]
    elif name == "conv" and f["groups"] == 1:
        rows, cols = f["batch"] * f["in_h"] * f["in_w"] * f["in_c"], f["out_c"]
        weights = f["in_c"] * cols * (2 * PLANES if form is Form.TRANSFORMED else f["kernel_h"] * f["kernel_w"])
    else:
        return False
    return cols >= threads * _PANELS * LANES and weights > _WEIGHTS_TO_ROWS * rows


def _columns(f: Values, most: int) -> Iterator[Part]:
    """By panels of output columns."""
    for first, count in _ranges(-(-f.get("cols", f.get("out_c", 0)) // LANES), most, _PANELS):
        yield {"first_panel": first, "panels": count}


def _image(name: str, f: Values, most: int, threads: int, unit: int = 2) -> Iterator[Part]:
    """Image by image, each by output lines; by multiples of ``unit`` where there are enough."""
    outputs, lines = f.get("out_c", f["in_c"]), max(1, -(-most // f["batch"]))
    if f["out_h"] < _LEAST_LINES * lines:  # lines that two parts both read are read twice
        lines = min(lines, -(-threads // f["batch"]))
    pitch_x, pitch_y = (
        f["in_w"] * f["in_c"] * _bytes(f, "x"),
        f["out_w"] * (f.get("y_pitch") or outputs) * _bytes(f, "y"),
    )
    if unit == 2 and f["out_h"] < 8 * lines:
        unit = 1
    for image in range(f["batch"]):
        x, y = f["x"] + image * f["in_h"] * pitch_x, f["y"] + image * f["out_h"] * pitch_y
        for first, count in _ranges(f["out_h"], lines, unit):
            yield {"batch": 1, "x": x, "y": y + first * pitch_y, "out_h": count, **_lines(name, f, x, pitch_x, first)}


def _lines(name: str, f: Values, x: int, pitch: int, first: int) -> Part:
    """Where the output lines from ``first`` on get their input from."""
    if name == "resize_linear":
        return {field: f[field] + 4 * first for field in ("h_low", "h_high", "h_weight")}
    if name == "conv_transpose":
        return {"pad_top": f["pad_top"] + first}
    line = first * f["stride_h"] - f["pad_top"]
    if line < 0:
        return {"pad_top": -line}
    if line >= f["in_h"]:
        return {"pad_top": 0, "in_h": 0}
    return {"pad_top": 0, "in_h": f["in_h"] - line, "x": x + line * pitch}


def _conv(name: str, f: Values, most: int, threads: int) -> Iterator[Part]:
    pixels = f["batch"] * f["out_h"] * f["out_w"]
    same = f["in_h"] == f["out_h"] and f["in_w"] == f["out_w"] and f["pad_top"] == 0 and f["pad_left"] == 0
    if not same or f["kernel_h"] * f["kernel_w"] * f["stride_h"] * f["stride_w"] != 1 or f["groups"] == f["in_c"] > 1:
        yield from _image(name, f, most, threads)
        return
    for first, count in _ranges(pixels, most, 6):  # a matrix product: any pixels do
        x, y = (
            f[s] + first * pitch * _bytes(f, s) for s, pitch in (("x", f["in_c"]), ("y", f["y_pitch"] or f["out_c"]))
        )
        yield {"batch": 1, "in_h": count, "in_w": 1, "out_h": count, "out_w": 1, "x": x, "y": y}


_RESIZED = ("x", "h_low", "h_high", "h_weight", "w_low", "w_high", "w_weight", "y")
_Divider = Callable[[str, Values, int, int], Iterator[Part]]
DIVIDERS: dict[str, tuple[_Divider, str]] = {
    "gemm": (_gemm, "xy"),
    "matmul": (_matmul, "aby"),
    "conv": (_conv, "xy"),
    "conv_transpose": (_image, "xy"),
    "max_pool": (_image, "xy"),
    "average_pool": (_image, "xy"),
    "resize_linear": (_image, "".join(_RESIZED)),
    "table": (_dense, "xy"),
    "requant": (_requant, "xy"),
    "cast": (_dense, "xy"),
    "piecewise": (_dense, "xy"),
    "move": (_move, "xy"),
    "softmax": (_rows, "xy"),
    "layernorm": (_rows, "xy"),
    "reduce": (_rows, "xy"),
    "argmax": (_rows, "xy"),
    "topk": (_rows, "xy"),
    **{name: (_walk, f"{''.join(BY_NAME[name].walked)}y") for name in _WALKS},
}
"""How to divide an opcode, and the activations it must have for that."""
