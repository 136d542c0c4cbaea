"""The instruction set of the integer machine.

An instruction is a row of int64 numbers: the opcode, then its fields in the order given here. A field is an *operand*
(a buffer of the arena or a constant of the blob), an *element type* of an operand, or a *number* (literal or dimension
expression). `docs/integer-operators.md` defines the arithmetic; the class docstrings below only say how memory is read.

For every opcode `Opcode.accesses` gives the byte range of every operand that an instruction may touch. The loader
compares them with the operands' sizes before anything runs: that is the proof that no instruction leaves its buffers.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from .errors import ProgramError

MAX_RANK = 6
WIDTH = 56
"""Numbers in a row of the instruction table: the opcode, its fields, zeros."""

PACKED_COLUMN, ISA_COLUMN = WIDTH - 2, WIDTH - 1
"""In a linked table: address of the weights packed for this CPU (0: none) and the instruction set that packed them."""

BLOCK_ROWS = 48
"""Rows of a matrix product that are gathered in scratch memory at a time."""

BLOCK_COLUMNS = 256
"""Columns of a product of two activations that are packed in scratch memory at a time."""

ZERO_BYTES = 256
"""Zeros that such a product starts its sums from."""

TILE_BYTES = 6 * 64 * 4
"""int32 results of one register tile."""

_BIG = (1 << 31) - 1
_FAR = 1 << 40
_HUGE = 1 << 40


class Element(IntEnum):
    """Element types of buffers and constants."""

    U8 = 0
    I8 = 1
    I16 = 2
    I32 = 3
    I64 = 4
    BOOL = 5


ELEMENT_SIZE = {Element.U8: 1, Element.I8: 1, Element.I16: 2, Element.I32: 4, Element.I64: 8, Element.BOOL: 1}
ELEMENT_DTYPE = {Element.U8: "uint8", Element.I8: "int8", Element.I16: "int16", Element.I32: "int32", Element.I64: "int64", Element.BOOL: "bool"}

U8, I8, I16, I32, I64, BOOL = Element
CODES = (U8, I16)
INTEGERS = (U8, I8, I16, I32, I64, BOOL)


class Source(IntEnum):
    """What a number of the instruction table is: the table ``kinds`` holds one for each number of ``code``."""

    LITERAL = 0
    EXPRESSION = 1  # index into Program.expressions
    BUFFER = 2  # index into Program.buffers
    CONSTANT = 3  # index into Program.constants
    ABSENT = 4  # an optional operand that is not there


class Binary(IntEnum):
    """`kind` of the opcode ``binary``."""

    ADD = 0
    MUL = 1
    DIV = 2
    MIN = 3
    MAX = 4


class Comparison(IntEnum):
    """`kind` of the opcode ``compare``."""

    LESS = 0
    LESS_EQUAL = 1
    GREATER = 2
    GREATER_EQUAL = 3
    EQUAL = 4


class Logic(IntEnum):
    """`kind` of the opcode ``logic``; NOT ignores ``b``."""

    NOT = 0
    AND = 1
    OR = 2
    XOR = 3


class Reduction(IntEnum):
    """`kind` of the opcode ``reduce``. Sum and mean scale by ``m, n``; with ``divide`` = 1 the count ``k`` divides too."""

    SUM = 0
    MEAN = 1
    MAX = 2
    MIN = 3


class Kind(Enum):
    """What a field means."""

    READ = "read"  # buffer or constant
    WRITE = "write"  # buffer
    CONSTANT = "constant"
    TYPE = "type"
    NUMBER = "number"

    @property
    def is_operand(self) -> bool:
        """True for fields that are addresses at run time."""
        return self in (Kind.READ, Kind.WRITE, Kind.CONSTANT)


@dataclass(frozen=True)
class Field:
    """One field of an instruction.

    Attributes:
        low, high: the values admitted for a number.
        default: value where the builder is not given one (a text: the field whose value is taken); None: must be given.
        types: element types admitted for a READ / WRITE / CONSTANT operand.
        of: the operand a TYPE field describes.
        optional: the operand may be missing (address 0).
    """

    name: str
    kind: Kind
    low: int = -_HUGE
    high: int = _HUGE
    default: int | str | None = None
    types: tuple[Element, ...] = INTEGERS
    of: str = ""
    optional: bool = False


class Access(NamedTuple):
    """Bytes ``[first, end)`` of the operand ``field`` are read, or written."""

    field: str
    first: int
    end: int
    write: bool


class Limit(NamedTuple):
    """Every value of the constant operand ``field`` must lie in ``[low, high]``."""

    field: str
    low: int
    high: int


Values = Mapping[str, int]


def _nothing(_: Values) -> list[Any]:
    return []


@dataclass(frozen=True)
class Opcode:
    """One instruction of the machine.

    Attributes:
        accesses: field values -> byte ranges touched (unchecked against sizes; numbers are already within their limits).
        limits: field values -> admitted values of constants (shifts, indices).
        rules: field values -> texts of broken rules (empty: fine).
        scratch: field values -> bytes of scratch memory the kernel needs.
    """

    name: str
    number: int
    fields: tuple[Field, ...]
    accesses: Callable[[Values], list[Access]]
    limits: Callable[[Values], list[Limit]] = _nothing
    rules: Callable[[Values], list[str]] = _nothing
    scratch: Callable[[Values], int] = lambda _: 0

    def position(self, name: str) -> int:
        """Column of a field in the table."""
        return 1 + [field.name for field in self.fields].index(name)

    def row(self, numbers: Sequence[int]) -> dict[str, int]:
        """The named fields of a table row."""
        return {field.name: int(numbers[1 + i]) for i, field in enumerate(self.fields)}


# --- field helpers ---------------------------------------------------------------------------------------------------


def _read(name: str, types: tuple[Element, ...] = CODES, optional: bool = False) -> list[Field]:
    return [Field(name, Kind.READ, types=types, optional=optional), Field(f"{name}_type", Kind.TYPE, of=name)]


def _write(name: str, types: tuple[Element, ...] = CODES) -> list[Field]:
    return [Field(name, Kind.WRITE, types=types), Field(f"{name}_type", Kind.TYPE, of=name)]


def _constants(element: Element, *names: str) -> list[Field]:
    return [Field(name, Kind.CONSTANT, types=(element,)) for name in names]


def _dims(*names: str, low: int = 0, default: int | None = None) -> list[Field]:
    return [Field(name, Kind.NUMBER, low, _BIG, default) for name in names]


def _strides(*names: str, default: int | str | None = None) -> list[Field]:
    return [Field(name, Kind.NUMBER, -_FAR, _FAR, default) for name in names]


def _ranked(prefix: str, low: int, high: int, default: int) -> list[Field]:
    return [Field(f"{prefix}{i}", Kind.NUMBER, low, high, default) for i in range(MAX_RANK)]


def _walk(*operands: str) -> list[Field]:
    """Six dimensions and for each operand six element strides; unused leading ones are 1 and 0."""
    fields = _ranked("d", 0, _BIG, 1)
    for operand in operands:
        fields += _ranked(f"{operand}_s", -_FAR, _FAR, 0)
    return fields


def _zero_points(*names: str) -> list[Field]:
    return [Field(name, Kind.NUMBER, -(1 << 15), (1 << 16) - 1, 0) for name in names]


def _multipliers(*names: str) -> list[Field]:
    return [Field(name, Kind.NUMBER, -_BIG, _BIG, 1) for name in names]


_SHIFT = [Field("n", Kind.NUMBER, 0, 62, 0)]
_OUT = [*_zero_points("y_zp"), Field("lo", Kind.NUMBER, -(1 << 62), 1 << 62), Field("hi", Kind.NUMBER, -(1 << 62), 1 << 62)]


def _flag(name: str, high: int = 1) -> list[Field]:
    return [Field(name, Kind.NUMBER, 0, high, 0)]


_GEOMETRY = [
    *_dims("batch", "in_h", "in_w", "in_c", "out_h", "out_w"), *_dims("kernel_h", "kernel_w", low=1),
    *_dims("stride_h", "stride_w", "dilation_h", "dilation_w", low=1, default=1), *_dims("pad_top", "pad_left", default=0),
]


# --- extents ---------------------------------------------------------------------------------------------------------


def _size(f: Values, operand: str) -> int:
    return ELEMENT_SIZE[Element(f[f"{operand}_type"])]


def _dense(f: Values, operand: str, count: int, write: bool = False, offset: int = 0) -> list[Access]:
    if count <= 0:
        return []
    size = _size(f, operand)
    return [Access(operand, offset * size, (offset + count) * size, write)]


def _inout(f: Values, operand: str, count: int) -> list[Access]:
    return [*_dense(f, operand, count), *_dense(f, operand, count, write=True)]


def _constant(operand: str, size: int, count: int) -> list[Access]:
    return [Access(operand, 0, size * count, False)] if count > 0 else []


def _strided(f: Values, operand: str, dims: Sequence[int], strides: Sequence[int], write: bool = False, offset: int = 0) -> list[Access]:
    if any(d <= 0 for d in dims):
        return []
    reach = [(d - 1) * s for d, s in zip(dims, strides, strict=True)]
    first = offset + sum(min(r, 0) for r in reach)
    last = offset + sum(max(r, 0) for r in reach)
    size = _size(f, operand)
    return [Access(operand, first * size, (last + 1) * size, write)]


def _walked(f: Values, operand: str, write: bool = False, offset: int = 0) -> list[Access]:
    dims = [f[f"d{i}"] for i in range(MAX_RANK)]
    return _strided(f, operand, dims, [f[f"{operand}_s{i}"] for i in range(MAX_RANK)], write, offset)


def _walk_count(f: Values) -> int:
    count = 1
    for i in range(MAX_RANK):
        count *= f[f"d{i}"]
    return count


def _walk_rules(f: Values) -> list[str]:
    return [] if _walk_count(f) <= _HUGE else ["more than 2^40 elements"]


def _requant_constants(f: Values, count: int) -> list[Access]:
    return [*_constant("m", 4, count), *_constant("n", 4, count)]


def _shift_limits(*names: str) -> Callable[[Values], list[Limit]]:
    return lambda _: [Limit(name, 1, 62) for name in names]


def _image(f: Values, channels: str) -> int:
    return f["batch"] * f["out_h"] * f["out_w"] * f[channels]


def _conv_accesses(f: Values) -> list[Access]:
    outputs = f["out_c"]
    taps = f["kernel_h"] * f["kernel_w"]
    return [
        *_dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]),
        *_constant("w", 1, taps * (f["in_c"] // f["groups"]) * outputs), *_constant("bias", 4, outputs),
        *_requant_constants(f, outputs), *_dense(f, "y", _image(f, "out_c"), write=True),
    ]


def _conv_transpose_accesses(f: Values) -> list[Access]:
    taps = f["kernel_h"] * f["kernel_w"]
    return [
        *_dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]),
        *_constant("w", 1, taps * f["in_c"] * (f["out_c"] // f["groups"])), *_constant("bias", 4, f["out_c"]),
        *_requant_constants(f, f["out_c"]), *_dense(f, "y", _image(f, "out_c"), write=True),
    ]


def _group_rules(f: Values) -> list[str]:
    broken = [name for name in ("in_c", "out_c") if f[name] % f["groups"]]
    return [f"{name} = {f[name]} is not a multiple of groups = {f['groups']}" for name in broken] + _work_rules(f)


def _work_rules(f: Values) -> list[str]:
    work = _image(f, "out_c") * f["kernel_h"] * f["kernel_w"]
    return [] if work <= 1 << 46 else ["more than 2^46 multiplications"]


def _gemm_accesses(f: Values) -> list[Access]:
    rows, k, cols = f["rows"], f["k"], f["cols"]
    return [
        *_strided(f, "x", (rows, k), (f["x_row"], 1), offset=f["x_offset"]), *_constant("w", 1, k * cols), *_constant("bias", 4, cols),
        *_requant_constants(f, cols), *_strided(f, "y", (rows, cols), (f["y_row"], 1), True, f["y_offset"]),
    ]


def _matmul_accesses(f: Values) -> list[Access]:
    batch = [f[f"b{i}"] for i in range(4)]
    sides = (("a", ("rows", "k"), False), ("b", ("k", "cols"), False), ("y", ("rows", "cols"), True))
    result: list[Access] = []
    for name, inner, write in sides:
        strides = [*(f[f"{name}_s{i}"] for i in range(4)), f[f"{name}_row"], f[f"{name}_col"]]
        result += _strided(f, name, [*batch, *(f[i] for i in inner)], strides, write, f[f"{name}_offset"])
    if f["k"] == 0:
        return [access for access in result if access.write]
    return result


def _matmul_rules(f: Values) -> list[str]:
    work = f["rows"] * max(f["k"], 1) * f["cols"]
    for i in range(4):
        work *= f[f"b{i}"]
    return [] if work <= 1 << 46 else ["more than 2^46 multiplications"]


def _three(f: Values) -> int:
    return f["outer"] * f["k"] * f["inner"]


def _reduced(f: Values) -> int:
    return f["outer"] * f["inner"]


def _nonempty_axis(f: Values) -> list[str]:
    return ["the reduced axis is empty"] if f["k"] == 0 and _reduced(f) > 0 else []


def _norm_parameters(f: Values) -> int:
    return f["channels"] if f["per_row"] else f["k"]


def _norm_rules(f: Values) -> list[str]:
    broken = _nonempty_axis(f)
    if f["k"] > 1 << 15:
        broken.append(f"{f['k']} normalized elements; at most 32768 are exact")
    if f["epsilon_q"] * f["k"] ** 2 >= 1 << 62:
        broken.append(f"epsilon_q = {f['epsilon_q']} overflows with {f['k']} elements")
    if f["per_row"] and f["channels"] == 0:
        broken.append("channels is 0")
    return broken


def _pool_rules(f: Values) -> list[str]:
    area = f["in_c"] * f["batch"] * f["out_h"] * f["out_w"] * f["kernel_h"] * f["kernel_w"]
    broken = [] if area <= 1 << 46 else ["more than 2^46 window elements"]
    if "pad_bottom" not in f and f["batch"] * f["in_c"] > 0:
        broken += _empty_window(f, "h", f["pad_top"]) + _empty_window(f, "w", f["pad_left"])
    return broken


def _empty_window(f: Values, axis: str, pad: int) -> list[str]:
    """A max-pool window must hold one real position: its first tap is checked by the kernel, the size here."""
    return [f"in_{axis} is 0"] if f[f"in_{axis}"] == 0 and f[f"out_{axis}"] > 0 else []


def _recurrent_accesses(gates: int) -> Callable[[Values], list[Access]]:
    def accesses(f: Values) -> list[Access]:
        steps, batch, inputs, hidden = f["steps"], f["batch"], f["inputs"], f["hidden"]
        wide = gates * hidden
        result = [
            *_dense(f, "x", steps * batch * inputs), *_constant("w", 1, inputs * wide), *_constant("r", 1, hidden * wide),
            *_strided(f, "y", (steps, batch, hidden), (f["y_step"], f["y_row"], 1), True, f["y_offset"]),
            *_inout(f, "h", batch * hidden), *_constant("table_f", 2, 65536), *_constant("table_g", 2, 65536),
        ]
        for name in ("bias_w", "m_w", "n_w", "bias_r", "m_r", "n_r"):
            result += _constant(name, 4, wide)
        if f["has_lengths"]:
            result += _dense(f, "lengths", batch)
        if gates == 4:
            result += [*_inout(f, "c", batch * hidden), *_constant("table_h", 2, 65536)]
        return result

    return accesses


def _recurrent_rules(f: Values) -> list[str]:
    return ["the hidden state h and the output y have different element types"] if f["h_type"] != f["y_type"] else []


def _rounded(count: int, size: int) -> int:
    return -(-count * size // 64) * 64


def _product_scratch(k: int, cols: int) -> int:
    """A block of rows of up to two bytes an element, padded to whole steps, and a tile's results; or plain accumulators."""
    return max(TILE_BYTES + _rounded(BLOCK_ROWS * (k + 4), 2), _rounded(cols, 4))


