"""The instruction set of the integer machine.

An instruction is a row of int64 numbers: the opcode, then its fields in the order given here. A field is an *operand*
(a buffer of the arena or a constant of the blob), an *element type* of an operand, or a *number* (literal or dimension
expression). `docs/integer-operators.md` defines the arithmetic; the comment above an opcode only says how memory is
read.

For every opcode `Opcode.accesses` gives the byte range of every operand that an instruction may touch. The loader
compares them with the operands' sizes before anything runs: that is the proof that no instruction leaves its buffers.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

from ..errors import ProgramError
from .extents import (
    constant,
    conv_accesses,
    conv_scratch,
    conv_transpose_accesses,
    conv_transpose_scratch,
    dense,
    gemm_accesses,
    group_rules,
    image,
    matmul_accesses,
    matmul_rules,
    matmul_scratch,
    nonempty_axis,
    norm_parameters,
    norm_rules,
    pitched,
    pool_rules,
    product_scratch,
    recurrent_accesses,
    recurrent_rules,
    recurrent_scratch,
    reduced,
    requant_constants,
    resize_rules,
    rounded,
    shift_limits,
    softmax_scratch,
    three,
    walk_count,
    walk_rules,
    walked,
)
from .fields import (
    GEOMETRY,
    OUT,
    SHIFT,
    constants,
    dims,
    flag,
    multipliers,
    read,
    strides,
    walk,
    write,
    zero_points,
)
from .instruction import (
    BOOL,
    CODES,
    FIRST_PANEL_COLUMN,
    I8,
    I16,
    I32,
    I64,
    INTEGERS,
    MAX_RANK,
    U8,
    Access,
    Binary,
    Comparison,
    Element,
    Field,
    Kind,
    Limit,
    Logic,
    Opcode,
    Reduction,
    Values,
)
from .piecewise_linear import MOST_FRACTION, MOST_WIDTH_BITS, SEGMENTS

__all__ = [
    "BY_NAME", "BY_NUMBER", "MAX_RANK", "OPCODES", "Binary", "Comparison", "Element", "Logic", "Reduction",
    "check_numbers", "columns",
]

_PRODUCT = [*constants(I8, "w"), *constants(I32, "bias", "m", "n")]
_RECURRENT = [
    *constants(I8, "w", "r"), *constants(I32, "bias_w", "m_w", "n_w", "bias_r", "m_r", "n_r"),
    *constants(I16, "table_f", "table_g"),
    *read("lengths", (I32, I64), optional=True), *flag("has_lengths"), *dims("steps", "batch", "inputs"),
    *dims("hidden", low=1),
    *flag("reverse"), *strides("y_offset", default=0), *strides("y_step", "y_row"),
    *zero_points("x_zp"), *multipliers("m_h"), Field("n_h", Kind.NUMBER, 1, 62), *OUT,
]


_EXPONENTIALS = {"table_coarse": 32, "table_middle": 32, "table_fine": 64}
_TABLE: list[Opcode] = []


def _define(name: str, fields: list[Field], accesses: Callable[[Values], list[Access]], **more: Any) -> None:
    """Append an opcode. Its number is its place: files hold it, so new ones come last."""
    if 1 + len(fields) > FIRST_PANEL_COLUMN:
        raise ValueError(f"opcode {name} has {len(fields)} fields")
    _TABLE.append(Opcode(name, len(_TABLE) + 1, tuple(fields), accesses, **more))


# x [batch, in_h, in_w, in_c], w [kernel_h, kernel_w, in_c/groups, out_c], y [batch, out_h, out_w, out_c]; bias has
# -x_zp*sum(w) in it. Pixels of y are y_pitch elements apart, from y_offset on; 0: dense.
_define(
    "conv",
    [*read("x"), *_PRODUCT, *write("y"), *GEOMETRY, *dims("out_c"), *dims("groups", low=1, default=1),
    *zero_points("x_zp"), *OUT,
     *dims("y_pitch", default=0), *strides("y_offset", default=0)],
    conv_accesses, limits=shift_limits("n"), rules=group_rules, scratch=conv_scratch,
)
# w [kernel_h, kernel_w, in_c, out_c/groups]; the zero point is NOT in the bias here: (x - x_zp) is multiplied.
_define(
    "conv_transpose",
    [*read("x"), *_PRODUCT, *write("y"), *GEOMETRY, *dims("out_c"), *dims("groups", low=1, default=1),
    *zero_points("x_zp"), *OUT],
    conv_transpose_accesses, limits=shift_limits("n"), rules=group_rules, scratch=conv_transpose_scratch,
)
# x [rows, k] with row stride x_row, w [k, cols], y [rows, cols] with row stride y_row; bias has -x_zp*sum(w) in it.
_define(
    "gemm",
    [
        *read("x"), *_PRODUCT, *write("y"), *dims("rows", "k", "cols"), *strides("x_row", default="k"),
        *strides("y_row", default="cols"),
        *strides("x_offset", "y_offset", default=0), *OUT,
    ],
    gemm_accesses, limits=shift_limits("n"), scratch=lambda f: product_scratch(f["k"], f["cols"]),
)
# a [b0..b3, rows, k], b [b0..b3, k, cols], y [b0..b3, rows, cols], all with element strides and an offset.
_define(
    "matmul",
    [
        *read("a"), *read("b"), *write("y"), *dims("b0", "b1", "b2", "b3", default=1), *dims("rows", "k", "cols"),
        *(f for s in "aby" for f in (*strides(*(f"{s}_s{i}" for i in range(4)), f"{s}_offset", default=0),
        *strides(f"{s}_row", f"{s}_col"))),
        *zero_points("a_zp", "b_zp"), *multipliers("m"), *SHIFT, *OUT, *flag("acc64"),
    ],
    matmul_accesses, rules=matmul_rules, scratch=matmul_scratch,
)
# Dimensions d0..d5; y is dense. mul and div use a_m as their m.
_define(
    "binary",
    [
        *flag("kind", 4), *read("a", INTEGERS), *read("b", INTEGERS), *write("y", INTEGERS), *walk("a", "b"),
        *zero_points("a_zp", "b_zp"), *multipliers("a_m", "b_m"), *SHIFT, *OUT,
    ],
    lambda f: [*walked(f, "a"), *walked(f, "b"), *dense(f, "y", walk_count(f), True)],
    rules=walk_rules,
)
_define(
    "where",
    [
        *read("c", (BOOL, U8)), *read("a", INTEGERS), *read("b", INTEGERS), *write("y", INTEGERS), *walk("c", "a", "b"),
        *zero_points("a_zp", "b_zp"), *multipliers("a_m", "b_m"), *SHIFT, *OUT,
    ],
    lambda f: [*walked(f, "c"), *walked(f, "a"), *walked(f, "b"), *dense(f, "y", walk_count(f), True)],
    rules=walk_rules,
)
_define(
    "compare",
    [
        *flag("kind", 4), *read("a", INTEGERS), *read("b", INTEGERS), *write("y", (BOOL,)), *walk("a", "b"),
        *zero_points("a_zp", "b_zp"), *multipliers("a_m", "b_m"),
    ],
    lambda f: [*walked(f, "a"), *walked(f, "b"), *dense(f, "y", walk_count(f), True)],
    rules=walk_rules,
)
_define(
    "logic", [*flag("kind", 3), *read("a", (BOOL,)), *read("b", (BOOL,)), *write("y", (BOOL,)), *walk("a", "b")],
    lambda f: [*walked(f, "a"), *walked(f, "b"), *dense(f, "y", walk_count(f), True)],
    rules=walk_rules,
)
# table[x - type_min]: 256 entries for u8, 65536 for i16, of the type of y.
_define(
    "table", [*read("x"), Field("table", Kind.CONSTANT, types=CODES), Field("table_type", Kind.TYPE, of="table"),
    *write("y"), *dims("count")],
    lambda f: [*dense(f, "x", f["count"]), *dense(f, "table", 256 if f["x_type"] == U8 else 65536),
    *dense(f, "y", f["count"], True)],
    rules=lambda f: ["the table and y have different element types"] if f["table_type"] != f["y_type"] else [],
)
# Requantize, and QuantizeInteger for i32 / i64 / bool inputs: out(requant(clip(x) - x_zp, m, n)). ``lines`` of
# ``count`` elements (0: one) lie y_pitch elements apart in y, from y_offset on, and densely in x.
_define(
    "requant",
    [*read("x", INTEGERS), *write("y", INTEGERS), *dims("count"), *zero_points("x_zp"), *multipliers("m"), *SHIFT, *OUT,
     *dims("lines", "y_pitch", default=0), *strides("y_offset", default=0)],
    lambda f: [*dense(f, "x", f["count"] * max(f["lines"], 1)), *pitched(f, "y", max(f["lines"], 1), f["count"])],
)
# Conversion between integer types: wraps like C; to bool: x != 0.
_define(
    "cast", [*read("x", INTEGERS), *write("y", INTEGERS), *dims("count")],
    lambda f: [*dense(f, "x", f["count"]), *dense(f, "y", f["count"], True)],
)
# x and y of one type; a window without a real position gives the type's smallest code.
_define(
    "max_pool", [*read("x"), *write("y"), *GEOMETRY],
    lambda f: [*dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]), *dense(f, "y", image(f, "in_c"), True)],
    rules=lambda f: pool_rules(f) + (["x and y have different element types"] if f["x_type"] != f["y_type"] else []),
)
# m, n [kernel_h * kernel_w] by the number of positions that count.
_define(
    "average_pool",
    [*read("x"), *constants(I32, "m", "n"), *write("y"), *GEOMETRY, *dims("pad_bottom", "pad_right", default=0),
    *flag("count_include_pad"),
     *zero_points("x_zp"), *OUT],
    lambda f: [
        *dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]),
        *requant_constants(f, f["kernel_h"] * f["kernel_w"]),
        *dense(f, "y", image(f, "in_c"), True),
    ],
    limits=shift_limits("n"), rules=pool_rules, scratch=lambda f: rounded(f["in_c"], 8),
)
# x [outer, k, inner] -> y [outer, inner].
_define(
    "reduce",
    [*flag("kind", 3), *read("x", INTEGERS), *write("y", INTEGERS), *dims("outer", "k"), *dims("inner", default=1),
    *zero_points("x_zp"),
     *multipliers("m"), *SHIFT, *flag("divide"), *OUT],
    lambda f: [*dense(f, "x", three(f)), *dense(f, "y", reduced(f), True)],
    rules=nonempty_axis, scratch=lambda f: rounded(f["inner"], 8),
)
# x, y [outer, k, inner], over k. exp in Q30 is the product of an entry of each table.
_define(
    "softmax",
    [*read("x"), *constants(I32, *_EXPONENTIALS), *write("y"), *dims("outer", "k"), *dims("inner", default=1),
    *multipliers("m"),
     Field("n", Kind.NUMBER, 1, 62), *OUT],
    lambda f: [
        *dense(f, "x", three(f)), *(a for name, size in _EXPONENTIALS.items() for a in constant(name, 4, size)),
        *dense(f, "y", three(f), True),
    ],
    limits=lambda _: [Limit(name, 0, 1 << 30) for name in _EXPONENTIALS],
    rules=nonempty_axis, scratch=softmax_scratch,
)
# x, y [outer, k, inner], normalized over k. gamma, beta int64: [k], or with per_row = 1 [channels] by row (o*inner + i)
# % channels. epsilon >= 1 is the integer term; 0: epsilon_q gives max(1, (epsilon_q * k * k) >> 16).
_define(
    "layernorm",
    [*read("x"), *constants(I64, "gamma", "beta"), *write("y"), *dims("outer", "k"), *dims("inner", default=1),
    *flag("per_row"),
     *dims("channels", default=0), Field("epsilon", Kind.NUMBER, 0, 1 << 60, 0),
     Field("epsilon_q", Kind.NUMBER, 0, 1 << 46, 0),
     Field("n", Kind.NUMBER, 1, 40), *OUT],
    lambda f: [
        *dense(f, "x", three(f)), *constant("gamma", 8, norm_parameters(f)), *constant("beta", 8, norm_parameters(f)),
        *dense(f, "y", three(f), True),
    ],
    rules=norm_rules, scratch=lambda f: rounded(f["k"], 8),
)
# Strided copy: y[y_offset + walk] = x[x_offset + walk]; x and y of one type.
_define(
    "move", [*read("x", INTEGERS), *write("y", INTEGERS), *walk("x", "y"), *strides("x_offset", "y_offset", default=0)],
    lambda f: [*walked(f, "x", offset=f["x_offset"]), *walked(f, "y", True, f["y_offset"])],
    rules=lambda f: walk_rules(f) + (["x and y have different element types"] if f["x_type"] != f["y_type"] else []),
)
_define(
    "fill", [*write("y", INTEGERS), *dims("count"), *strides("y_offset", default=0),
    Field("value", Kind.NUMBER, -(1 << 62), 1 << 62)],
    lambda f: dense(f, "y", f["count"], True, f["y_offset"]),
)
# x [outer, axis, inner], indices [count] -> y [outer, count, inner]; negative indices wrap; out of range stops the run.
_define(
    "gather", [*read("x", INTEGERS), *read("indices", (I32, I64)), *write("y", INTEGERS),
    *dims("outer", "axis", "inner", "count")],
    lambda f: [
        *dense(f, "x", f["outer"] * f["axis"] * f["inner"]), *dense(f, "indices", f["count"]),
        *dense(f, "y", f["outer"] * f["count"] * f["inner"], True),
    ],
    rules=lambda f: ["x and y have different element types"] if f["x_type"] != f["y_type"] else [],
)
# x [batch, in_h, in_w, in_c]; for each output row / column: low, high position and the weight of `high` in Q15.
# Positions beyond the image are taken at its edge.
_define(
    "resize_linear",
    [*read("x"),
     *(Field(f"{side}_{part}", Kind.READ, types=(I32,)) for side in "hw" for part in ("low", "high", "weight")),
     *write("y"),
     *dims("batch", "in_h", "in_w", "in_c", "out_h", "out_w"), *zero_points("x_zp"), *multipliers("m"),
     Field("n", Kind.NUMBER, 1, 62), *OUT],
    lambda f: [
        *dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]),
        *(a for side in "hw" for part in ("low", "high", "weight") for a in constant(f"{side}_{part}", 4,
        f[f"out_{side}"])),
        *dense(f, "y", image(f, "in_c"), True),
    ],
    rules=resize_rules,
)
# One direction. x [steps, batch, inputs]; w [inputs, 4*hidden], r [hidden, 4*hidden], gates i o f c; h [batch, hidden]
# (type of y) and c [batch, hidden] int32 Q16 hold the initial state before and the final one after.
# kernels/recurrent.py has the roundings.
_define(
    "lstm", [*read("x"), *write("y"), *write("h"), *write("c", (I32,)), *constants(I16, "table_h"), *_RECURRENT],
    recurrent_accesses(4), limits=shift_limits("n_w", "n_r"), rules=recurrent_rules,
    scratch=lambda f: recurrent_scratch(f, 4),
)
# The same with gates z r h. m_s, n_s: hidden state code - y_zp -> Q15.
_define(
    "gru",
    [*read("x"), *write("y"), *write("h"), *flag("linear_before_reset"), *multipliers("m_s"),
    Field("n_s", Kind.NUMBER, 1, 62), *_RECURRENT],
    recurrent_accesses(3), limits=shift_limits("n_w", "n_r"), rules=recurrent_rules,
    scratch=lambda f: recurrent_scratch(f, 3),
)
_define(
    "argmax",
    [*read("x", INTEGERS), *write("y", (I64,)), *dims("outer", "k"), *dims("inner", default=1), *flag("select_last")],
    lambda f: [*dense(f, "x", three(f)), *dense(f, "y", reduced(f), True)],
    rules=nonempty_axis,
)
# x int16; segments lines of 2^width_bits codes from first on: see piecewise_linear.py.
_define(
    "piecewise",
    [*read("x", (I16,)), *constants(I16, "base", "slope"), *write("y"), *dims("count"),
    Field("segments", Kind.NUMBER, 64, 256),
     Field("first", Kind.NUMBER, -32768, 32767), Field("width_bits", Kind.NUMBER, 0, MOST_WIDTH_BITS),
     Field("fraction", Kind.NUMBER, 0, MOST_FRACTION), Field("lo", Kind.NUMBER, -32768, 32767),
     Field("hi", Kind.NUMBER, -32768, 32767)],
    lambda f: [
        *dense(f, "x", f["count"]), *constant("base", 2, f["segments"]), *constant("slope", 2, f["segments"]),
        *dense(f, "y", f["count"], True),
    ],
    rules=lambda f: []
    if f["segments"] in SEGMENTS else [f"{f['segments']} segments; there may be {', '.join(map(str, SEGMENTS))}"],
)

# x [outer, k, inner] -> y [outer, count, inner]: positions along k of the largest (or smallest) elements, in their
# order; of equal ones the first comes first.
_define(
    "topk",
    [*read("x", INTEGERS), *write("y", (I64,)), *dims("outer", "k"), *dims("inner", default=1), *dims("count"),
     *flag("smallest")],
    lambda f: [*dense(f, "x", three(f)), *dense(f, "y", reduced(f) * f["count"], True)],
    rules=lambda f: [f"{f['count']} of {f['k']} elements are wanted"] if f["count"] > f["k"] else [],
    scratch=lambda f: rounded(f["count"], 8),
)
# y [axis, inner] = x, but row indices[i] is updates[i], the last of equal indices; negative indices wrap; out of range
# stops the run.
_define(
    "scatter",
    [*read("x", INTEGERS), *read("indices", (I32, I64)), *read("updates", INTEGERS), *write("y", INTEGERS),
     *dims("axis", "count"), *dims("inner", default=1)],
    lambda f: [
        *dense(f, "x", f["axis"] * f["inner"]), *dense(f, "indices", f["count"]),
        *dense(f, "updates", f["count"] * f["inner"]), *dense(f, "y", f["axis"] * f["inner"], True),
    ],
    rules=lambda f: ["x, updates and y have different element types"]
    if len({f["x_type"], f["updates_type"], f["y_type"]}) > 1 else [],
)

OPCODES: tuple[Opcode, ...] = tuple(_TABLE)
BY_NAME: dict[str, Opcode] = {opcode.name: opcode for opcode in OPCODES}
BY_NUMBER: dict[int, Opcode] = {opcode.number: opcode for opcode in OPCODES}


def columns(name: str) -> Any:
    """A named tuple of the columns of an opcode's fields: ``columns("conv").in_h``. Kernels read their rows with it."""
    opcode = BY_NAME[name]
    names = [field.name for field in opcode.fields]
    return namedtuple(f"Columns_{name}", names)(*range(1, 1 + len(names)))  # noqa: PYI024


def check_numbers(opcode: Opcode, values: Values) -> None:
    """Refuse numbers outside their limits and unknown element types.

    Raises:
        ProgramError: names the field, its value and what is admitted.
    """
    for field in opcode.fields:
        value = values[field.name]
        if field.kind is Kind.NUMBER and not field.low <= value <= field.high:
            raise ProgramError(f"{opcode.name}: {field.name} = {value}, admitted is {field.low} to {field.high}")
        if field.kind is Kind.TYPE and value not in Element.__members__.values():
            raise ProgramError(f"{opcode.name}: {field.name} = {value} is no element type")
    broken = opcode.rules(values)
    if broken:
        raise ProgramError(f"{opcode.name}: {broken[0]}")