def _matmul_scratch(f: Values) -> int:
    """Zeros, a tile's results, a block of rows and a block of columns as int16; or plain accumulators."""
    columns_at_once = -(-min(f["cols"], BLOCK_COLUMNS) // 16) * 16
    packed = TILE_BYTES + ZERO_BYTES + _rounded((BLOCK_ROWS + columns_at_once) * (f["k"] + 2), 2)
    return max(packed, _rounded(f["cols"], 8))


def _conv_scratch(f: Values) -> int:
    return _product_scratch(f["kernel_h"] * f["kernel_w"] * (f["in_c"] // f["groups"]), f["out_c"])


# --- the table -------------------------------------------------------------------------------------------------------

_PRODUCT = [*_constants(I8, "w"), *_constants(I32, "bias", "m", "n")]
_RECURRENT = [
    *_constants(I8, "w", "r"), *_constants(I32, "bias_w", "m_w", "n_w", "bias_r", "m_r", "n_r"), *_constants(I16, "table_f", "table_g"),
    *_read("lengths", (I32, I64), optional=True), *_flag("has_lengths"), *_dims("steps", "batch", "inputs"), *_dims("hidden", low=1),
    *_flag("reverse"), *_strides("y_offset", default=0), *_strides("y_step", "y_row"),
    *_zero_points("x_zp"), *_multipliers("m_h"), Field("n_h", Kind.NUMBER, 1, 62), *_OUT,
]


def _build() -> tuple[Opcode, ...]:
    table: list[Opcode] = []

    def define(name: str, fields: list[Field], accesses: Callable[[Values], list[Access]], **more: Any) -> None:
        if 1 + len(fields) > PACKED_COLUMN:
            raise ValueError(f"opcode {name} has {len(fields)} fields")
        table.append(Opcode(name, len(table) + 1, tuple(fields), accesses, **more))

    # x [batch, in_h, in_w, in_c], w [kernel_h, kernel_w, in_c/groups, out_c], y [batch, out_h, out_w, out_c]; bias has -x_zp*sum(w) in it.
    define(
        "conv", [*_read("x"), *_PRODUCT, *_write("y"), *_GEOMETRY, *_dims("out_c"), *_dims("groups", low=1, default=1), *_zero_points("x_zp"), *_OUT],
        _conv_accesses, limits=_shift_limits("n"), rules=_group_rules, scratch=_conv_scratch,
    )
    # w [kernel_h, kernel_w, in_c, out_c/groups]; the zero point is NOT in the bias here: (x - x_zp) is multiplied.
    define(
        "conv_transpose",
        [*_read("x"), *_PRODUCT, *_write("y"), *_GEOMETRY, *_dims("out_c"), *_dims("groups", low=1, default=1), *_zero_points("x_zp"), *_OUT],
        _conv_transpose_accesses, limits=_shift_limits("n"), rules=_group_rules, scratch=lambda f: _rounded(f["out_c"], 4),
    )
    # x [rows, k] with row stride x_row, w [k, cols], y [rows, cols] with row stride y_row; bias has -x_zp*sum(w) in it.
    define(
        "gemm",
        [
            *_read("x"), *_PRODUCT, *_write("y"), *_dims("rows", "k", "cols"), *_strides("x_row", default="k"), *_strides("y_row", default="cols"),
            *_strides("x_offset", "y_offset", default=0), *_OUT,
        ],
        _gemm_accesses, limits=_shift_limits("n"), scratch=lambda f: _product_scratch(f["k"], f["cols"]),
    )
    # a [b0..b3, rows, k], b [b0..b3, k, cols], y [b0..b3, rows, cols], all with element strides and an offset.
    define(
        "matmul",
        [
            *_read("a"), *_read("b"), *_write("y"), *_dims("b0", "b1", "b2", "b3", default=1), *_dims("rows", "k", "cols"),
            *(f for s in "aby" for f in (*_strides(*(f"{s}_s{i}" for i in range(4)), f"{s}_offset", default=0), *_strides(f"{s}_row", f"{s}_col"))),
            *_zero_points("a_zp", "b_zp"), *_multipliers("m"), *_SHIFT, *_OUT, *_flag("acc64"),
        ],
        _matmul_accesses, rules=_matmul_rules, scratch=_matmul_scratch,
    )
    # Dimensions d0..d5; y is dense. mul and div use a_m as their m.
    define(
        "binary",
        [
            *_flag("kind", 4), *_read("a", INTEGERS), *_read("b", INTEGERS), *_write("y", INTEGERS), *_walk("a", "b"),
            *_zero_points("a_zp", "b_zp"), *_multipliers("a_m", "b_m"), *_SHIFT, *_OUT,
        ],
        lambda f: [*_walked(f, "a"), *_walked(f, "b"), *_dense(f, "y", _walk_count(f), True)],
        rules=_walk_rules,
    )
    define(
        "where",
        [
            *_read("c", (BOOL, U8)), *_read("a", INTEGERS), *_read("b", INTEGERS), *_write("y", INTEGERS), *_walk("c", "a", "b"),
            *_zero_points("a_zp", "b_zp"), *_multipliers("a_m", "b_m"), *_SHIFT, *_OUT,
        ],
        lambda f: [*_walked(f, "c"), *_walked(f, "a"), *_walked(f, "b"), *_dense(f, "y", _walk_count(f), True)],
        rules=_walk_rules,
    )
    define(
        "compare",
        [
            *_flag("kind", 4), *_read("a", INTEGERS), *_read("b", INTEGERS), *_write("y", (BOOL,)), *_walk("a", "b"),
            *_zero_points("a_zp", "b_zp"), *_multipliers("a_m", "b_m"),
        ],
        lambda f: [*_walked(f, "a"), *_walked(f, "b"), *_dense(f, "y", _walk_count(f), True)],
        rules=_walk_rules,
    )
    define(
        "logic", [*_flag("kind", 3), *_read("a", (BOOL,)), *_read("b", (BOOL,)), *_write("y", (BOOL,)), *_walk("a", "b")],
        lambda f: [*_walked(f, "a"), *_walked(f, "b"), *_dense(f, "y", _walk_count(f), True)],
        rules=_walk_rules,
    )
    # table[x - type_min]: 256 entries for u8, 65536 for i16, of the type of y.
    define(
        "table", [*_read("x"), Field("table", Kind.CONSTANT, types=CODES), Field("table_type", Kind.TYPE, of="table"), *_write("y"), *_dims("count")],
        lambda f: [*_dense(f, "x", f["count"]), *_dense(f, "table", 256 if f["x_type"] == U8 else 65536), *_dense(f, "y", f["count"], True)],
        rules=lambda f: ["the table and y have different element types"] if f["table_type"] != f["y_type"] else [],
    )
    # Requantize, and QuantizeInteger for i32 / i64 / bool inputs: out(requant(clip(x) - x_zp, m, n)).
    define(
        "requant",
        [*_read("x", INTEGERS), *_write("y", INTEGERS), *_dims("count"), *_zero_points("x_zp"), *_multipliers("m"), *_SHIFT, *_OUT],
        lambda f: [*_dense(f, "x", f["count"]), *_dense(f, "y", f["count"], True)],
    )
    # Conversion between integer types: wraps like C; to bool: x != 0.
    define(
        "cast", [*_read("x", INTEGERS), *_write("y", INTEGERS), *_dims("count")],
        lambda f: [*_dense(f, "x", f["count"]), *_dense(f, "y", f["count"], True)],
    )
    # x and y of one type; a window without a real position gives the type's smallest code.
    define(
        "max_pool", [*_read("x"), *_write("y"), *_GEOMETRY],
        lambda f: [*_dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]), *_dense(f, "y", _image(f, "in_c"), True)],
        rules=lambda f: _pool_rules(f) + (["x and y have different element types"] if f["x_type"] != f["y_type"] else []),
    )
    # m, n [kernel_h * kernel_w] by the number of positions that count.
    define(
        "average_pool",
        [*_read("x"), *_constants(I32, "m", "n"), *_write("y"), *_GEOMETRY, *_dims("pad_bottom", "pad_right", default=0), *_flag("count_include_pad"),
         *_zero_points("x_zp"), *_OUT],
        lambda f: [
            *_dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]), *_requant_constants(f, f["kernel_h"] * f["kernel_w"]),
            *_dense(f, "y", _image(f, "in_c"), True),
        ],
        limits=_shift_limits("n"), rules=_pool_rules, scratch=lambda f: _rounded(f["in_c"], 8),
    )
    # x [outer, k, inner] -> y [outer, inner].
    define(
        "reduce",
        [*_flag("kind", 3), *_read("x", INTEGERS), *_write("y", INTEGERS), *_dims("outer", "k"), *_dims("inner", default=1), *_zero_points("x_zp"),
         *_multipliers("m"), *_SHIFT, *_flag("divide"), *_OUT],
        lambda f: [*_dense(f, "x", _three(f)), *_dense(f, "y", _reduced(f), True)],
        rules=_nonempty_axis, scratch=lambda f: _rounded(f["inner"], 8),
    )
    # x, y [outer, k, inner], over k. table_hi, table_lo int64[256].
    define(
        "softmax",
        [*_read("x"), *_constants(I64, "table_hi", "table_lo"), *_write("y"), *_dims("outer", "k"), *_dims("inner", default=1), *_multipliers("m"),
         Field("n", Kind.NUMBER, 1, 62), *_OUT],
        lambda f: [*_dense(f, "x", _three(f)), *_constant("table_hi", 8, 256), *_constant("table_lo", 8, 256), *_dense(f, "y", _three(f), True)],
        limits=lambda _: [Limit("table_hi", 0, 1 << 30), Limit("table_lo", 0, 1 << 30)],
        rules=_nonempty_axis, scratch=lambda f: _rounded(f["k"], 8),
    )
    # x, y [outer, k, inner], normalized over k. gamma, beta int64: [k], or with per_row = 1 [channels] by row (o*inner + i) % channels.
    # epsilon >= 1 is the integer term; 0: epsilon_q gives max(1, (epsilon_q * k * k) >> 16).
    define(
        "layernorm",
        [*_read("x"), *_constants(I64, "gamma", "beta"), *_write("y"), *_dims("outer", "k"), *_dims("inner", default=1), *_flag("per_row"),
         *_dims("channels", default=0), Field("epsilon", Kind.NUMBER, 0, 1 << 60, 0), Field("epsilon_q", Kind.NUMBER, 0, 1 << 46, 0),
         Field("n", Kind.NUMBER, 1, 40), *_OUT],
        lambda f: [
            *_dense(f, "x", _three(f)), *_constant("gamma", 8, _norm_parameters(f)), *_constant("beta", 8, _norm_parameters(f)),
            *_dense(f, "y", _three(f), True),
        ],
        rules=_norm_rules, scratch=lambda f: _rounded(f["k"], 8),
    )
    # Strided copy: y[y_offset + walk] = x[x_offset + walk]; x and y of one type.
    define(
        "move", [*_read("x", INTEGERS), *_write("y", INTEGERS), *_walk("x", "y"), *_strides("x_offset", "y_offset", default=0)],
        lambda f: [*_walked(f, "x", offset=f["x_offset"]), *_walked(f, "y", True, f["y_offset"])],
        rules=lambda f: _walk_rules(f) + (["x and y have different element types"] if f["x_type"] != f["y_type"] else []),
    )
    define(
        "fill", [*_write("y", INTEGERS), *_dims("count"), *_strides("y_offset", default=0), Field("value", Kind.NUMBER, -(1 << 62), 1 << 62)],
        lambda f: _dense(f, "y", f["count"], True, f["y_offset"]),
    )
    # x [outer, axis, inner], indices [count] -> y [outer, count, inner]; negative indices wrap; out of range stops the run.
    define(
        "gather", [*_read("x", INTEGERS), *_read("indices", (I32, I64)), *_write("y", INTEGERS), *_dims("outer", "axis", "inner", "count")],
        lambda f: [
            *_dense(f, "x", f["outer"] * f["axis"] * f["inner"]), *_dense(f, "indices", f["count"]),
            *_dense(f, "y", f["outer"] * f["count"] * f["inner"], True),
        ],
        rules=lambda f: ["x and y have different element types"] if f["x_type"] != f["y_type"] else [],
    )
    # x [batch, in_h, in_w, in_c]; for each output row / column: low, high position and the weight of `high` in Q15.
    define(
        "resize_linear",
        [*_read("x"), *_constants(I32, "h_low", "h_high", "h_weight", "w_low", "w_high", "w_weight"), *_write("y"),
         *_dims("batch", "in_h", "in_w", "in_c", "out_h", "out_w"), *_zero_points("x_zp"), *_multipliers("m"), Field("n", Kind.NUMBER, 1, 62), *_OUT],
        lambda f: [
            *_dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]),
            *(a for side in "hw" for part in ("low", "high", "weight") for a in _constant(f"{side}_{part}", 4, f[f"out_{side}"])),
            *_dense(f, "y", _image(f, "in_c"), True),
        ],
        limits=lambda f: [
            *(Limit(f"{side}_{part}", 0, f[f"in_{side}"] - 1) for side in "hw" for part in ("low", "high")),
            *(Limit(f"{side}_weight", 0, 1 << 15) for side in "hw"),
        ],
    )
    # One direction. x [steps, batch, inputs]; w [inputs, 4*hidden], r [hidden, 4*hidden], gates i o f c; h [batch, hidden] (type of y)
    # and c [batch, hidden] int32 Q16 hold the initial state before and the final one after. kernels/recurrent.py has the roundings.
    define(
        "lstm", [*_read("x"), *_write("y"), *_write("h"), *_write("c", (I32,)), *_constants(I16, "table_h"), *_RECURRENT],
        _recurrent_accesses(4), limits=_shift_limits("n_w", "n_r"), rules=_recurrent_rules, scratch=lambda f: 3 * _rounded(4 * f["hidden"], 8),
    )
    # The same with gates z r h. m_s, n_s: hidden state code - y_zp -> Q15.
    define(
        "gru",
        [*_read("x"), *_write("y"), *_write("h"), *_flag("linear_before_reset"), *_multipliers("m_s"), Field("n_s", Kind.NUMBER, 1, 62), *_RECURRENT],
        _recurrent_accesses(3), limits=_shift_limits("n_w", "n_r"), rules=_recurrent_rules, scratch=lambda f: 4 * _rounded(3 * f["hidden"], 8),
    )
    define(
        "argmax", [*_read("x", INTEGERS), *_write("y", (I64,)), *_dims("outer", "k"), *_dims("inner", default=1), *_flag("select_last")],
        lambda f: [*_dense(f, "x", _three(f)), *_dense(f, "y", _reduced(f), True)],
        rules=_nonempty_axis,
    )
    return tuple(table)


OPCODES: tuple[Opcode, ...] = _build()
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
